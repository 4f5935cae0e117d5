"""Complex Hermitian F and S, as periodic systems have them, against SciPy; derivatives by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import vpotjax as vp
from tests.molecules import central_difference
from vpotjax import losses
from vpotjax.electronic.purification import purified_density_matrix
from vpotjax.electronic.real_space import electron_density

N, NELEC = 6, 4


def hermitian(seed: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((N, N)) + 1j * rng.standard_normal((N, N))
    return scale * (matrix + matrix.conj().T) / 2


def problem(degenerate: bool = False):
    """F and S; with degenerate occupied and virtual levels if asked, in a frame that mixes all."""
    overlap = np.eye(N) + hermitian(1, 0.08)
    if not degenerate:
        return np.diag(np.linspace(-2, 2, N)) + hermitian(0, 0.3), overlap
    factor = np.linalg.cholesky(overlap)
    unitary = np.linalg.qr(hermitian(2))[0]
    levels = np.array([-1.0, -1.0, 0.5, 0.5, 1.5, 2.0])
    return factor @ (unitary * levels) @ unitary.conj().T @ factor.conj().T, overlap


def test_the_two_by_two_example():
    """Without the imaginary part ±0.314 came out for the σ_x-like F below."""
    overlap = np.array([[1, 0.3j], [-0.3j, 1]])
    fock = np.array([[1.0, 0.2], [0.2, 1.0]])
    energies, coefficients = vp.eigh(fock, overlap)
    np.testing.assert_allclose(energies, scipy.linalg.eigh(fock, overlap)[0], rtol=0, atol=1e-13)  # rounding
    np.testing.assert_allclose(fock @ coefficients, overlap @ coefficients * energies, rtol=0, atol=1e-13)


@pytest.mark.parametrize("degenerate", [False, True])
@pytest.mark.parametrize("threshold", [None, 1e-7])
def test_levels_and_density_agree_with_scipy(degenerate, threshold):
    fock, overlap = problem(degenerate)
    energies, coefficients = vp.eigh(fock, overlap, threshold=threshold)
    expected, vectors = scipy.linalg.eigh(fock, overlap)
    assert np.abs(np.imag(overlap)).max() > 0.05
    np.testing.assert_allclose(energies, expected, rtol=0, atol=1e-12)  # rounding, as below
    identity = jnp.conj(coefficients).T @ overlap @ coefficients
    np.testing.assert_allclose(identity, np.eye(N), rtol=0, atol=1e-12)
    occupied = vectors[:, : NELEC // 2]
    density = 2 * occupied @ occupied.conj().T
    np.testing.assert_allclose(vp.density_matrix(fock, overlap, NELEC, threshold=threshold), density, atol=1e-11)
    np.testing.assert_allclose(purified_density_matrix(fock, overlap, NELEC), density, rtol=0, atol=1e-9)  # iterative
    # 50 kT below the gap the occupations are whole up to e^-50
    cold = vp.density_matrix(fock, overlap, NELEC, smearing=0.01)
    np.testing.assert_allclose(cold, density, rtol=0, atol=1e-9)
    position = np.stack([hermitian(s) for s in (5, 6, 7)])
    transition = np.einsum("xpq,pi,qa->xia", position, occupied.conj(), vectors[:, NELEC // 2 :])
    gaps = expected[None, NELEC // 2 :] - expected[: NELEC // 2, None]
    alpha = 4 * np.einsum("xia,yia->xy", transition.conj() / gaps, transition).real
    np.testing.assert_allclose(vp.polarizability(fock, overlap, position, NELEC), alpha, rtol=0, atol=1e-11)


def test_smearing_agrees_with_scipy():
    fock, overlap = problem()
    warm = vp.density_matrix(fock, overlap, NELEC, smearing=0.3)
    expected, vectors = scipy.linalg.eigh(fock, overlap)
    root = scipy.optimize.brentq(lambda m: 2 * scipy.special.expit((m - expected) / 0.3).sum() - NELEC, -5, 5)
    occupations = 2 * scipy.special.expit((root - expected) / 0.3)
    np.testing.assert_allclose(warm, (vectors * occupations) @ vectors.conj().T, rtol=0, atol=1e-9)  # brentq: 2e-12


WEIGHT = hermitian(8)


def quantities(fock, overlap):
    density = vp.density_matrix(fock, overlap, NELEC)
    warm = vp.density_matrix(fock, overlap, NELEC, smearing=0.2)
    position = np.stack([hermitian(s) for s in (5, 6, 7)])
    return jnp.stack(
        [
            jnp.sum(vp.eigh(fock, overlap)[0] ** 3),
            jnp.real(jnp.sum(WEIGHT.conj() * density)),
            jnp.real(jnp.sum(WEIGHT.conj() * warm)),
            jnp.sum(np.arange(9.0).reshape(3, 3) * vp.polarizability(fock, overlap, position, NELEC)),
            losses.matrix_loss(density, WEIGHT),
        ]
    )


@pytest.mark.parametrize("degenerate", [False, True])
def test_derivatives_agree_with_finite_differences(degenerate):
    fock, overlap = problem(degenerate)
    changes = hermitian(3, 0.2), hermitian(4, 0.02)

    @jax.jit
    def along(t):
        return quantities(fock + t * changes[0], overlap + t * changes[1])

    first = jax.jit(jax.jacrev(along))
    exact, second = first(0.0), jax.jit(jax.jacfwd(first))(0.0)
    assert np.abs(exact).min() > 1e-3
    assert np.abs(second).min() > 1e-3
    np.testing.assert_allclose(jax.jacfwd(along)(0.0), exact, rtol=1e-9)
    # 1e-6 is what AD against finite differences must reach; levels have no second derivative inside a degenerate level
    chosen = slice(1 if degenerate else 0, None)
    np.testing.assert_allclose(central_difference(along, 1e-3), exact, rtol=1e-6)
    np.testing.assert_allclose(central_difference(first, 1e-3)[chosen], second[chosen], rtol=1e-6)


@pytest.mark.slow
def test_derivatives_in_reverse_through_a_loop():
    fock, overlap = problem()
    changes = hermitian(3, 0.2), hermitian(4, 0.02)

    def along(t):
        return jax.lax.map(lambda f: quantities(f + t * changes[0], overlap + t * changes[1]), jnp.stack([fock] * 2))[0]

    first = jax.jit(jax.jacrev(along))
    exact = jax.jit(jax.jacrev(first))(0.0)
    np.testing.assert_allclose(central_difference(first, 1e-3), exact, rtol=1e-6)


@pytest.mark.parametrize("kind", ["raw", "metric", "lowdin", "rational"])
def test_powers_agree_with_numpy(kind):
    factor = hermitian(9)
    potential, overlap = -factor @ factor.conj().T, problem()[1]
    root = scipy.linalg.fractional_matrix_power(overlap, -0.5)
    lowdin = root @ potential @ root
    for k, power in enumerate(vp.potential_powers(potential, overlap, 3, kind), start=1):
        expected = {
            "raw": np.linalg.matrix_power(potential, k),
            "metric": potential @ np.linalg.matrix_power(np.linalg.inv(overlap) @ potential, k - 1),
            "lowdin": np.linalg.matrix_power(lowdin, k),
            "rational": np.linalg.inv(np.eye(N) - lowdin / 4.0**k),
        }[kind]
        np.testing.assert_allclose(power, expected, rtol=0, atol=1e-11 * np.abs(expected).max())  # rounding


def test_densities_in_space_are_real():
    values = np.random.default_rng(5).standard_normal((3, N))
    density = vp.density_matrix(*problem(), NELEC)
    expected = np.einsum("gp,pq,gq->g", values, density, values)
    assert np.isrealobj(electron_density(density, values))
    np.testing.assert_allclose(electron_density(density, values), expected.real, rtol=0, atol=1e-12)


def test_real_matrices_as_complex_ones():
    fock, overlap = (np.real(m) for m in problem())
    plain, as_complex = vp.eigh(fock, overlap)[0], vp.eigh(fock + 0j, overlap + 0j)[0]
    np.testing.assert_allclose(as_complex, plain, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        vp.density_matrix(fock + 0j, overlap, NELEC), vp.density_matrix(fock, overlap, NELEC), rtol=0, atol=1e-12
    )
    with pytest.raises(vp.InputError, match="fock is not Hermitian"):
        vp.eigh(fock + 1j * np.abs(fock), overlap)
