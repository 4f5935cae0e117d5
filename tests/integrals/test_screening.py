"""Lists of significant pairs: small errors, no silent overflow, derivatives, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from benchmarks.structures import alkane
from tests.integrals.reference import OPERATORS


@pytest.fixture(scope="module")
def chain():
    molecule = vp.Molecule.from_ase(alkane(8))
    return vp.load_basis("sto-3g", molecule.numbers), jnp.asarray(molecule.positions)


@pytest.mark.parametrize("operator", OPERATORS)
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


def test_under_jit_with_gradient(chain):
    basis, positions = chain
    capacity = vp.significant_pairs(basis, positions).capacity
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
    assert np.isnan(vp.overlap(basis, positions, pairs=pairs)).all()


def test_bad_input_is_named(chain):
    basis, positions = chain
    with pytest.raises(vp.InputError, match="threshold is 2"):
        vp.significant_pairs(basis, positions, threshold=2.0)
    with pytest.raises(vp.InputError, match="capacity is None under jit"):
        jax.jit(lambda r: vp.significant_pairs(basis, r).overflow)(positions)


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
