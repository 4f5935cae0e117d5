"""Bonds: of molecules whose formulas are known, against ASE's lists of neighbours."""

import numpy as np
import pytest
from ase.build import molecule
from ase.neighborlist import neighbor_list

import vpotjax as vp
from vpotjax.bonds import HYDROGEN, TOLERANCE, bonded, neighbours


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CH3OH", ["C(H,H,H,O)", *["H(C)"] * 3, "H(O)", "O(C,H)"]),
        ("CO2", ["C(O,O)", "O(C)", "O(C)"]),
        ("bicyclobutane", [*["C(C,C,C,H)"] * 2, *["C(C,C,H,H)"] * 2, *["H(C)"] * 6]),
        ("SiH4", [*["H(Si)"] * 4, "Si(H,H,H,H)"]),
        ("H2", ["H(H)"] * 2),
        ("LiF", ["F(Li)", "Li(F)"]),
    ],
)
def test_neighbours_are_those_of_the_formula(name, expected):
    assert sorted(neighbours(vp.Molecule.from_ase(molecule(name)))) == expected


def test_bonds_are_those_of_ase():
    from ase.data import covalent_radii

    atoms = molecule("C6H6")
    cutoffs = TOLERANCE * np.where(atoms.numbers == 1, HYDROGEN, covalent_radii[atoms.numbers])
    first, second = neighbor_list("ij", atoms, list(cutoffs))
    expected = np.zeros((12, 12), bool)
    expected[first, second] = True
    own = vp.Molecule.from_ase(atoms)
    np.testing.assert_array_equal(bonded(own.numbers, own.positions), expected)
