"""The calculator for ASE, and starting densities for PySCF, from a model with random weights."""

import ase
import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from pyscf import gto, scf

import vpotjax as vp
from tests.models.random_models import SETTINGS, random_model
from vpotjax.interop.ase import VpotjaxCalculator
from vpotjax.interop.pyscf import initial_guess, to_pyscf
from vpotjax.models import Ensemble
from vpotjax.train.predict import predictions
from vpotjax.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV


@pytest.fixture(scope="module")
def model():
    return Ensemble.of([random_model(SETTINGS)])


def test_results_are_the_predictions_in_the_units_of_ase(model):
    atoms = ase_molecule("H2O")
    atoms.calc = VpotjaxCalculator(model)
    (expected,) = predictions(model, [("water", vp.Molecule.from_ase(atoms))])
    np.testing.assert_allclose(atoms.get_dipole_moment(), expected.values["dipole"] * BOHR_TO_ANGSTROM, atol=1e-8)
    np.testing.assert_allclose(atoms.get_charges(), expected.values["lowdin_charges"], atol=1e-8)
    results = atoms.calc.results
    np.testing.assert_allclose(
        results["polarizability"], expected.values["polarizability"] * BOHR_TO_ANGSTROM**3, atol=1e-7
    )
    np.testing.assert_allclose(results["mo_energies"], expected.values["mo_energies"] * HARTREE_TO_EV, atol=1e-7)
    assert results["homo_lumo_gap"] == pytest.approx(float(expected.values["homo_lumo_gap"]) * HARTREE_TO_EV)
    assert (results["excess"] > 1) == bool(expected.warnings)
    before = atoms.get_dipole_moment()
    atoms.positions[1, 2] += 0.1
    assert np.abs(atoms.get_dipole_moment() - before).max() > 1e-6
    with pytest.raises(NotImplementedError):
        atoms.get_potential_energy()


def test_ions_and_what_the_model_cannot(model):
    hydroxide = ase.Atoms("OH", [(0, 0, 0), (0, 0, 0.97)], info={"charge": -1})
    hydroxide.calc = VpotjaxCalculator(model)
    assert hydroxide.get_charges().sum() == pytest.approx(-1)
    (text,) = hydroxide.calc.results["warnings"]
    assert text.startswith("charge -1, training molecules: not known")
    assert np.isinf(hydroxide.calc.results["excess"])  # the model does not know which charges it was trained on
    water = ase_molecule("H2O")
    water.calc = VpotjaxCalculator(model)
    assert water.get_charges().sum() == pytest.approx(0, abs=1e-8)
    assert np.isfinite(water.calc.results["excess"])
    assert water.calc.results["warnings"] == []
    water.info["charge"] = 2
    assert water.get_charges().sum() == pytest.approx(2)
    for atoms, message in ((ase_molecule("SiH4"), "elements"), (ase_molecule("OH"), "spin 1")):
        atoms.calc = VpotjaxCalculator(model)
        with pytest.raises(vp.InputError, match=message):
            atoms.get_charges()


def test_starting_densities(model):
    """In the model's basis the predicted one; in another one its projection, with as many electrons."""
    water, methane = (vp.Molecule.from_ase(ase_molecule(name)) for name in ("H2O", "CH4"))
    initial_guess(model, to_pyscf(methane, model.settings.orbital_basis))  # whose program serves water, too
    own = to_pyscf(water, model.settings.orbital_basis)
    density = initial_guess(model, own)
    overlap = own.intor("int1e_ovlp")
    assert np.trace(density @ overlap) == pytest.approx(10)
    np.testing.assert_allclose(density @ overlap @ density, 2 * density, atol=1e-5)
    larger = to_pyscf(water, "def2-tzvp")
    projected = initial_guess(model, larger)
    assert np.trace(projected @ larger.intor("int1e_ovlp")) == pytest.approx(10, abs=1e-6)
    mf = scf.RHF(larger)
    assert mf.kernel(dm0=projected) == pytest.approx(scf.RHF(larger).kernel(), abs=1e-7)
    with pytest.raises(vp.InputError, match="spin 1"):
        initial_guess(model, gto.M(atom="O 0 0 0; H 0 0 0.97", spin=1, basis="sto-3g", verbose=0))
