"""Labels by PySCF: each quantity against finite fields, finite differences, PySCF's own analysis or this package."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import dft, gto, scf

import vpotjax as vp
from tests.molecules import g2
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.populations import lowdin_charges, mayer_bond_orders, mulliken_charges
from vpotjax.integrals.multipole import second_moment_integrals
from vpotjax.interop.pyscf import mean_field
from vpotjax.interop.pyscf_labels import QUANTITIES, method_description, reference_labels
from vpotjax.molecule import Molecule

WATER = Molecule(g2("H2O").numbers, g2("H2O").positions + 0.1)
RADICAL = Molecule(np.array([7, 1, 1]), np.array([[0.0, 0.1, 0.0], [0.0, 1.6, 1.2], [0.0, -1.4, 1.2]]), spin=1)
SHELLS = [(WATER, False), (WATER, True), (RADICAL, False)]


def dipole_in_field(molecule, xc, field, unrestricted):
    mf = mean_field(molecule, "6-31g", xc, unrestricted or bool(molecule.spin))
    core = mf.get_hcore() + np.einsum("x,xpq->pq", field, mf.mol.intor_symmetric("int1e_r"))
    mf.get_hcore = lambda *_: core
    mf.conv_tol = 1e-12
    mf.conv_tol_grad = 1e-8
    mf.kernel()
    return mf.dip_moment(unit="AU", verbose=0)


@pytest.mark.parametrize(("molecule", "unrestricted"), SHELLS)
@pytest.mark.parametrize("xc", ["hf", "pbe0"])
def test_coupled_polarizability_is_the_derivative_of_the_dipole(molecule, unrestricted, xc):
    labels = reference_labels(
        molecule, "6-31g", xc, quantities=["coupled_polarizability", "polarizability"], unrestricted=unrestricted
    )
    numeric = np.stack(
        [
            (dipole_in_field(molecule, xc, h, unrestricted) - dipole_in_field(molecule, xc, -h, unrestricted)) / 2e-3
            for h in 1e-3 * np.eye(3)
        ]
    )
    np.testing.assert_allclose(labels["coupled_polarizability"], numeric, atol=2e-4 * np.abs(numeric).max())
    if xc == "hf":  # exchange of the response outweighs its Coulomb part
        assert np.trace(labels["polarizability"]) < np.trace(labels["coupled_polarizability"])


@pytest.mark.parametrize(("molecule", "unrestricted"), SHELLS)
def test_observables_are_those_of_this_package(molecule, unrestricted):
    keys = ["mo_energies", "dipole", "quadrupole", "polarizability", "mulliken_charges", "lowdin_charges"]
    keys += ["mayer_bond_orders", "fock", "overlap", "density", "kinetic", "core_hamiltonian", "orbitals"]
    labels = reference_labels(molecule, "6-31g", "hf", quantities=keys, unrestricted=unrestricted)
    basis, positions = vp.load_basis("6-31g", molecule.numbers), jnp.asarray(molecule.positions)
    density, fock, overlap = (jnp.asarray(labels[key]) for key in ("density", "fock", "overlap"))
    charges, position = basis.nuclear_charges, vp.position_integrals(basis, positions, jnp.zeros(3))
    second = second_moment_integrals(basis, positions, jnp.zeros(3))
    electrons = molecule.nelec(basis)
    spins = (electrons + molecule.spin) // 2, (electrons - molecule.spin) // 2
    nelec = electrons if density.ndim == 2 else np.array(spins)
    expected = {
        "dipole": vp.dipole(density, position, positions, charges),
        "quadrupole": quadrupole(density, second, positions, charges),
        "mulliken_charges": mulliken_charges(density, overlap, basis),
        "lowdin_charges": lowdin_charges(density, overlap, basis),
        "mayer_bond_orders": mayer_bond_orders(density, overlap, basis),
        "kinetic": vp.kinetic(basis, positions),
        "core_hamiltonian": vp.kinetic(basis, positions) + vp.external_potential(basis, positions),
        "polarizability": vp.polarizability(fock, overlap, position, nelec),
        "density": vp.density_matrix(fock, overlap, nelec),
    }
    for key, value in expected.items():
        np.testing.assert_allclose(labels[key], value, atol=2e-5, err_msg=key)
    levels = np.einsum("...pi,...pq,...qi->...i", labels["orbitals"], labels["fock"], labels["orbitals"])
    np.testing.assert_allclose(labels["mo_energies"], levels, atol=1e-10)


@pytest.mark.parametrize("density_fit", [False, True])
@pytest.mark.parametrize(("molecule", "unrestricted"), SHELLS)
def test_forces_are_the_slope_of_the_energy(molecule, unrestricted, density_fit):
    options = {"unrestricted": unrestricted, "density_fit": density_fit}
    forces = reference_labels(molecule, "6-31g", "hf", quantities=["forces"], **options)["forces"]
    energies = []
    for step in (1e-3, -1e-3):
        moved = np.array(molecule.positions)
        moved[1, 2] += step
        own = Molecule(molecule.numbers, moved, molecule.charge, molecule.spin)
        energies.append(reference_labels(own, "6-31g", "hf", **options)["energy"])
    assert forces[1, 2] == pytest.approx((energies[1] - energies[0]) / 2e-3, abs=1e-6)
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-6)


def test_iterations_are_pairs_that_belong_together():
    """F of every density, rebuilt; the last is the converged one."""
    labels = reference_labels(WATER, "sto-3g", "hf", quantities=["scf_densities", "scf_focks", "fock", "energy"])
    assert len(labels["scf_densities"]) > 3
    mf = mean_field(WATER, "sto-3g", "hf")
    for density, fock in zip(labels["scf_densities"], labels["scf_focks"], strict=True):
        np.testing.assert_allclose(mf.get_fock(dm=density), fock, atol=1e-8)
    np.testing.assert_allclose(labels["scf_focks"][-1], labels["fock"], atol=1e-6)
    mol = gto.M(atom=list(zip("OHH", WATER.positions.tolist(), strict=True)), unit="Bohr", basis="sto-3g", verbose=0)
    assert labels["energy"] == pytest.approx(scf.RHF(mol).kernel(), abs=1e-7)


def test_descriptions_tell_functionals_and_bases_apart():
    """By the numbers of libxc: 402 is B3LYP with VWN-RPA, of the other one PySCF gives the parts."""
    one = method_description("6-31g", "b3lyp", [1, 8])
    assert json.loads(json.dumps(one)) == one
    assert one["functional"] == [[402, 1.0]]
    assert one["exact_exchange"] == pytest.approx(0.2)
    other = method_description("6-31g", "b3lyp5", [8, 1])
    assert [7, 0.19] in other["functional"]  # VWN5
    assert other["exact_exchange"] == one["exact_exchange"]
    carbon = method_description("6-31g", "hf", [6])
    assert "functional" not in carbon
    assert one["basis_functions"].keys() == {"1", "8"}
    assert len(carbon["basis_functions"]["6"]["shells"]) == 5  # 3s 2p
    assert method_description("def2-svp", "hf", [53])["basis_functions"]["53"]["core_electrons"] == 28


def test_quantities_that_are_none():
    with pytest.raises(vp.InputError, match="quantities has 'gap'; give some of energy, mo_energies"):
        reference_labels(WATER, "sto-3g", quantities=["gap"])
    with pytest.raises(vp.InputError, match="xc is 'nonsense'"):
        reference_labels(WATER, "sto-3g", "nonsense")
    assert {"energy", "fock", "forces"} <= set(QUANTITIES)


@pytest.mark.parametrize(("basis", "xc"), [("def2-svp", "pbe0"), ("6-31g", "pbe"), ("cc-pvdz", "hf")])
def test_density_fitting_is_that_of_pyscf_for_the_name_of_the_basis(basis, xc):
    """PySCF takes other auxiliary functions where it sees exponents in place of a name: 4e-4 hartree in levels."""
    labels = reference_labels(WATER, basis, xc, density_fit=True, quantities=["energy", "mo_energies"])
    mol = gto.M(atom=list(zip("OHH", WATER.positions.tolist(), strict=True)), unit="Bohr", basis=basis, verbose=0)
    mf = (scf.RHF(mol) if xc == "hf" else dft.RKS(mol, xc=xc)).density_fit()
    mf.conv_tol = 1e-10
    assert mf.kernel() == pytest.approx(labels["energy"], abs=2e-7)
    np.testing.assert_allclose(mf.mo_energy, labels["mo_energies"], atol=1e-5)
