"""Calculations in PySCF and PySCFAD: effective cores, and how good a density is."""

import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import gto, scf

import vpotjax as vp
from tests.molecules import g2, pyscf_mole
from vpotjax.interop.pyscf import density_report, harmonic_hessian, to_pyscf
from vpotjax.interop.pyscf_labels import reference_labels, uncoupled_polarizability
from vpotjax.models.matrix_model import baseline_fock


@pytest.fixture(scope="module")
def guess():
    """The density of the superposition of atomic potentials."""
    water = g2("H2O")
    basis, positions = vp.load_basis("sto-3g", water.numbers), jnp.asarray(water.positions)
    return water, vp.density_matrix(baseline_fock(basis, positions, "sap"), vp.overlap(basis, positions), 10)


def test_converged_density_needs_no_cycles():
    water = g2("H2O")
    mf = scf.RHF(pyscf_mole(water, "sto-3g")).set(conv_tol=1e-13).run()
    report = density_report(water, "sto-3g", mf.make_rdm1(), xc="hf")
    np.testing.assert_allclose(report.energy, mf.e_tot, rtol=0, atol=1e-9)  # PySCF's convergence
    assert abs(report.energy_error) < 1e-8
    assert report.cycles < report.default_cycles
    np.testing.assert_allclose(report.fock, mf.get_fock(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("xc", ["hf", "b3lyp"])
def test_pyscf_and_pyscfad_agree(guess, xc):
    pyscfad = pytest.importorskip("vpotjax.interop.pyscfad")
    water, density = guess
    report = density_report(water, "sto-3g", np.asarray(density), xc)
    assert report.energy_error > 1e-3  # the variational principle
    energy = pyscfad.energy_functional(water, "sto-3g", xc)(density)
    np.testing.assert_allclose(energy, report.energy, rtol=0, atol=1e-8)  # the grids of both programs
    np.testing.assert_allclose(pyscfad.rebuilt_fock(water, "sto-3g", density, xc), report.fock, rtol=0, atol=1e-8)


def test_bad_densities_are_named(guess):
    water, density = guess
    with pytest.raises(vp.InputError, match="electrons"):
        density_report(water, "sto-3g", 0.9 * np.asarray(density))
    with pytest.raises(vp.InputError, match="density has shape"):
        density_report(water, "sto-3g", np.eye(3))


@pytest.mark.parametrize("density", [np.full((7, 7), np.nan), np.triu(np.ones((7, 7))), np.eye(7, dtype=complex)])
def test_densities_that_are_none_are_named(density):
    with pytest.raises(vp.InputError, match=r"density (is not symmetric|has dtype complex128)"):
        density_report(g2("H2O"), "sto-3g", density)


def hydrogen_iodide(distance=3.04):
    return vp.Molecule(np.array([53, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]))


# From tables that PySCF has of its own, with cores of 28, 60, 10, 28, 18 and 28 electrons.
CORES = [
    ("def2-svp", "I"),
    ("def2-svp", "Au"),
    ("lanl2dz", "Cl"),
    ("lanl2dz", "Ag"),
    ("crenbl", "Br"),
    ("cc-pvtz-pp", "I"),
]


@pytest.mark.parametrize(("basis", "symbol"), CORES)
def test_effective_cores_are_those_of_pyscf(basis, symbol):
    """The potential's matrix in functions of l = 0 … 4, so that each of its terms counts."""
    charge = gto.charge(symbol) % 2  # a closed shell
    molecule = vp.Molecule(np.array([gto.charge(symbol)]), np.array([[0.1, 0.2, 0.3]]), charge)
    mine = to_pyscf(molecule, basis)
    probe = {"basis": [[l, [a, 1.0]] for l in range(5) for a in (0.3, 2.0)], "unit": "Bohr", "verbose": 0}
    atoms = list(zip(molecule.symbols, molecule.positions, strict=True))
    ours = gto.M(atom=atoms, ecp=mine._ecp, spin=None, **probe).intor("ECPscalar")
    expected = gto.M(atom=atoms, ecp={symbol: basis}, spin=None, **probe).intor("ECPscalar")
    assert np.abs(expected).max() > 0.1
    assert mine.atom_nelec_core(0) == gto.basis.load_ecp(basis, symbol)[0]
    # The tables' digits, 1e-8 of each term, times sums over a dozen terms.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-8)


def test_energy_with_an_effective_core_is_that_of_pyscf():
    molecule = hydrogen_iodide()
    own = gto.M(
        atom=list(zip(molecule.symbols, molecule.positions, strict=True)),
        basis="def2-svp",
        ecp={"I": "def2-svp"},
        unit="Bohr",
        verbose=0,
    )
    mf = scf.RHF(own).set(conv_tol=1e-12).run()
    # One table on both sides; PySCF's convergence.
    energies = [
        reference_labels(molecule, basis, "hf")["energy"]
        for basis in ("def2-svp", {"I": "def2-svp", 1: "def2-svp"}, {53: "def2-SVP", "H": "def2-svp"})
    ]
    np.testing.assert_allclose(energies, mf.e_tot, rtol=0, atol=1e-8)
    np.testing.assert_allclose(density_report(molecule, "def2-svp", mf.make_rdm1(), "hf").energy, mf.e_tot, atol=1e-8)


def test_pyscfad_knows_effective_cores():
    pyscfad = pytest.importorskip("vpotjax.interop.pyscfad")
    molecule = hydrogen_iodide()
    mf = scf.RHF(pyscf_mole(molecule, "def2-svp")).run()
    density = jnp.asarray(mf.make_rdm1())
    # The same integrals in both programs.
    energy = pyscfad.energy_functional(molecule, "def2-svp")(density)
    np.testing.assert_allclose(energy, mf.e_tot, rtol=0, atol=1e-8)
    fock = pyscfad.rebuilt_fock(molecule, "def2-svp", density)
    np.testing.assert_allclose(fock, mf.get_fock(dm=np.asarray(density)), rtol=0, atol=1e-8)


def test_hessian_with_an_effective_core():
    """Against finite differences of PySCF's forces, step 1e-3 bohr: the error of h² is 1e-6."""

    def force(distance):
        return scf.RHF(pyscf_mole(hydrogen_iodide(distance), "def2-svp")).set(conv_tol=1e-12).run().nuc_grad_method()

    hessian, masses = harmonic_hessian(hydrogen_iodide(), "def2-svp")
    ahead, behind = (force(3.04 + step).kernel() for step in (1e-3, -1e-3))
    np.testing.assert_allclose(hessian[1, :, 2], (ahead - behind) / 2e-3, rtol=0, atol=1e-5)
    assert masses.round().tolist() == [127.0, 1.0]


def test_polarizability_of_other_calculations_is_refused():
    oxygen = to_pyscf(vp.Molecule(np.array([8]), np.zeros((1, 3)), 0, 2), "sto-3g")
    unconverged = scf.RHF(pyscf_mole(g2("H2O"), "sto-3g")).set(max_cycle=1)
    unconverged.kernel()
    for mf in (unconverged, scf.ROHF(oxygen).run(), scf.UHF(oxygen).run()):
        with pytest.raises(vp.InputError, match="no converged closed shell"):
            uncoupled_polarizability(mf)


def test_open_shells_and_functionals_are_named():
    pyscfad = pytest.importorskip("vpotjax.interop.pyscfad")
    hydroxyl = vp.Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]]), spin=1)
    for function in (harmonic_hessian, pyscfad.energy_functional):
        with pytest.raises(vp.InputError, match="spin is 1"):
            function(hydroxyl, "sto-3g")
    for xc in ("b4lyp", ""):
        for function in (reference_labels, pyscfad.energy_functional):
            with pytest.raises(vp.InputError, match=f"xc is '{xc}'"):
                function(g2("H2O"), "sto-3g", xc)
    with pytest.raises(vp.InputError, match="xc is 'b3lyp-d3bj'; PySCFAD needs"):  # it would leave the dispersion out
        pyscfad.energy_functional(g2("H2O"), "sto-3g", "b3lyp-d3bj")


def test_charges_beyond_the_core_are_named():
    with pytest.raises(vp.InputError, match=r"charge=26 and spin=0 do not fit the 0|charge=30 and spin=0 do not fit"):
        to_pyscf(vp.Molecule(np.array([53, 1]), hydrogen_iodide().positions, 30), "def2-svp")
