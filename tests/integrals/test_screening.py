"""Lists of significant pairs: small errors, no silent overflow, derivatives, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from benchmarks.structures import alkane
from tests.integrals.reference import OPERATORS
from vpotjax.integrals.shell_pairs import _in_chunks


@pytest.fixture(scope="module")
def chain():
    molecule = vp.Molecule.from_ase(alkane(8))
    return vp.load_basis("sto-3g", molecule.numbers), jnp.asarray(molecule.positions)


# Separable operators share their code with S, those about an origin with r.
@pytest.mark.parametrize(
    "operator",
    [
        name if name in ("overlap", "position", "external_potential") else pytest.param(name, marks=pytest.mark.slow)
        for name in OPERATORS
    ],
)
def test_error_is_of_the_size_of_the_threshold(chain, operator):
    basis, positions = chain
    exact = OPERATORS[operator](basis, positions)
    errors = []
    for threshold in (1e-5, 1e-14):
        pairs = vp.significant_pairs(basis, positions, threshold=threshold)
        assert not pairs.overflow
        errors.append(float(jnp.abs(OPERATORS[operator](basis, positions, pairs=pairs) - exact).max()))
    # Some hundred neglected pairs per element, times the operator's size (up to 1e3).
    assert 1e-9 < errors[0] < 1e5 * 1e-5
    assert errors[1] < 1e-10


def test_fewer_pairs_than_all(chain):
    basis, positions = chain
    kept = sum(size for _, size in vp.significant_pairs(basis, positions, threshold=1e-10).capacity)
    primitives = sum(len(s.exponents) for s in basis.shells)
    assert kept < 0.7 * primitives * (primitives + 1) / 2


def test_under_jit_without_capacity(chain):
    """Lists with room for all pairs, of which the empty rest is skipped, also of several geometries in one program."""
    basis, positions = chain
    made = jax.jit(lambda r: vp.significant_pairs(basis, r))(positions)
    for key, pairs in vp.significant_pairs(basis, positions).lists.items():
        ours = made.lists[key]
        assert 7 * -(-len(ours.first) // 8) >= ours.count == pairs.count, key  # the last of eight chunks is empty
        assert not made.overflow
        chosen = [
            set(zip(*np.array([one.first, one.second])[:, : one.count].tolist(), strict=True)) for one in (pairs, ours)
        ]
        assert chosen[0] == chosen[1], key
        assert len(chosen[0]) == pairs.count, key

    def screened(r):
        return vp.external_potential(basis, r, pairs=vp.significant_pairs(basis, r))

    several = jnp.stack([positions, positions * 1.02])
    exact = [vp.external_potential(basis, r) for r in several]
    for together in (jax.vmap(screened), lambda rs: jax.lax.map(screened, rs)):
        np.testing.assert_allclose(jax.jit(together)(several), exact, rtol=0, atol=1e-10)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="on other devices all of so few pairs are one chunk or two")
def test_chunks_behind_the_count_are_not_evaluated():
    numbers = jnp.arange(16)
    (values,) = _in_chunks(lambda first, second: (1.0 + first + second,), numbers, numbers, jnp.array(3))
    np.testing.assert_array_equal(values, [1, 3, 5, 7] + 12 * [0])  # eight chunks of two, of which two are wanted


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_under_jit_with_gradient(chain, given):
    basis, positions = chain
    capacity = vp.significant_pairs(basis, positions).capacity if given else None
    weights = np.random.default_rng(0).standard_normal((basis.nao, basis.nao))

    @jax.jit
    def screened(r):
        return jnp.vdot(
            weights, vp.external_potential(basis, r, pairs=vp.significant_pairs(basis, r, capacity=capacity))
        )

    exact = jax.jit(jax.grad(lambda r: jnp.vdot(weights, vp.external_potential(basis, r))))(positions)
    assert np.abs(exact).max() > 0.1
    np.testing.assert_allclose(jax.grad(screened)(positions), exact, rtol=0, atol=1e-9)


def test_overflow_is_reported(chain):
    basis, positions = chain
    capacity = tuple((key, size // 2) for key, size in vp.significant_pairs(basis, positions).capacity)
    pairs = vp.significant_pairs(basis, positions, capacity=capacity)
    assert pairs.overflow

    def squared(r):
        return jnp.sum(vp.overlap(basis, r, pairs=vp.significant_pairs(basis, r, capacity=capacity)) ** 2)

    assert np.isnan(jax.grad(squared)(positions)).all()
    assert np.isnan(vp.overlap(basis, positions, pairs=pairs)).all()


def test_bad_input_is_named(chain):
    basis, positions = chain
    with pytest.raises(vp.InputError, match="threshold is 2"):
        vp.significant_pairs(basis, positions, threshold=2.0)
    with pytest.raises(vp.InputError, match=r"at least 1 for each of \[\(0, 0\), \(1, 0\), \(1, 1\)\]"):
        vp.significant_pairs(basis, positions, capacity=(((0, 0), 64),))
    other = vp.load_basis("sto-3g", [6, 1, 1, 1, 1])
    with pytest.raises(vp.InputError, match="pairs belong to another basis"):
        vp.overlap(other, positions[:5], pairs=vp.significant_pairs(basis, positions))


def test_made_by_themselves_for_a_large_molecule(monkeypatch, chain):
    basis, positions = chain
    exact = vp.external_potential(basis, positions)
    monkeypatch.setattr("vpotjax.integrals.screening.AUTOMATIC_ABOVE", 10)
    charges = jnp.asarray(basis.nuclear_charges)
    inside = jax.jit(lambda q: vp.external_potential(basis, positions, q))(charges)  # closes over the geometry
    for screened in (vp.external_potential(basis, positions), inside):
        assert np.any(screened != exact)
        np.testing.assert_allclose(screened, exact, rtol=0, atol=1e-10)


def test_nan_positions_are_not_screened_away(chain):
    basis, positions = chain
    capacity = vp.significant_pairs(basis, positions).capacity

    @jax.jit
    def screened(r):
        return vp.overlap(basis, r, pairs=vp.significant_pairs(basis, r, capacity=capacity))

    assert np.isnan(screened(positions.at[3, 1].set(jnp.nan))).any()


@pytest.mark.parametrize("l", [0, 1, 2, 3, 4])
def test_high_angular_momentum_counts(l):
    """Two primitives at the distance where they are just left out."""
    basis = vp.load_basis({"He": [[l, [1.3, 1.0]]]}, [2, 2])
    for distance in np.arange(5.0, 14.0, 0.05):
        positions = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, distance]])
        pairs = vp.significant_pairs(basis, positions)
        if (pairs.lists[0, 0].slot < 64).sum() == 2:
            break
    for name in ("overlap", "kinetic"):
        error = np.abs(OPERATORS[name](basis, positions, pairs=pairs) - OPERATORS[name](basis, positions))
        assert 0 < error.max() < 1e-12, name  # a hundred thresholds


@pytest.mark.slow
def test_padded_batch(chain):
    molecules = [vp.Molecule.from_ase(alkane(n)) for n in (2, 4)]
    batch = vp.pad_batch(molecules, "sto-3g")
    for k, molecule in enumerate(molecules):
        padded = batch[k]
        pairs = vp.significant_pairs(padded.basis, padded.positions)
        real = np.flatnonzero(padded.basis.ao_mask)
        ours = vp.external_potential(padded.basis, padded.positions, pairs=pairs)[np.ix_(real, real)]
        alone = vp.external_potential(vp.load_basis("sto-3g", molecule.numbers), molecule.positions)
        np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-10)
