"""Blocks of pairs of atoms and coupled irreps: exact round trips, rotation, inversion, permutation."""

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
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import (
    Irrep,
    ShellLayout,
    ao_matrix,
    ao_slots,
    couple,
    dense_blocks,
    irreps,
    pair_blocks,
    require_irreps,
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
jitted_couple, jitted_uncouple = jax.jit(couple, static_argnums=(1, 2)), jax.jit(uncouple, static_argnums=1)
jitted_blocks, jitted_matrix = (jax.jit(f, static_argnums=2) for f in (pair_blocks, ao_matrix))


@functools.cache
def formic_acid():
    """HCOOH, moved off its plane so that no coupled block vanishes by symmetry."""
    molecule = g2("HCOOH")
    return Molecule(molecule.numbers, molecule.positions + np.random.default_rng(6).normal(0, 0.2, (5, 3)))


def pairs_of(molecule):
    return pad_batch([molecule], "sto-3g")[0].pairs


@functools.partial(jax.jit, static_argnums=(1, 3))
def dense(matrix, natm, pairs, layout, basis):
    """The blocks of a matrix in both orders of the atoms, (natm, natm, width, width)."""
    return jnp.swapaxes(dense_blocks(pair_blocks(matrix, basis, layout, pairs), natm, pairs), 1, 2)


def dense_potential(molecule, name):
    """Blocks of PySCF's V."""
    layout, basis = shell_layout(BASES[name], [1, 6, 8]), load_basis(BASES[name], molecule.numbers)
    potential = pyscf_mole(molecule, BASES[name]).intor("int1e_nuc")
    return dense(potential, molecule.natm, pairs_of(molecule), layout, jax.tree.map(jnp.asarray, basis))


def coupled_potential(molecule, name):
    return jitted_couple(dense_potential(molecule, name), shell_layout(BASES[name], [1, 6, 8]))


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
    pairs, matrix = pairs_of(molecule), np.random.default_rng(0).standard_normal((basis.nao, basis.nao))
    matrix += matrix.T
    blocks = jitted_blocks(matrix, basis, layout, pairs)
    assert blocks.shape == (15, layout.width, layout.width)  # each pair of five atoms once
    coupled = jitted_couple(blocks, layout)
    assert sum(x.shape[-2] * x.shape[-1] for x in coupled.values()) == layout.width**2
    squares = sum(np.sum(np.square(x), axis=(1, 2)) for x in coupled.values())  # the coupling is orthogonal
    np.testing.assert_allclose(squares, np.sum(np.square(blocks), axis=(1, 2)), rtol=TOLERANCE)
    again = jitted_uncouple(coupled, layout)
    np.testing.assert_allclose(again, blocks, atol=TOLERANCE)
    np.testing.assert_allclose(jitted_matrix(again, basis, layout, pairs), matrix, atol=TOLERANCE)
    assert np.array_equal(jitted_matrix(blocks, basis, layout, pairs), matrix)


def test_blocks_hold_the_elements_of_the_matrix():
    molecule = g2("H2O")
    basis, layout, pairs = load_basis("sto-3g", molecule.numbers), shell_layout("sto-3g", [1, 8]), pairs_of(molecule)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        *((0, 0), (1, 1), (2, 2)),
        *((1, 0), (2, 0), (1, 2)),  # hydrogen before oxygen
    ]
    matrix = np.arange(49.0).reshape(7, 7)
    matrix += matrix.T + 1
    oxygen_oxygen, hydrogen, _, hydrogen_oxygen, _, hydrogens = jitted_blocks(matrix, basis, layout, pairs)
    np.testing.assert_array_equal(oxygen_oxygen, matrix[:5, :5])
    np.testing.assert_array_equal(hydrogen, np.pad(matrix[5:6, 5:6], (0, 4)))  # H has one of five slots
    np.testing.assert_array_equal(hydrogen_oxygen, np.pad(matrix[5:6, :5], ((0, 4), (0, 0))))
    np.testing.assert_array_equal(hydrogens, np.pad(matrix[5:6, 6:], (0, 4)))


def test_pairs_that_are_left_out_are_zero():
    molecule = g2("H2O")
    basis, layout, pairs = load_basis("sto-3g", molecule.numbers), shell_layout("sto-3g", [1, 8]), pairs_of(molecule)
    pairs = dataclasses.replace(pairs, mask=np.arange(6) < 5)  # the hydrogens are far apart
    matrix = np.ones((7, 7))
    kept = jitted_matrix(jitted_blocks(matrix, basis, layout, pairs), basis, layout, pairs)
    matrix[5, 6] = matrix[6, 5] = 0
    np.testing.assert_array_equal(kept, matrix)


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


def test_wanted_irreps_only():
    layout = shell_layout("def2-svp", [1, 6, 8])
    blocks = np.random.default_rng(1).standard_normal((layout.width, layout.width))
    everything = jitted_couple(blocks, layout)
    chosen = jitted_couple(blocks, layout, (Irrep(1, -1), Irrep(0, 1), Irrep(9, 1)))
    assert set(chosen) == {Irrep(0, 1), Irrep(1, -1)}
    for irrep, value in chosen.items():
        np.testing.assert_allclose(value, everything[irrep], rtol=0, atol=TOLERANCE)
    rest = {irrep: value for irrep, value in everything.items() if irrep not in chosen}
    total = jitted_uncouple(chosen, layout) + jitted_uncouple(rest, layout)
    np.testing.assert_allclose(total, blocks, atol=TOLERANCE)


def test_leading_axes_and_padding():
    molecules = [g2("H2"), g2("H2O")]
    layout = shell_layout("def2-svp", [1, 6, 8])
    tight = batch_shape(pad_batch(molecules, "def2-svp"))
    batch = pad_batch(molecules, "def2-svp", tight._replace(natm=4, npair=12))
    for i, molecule in enumerate(molecules):
        basis, pairs, plain = batch[i].basis, batch[i].pairs, load_basis("def2-svp", molecule.numbers)
        matrix = np.random.default_rng(i).standard_normal((2, plain.nao, plain.nao))
        matrix += matrix.transpose(0, 2, 1)
        extra = basis.nao - plain.nao
        padded = np.pad(matrix, ((0, 0), (0, extra), (0, extra)))
        blocks, real = jitted_blocks(padded, basis, layout, pairs), np.asarray(pairs.mask)
        np.testing.assert_array_equal(blocks[:, real], jitted_blocks(matrix, plain, layout, pairs_of(molecule)))
        assert not np.any(blocks[:, ~real])
        # What a network writes to slots that an atom lacks, or to padded pairs, does not reach the matrix.
        full = np.pad(np.ones(matrix.shape), ((0, 0), (0, extra), (0, extra)))
        noise = np.where(jitted_blocks(full, basis, layout, pairs) == 0, 1.0, 0.0)
        assert noise[:, real].any()
        assert noise[:, ~real].all()
        np.testing.assert_array_equal(jitted_matrix((blocks + noise)[0], basis, layout, pairs), padded[0])


def test_layout_that_lacks_shells_is_refused():
    molecule = g2("H2O")
    basis = load_basis("def2-svp", molecule.numbers)
    with pytest.raises(InputError, match=r"basis has more shells than layout counts=\(2, 1\); make it with all"):
        pair_blocks(np.zeros((basis.nao, basis.nao)), basis, shell_layout("def2-svp", [1]), pairs_of(molecule))
    with pytest.raises(InputError, match=r"'sto-3g' has no blocks of the irreps 3\+, 4\+ .* of the target"):
        require_irreps([Irrep(0, 1), Irrep(3, 1), Irrep(4, 1)], shell_layout("sto-3g", [8]), "sto-3g")


def test_cartesian_functions_are_refused():
    layout = shell_layout("def2-svp", [1, 8])
    with pytest.raises(InputError, match="Cartesian"):
        ao_slots(load_basis("def2-svp", [8, 1, 1], cartesian=True), layout)
