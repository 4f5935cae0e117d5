"""Blocks of atom pairs and coupled irreps: exact round trips, rotation, inversion, permutation."""

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
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import (
    Irrep,
    ShellLayout,
    ao_matrix,
    ao_slots,
    atom_pair_blocks,
    couple,
    irreps,
    shell_layout,
    uncouple,
)

UP_TO_G = {
    "O": [[l, [0.9 + 0.2 * l, 1.0]] for l in (0, 0, 1, 2, 3, 4)],
    "C": [[l, [0.7 + 0.2 * l, 1.0]] for l in (0, 1, 2)],
    "H": [[0, [0.6, 1.0]], [1, [0.8, 1.0]]],
}
BASES = {"def2-svp": "def2-svp", "g": UP_TO_G}
# The coupling is orthogonal with tables exact to rounding; matrices are of order 1 (random) to 100 (V).
TOLERANCE = 1e-11
jitted_couple, jitted_uncouple = (jax.jit(f, static_argnums=1) for f in (couple, uncouple))


@functools.cache
def formic_acid():
    """HCOOH, moved off its plane so that no coupled block vanishes by symmetry."""
    molecule = g2("HCOOH")
    return Molecule(molecule.numbers, molecule.positions + np.random.default_rng(6).normal(0, 0.2, (5, 3)))


def potential(molecule, basis):
    """V by PySCF."""
    return pyscf_mole(molecule, BASES[basis]).intor("int1e_nuc")


def coupled_potential(molecule, basis):
    layout = shell_layout(BASES[basis], [1, 6, 8])
    blocks = atom_pair_blocks(potential(molecule, basis), load_basis(BASES[basis], molecule.numbers), layout)
    return jitted_couple(blocks, layout)


def test_layout_is_the_union_of_elements():
    assert shell_layout("def2-svp", [1, 6, 8]) == ShellLayout((3, 2, 1))  # H 2s1p, C and O 3s2p1d
    assert shell_layout(UP_TO_G, [1, 6, 8]) == ShellLayout((2, 1, 1, 1, 1))
    assert shell_layout({"H": [[0, [1.0, 1.0]], [2, [1.0, 1.0]]]}, [1]) == ShellLayout((1, 0, 1))
    assert ShellLayout((3, 2, 1)).width == 14
    assert ShellLayout((3, 2, 1)).starts.tolist() == [0, 3, 9]
    assert [str(irrep) for irrep in irreps(ShellLayout((1, 1)))] == ["0+", "1-", "1+", "2+"]


@pytest.mark.parametrize("name", BASES)
def test_round_trip_is_exact(name):
    molecule = formic_acid()
    basis, layout = load_basis(BASES[name], molecule.numbers), shell_layout(BASES[name], [1, 6, 8])
    matrix = np.random.default_rng(0).standard_normal((basis.nao, basis.nao))
    matrix += matrix.T
    blocks = atom_pair_blocks(matrix, basis, layout)
    coupled = jitted_couple(blocks, layout)
    assert blocks.shape == (5, 5, layout.width, layout.width)
    assert sum(x.shape[-2] * x.shape[-1] for x in coupled.values()) == layout.width**2
    np.testing.assert_array_equal(blocks, np.transpose(blocks, (1, 0, 3, 2)))
    squares = sum(np.sum(np.square(x), axis=(2, 3)) for x in coupled.values())  # the coupling is orthogonal
    np.testing.assert_allclose(squares, np.sum(np.square(blocks), axis=(2, 3)), rtol=TOLERANCE)
    again = jitted_uncouple(coupled, layout)
    np.testing.assert_allclose(again, blocks, atol=TOLERANCE)
    np.testing.assert_allclose(ao_matrix(again, basis, layout), matrix, atol=TOLERANCE)
    assert np.array_equal(ao_matrix(blocks, basis, layout), matrix)


def test_blocks_hold_the_elements_of_the_matrix():
    molecule = g2("H2O")
    basis, layout = load_basis("sto-3g", molecule.numbers), shell_layout("sto-3g", [1, 8])
    matrix = np.arange(49.0).reshape(7, 7) + 1
    blocks = atom_pair_blocks(matrix, basis, layout)
    np.testing.assert_array_equal(blocks[0, 0], matrix[:5, :5])
    np.testing.assert_array_equal(blocks[0, 2], np.pad(matrix[:5, 6:], ((0, 0), (0, 4))))  # H has one of five slots
    np.testing.assert_array_equal(blocks[2, 1], np.pad(matrix[6:, 5:6], ((0, 4), (0, 4))))


@pytest.mark.parametrize("name", BASES)
def test_rotation_and_inversion_of_the_potential(name):
    molecule, rotation = formic_acid(), random_rotation(7)
    assert np.linalg.det(rotation) < 0
    turned = Molecule(molecule.numbers, molecule.positions @ rotation.T)
    before, after = (coupled_potential(m, name) for m in (molecule, turned))
    wigner = rotation_matrices(8, tuple(map(tuple, -rotation)))  # of the proper part
    for irrep in irreps(shell_layout(BASES[name], [1, 6, 8])):
        assert np.abs(before[irrep]).max() > 1e-4, irrep
        if irrep.lam:
            assert np.abs(after[irrep] - before[irrep]).max() > 1e-4, irrep
        expected = irrep.parity * before[irrep] @ wigner[irrep.lam].T
        np.testing.assert_allclose(after[irrep], expected, atol=1e-10, err_msg=str(irrep))  # V itself: 1e-12 of 100


@pytest.mark.parametrize("name", BASES)
def test_permutation_of_atoms(name):
    molecule, order = formic_acid(), np.array([3, 0, 4, 2, 1])
    permuted = Molecule(molecule.numbers[order], molecule.positions[order])
    before, after = (coupled_potential(m, name) for m in (molecule, permuted))
    for irrep, value in after.items():
        np.testing.assert_allclose(value, before[irrep][np.ix_(order, order)], atol=1e-10)  # as above


def test_wanted_irreps_only():
    layout = shell_layout("def2-svp", [1, 6, 8])
    blocks = np.random.default_rng(1).standard_normal((layout.width, layout.width))
    everything = couple(blocks, layout)
    chosen = couple(blocks, layout, [Irrep(1, -1), Irrep(0, 1), Irrep(9, 1)])
    assert set(chosen) == {Irrep(0, 1), Irrep(1, -1)}
    for irrep, value in chosen.items():
        np.testing.assert_allclose(value, everything[irrep], rtol=0, atol=TOLERANCE)
    rest = {irrep: value for irrep, value in everything.items() if irrep not in chosen}
    total = uncouple(chosen, layout) + uncouple(rest, layout)
    np.testing.assert_allclose(total, blocks, atol=TOLERANCE)


def test_leading_axes_and_padding():
    molecules = [g2("H2"), g2("H2O")]
    layout = shell_layout("def2-svp", [1, 6, 8])
    tight = batch_shape(pad_batch(molecules, "def2-svp"))
    batch = pad_batch(molecules, "def2-svp", tight._replace(natm=4))
    for i, molecule in enumerate(molecules):
        basis, plain = batch[i].basis, load_basis("def2-svp", molecule.numbers)
        matrix = np.random.default_rng(i).standard_normal((2, plain.nao, plain.nao))
        extra = basis.nao - plain.nao
        padded = np.pad(matrix, ((0, 0), (0, extra), (0, extra)))
        blocks, expected = atom_pair_blocks(padded, basis, layout), atom_pair_blocks(matrix, plain, layout)
        natm = molecule.natm
        np.testing.assert_array_equal(blocks[:, :natm, :natm], expected)
        assert not np.any(blocks[:, natm:])
        assert not np.any(blocks[:, :, natm:])
        # What a network writes to slots that an atom lacks, or to padded atoms, does not reach the matrix.
        missing = atom_pair_blocks(np.ones_like(matrix[0]), plain, layout) == 0
        noise = np.ones(blocks.shape[1:])
        noise[:natm, :natm] = missing
        np.testing.assert_array_equal(ao_matrix(blocks[0] + noise, basis, layout), padded[0])


def test_gradient_passes_through_the_round_trip():
    molecule = g2("H2O")
    basis, layout = load_basis("sto-3g", molecule.numbers), shell_layout("sto-3g", [1, 8])
    weights = np.random.default_rng(2).standard_normal((7, 7))

    @jax.jit
    def value(matrix, basis):
        return jnp.vdot(
            weights, ao_matrix(uncouple(couple(atom_pair_blocks(matrix, basis, layout), layout), layout), basis, layout)
        )

    gradient = jax.grad(value)(jnp.zeros((7, 7)), jax.tree.map(jnp.asarray, basis))
    np.testing.assert_allclose(gradient, weights, atol=TOLERANCE)  # the map is the identity


def test_layout_that_lacks_shells_is_refused():
    basis = load_basis("def2-svp", [8, 1, 1])
    with pytest.raises(InputError, match=r"basis has more shells than layout counts=\(2, 1\); make it with all"):
        atom_pair_blocks(np.zeros((basis.nao, basis.nao)), basis, shell_layout("def2-svp", [1]))


def test_cartesian_functions_are_refused():
    layout = shell_layout("def2-svp", [1, 8])
    with pytest.raises(InputError, match="Cartesian"):
        ao_slots(load_basis("def2-svp", [8, 1, 1], cartesian=True), layout)
