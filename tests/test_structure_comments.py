"""Comment lines of xyz frames: which ones say something, which are free, and which are refused."""

import numpy as np
import pytest

from tests.structure_texts import COLUMNS, LATTICE, POSITIONS, angstrom, read, refused, water
from vpotjax._checks import InputError
from vpotjax.molecule import molecules_from_file


@pytest.mark.parametrize(
    ("comment", "charge", "spin"),
    [
        ("", 0, 0),
        ("water, from a textbook", 0, 0),
        ("energy -76.4", 0, 0),
        ("E = -76.4 a.u., gnorm 1e-4", 0, 0),
        ("i = 3, time = 0.500, E = -17.16", 0, 0),
        ("dipole moment = 1.85", 0, 0),
        ("12", 0, 0),
        ("1 2 3", 0, 0),
        ("geometry in Angstrom", 0, 0),
        ("charge=2", 2, 0),
        ("Charge=2", 2, 0),
        ("charge=+2.0 energy=-7", 2, 0),
        ("total_charge=2", 2, 0),
        ("charge: 2", 2, 0),
        ("Total charge: 2, spin multiplicity: 3", 2, 2),
        ("charge 2", 2, 0),
        ("water, charge=2-, E=1", -2, 0),
        ("2 1", 2, 0),
        ("-1 2", -1, 1),
        ("2, 1", 2, 0),
        ("* xyz 2 1", 2, 0),
        ("0 3", 0, 2),
        ("multiplicity=3", 0, 2),
        ("charge=1 mult=2", 1, 1),
        ("charge=1; 2S+1 = 2", 1, 1),
        ("charge=1 multiplicity=2 spin=-1", 1, -1),
        ("spin=2", 0, 2),
        ("unpaired_electrons=2", 0, 2),
        ("magmom=1.9996", 0, 2),
        ('{"charge": 2}', 2, 0),
        ("charge=2 Charge=2", 2, 0),
        ('title="spin and charge" spin=2', 0, 2),
        ("nuclear charge: 8", 0, 0),
        ("water cation charge=1 spin=1", 1, 1),
        ("triplet water, multiplicity=3", 0, 2),
        ("singlet and triplet", 0, 0),
        ('pbc="F F F"', 0, 0),
        (f'{LATTICE} {COLUMNS} pbc="F F F" charge=2', 2, 0),
        ('Lattice="0 0 0 0 0 0 0 0 0"', 0, 0),
    ],
)
def test_comment_lines_that_are_read(tmp_path, comment, charge, spin):
    for end in ("\n", "\r\n", "\r"):
        (found,) = read(tmp_path, water(comment).replace("\n", end))
        assert (found.charge, found.spin) == (charge, spin)
        np.testing.assert_allclose(angstrom(found), POSITIONS, rtol=1e-15, atol=0)  # one division, one product


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("charge=1 Charge=2", "frame 1, line 2: Charge=2|charge=1 contradicts Charge=2"),
        ("spin=2 multiplicity=1", "spin=2 contradicts multiplicity=1"),
        ("2 1 charge=0", "contradicts"),
        ("charge=half", "line 2: charge is 'half'; give an integer"),
        ("charge=0.5", "charge is '0.5'"),
        ("charge=", "talks of 'charge'"),
        ("multiplicity=0", "multiplicity is 0|multiplicity is '0'; give a positive integer"),
        ("0 0", "multiplicity is '0'"),
        ("0 1 water", "begins with two integers"),
        ("spin=1/2", "spin is '1/2'.*nα − nβ"),
        ("magmom=1.5", "adds up to 1.5"),
        ('magmom="0 0 2"', "magmom is"),
        ("total_spin=1", "total_spin='1' may state"),
        ("q=1", "q='1' may state"),
        ("S=1", "S='1' may state"),
        ('mulliken_charges="1 0 0"', "may state the charge"),
        ("doubly charged water", "talks of 'charged'"),
        ("high spin", "talks of 'spin'"),
        ("water anion", "'anion', but charge=0"),
        ("triplet", "'triplet', but charge=0 and spin=0"),
        ("cation, charge=-2", "'cation', but charge=-2"),
        ("coordinates in bohr", "talks of 'bohr'; write units=bohr"),
        ("positions in a.u.", "write units=bohr"),
        ("units=nm", "unit of length is 'nm'; write units=angstrom or units=bohr"),
        ("units=bohr unit=angstrom", "states the units"),
        (LATTICE, "states a cell.*molecule code.*unwrap"),
        (f'{LATTICE} pbc="T T T"', 'pbc="T T T" is periodic.*unwrap'),
        (f'{LATTICE} {COLUMNS} pbc="F F T"', "is periodic"),
        ('pbc="maybe"', "pbc is 'maybe'"),
        ("cell: 9 9 9", "states a cell"),
        ("unit cell 9.0 9.0 9.0", "states a cell"),
        ("# CELL(abcABC):   9.0   9.0   9.0  90 90 90  Step: 0", "states a cell"),
        ("Properties=species:S:1", "Properties=species:S:1 is not read"),
        ("Properties=species:S:1:pos:R:3:x:R", "is not read"),
        (f"{COLUMNS}:forces:R:3", "line 3: .*has 4 columns, expected 7"),
    ],
)
def test_comment_lines_that_are_refused(tmp_path, comment, message):
    refused(tmp_path, water(comment), message)


@pytest.mark.parametrize(
    "comment", ["units=bohr", "Unit: au", "length_unit=Bohr", "positions{atomic_unit}", "2 1 units=bohr"]
)
def test_units(tmp_path, comment):
    np.testing.assert_array_equal(read(tmp_path, water(comment))[0].positions, POSITIONS)


@pytest.mark.parametrize(
    "comment",
    ["SO4 2-", "SO4^2-", "[SO4]2-", "SO4(2-)", "OH-", "nelec=50", "M=3", "2S=2", "frac coords", "a=9 b=9 c=9"],
)
def test_charges_in_formulas_and_crystal_coordinates_are_refused(tmp_path, comment):
    (tmp_path / "water.xyz").write_text(f"3\n{comment}\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
    with pytest.raises(InputError, match=r"frame 1(, line 2)?: "):
        molecules_from_file(tmp_path / "water.xyz")


NUMBERS_OF_ELECTRONS = """charge=0,3 | charge=-2,1 | charge=-2, 1 | charge: -2 1 | charge -2,1 | num_electrons=8 |
n_electrons=8 | number of electrons: 8 | nelectron: 8 | 8 electrons | qtot=-2 | q_tot: -2 | nalpha=6 nbeta=4 |
alpha=6 beta=4 | n_alpha 6 | Ms=1 | Sz=1 | 2Sz=2 | diradical | bi-radical | open-shell | H2O(+2) | H2O^{2+} | H2O+2 |
H2O-2 | H2O(2+) | H2O^2+ | H2O^+2 | H2O++ | SO4-2 | SO4(-2) | H2O\u00b2\u207a | [H2O]+2 | 2+ | -2 | +2 | (2-) | ++ |
dication | H2O 2+"""
UNITS_OF_LENGTH = """in a.u. | [a.u.] | (au) | au | a.u. | in nm | in picometers | water in au | water, nm |
water (atomic units) | frame 3 (a.u.) | E = -76.4, coordinates in a.u."""
CELLS = """CELL{H}: 10 10 10 90 90 90 |
boxlength=10 | box_size: 10 | cell_length=10 | lattice_constant=3 | abc 10 10 10 |
abc=10 10 10 | periodic | periodic water | PBC | 10 10 10 90 90 90 | 10.0, 10.0, 10.0, 90, 90, 90 | 9 0 0 0 9 0 0 0 9"""


@pytest.mark.parametrize(
    ("comments", "message"),
    [
        (NUMBERS_OF_ELECTRONS, "give an integer|may state|talks of|the comment says"),
        (UNITS_OF_LENGTH, "write units=bohr or units=angstrom"),
        (CELLS, "states a cell, which is periodic"),
    ],
)
def test_comments_that_would_be_dropped_are_refused(tmp_path, comments, message):
    for comment in comments.split("|"):
        refused(tmp_path, water(comment.strip()), f"frame 1(, line 2)?: .*({message})")


FREE = """water - dimer | B3LYP/6-31+G* opt | i = 3, time = 2.0, E = -40.1 | gdb 1 | C-H bond | energy -76.4 |
frame 12 2.5 | E=-76.4 a.u. | energy -76.4 a.u. | Energy (a.u.): -76.4 | E_tot in a.u. = -76.4 | non-periodic |
nonperiodic | not periodic | periodic table |
periodic=False | S22-3 | TS-1 | IRC-2 | S66 12 | Au cluster | (R)-(-)-carvone |
dipole 1.2 au, E=3 | t = 3 pm | alpha=9.54 | 1 2 3 4 5 | 0.1 0.2 0.3 | HF/6-31G(d) | MP2/aug-cc-pVDZ | CO - dimer |
CCSD(T) -76.3 | H2O-H2O | 1,2-ethanediol | water-2 | step 3 of 10 | -76.4 | -76.4 0.5 | neutral singlet |
Generated by ASE | charge=0 E=-3 | charge=0, 2.5 | 5 | gdb 1 157.7 157.7 157.7 0.0 13.21 | charge=0 units=angstrom"""


def test_free_text_is_accepted(tmp_path):
    for comment in FREE.split("|"):
        (found,) = read(tmp_path, water(comment.strip()))
        assert (found.charge, found.spin) == (0, 0), comment
        np.testing.assert_allclose(angstrom(found), POSITIONS, rtol=1e-15, atol=0)  # one division, one product


def test_words_that_fit_the_charge_are_read(tmp_path):
    for comment, charge, spin in [
        ("H2O(+2) charge=2", 2, 0),
        ("dication, charge=2", 2, 0),
        ("diradical spin=2", 0, 2),
        ("diradical, singlet, multiplicity=1", 0, 0),
        ("H2O 2-, charge: -2", -2, 0),
    ]:
        (found,) = read(tmp_path, water(comment))
        assert (found.charge, found.spin) == (charge, spin)
    assert read(tmp_path, "1\nCa2+ charge=2\nCa 0 0 0\n")[0].charge == 2
    refused(tmp_path, water("H2O 2-, charge=-4"), "'H2O 2-', but charge=-4")
    refused(tmp_path, water("dication, charge=4"), "'dication', but charge=4")


def test_formulas_that_fit_the_charge_are_read(tmp_path):
    (tmp_path / "ion.xyz").write_text("2\nOH- charge=-1, C-H bonds, 6-31+G*\nO 0 0 0\nH 0 0 0.97\n")
    assert molecules_from_file(tmp_path / "ion.xyz")[0].charge == -1
