"""Padding: shapes, masks, and padded integrals equal to unpadded ones in values and gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2, pyscf_mole, roomy_batch
from vpotjax import shape_pool
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import batch_shape, buckets, joint_batch_shape, molecule_shapes, pad_arrays, pad_batch
from vpotjax.integrals.nuclear_attraction import external_potential
from vpotjax.integrals.overlap import overlap
from vpotjax.molecule import Molecule

# H has no p and F has no s: a molecule may lack any l of the batch, also the lowest. Without d, gradients compile fast.
GAPS = {
    "H": [[0, [1.1, 0.6], [0.3, 0.5]]],
    "F": [[1, [2.0, 0.4], [0.9, 0.7]], [1, [0.4, 1.0]]],
}


@functools.cache
def molecules():
    return [g2(name) for name in ("H2", "HF", "F2")]


@functools.cache
def mixed_batch():
    return roomy_batch(molecules(), GAPS)


def matrices(basis, positions):
    return jnp.stack([overlap(basis, positions), external_potential(basis, positions)])


def test_padded_values_agree_with_pyscf():
    group = [g2(name) for name in ("H2", "H2O", "SO2")]  # s and p; with one d shell; with several
    batch = jax.tree.map(jnp.asarray, roomy_batch(group, "def2-svp"))
    results = jax.jit(lambda b: jax.lax.map(lambda m: matrices(m.basis, m.positions), b))(batch)
    for molecule, result in zip(group, np.asarray(results), strict=True):
        mole = pyscf_mole(molecule, "def2-svp")
        nao = mole.nao
        expected = [mole.intor("int1e_ovlp"), mole.intor("int1e_nuc")]
        np.testing.assert_allclose(result[:, :nao, :nao], expected, rtol=0, atol=1e-10)  # float64 integrals
        assert not np.any(result[:, nao:])
        assert not np.any(result[:, :, nao:])


def weighted(positions, basis):
    """A number that depends on all elements of S and V, and both matrices; padding carries weight too."""
    size, nao = mixed_batch().basis.nao, basis.nao
    weights = np.random.default_rng(0).standard_normal((2, size, size))[:, :nao, :nao]
    values = matrices(basis, positions)
    return jnp.vdot(weights, values), values


@functools.cache
def padded_results():
    """Matrices and gradients of all molecules by one program."""
    derivative = jax.value_and_grad(weighted, has_aux=True)
    batch = jax.tree.map(jnp.asarray, mixed_batch())
    (_, values), gradients = jax.jit(lambda b: jax.lax.map(lambda m: derivative(m.positions, m.basis), b))(batch)
    return np.asarray(values), np.asarray(gradients)


@pytest.mark.parametrize("index", range(3), ids=["H2", "HF", "F2"])
def test_padded_equals_unpadded(index):
    molecule = molecules()[index]
    basis = load_basis(GAPS, molecule.numbers)
    derivative = jax.jit(jax.value_and_grad(weighted, has_aux=True))
    (_, expected), gradient = derivative(jnp.asarray(molecule.positions), basis)
    values, gradients = (r[index] for r in padded_results())
    nao, natm = basis.nao, molecule.natm
    assert np.abs(gradient).max() > 0.1
    # Another order of summation over primitives and charges: rounding of numbers up to 1e2.
    np.testing.assert_allclose(values[:, :nao, :nao], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients[:natm], gradient, rtol=0, atol=1e-11)
    assert not np.any(values[:, nao:])
    assert not np.any(values[:, :, nao:])
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


def pairs_of(batch, i=0):
    """The real pairs of one molecule."""
    pairs = batch[i].pairs
    return [(int(a), int(b)) for a, b, real in zip(pairs.first, pairs.second, pairs.mask, strict=True) if real]


def test_each_pair_of_atoms_is_listed_once():
    """On site first, then the lighter element first; padding last of either."""
    group = [g2("CH3OH"), g2("H2O"), g2("H2")]
    batch = pad_batch(group, "sto-3g", batch_shape(pad_batch(group, "sto-3g"))._replace(natm=7, npair=30))
    pairs = batch.pairs
    assert pairs.first.shape == pairs.second.shape == pairs.mask.shape == pairs.shift.shape[:2] == (3, 30)
    assert not np.any(pairs.shift)
    for i, molecule in enumerate(group):
        natm, listed = molecule.natm, pairs_of(batch, i)
        np.testing.assert_array_equal(pairs.first[i, :7], range(7))
        np.testing.assert_array_equal(pairs.second[i, :7], range(7))
        np.testing.assert_array_equal(pairs.mask[i, :7], np.arange(7) < natm)
        assert not np.any(pairs.first[i, len(listed) + 7 - natm :])
        assert len(listed) == natm * (natm + 1) // 2 == pairs.mask[i].sum()
        assert {frozenset(p) for p in listed} == {frozenset((a, b)) for a in range(natm) for b in range(natm)}
        assert all(molecule.numbers[a] <= molecule.numbers[b] for a, b in listed)
    assert pairs_of(batch, 1) == [(0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (1, 2)]


def test_pairs_beyond_a_cutoff_are_left_out():
    water = g2("H2O")
    places = water.positions + np.array([[[0, 0, 0]], [[0, 0, 20.0]]])
    far = Molecule(np.tile(water.numbers, 2), places.reshape(6, 3))
    whole, near = (pad_batch([far], "sto-3g", pair_cutoff=cutoff) for cutoff in (None, 5.0))
    assert (batch_shape(whole).npair, batch_shape(near).npair) == (21, 12)
    assert all((a < 3) == (b < 3) for a, b in pairs_of(near))
    assert len(pairs_of(near)) == 12
    short = pad_batch([far], "sto-3g", pair_cutoff=2.0)  # not even H–H of one molecule
    assert pairs_of(short)[6:] == [(1, 0), (2, 0), (4, 3), (5, 3)]
    again = pad_batch([far], "sto-3g", batch_shape(whole), pair_cutoff=5.0)  # a shape without the cutoff holds it too
    assert pairs_of(again) == pairs_of(near)
    with pytest.raises(InputError, match="is too small"):
        pad_batch([far], "sto-3g", batch_shape(near))


STREAM = ("CH4", "H2O", "C6H6", "CH3OH", "NH3", "C2H6", "HF", "CH3CHO", "C2H2")


def cost(shape):
    return sum(sizes.nao for _, sizes in shape.bases) ** shape_pool.POWER


def test_shapes_of_a_stream_hold_its_molecules_and_are_used_again():
    pool, basis = shape_pool.ShapePool(), {"orbital": "sto-3g"}
    for names in (("H2", "C6H6", "H2O"), ("CH4", "NH3", "C6H6"), ("H2O", "HCOOH", "H2")):
        molecules = [g2(name) for name in names]
        groups = pool.groups(molecules, basis, pair_cutoff=4.0)
        assert sorted(i for group, _ in groups for i in group) == [0, 1, 2]
        for group, shape in groups:
            batch = pad_batch([molecules[i] for i in group], basis, shape, pair_cutoff=4.0)
            assert batch_shape(batch) == shape
    assert len(pool.shapes) == 1  # compiling one more would take longer than all these molecules


def test_shapes_of_a_stream_are_those_that_take_the_least_time(monkeypatch):
    molecules, basis = [g2(name) for name in STREAM], {"orbital": "sto-3g"}
    molecules.sort(key=lambda m: load_basis("sto-3g", m.numbers).nao)
    monkeypatch.setattr(shape_pool, "COMPILATION", 2.0 * 24.0**shape_pool.POWER)

    def time(edges):
        groups = [molecules[i:j] for i, j in itertools.pairwise([0, *edges, len(molecules)])]
        own = [shape_pool._rounded(joint_batch_shape(molecule_shapes(g, basis, False, None))) for g in groups]
        running = sum(len(g) * cost(s) for g, s in zip(groups, own, strict=True))
        return running + shape_pool.COMPILATION * len(set(own))

    cuts = range(1, len(molecules))
    best = min(time(edges) for n in range(len(molecules)) for edges in itertools.combinations(cuts, n))
    groups = shape_pool.ShapePool().groups(molecules, basis)
    assert 1 < len(groups) < len(molecules)
    found = sum(len(group) * cost(shape) for group, shape in groups) + shape_pool.COMPILATION * len(groups)
    np.testing.assert_allclose(found, best)


def test_a_long_stream_of_small_molecules_gets_a_shape_of_its_own(monkeypatch):
    basis, pool = {"orbital": "sto-3g"}, shape_pool.ShapePool()
    ((_, large),) = pool.groups([g2("C6H6")], basis)
    monkeypatch.setattr(shape_pool, "COMPILATION", 25.0 * cost(large))
    ((_, small),) = shape_pool.ShapePool().groups([g2("H2O")], basis)
    spent = 0.0
    for chunk in range(1, 101):
        ((group, shape),) = pool.groups([g2("H2O")] * 4, basis)
        assert shape in (large, small)
        assert shape == large or chunk > 2
        spent += len(group) * cost(shape)
    assert shape == small
    assert spent + shape_pool.COMPILATION < 2 * (400 * cost(small) + shape_pool.COMPILATION) + 4 * cost(large)


def test_pad_arrays_fills_the_end():
    padded = pad_arrays([np.ones((1, 2)), np.ones((2, 1))], (2, 3), fill=7)
    assert padded.tolist() == [[[1, 1, 7], [7, 7, 7]], [[1, 7, 7], [1, 7, 7]]]


def test_buckets_hold_every_molecule_once():
    molecules = [g2(name) for name in ("CH4", "H2O", "C6H6", "CH3OH", "NH3", "C2H6", "HF", "CH3CHO")]
    groups = buckets(molecules, {"orbital": "sto-3g", "potential": "def2-svp"}, count=3)
    assert len(groups) == 3
    assert sorted(np.concatenate([group for group, _ in groups]).tolist()) == list(range(len(molecules)))
    for group, shape in groups:
        batch = pad_batch([molecules[i] for i in group], {"orbital": "sto-3g", "potential": "def2-svp"}, shape)
        assert batch_shape(batch) == shape


def test_buckets_cut_where_padding_is_least():
    molecules = [g2(name) for name in STREAM]
    sizes = np.array([load_basis("sto-3g", m.numbers).nao for m in molecules])

    def cost(edges):
        edges = np.array(sorted({*edges, sizes.max()}))
        return (edges[np.searchsorted(edges, sizes)] ** 2).sum()

    best = min(cost(edges) for edges in itertools.combinations(sorted(set(sizes)), 2))
    groups = buckets(molecules, "sto-3g", count=3)
    assert cost([sizes[group].max() for group, _ in groups]) == best
    with pytest.raises(InputError, match="count is 0"):
        buckets(molecules, "sto-3g", count=0)


def test_shapes_of_the_other_kind_are_refused():
    molecules = [g2("H2O")]
    [(_, shape)] = buckets(molecules, "def2-svp", count=1, cartesian=True)
    with pytest.raises(InputError, match="not for cartesian=False"):
        pad_batch(molecules, "def2-svp", shape)
    small = batch_shape(pad_batch(molecules, "sto-3g"))
    [(role, sizes)] = small.bases
    with pytest.raises(InputError, match="more AOs than its shells hold"):
        pad_batch(molecules, "sto-3g", small._replace(bases=((role, sizes._replace(nao=sizes.nao + 5)),)))


def test_padded_cartesian_basis():
    molecules = [g2("H2O"), g2("CH3OH")]
    (group, shape), *_ = buckets(molecules, "def2-svp", count=1, cartesian=True)
    batch = pad_batch([molecules[i] for i in group], "def2-svp", shape, cartesian=True)
    for k, molecule in enumerate(molecules):
        alone = load_basis("def2-svp", molecule.numbers, cartesian=True)
        padded = overlap(batch[k].basis, batch[k].positions)
        expected = overlap(alone, molecule.positions)
        np.testing.assert_allclose(padded[: alone.nao, : alone.nao], expected, rtol=0, atol=1e-13)
        assert not np.any(padded[alone.nao :])
    labels = load_basis("def2-svp", molecules[0].numbers, cartesian=True).ao_labels()
    assert labels[9:15] == [f"0 O 3d{m}" for m in ("xx", "xy", "xz", "yy", "yz", "zz")]
