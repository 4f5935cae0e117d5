"""What a network sees: the operators themselves against PySCF, their symmetries, and the cutoff."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2, pyscf_mole, random_rotation
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import batch_shape, pad_batch
from vpotjax.conventions import rotation_matrices
from vpotjax.integrals import screening
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep, ao_matrix, irreps, uncouple
from vpotjax.operators.features import SCALAR
from vpotjax.operators.inputs import cutoff_function, potential_matrices
from vpotjax.operators.pairs import from_exchange
from vpotjax.operators.representation import FACTOR_LAST, Representation

SPECIES = (1, 8)
CUTOFF = 7.0
INPUTS = ("sap", "overlap", "external", "kinetic", "own_nuclei")
EVERYTHING = Representation(SPECIES, "6-31g", INPUTS, 2, ("lowdin", "metric", "raw"), CUTOFF)
LAYOUT = EVERYTHING.layout
TOLERANCE = 1e-10  # float64 of squares of potentials, of which elements are up to 1e3


def peroxide():
    """HOOH without symmetry: with H–H, H–O and O–O."""
    molecule = g2("H2O2")
    return Molecule(molecule.numbers, molecule.positions + np.random.default_rng(1).normal(0, 0.1, (4, 3)))


@functools.cache
def shape():
    waters = Molecule(np.tile(g2("H2O").numbers, 2), np.random.default_rng(0).normal(0, 1, (6, 3)))
    return batch_shape(pad_batch([peroxide(), waters], {"potential": "6-31g"}))


def example(molecule, pair_cutoff=CUTOFF):
    batch = pad_batch([molecule], {"potential": "6-31g"}, shape(), pair_cutoff=pair_cutoff)
    return jax.tree.map(jnp.asarray, batch[0])


@jax.jit
def jitted(one):
    return EVERYTHING.features(one, irreps(LAYOUT), operators=True)


def features_of(molecule, **keywords):
    return jax.tree.map(np.asarray, jitted(example(molecule, **keywords)))


@jax.jit
def matrices_of(features, basis):
    """The matrices that the channels are of, (matrices, nao, nao)."""
    count, parts = EVERYTHING.matrix_count, {}
    for irrep, x in features.values.items():
        even = dict(features.even)[irrep]
        pieces = [x[:, : even - (irrep == SCALAR)], x[:, even:]]
        parts[irrep] = jnp.concatenate([p.reshape(len(x), count, -1, 2 * irrep.lam + 1) for p in pieces], axis=2)
    blocks = uncouple(from_exchange(parts, LAYOUT), LAYOUT)
    return jax.vmap(lambda b: ao_matrix(b, basis, LAYOUT, features.pairs), in_axes=1)(blocks)


@jax.jit
def operators_of(features, basis):
    return jax.vmap(lambda b: ao_matrix(b, basis, LAYOUT, features.pairs))(features.operators)


def test_features_are_the_operators_and_their_products():
    molecule = peroxide()
    one, features = example(molecule), features_of(molecule)
    basis, n = one.bases["potential"], load_basis("6-31g", molecule.numbers).nao
    matrices, operators = (np.asarray(f(features, basis))[:, :n, :n] for f in (matrices_of, operators_of))
    # Each element is multiplied by the cutoff function of the distance of its atoms.
    atoms = molecule.positions[np.asarray(basis.ao_atom)[:n]]
    near = np.asarray(cutoff_function(np.linalg.norm(atoms[:, None] - atoms[None], axis=-1), CUTOFF))
    assert 0.1 < near.min() < 0.9
    matrices, operators = matrices / near, operators / near
    mole = pyscf_mole(molecule, "6-31g")
    overlap, kinetic, bare = (mole.intor(f"int1e_{name}") for name in ("ovlp", "kin", "nuc"))
    inverse, values, vectors = np.linalg.inv(overlap), *np.linalg.eigh(overlap)
    root = vectors / np.sqrt(values) @ vectors.T
    assert len(matrices) == EVERYTHING.matrix_count == 2 * 5 + 3
    sap, external, others = matrices[:5], matrices[6:11], matrices[[5, 11, 12]]
    for potential in (sap, external):
        first = potential[0]
        expected = (first, first @ inverse @ first, first @ first, root @ first @ root)
        for ours, theirs in zip(potential, (*expected, expected[3] @ expected[3]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())
    np.testing.assert_allclose(others[0], overlap, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(others[1], kinetic, rtol=0, atol=TOLERANCE)
    # The cutoff leaves of V less than all, of its terms that stand at the two atoms less still.
    assert np.abs(external[0]).max() < np.abs(bare).max()
    assert np.abs(others[2]).max() < np.abs(external[0]).max()
    assert len(operators) == len(FACTOR_LAST)
    for ours, theirs in zip(operators, (kinetic, others[2], sap[0], external[0]), strict=True):
        theirs = root @ theirs @ root
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("derivatives", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_negligible_pairs_are_left_out_of_potentials(monkeypatch, derivatives):
    """Of two molecules far apart, on CPUs; values and derivatives are those with all pairs."""
    water = g2("H2O")
    positions = jnp.concatenate([jnp.asarray(water.positions), jnp.asarray(water.positions) + jnp.array([0, 0, 20.0])])
    basis = load_basis("sto-3g", np.tile(water.numbers, 2))
    weights = np.random.default_rng(2).standard_normal((3, basis.nao, basis.nao))

    def result():
        def potentials(r):
            return jnp.stack(list(potential_matrices(basis, r, ("external", "sap", "own_nuclei"), 9.0).values()))

        wanted = jax.grad(lambda r: jnp.sum(weights * potentials(r))) if derivatives else potentials
        return jax.jit(wanted)(positions)

    exact, made = result(), []

    def lists(*arguments, inner=screening._lists):
        made.append(inner(*arguments))
        return made[-1]

    monkeypatch.setattr(screening, "IN_PROGRAMS_ABOVE", 1)
    monkeypatch.setattr(screening, "_lists", lists)
    np.testing.assert_allclose(result(), exact, rtol=0, atol=TOLERANCE)
    assert len(made) == (jax.default_backend() == "cpu")


def test_channels_are_counted():
    features = features_of(peroxide())
    assert tuple(features.values) == tuple(irreps(LAYOUT))
    for irrep, (even, odd) in EVERYTHING.channels(irreps(LAYOUT)).items():
        assert features.values[irrep].shape == (shape().npair, even + odd, 2 * irrep.lam + 1)
        assert dict(features.even)[irrep] == even
        assert not np.any(features.values[irrep][features.kinds < 0])
    constant = features.values[SCALAR][:, dict(features.even)[SCALAR] - 1, 0]
    onsite = (features.pairs.first == features.pairs.second) & features.pairs.mask
    np.testing.assert_array_equal(constant, onsite)
    few = jax.eval_shape(lambda one: EVERYTHING.features(one, [Irrep(1, -1), Irrep(5, 1)]), example(peroxide()))
    assert few.operators is None
    assert list(few.values) == [SCALAR, Irrep(1, -1)]  # scalars in any case, and what there is
    one = Representation((1,), "sto-3g", ("sap",), 1)
    assert (one.matrix_count, one.channels([SCALAR])) == (1, {SCALAR: (2, 0)})


def test_rotation_with_inversion_and_translation():
    molecule, rotation = peroxide(), random_rotation(3)
    moved = Molecule(molecule.numbers, molecule.positions @ rotation.T + np.array([2.0, -1.0, 0.5]))
    before, after = features_of(molecule), features_of(moved)
    wigner = rotation_matrices(2, tuple(map(tuple, -rotation)))  # of the proper part
    for irrep, x in before.values.items():
        expected = irrep.parity * x @ wigner[irrep.lam].T
        size = np.abs(x).max()
        assert not irrep.lam or np.abs(after.values[irrep] - x).max() > 0.1 * size
        np.testing.assert_allclose(after.values[irrep], expected, rtol=0, atol=TOLERANCE * size)


def test_permutation_of_atoms():
    molecule, order = peroxide(), np.array([2, 1, 3, 0])
    permuted = Molecule(molecule.numbers[order], molecule.positions[order])
    slices = load_basis("6-31g", molecule.numbers).atom_ao_slices()
    index = np.concatenate([np.arange(*slices[atom]) for atom in order])
    for function in (matrices_of, operators_of):
        before, after = (
            np.asarray(function(features_of(m), example(m).bases["potential"]))[:, : len(index), : len(index)]
            for m in (molecule, permuted)
        )
        assert np.abs(after - before).max() > 1
        size = np.abs(before).max(axis=(1, 2), keepdims=True)
        np.testing.assert_allclose(after / size, before[:, index][:, :, index] / size, rtol=0, atol=TOLERANCE)


def test_the_other_order_of_a_pair_of_one_element():
    one = example(peroxide())
    plain = jax.tree.map(np.asarray, jitted(one))
    oxygens = (plain.kinds == plain.kinds.max()) & (plain.pairs.first != plain.pairs.second)
    onsite = (plain.pairs.first == plain.pairs.second) & plain.pairs.mask
    assert oxygens.sum() == 1
    first, second = plain.pairs.first, plain.pairs.second
    pairs = dataclasses.replace(
        plain.pairs, first=np.where(oxygens, second, first), second=np.where(oxygens, first, second)
    )
    other = jax.tree.map(np.asarray, jitted(dataclasses.replace(one, pairs=pairs)))
    for irrep, x in plain.values.items():
        odd, size = np.arange(x.shape[1]) >= dict(plain.even)[irrep], np.abs(x).max()
        sign = np.where(oxygens[:, None] & odd, -1.0, 1.0)[:, :, None]
        np.testing.assert_allclose(other.values[irrep], sign * x, rtol=0, atol=1e-13 * size)  # rounding
        assert np.abs(x[onsite][:, odd]).max(initial=0) < 1e-13 * size
        assert not odd.any() or np.abs(x[oxygens][:, odd]).max() > 1e-3


def test_pairs_beyond_the_cutoff_are_left_out():
    """They hold nothing, so that the shorter list says the same; what is near them does not feel their nuclei."""
    water = g2("H2O")
    far = water.positions + np.array([0, 0, 6.8])
    waters = Molecule(np.tile(water.numbers, 2), np.concatenate([water.positions, far]))
    distances = np.linalg.norm(waters.positions[:, None] - waters.positions[None], axis=-1)
    short, whole = features_of(waters), features_of(waters, pair_cutoff=None)
    within = np.sum(distances[np.triu_indices(6)] <= CUTOFF)
    assert 12 < within == short.pairs.mask.sum() < whole.pairs.mask.sum() == 21
    beyond = distances[whole.pairs.first, whole.pairs.second] > CUTOFF
    for irrep, x in whole.values.items():
        assert not np.any(x[beyond])
        np.testing.assert_array_equal(x[whole.pairs.mask & ~beyond], short.values[irrep][short.pairs.mask])
    assert not np.any(whole.operators[:, beyond])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": ()}, r"species is \(\)"),
        ({"species": (8, 1)}, r"species is \(8, 1\); give different atomic numbers in ascending order"),
        ({"species": (1, 1)}, r"species is \(1, 1\)"),
        ({"inputs": ("overlap",)}, "with external or sap among them"),
        ({"inputs": ("sap", "sap")}, "give different ones"),
        ({"cutoff": -1.0}, "cutoff is -1.0"),
        ({"power_order": 0}, "order is 0"),
        ({"power_kinds": ("cube",)}, "kind is 'cube'"),
        ({"power_kinds": ("raw", "raw")}, "each kind of product once"),
        ({"power_kinds": ()}, "at least one"),
        ({"species": (1, 53), "basis": "def2-svp"}, r"inputs has 'sap', but 'def2-svp' has effective cores .* \[53\]"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(EVERYTHING, **changes)
