"""Molecules from files, ASE and arrays; what is refused; use as a pytree."""

import ase.io
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.constants as codata
from ase.build import molecule as ase_molecule

from tests.molecules import g2
from vpotjax import units
from vpotjax._checks import InputError
from vpotjax.molecule import Molecule, molecules_from_file

WATER_XYZ = """3
water, from a textbook
O 0.0 0.0 0.1173
H 0.0 0.7572 -0.4692
H 0.0 -0.7572 -0.4692
"""


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (units.BOHR_TO_ANGSTROM, codata.physical_constants["Bohr radius"][0] / codata.angstrom),
        (units.ANGSTROM_TO_BOHR, codata.angstrom / codata.physical_constants["Bohr radius"][0]),
        (units.HARTREE_TO_EV, codata.physical_constants["Hartree energy in eV"][0]),
        (units.HARTREE_TO_WAVENUMBER, codata.physical_constants["hartree-inverse meter relationship"][0] / 100),
        (units.HARTREE_TO_KELVIN, codata.physical_constants["hartree-kelvin relationship"][0]),
        (units.DALTON_TO_ELECTRON_MASS, codata.atomic_mass / codata.electron_mass),
        (units.EBOHR_TO_DEBYE, codata.e * codata.physical_constants["Bohr radius"][0] * codata.c * 1e21),
    ],
)
def test_unit_factors(ours, reference):
    assert ours == pytest.approx(reference, rel=2e-9)  # CODATA 2018 against 2022


def test_xyz_is_read_in_angstrom(tmp_path):
    (tmp_path / "water.xyz").write_text(WATER_XYZ)
    water = Molecule.from_xyz(tmp_path / "water.xyz")
    assert water.numbers.tolist() == [8, 1, 1]
    assert water.positions[1, 1] == pytest.approx(0.7572 / 0.529177210903, rel=1e-14)  # one division
    assert (water.natm, water.charge, water.spin) == (3, 0, 0)
    assert (water.symbols, water.formula) == (["O", "H", "H"], "H2O")


def test_ase_round_trip():
    atoms = ase_molecule("CH3OH")
    back = Molecule.from_ase(atoms, charge=1, spin=-1).to_ase()
    np.testing.assert_allclose(back.positions, atoms.positions, rtol=1e-15, atol=1e-15)  # two multiplications
    assert back.numbers.tolist() == atoms.numbers.tolist()
    assert back.info == {"charge": 1, "spin": -1}


def test_xyz_round_trip_keeps_charge_and_spin(tmp_path):
    methyl = Molecule(ase_molecule("CH3").numbers, g2("CH3").positions, charge=-1, spin=2)
    ase.io.write(tmp_path / "frames.xyz", [methyl.to_ase(), g2("H2O").to_ase()], format="extxyz")
    first, second = molecules_from_file(tmp_path / "frames.xyz", charge=5)  # the frames' own values win
    assert (first.charge, first.spin, second.charge, second.spin) == (-1, 2, 0, 0)
    np.testing.assert_allclose(first.positions, methyl.positions, atol=1e-7)  # the file has 8 decimals
    assert Molecule.from_xyz(tmp_path / "frames.xyz").formula == first.formula


def test_arguments_apply_to_a_plain_file(tmp_path):
    (tmp_path / "water.xyz").write_text(WATER_XYZ)
    water = Molecule.from_xyz(tmp_path / "water.xyz", charge=1, spin=1)
    assert (water.charge, water.spin) == (1, 1)


@pytest.mark.parametrize("name", ["CH3", "O2", "OH", "H2O"])
def test_ase_round_trip_keeps_charge_and_spin(name):
    molecule = g2(name)
    assert molecule.spin == sum(ase_molecule(name).get_initial_magnetic_moments())
    for charge in (0, 2):
        ion = Molecule(molecule.numbers, molecule.positions, charge=charge, spin=molecule.spin)
        back = Molecule.from_ase(ion.to_ase())
        assert (back.charge, back.spin) == (ion.charge, ion.spin)


def test_ghost_atoms_pass_through_ase():
    ghost = Molecule(np.array([2, 0]), PAIR)
    assert Molecule.from_ase(ghost.to_ase()).numbers.tolist() == [2, 0]


PAIR = np.array([[0.0, 0, 0], [0, 0, 1.4]])
FAR = np.array([[0.0, 0, 0], [0, 0, np.nan]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 1]], PAIR), r"numbers has shape \(1, 2\), expected \(natm,\)"),
        ((np.zeros(0, int), np.zeros((0, 3))), r"numbers has shape \(0,\).*at least one atom"),
        (([1.0, 1.0], PAIR), "numbers has dtype float64, expected integers"),
        (([0, 0], PAIR), "numbers contains 0, expected atomic numbers from 1 to 118"),
        (([1, 119], PAIR), "numbers contains 119, expected atomic numbers from 1 to 118"),
        (([1, -1], PAIR), "numbers contains -1, expected atomic numbers from 1 to 118"),
        (([1, 1], PAIR[:1]), r"positions has shape \(1, 3\), expected \(2, 3\); reshape"),
        (([1, 1], PAIR.T), r"positions has shape \(3, 2\), expected \(2, 3\); reshape"),
        (([1, 1], PAIR.ravel()), r"positions has shape \(6,\), expected \(2, 3\); reshape"),
        (([1, 1], FAR), "positions of atom 1 are .*nan.*, expected finite numbers in bohr"),
        (([1, 1], np.nan_to_num(FAR, nan=np.inf)), "positions of atom 1 are .*inf.*, expected finite"),
        (([1, 1], jnp.asarray(FAR)), "positions of atom 1 are .*nan"),
        (([1, 1], 0.1 * PAIR), "positions of atoms 0 and 1 are 0.0741 Å apart.*remove one or correct"),
        (([1, 1], 0 * PAIR), "positions of atoms 0 and 1 are 0 Å apart"),
        (([8, 1], PAIR), "charge=0 and spin=0 do not fit 9 electrons.*must be odd; set spin or change the charge"),
        (([1, 1], PAIR, 0, 1), "charge=0 and spin=1 do not fit 2 electrons.*must be even"),
        (([1, 1], PAIR, 1), "charge=1 and spin=0 do not fit 1 electrons"),
        *(
            (([1, 1], PAIR, value), f"charge is .*{value!r}.*; give an integer")
            for value in (None, True, 0.5, "0", {}, 1j, np.nan)
        ),
        (([1, 1], PAIR, 10**30), "charge=10+ and spin=0 leave -9+8 electrons"),
        (([1, 1], PAIR, 3, 1), "charge=3 and spin=1 leave -1 electrons; use a smaller charge"),
        (([1, 1], PAIR, 0, 4), "charge=0 and spin=4 leave 2 electrons; use a smaller charge or spin"),
    ],
)
def test_impossible_molecules_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Molecule(*(np.asarray(a) if isinstance(a, list) else a for a in arguments))


def spring(molecule):
    """A number that depends on positions, numbers and the static charge."""
    distance = jnp.linalg.norm(molecule.positions[0] - molecule.positions[1])
    return molecule.numbers[0] * distance**2 + molecule.charge


def test_transforms():
    first, second = Molecule(np.array([1, 1]), PAIR), Molecule(np.array([6, 8]), 2 * PAIR)
    expected = [1.4**2, 6 * 2.8**2]
    # One product and one square root: rounding only.
    np.testing.assert_allclose([jax.jit(spring)(first), jax.jit(spring)(second)], expected, rtol=1e-14)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    np.testing.assert_allclose(jax.vmap(spring)(stacked), expected, rtol=1e-14)
    inside = jax.jit(jax.grad(lambda positions: spring(Molecule(second.numbers, positions))))(second.positions)
    outside = jax.grad(spring, allow_int=True)(jax.tree.map(jnp.asarray, second))
    for gradient in (inside, outside.positions):
        np.testing.assert_allclose(gradient, [[0, 0, -12 * 2.8], [0, 0, 12 * 2.8]], rtol=1e-14)


def test_charge_and_spin_are_static():
    neutral, ion = Molecule(np.array([1, 1]), PAIR), Molecule(np.array([1, 1]), PAIR, charge=2)
    assert len(jax.tree.leaves(neutral)) == 2
    assert jax.tree.structure(neutral) != jax.tree.structure(ion)
    assert jax.jit(spring)(ion) - jax.jit(spring)(neutral) == 2.0


def test_fields_cannot_be_changed():
    with pytest.raises(AttributeError):
        Molecule(np.array([1, 1]), PAIR).charge = 1
