"""What 'vpotjax predict' prints, and that what it cannot give is named with the reason."""

import dataclasses

import numpy as np
import pytest

from vpotjax._checks import InputError
from vpotjax.electronic.observables import Reference
from vpotjax.models import Calibration, Ensemble
from vpotjax.molecule import Molecule
from vpotjax.train.evaluate import _uncertainty_norm
from vpotjax.train.predict import MoleculePrediction
from vpotjax.train.report import VALIDATION_ERRORS, expected_text, idle_text, prediction_text
from vpotjax.units import HARTREE_TO_EV

SINGLE = Ensemble(1, None)  # without a calibration
PAIR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]])


def predicted(molecule, levels, gap=np.nan, dipole=(0.0, 0.0, 0.7), alpha=2.0, uncertainties=None, warnings=()):
    values = {"mo_energies": np.array(levels), "homo_lumo_gap": np.array(gap), "dipole": np.array(dipole)}
    values["polarizability"] = alpha * np.eye(3)
    return MoleculePrediction("it", molecule, values, uncertainties or {}, list(warnings))


def test_a_closed_shell_has_all_lines():
    uncertainties = {
        "mo_energies": np.full(2, 0.01),
        "homo_lumo_gap": np.array(0.02),
        "dipole": np.array([0, 0.3, 0.4]),
        "polarizability": 0.1 * np.eye(3),
    }
    molecule, doubt = Molecule(np.array([1, 1]), PAIR), "pair H0–H1 (0.95 Å) outside the training set's range"
    text = prediction_text(predicted(molecule, [-0.5, 0.25], 0.75, uncertainties=uncertainties, warnings=[doubt]), 2)
    assert f"gap {0.75 * HARTREE_TO_EV:.3f} ± {0.02 * HARTREE_TO_EV:.3g} eV" in text
    assert f"LUMO     {0.25 * HARTREE_TO_EV:10.3f} ± {0.01 * HARTREE_TO_EV:.3f}" in text
    assert "norm 0.7000 ± 0.5 " in text
    assert f"WARNING: {doubt}" in text
    assert "  dipole (e·bohr)" in text
    assert "isotropic 2.000 ± 0.1\n" in text
    assert "inf" not in text


def test_dipole_of_an_ion_is_about_the_centre_of_nuclear_charge():
    """HeH⁺ with both electrons on He: μ = 1.8 about the origin at He, 1.8 − 1.8/3 = 1.2 about the centre."""
    for shift in (0.0, 11.0):
        ion = Molecule(np.array([2, 1]), PAIR + shift, charge=1)
        about_origin = np.array([0.0, 0.0, 1.8]) + shift  # of a charge of one
        text = prediction_text(predicted(ion, [-0.5, 0.25], 0.75, about_origin), 2)
        assert "dipole about the centre of nuclear charge (e·bohr)" in text
        assert "norm 1.2000" in text


@pytest.mark.parametrize(
    ("nelec", "values", "charge", "reason"),
    [
        (0, ([-0.5, 0.25],), 2, "no gap: without electrons"),
        (2, ([-0.5],), 0, "no gap: no virtual orbital in this basis"),
        (2, ([-0.5, -0.5], 0.0, [np.nan] * 3, np.nan), 0, "undefined, HOMO and LUMO have the same energy"),
        (2, ([np.nan, np.nan],), 0, "no prediction: the Fock matrix is not finite"),
    ],
)
def test_what_is_missing_has_a_reason(nelec, values, charge, reason):
    text = prediction_text(predicted(Molecule(np.array([1, 1]), PAIR, charge), *values), nelec)
    assert reason in text
    assert "nan" not in text


def test_networks_that_stay_where_they_started_are_told():
    losses = {0: (2.0, 3.0, 2.5), 1: (2.0, 1.0, 1.5)}
    rows = [{"network": n, "step": s, "validation_loss": x} for n, own in losses.items() for s, x in enumerate(own)]
    assert (idle_text(rows) or "").startswith("1 of 2 networks did not lower the validation loss")
    assert idle_text(rows[3:]) is None


@pytest.mark.parametrize(("name", "expected"), [("mo_energies", np.hypot(0.01, 0.02)), ("occupied", 0.01)])
def test_uncertainties_are_of_what_is_compared(name, expected):
    """Not of the level that labels lack, nor of padding."""
    wanted = Reference({"mo_energies": np.array([-0.5, 0.1, 0.0, 0.0])}, np.array([True, True, False, False]), 2, 2)
    found = _uncertainty_norm(name, np.array([-0.4, 0.2, 0.3, np.inf]), np.array([0.01, 0.02, 5.0, 0.0]), wanted)
    np.testing.assert_allclose(found, HARTREE_TO_EV * expected / 2, rtol=1e-12)


@pytest.mark.parametrize("content", ["", "model,dipole\n", "model,dipole\ntrained,large\n", "model,dipole\na,1\nb,2\n"])
def test_errors_of_a_run_that_cannot_be_read_are_one_line(tmp_path, content):
    assert expected_text(tmp_path, SINGLE) is None
    (tmp_path / VALIDATION_ERRORS).write_text(content)
    with pytest.raises(InputError, match=r"is damaged .*; delete it, or train again"):
        expected_text(tmp_path, SINGLE)


def test_what_uncertainties_are_is_said(tmp_path):
    (tmp_path / VALIDATION_ERRORS).write_text("model,dipole,homo_lumo_gap\ntrained,0.01,0.2\n")
    several = dataclasses.replace(SINGLE, members=4)
    known = dataclasses.replace(SINGLE, calibration={"dipole": Calibration(np.ones(()), np.ones(()))})
    one, raw, calibrated = (expected_text(tmp_path, model) or "" for model in (SINGLE, several, known))
    for text in (one, raw, calibrated):
        assert "gap 0.2 eV, μ 0.01 e·bohr per atom." in text
    assert one.endswith("per atom.")
    assert "the spread of its networks, to which" in raw
    assert "one standard deviation of the error" in calibrated
