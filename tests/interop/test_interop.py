"""How good a density is, by PySCF and by PySCFAD."""

import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import scf

import vpotjax as vp
from tests.molecules import g2, pyscf_mole
from vpotjax.interop.pyscf import density_report
from vpotjax.model import baseline_fock


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
