"""Powers of V against NumPy and SciPy, and their derivatives where S has degenerate eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.molecules import central_difference, g2, pyscf_mole
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.integrals.overlap import overlap
from vpotjax.operators.powers import KINDS, potential_powers

ORDER = 4
# Relative to the largest element: rounding, times the condition number of S (some 1e3) in "metric" and "lowdin".
TOLERANCE = 1e-11
jitted_powers = jax.jit(potential_powers, static_argnums=(2, 3))


def of_pyscf(name, basis):
    """V and S."""
    mole = pyscf_mole(g2(name), basis)
    return mole.intor("int1e_nuc"), mole.intor("int1e_ovlp")


@pytest.fixture(scope="module", params=[("H2O", "def2-svp"), ("CH4", "sto-3g")], ids="/".join)
def matrices(request):
    return of_pyscf(*request.param)


@pytest.fixture(scope="module")
def degenerate():
    """S has two triple eigenvalues."""
    return of_pyscf("CH4", "sto-3g")


def by_scipy(potential, metric, k, kind):
    if kind == "raw":
        return np.linalg.matrix_power(potential, k)
    if kind == "metric":
        return potential @ np.linalg.matrix_power(np.linalg.inv(metric) @ potential, k - 1)
    root = scipy.linalg.fractional_matrix_power(metric, -0.5)
    if kind == "rational":
        return np.linalg.inv(np.eye(len(metric)) - root @ potential @ root / 4.0**k)
    return np.linalg.matrix_power(root @ potential @ root, k)


def assert_close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_scipy(matrices, kind):
    powers = potential_powers(*matrices, ORDER, kind)
    assert powers.shape == (ORDER, *matrices[0].shape)
    for k, power in enumerate(powers, start=1):
        assert_close(power, by_scipy(*matrices, k, kind))
        assert_close(power, power.T, 1e-15)  # symmetric by construction; "lowdin" k = 1 to rounding


def test_eigenvalues_of_lowdin_are_those_of_the_pencil(matrices):
    values = scipy.linalg.eigh(*matrices, eigvals_only=True)
    for k, power in enumerate(potential_powers(*matrices, ORDER, "lowdin"), start=1):
        assert_close(np.linalg.eigvalsh(power), np.sort(values**k))


def test_metric_powers_transform_like_an_operator(matrices):
    potential, metric = matrices
    n = len(metric)
    change = np.eye(n) + 0.1 * np.random.default_rng(0).standard_normal((n, n))
    plain = potential_powers(*matrices, ORDER, "metric")
    changed = potential_powers(change.T @ potential @ change, change.T @ metric @ change, ORDER, "metric")
    assert np.abs(changed - plain).max() > 1
    for one, other in zip(plain, changed, strict=True):
        assert_close(other, change.T @ one @ change, 10 * TOLERANCE)  # two more products


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing_at_degenerate_levels(degenerate, kind):
    n, extra = len(degenerate[0]), 3
    padded = [jnp.pad(m, (0, extra)) for m in degenerate]
    mask = jnp.arange(n + extra) < n
    weights = np.random.default_rng(1).standard_normal((ORDER, n + extra, n + extra))

    def value(potential, metric, ao_mask):
        powers = potential_powers(potential, metric, ORDER, kind, ao_mask)
        size = len(potential)
        return jnp.vdot(weights[:, :size, :size], powers), powers

    derivative = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    (_, expected), gradients = derivative(*map(jnp.asarray, degenerate), None)
    (_, powers), padded_gradients = derivative(*padded, mask)
    assert_close(powers[:, :n, :n], expected)
    assert not np.any(powers[:, n:])
    assert not np.any(powers[:, :, n:])
    for one, other in zip(gradients, padded_gradients, strict=True):
        if kind != "raw":
            assert np.abs(one).max() > 0.1
        np.testing.assert_allclose(other[:n, :n], one, rtol=0, atol=TOLERANCE * max(1.0, np.abs(one).max()))
        assert np.all(np.isfinite(other))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_in_both_matrices(degenerate, kind):
    rng = np.random.default_rng(2)
    weights, (dv, ds) = (
        rng.standard_normal((ORDER, *degenerate[0].shape)),
        rng.standard_normal((2, *degenerate[0].shape)),
    )
    dv, ds = dv + dv.T, 1e-3 * (ds + ds.T)  # small against the least eigenvalue of S

    weights /= np.abs(jitted_powers(*degenerate, ORDER, kind)).max(axis=(1, 2), keepdims=True)

    @jax.jit
    def along(t):
        return jnp.vdot(weights, potential_powers(degenerate[0] + t * dv, degenerate[1] + t * ds, ORDER, kind))

    exact = jax.jit(jax.grad(along))(0.0)
    assert abs(exact) > 1e-3
    forward = jax.jit(lambda t: jax.jvp(along, (t,), (1.0,))[1])(0.0)
    np.testing.assert_allclose(forward, exact, rtol=1e-9)  # reverse = forward: rounding
    np.testing.assert_allclose(central_difference(along), exact, rtol=1e-6)  # step⁴ and rounding over step


def test_position_gradient_of_methane():
    molecule = g2("CH4")  # S has two triple eigenvalues
    basis, positions = load_basis("sto-3g", molecule.numbers), jnp.asarray(molecule.positions)
    potential, metric = (pyscf_mole(molecule, "sto-3g").intor(name) for name in ("int1e_nuc", "int1e_ovlp"))
    assert np.sum(np.diff(np.linalg.eigvalsh(metric)) < 1e-6) >= 2
    rng = np.random.default_rng(2)
    weights, direction = rng.standard_normal((3, *metric.shape)), rng.standard_normal(positions.shape)

    @jax.jit
    @jax.value_and_grad
    def along(t):
        powers = potential_powers(potential, overlap(basis, positions + t * direction), 3, "lowdin")
        return jnp.vdot(weights / jnp.array([1.0, 10.0, 100.0])[:, None, None], powers)

    exact = along(0.0)[1]
    assert abs(exact) > 0.1
    np.testing.assert_allclose(
        central_difference(lambda t: along(t)[0]), exact, rtol=1e-7
    )  # step⁴ and rounding over step


def test_second_derivative_at_the_most_degenerate_overlap():
    rng = np.random.default_rng(3)
    potential, change = rng.standard_normal((2, 6, 6))
    potential, change, weights = potential + potential.T, 0.1 * (change + change.T), rng.standard_normal((2, 6, 6))
    first = jax.jit(
        jax.grad(lambda t: jnp.vdot(weights, potential_powers(potential, jnp.eye(6) + t * change, 2, "lowdin")))
    )
    exact = jax.jit(jax.grad(first))(0.0)
    assert abs(exact) > 0.01
    np.testing.assert_allclose(central_difference(first), exact, rtol=1e-7)  # step⁴ and rounding over step


def test_errors():
    with pytest.raises(InputError, match="kind is 'mulliken'; give one of raw, metric, lowdin"):
        potential_powers(np.eye(2), np.eye(2), 2, "mulliken")
    with pytest.raises(InputError, match="order is 0; give at least 1"):
        potential_powers(np.eye(2), np.eye(2), 0)
