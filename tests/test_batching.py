"""Padding: shapes, masks, and padded integrals equal to unpadded ones in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import batch_shape, joint_batch_shape, pad_arrays, pad_batch
from vpotjax.integrals.nuclear_attraction import external_potential
from vpotjax.integrals.overlap import overlap

# One shell per l; H has no p and d, chlorine no p, fluorine no d: every kind of gap that padding can fill.
GAPS = {
    "H": [[0, [1.1, 0.6], [0.3, 0.5]]],
    "F": [[0, [2.0, 1.0]], [1, [0.9, 1.0]], [1, [0.4, 1.0]]],
    "Cl": [[0, [1.7, 1.0]], [0, [0.5, 1.0]], [2, [0.6, 1.0]]],
}
NAMES = ("H2", "HF", "HCl")


@functools.cache
def molecules():
    return [g2(name) for name in NAMES]


@functools.cache
def mixed_batch():
    """H2, HF and HCl with room for one more atom and four more AOs than any of them needs."""
    tight = batch_shape(pad_batch(molecules(), {"orbital": GAPS}))
    sizes = dict(tight.bases)["orbital"]
    nshl = tuple(n + 1 for n in sizes.nshl)
    roomy = sizes._replace(nao=sizes.nao + 4, nshl=nshl, nprim=tuple(n + 2 for n in sizes.nprim))
    return pad_batch(molecules(), {"orbital": GAPS}, tight._replace(natm=3, bases=(("orbital", roomy),)))


def weighted(positions, basis, weights):
    """A number that depends on all of S and V, and both matrices."""
    matrices = jnp.stack([overlap(basis, positions), external_potential(basis, positions)])
    nao = basis.nao
    return jnp.vdot(weights[:, :nao, :nao], matrices), matrices


def weights():
    size = mixed_batch().basis.nao
    return np.random.default_rng(0).standard_normal((2, size, size))


@functools.cache
def padded_results():
    """Matrices and gradients of all molecules by one program."""
    derivative = jax.value_and_grad(weighted, has_aux=True)
    batch = jax.tree.map(jnp.asarray, mixed_batch())
    function = jax.jit(lambda b: jax.lax.map(lambda m: derivative(m.positions, m.basis, weights()), b))
    (_, matrices), gradients = function(batch)
    return np.asarray(matrices), np.asarray(gradients)


@pytest.mark.parametrize("index", range(3), ids=NAMES)
def test_padded_equals_unpadded(index):
    molecule = molecules()[index]
    basis = load_basis(GAPS, molecule.numbers)
    derivative = jax.jit(jax.value_and_grad(weighted, has_aux=True))
    (_, expected), gradient = derivative(jnp.asarray(molecule.positions), basis, weights())
    matrices, gradients = (r[index] for r in padded_results())
    nao, natm = basis.nao, molecule.natm
    assert np.abs(gradient).max() > 0.1
    # Another order of summation over primitives and charges: rounding of numbers up to 1e2.
    np.testing.assert_allclose(matrices[:, :nao, :nao], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients[:natm], gradient, rtol=0, atol=1e-11)
    assert not np.any(matrices[:, nao:])
    assert not np.any(matrices[:, :, nao:])
    assert not np.any(gradients[natm:])


def test_masks_and_shapes():
    batch = mixed_batch()
    sizes = [load_basis(GAPS, m.numbers).nao for m in molecules()]
    assert (len(batch), batch.numbers.shape, batch.positions.shape) == (3, (3, 3), (3, 3, 3))
    assert batch.atom_mask.tolist() == [[True, True, False]] * 3
    assert np.array_equal(batch.atom_mask, batch.numbers > 0)
    assert batch.nelec.tolist() == [2, 10, 18]
    basis = batch.basis
    assert basis.ao_mask.dtype == bool
    assert basis.ao_mask.sum(axis=1).tolist() == sizes
    for field in (basis.ao_atom, basis.ao_l, basis.ao_shell, basis.ao_m):
        assert np.array_equal(field >= 0, basis.ao_mask)
    assert not np.any(basis.nuclear_charges[~batch.atom_mask])
    for row in basis.grouped_index:  # each AO has its own place, padding as well
        assert len(set(row.tolist())) == len(row)


def test_labels_of_padded_molecules():
    batch = mixed_batch()
    for i, molecule in enumerate(molecules()):
        basis, plain = batch[i].basis, load_basis(GAPS, molecule.numbers)
        assert basis.ao_labels() == plain.ao_labels()
        assert basis.atom_ao_slices().tolist() == plain.atom_ao_slices().tolist()
        assert basis.shell_angular_momenta() == plain.shell_angular_momenta()


def test_parts_of_a_batch():
    batch = mixed_batch()
    assert len(batch[1:]) == len(batch[np.array([2, 0])]) == 2
    assert batch[np.array([2, 0])].nelec.tolist() == [18, 2]
    assert batch[1].numbers.tolist() == [9, 1, 0]


@pytest.mark.parametrize("bases", ["sto-3g", {"orbital": "sto-3g", "potential": "def2-svp"}], ids=["one", "two"])
def test_joint_shape_holds_both(bases):
    groups = [[g2("H2"), g2("CH4")], [g2("SO2")], [g2("H2")]]
    batches = [pad_batch(group, bases) for group in groups]
    shape = joint_batch_shape(map(batch_shape, batches))
    again = [pad_batch(group, bases, shape) for group in groups]
    assert {batch_shape(batch) for batch in again} == {shape}
    assert shape.natm == 5
    structures = {jax.tree.structure(batch) for batch in again}
    assert len(structures) == 1
    for old, new in zip(batches, again, strict=True):
        for role in old.bases:
            assert new.bases[role].ao_mask.sum(axis=1).tolist() == old.bases[role].ao_mask.sum(axis=1).tolist()


def test_errors():
    water, hydrogen = g2("H2O"), g2("H2")
    small = batch_shape(pad_batch([hydrogen], "sto-3g"))
    with pytest.raises(InputError, match=r"shape=.* is too small, molecules need .*joint_batch_shape"):
        pad_batch([water], "sto-3g", small)
    with pytest.raises(InputError, match=r"shape has bases \['orbital'\], the batch has \['potential'\]"):
        pad_batch([hydrogen], {"potential": "sto-3g"}, small)
    with pytest.raises(InputError, match="molecules is empty"):
        pad_batch([], "sto-3g")
    with pytest.raises(InputError, match=r"batch has bases a, b; take one by name"):
        _ = pad_batch([hydrogen], {"a": "sto-3g", "b": "sto-3g"}).basis
    with pytest.raises(InputError, match=r"array of shape \(3,\) does not fit into \(2,\)"):
        pad_arrays([np.zeros(3)], (2,))


def test_pad_arrays_fills_the_end():
    padded = pad_arrays([np.ones((1, 2)), np.ones((2, 1))], (2, 3), fill=7)
    assert padded.tolist() == [[[1, 1, 7], [7, 7, 7]], [[1, 7, 7], [1, 7, 7]]]
