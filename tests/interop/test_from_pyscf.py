"""Bases that are taken from PySCF: their functions and matrices against PySCF's own; what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import gto
from pyscf.gto import mole as gto_mole

import vpotjax as vp
from vpotjax._checks import InputError
from vpotjax.integrals.ao_values import ao_values
from vpotjax.interop.pyscf import from_pyscf, to_pyscf

WATER = "O 0 0.1 0.2; H 0.7 0 -0.5; H -0.8 0.2 -0.3"


def turned_round(mol):
    """Shells in an order that no table has: those of each atom from the last to the first."""
    order = sorted(range(mol.nbas), key=lambda i: (mol.bas_atom(i), -i))
    mol._bas = mol._bas[order]
    return mol


def without_norm():
    """Coefficients that PySCF does not normalise, one of them negative."""
    keep = gto_mole.NORMALIZE_GTO
    gto_mole.NORMALIZE_GTO = False
    try:
        shells = [[0, [3.0, 0.7, 0.1], [0.5, 0.8, -2.0]], [1, [0.9, -1.7]], [2, [0.8, 0.3]]]
        return gto.M(atom="O 0 0 0; H 0 0.2 1.1; H 1 0 -0.1", basis={"O": shells, "H": "sto-3g"}, verbose=0)
    finally:
        gto_mole.NORMALIZE_GTO = keep


MOLES = {
    "optimised contractions": lambda: gto.M(atom=WATER, basis="cc-pvtz", verbose=0),
    "general contractions": lambda: gto.M(atom=WATER, basis="ano@4s3p2d", verbose=0),
    "a basis per atom": lambda: gto.M(
        atom="O 0 0.1 0.2; H1 0.7 0 -0.5; H@2 -0.8 0.2 -0.3",
        basis={"O": "6-31g**", "H1": "sto-3g", "H@2": "def2-tzvp"},
        verbose=0,
    ),
    "cartesian": lambda: gto.M(atom=WATER, basis={"O": "cc-pvtz", "H": "6-311g**"}, cart=True, verbose=0),
    "ghosts, no f": lambda: gto.M(
        atom="O 0 0.1 0.2; ghost-O 0 0 3; H 0.7 0 -0.5; X-H 2 0.4 0.1; H -0.8 0.2 -0.3; ghost 4 4 4",
        basis={"O": "6-31g*", "H": "sto-3g", "ghost": [[2, [0.6, 1.0]]]},
        verbose=0,
    ),
    "effective cores": lambda: gto.M(
        atom="I 0 0 0.1; Cl 0.2 0.1 2.3; I 2 2 2", basis="def2-svp", ecp="def2-svp", spin=1, verbose=0
    ),
    "some effective cores": lambda: gto.M(
        atom="I1 0 0 0.1; I2 0.2 0.1 2.7",
        basis={"I1": "def2-svp", "I2": [[0, [9.0, 1.0]], [1, [0.5, 1.0]]]},
        ecp={"I1": "def2-svp"},
        verbose=0,
    ),
    "charge, spin, bohr": lambda: gto.M(
        atom="N 0 0 0.1; O 0.1 0.2 2.2", basis="aug-cc-pvdz", charge=1, spin=2, unit="Bohr", verbose=0
    ),
    "an atom without functions": lambda: gto.M(atom="Li 0 0 0; H 0 0.1 1.6", basis={"H": "sto-3g"}, verbose=0),
    "no s functions": lambda: gto.M(
        atom="He 0 0 0; He 0.1 1 1", basis={"He": [[2, [0.7, 1.0]], [5, [0.9, 1.0]]]}, verbose=0
    ),
    "cartesian, no s functions": lambda: gto.M(
        atom="He 0 0 0; He 0.1 1 1", basis={"He": [[1, [0.7, 1.0]], [2, [3.0, 0.4], [0.9, 1.0]]]}, cart=True, verbose=0
    ),
    "unsorted shells": lambda: turned_round(gto.M(atom=WATER, basis="def2-svp", verbose=0)),
    "functions without norm": without_norm,
    "joined": lambda: gto.conc_mol(
        gto.M(atom="Br 0 0 0; H 0 0.3 1.4", basis="lanl2dz", ecp={"Br": "lanl2dz"}, verbose=0),
        gto.M(atom="Ne 3 0.1 0.4", basis="cc-pvdz", verbose=0),
    ),
    "symmetry": lambda: gto.M(atom="O 1 1 1; H 1.5 1.5 1; H 0.5 1.5 1", basis="6-31g", symmetry=True, verbose=0),
    "repeated exponents": lambda: gto.M(
        atom="He 0 0 0; He 0.1 1 1", basis={"He": [[0, [0.7, 1.0], [0.7, 0.5]], [0, [0.7, 1.0], [2.0, 1.0]]]}, verbose=0
    ),
}


@pytest.mark.parametrize("name", MOLES)
def test_functions_are_those_of_pyscf(name):
    mol = MOLES[name]()
    molecule, basis = from_pyscf(mol)
    points = (mol.atom_coords()[:, None] + np.random.default_rng(0).uniform(-1, 1, (20, 3))).reshape(-1, 3)
    expected = mol.eval_gto("GTOval_cart" if mol.cart else "GTOval_sph", points)
    assert (np.abs(expected).max(axis=0) > 1e-3).all()
    # float64: the same numbers, summed in another order; PySCF leaves out contributions below about 1e-13.
    np.testing.assert_allclose(ao_values(basis, molecule.positions, points), expected, rtol=1e-9, atol=1e-12)
    assert basis.nuclear_charges.tolist() == mol.atom_charges().tolist()
    assert molecule.nelec(basis) == mol.nelectron
    assert (molecule.charge, molecule.spin) == (mol.charge, mol.spin)
    np.testing.assert_array_equal(molecule.positions, mol.atom_coords())
    assert basis.atom_ao_slices().tolist() == mol.aoslice_by_atom()[:, 2:].tolist()


def many_kinds():
    """Ghosts, an effective core, unsorted shells, functions without norm, a basis per atom, in one Mole."""
    mol = MOLES["ghosts, no f"]()
    for name in ("an atom without functions", "some effective cores", "functions without norm"):
        other = MOLES[name]()
        other.set_geom_(other.atom_coords() + mol.atom_coords().max(axis=0) + 1.0, unit="Bohr")
        mol = gto.conc_mol(mol, other)
    return turned_round(mol)


@pytest.mark.parametrize("mole", [many_kinds, MOLES["cartesian, no s functions"]])
def test_matrices_are_those_of_pyscf(mole):
    mol = mole()
    molecule, basis = from_pyscf(mol)
    positions = jnp.asarray(molecule.positions)
    ours = {
        "int1e_ovlp": vp.overlap(basis, positions),
        "int1e_kin": vp.kinetic(basis, positions),
        "int1e_nuc": vp.external_potential(basis, positions),
        "int1e_r": vp.position_integrals(basis, positions, jnp.zeros(3)),
    }
    for operator, matrix in ours.items():
        expected = mol.intor(operator)
        assert np.abs(expected).max() > 0.1
        # float64 sums over primitives; the largest elements are of order 1e3.
        np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-10, err_msg=operator)


def test_a_ghost_may_stand_on_a_nucleus_and_screens_nothing():
    mol = gto.M(atom="H 0 0 0; X-H 0 0 0; H 0 0 0.8", basis={"H": "sto-3g", "X-H": [[1, [0.7, 1.0]]]}, verbose=0)
    molecule, basis = from_pyscf(mol)
    assert molecule.numbers.tolist() == [1, 0, 1]
    assert np.abs(basis.screening_charges).max(axis=1).astype(bool).tolist() == [True, False, True]
    # Rounding of sums over a few primitives.
    np.testing.assert_allclose(vp.overlap(basis, molecule.positions), mol.intor("int1e_ovlp"), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shells", [{}, {"X": [[1, [0.7, 1.0]]]}])
def test_round_trip_with_a_place_without_nucleus(shells):
    molecule = vp.Molecule(np.array([0, 1, 1]), np.diag([1.0, 2.0, 3.0]))
    table = {"H": "sto-3g"} | shells
    again, basis = from_pyscf(to_pyscf(molecule, table))
    ours = vp.load_basis(table, molecule.numbers)
    assert again.numbers.tolist() == [0, 1, 1]
    assert basis.ao_labels() == ours.ao_labels()
    values = [ao_values(b, molecule.positions, molecule.positions + 0.3) for b in (basis, ours)]
    np.testing.assert_allclose(*values, rtol=0, atol=1e-14)  # a rounding in the normalisation


def with_kappa():
    return gto.M(atom="He", basis={"He": [[1, -2, [0.7, 1.0]]]}, verbose=0)


def interleaved():
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    mol._bas = mol._bas[::-1]
    return mol


def other_charge():
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    mol._atm[0, gto_mole.CHARGE_OF] = 7
    return mol


def other_electrons():
    mol = gto.M(atom=WATER, basis="sto-3g", verbose=0)
    mol.nelectron = 8
    return mol


def cell():
    from pyscf.pbc import gto as periodic

    return periodic.M(atom="He 0 0 0", basis=[[0, [1.0, 1.0]]], a=np.eye(3) * 4, verbose=0)


@pytest.mark.parametrize(
    ("mole", "message"),
    [
        (lambda: gto.Mole(atom="He"), r"mol is no built molecule \(Mole\); give a pyscf.gto.Mole, after its build"),
        (lambda: "He 0 0 0", r"mol is no built molecule \(str\)"),
        (cell, r"mol is periodic \(Cell\)"),
        (lambda: gto.M(atom="He", basis={"He": [[6, [1.0, 1.0]]]}, verbose=0), "shell 0 of mol, on atom 0, has l = 6"),
        (lambda: gto.M(atom=WATER, basis="sto-3g", nucmod="G", verbose=0), r"atom 0 \(O\) of mol .* finite size"),
        (lambda: gto.M(atom="O", basis="gth-szv", pseudo="gth-pade", verbose=0), r"atom 0 \(O\) of mol has a GTH"),
        (lambda: gto.mole.fakemol_for_charges(np.zeros((1, 3))), "mol is no built molecule"),
        (other_charge, r"atom 0 \(O\) of mol has the nuclear charge 7, not its element's"),
        (other_electrons, "mol has 8 electrons, but its nuclei and charge=0 make 10"),
        (with_kappa, r"shell 0 of mol has kappa = -2 \(a spinor\)"),
        (interleaved, r"mol has shells on the atoms \[2, 1, 0, 0, 0\], in this order; sort them"),
    ],
)
def test_what_cannot_be_represented_is_named(mole, message):
    with pytest.raises(InputError, match=message) as caught:
        from_pyscf(mole())
    assert "\n" not in str(caught.value)
