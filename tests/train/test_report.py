"""What 'vpotjax predict' prints, and that what it cannot give is named with the reason."""

import numpy as np
import pytest

from vpotjax.model import Observables
from vpotjax.molecule import Molecule
from vpotjax.train.report import prediction_text
from vpotjax.units import HARTREE_TO_EV

PAIR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]])


def observables(levels, gap=np.nan, dipole=(0.0, 0.0, 0.7), alpha=2.0):
    return Observables(np.array(levels), np.zeros((2, 2)), np.array(gap), np.array(dipole), alpha * np.eye(3))


def test_a_closed_shell_has_all_lines():
    text = prediction_text(Molecule(np.array([1, 1]), PAIR), 2, observables([-0.5, 0.25, np.inf], 0.75))
    assert f"gap {0.75 * HARTREE_TO_EV:.3f} eV" in text
    assert f"LUMO     {0.25 * HARTREE_TO_EV:10.3f}" in text
    assert "  dipole (e·bohr)" in text
    assert "isotropic 2.000" in text
    assert "inf" not in text


def test_dipole_of_an_ion_is_about_the_centre_of_nuclear_charge():
    """HeH⁺ with both electrons on He: μ = 1.8 about the origin at He, 1.8 − 1.8/3 = 1.2 about the centre."""
    for shift in (0.0, 11.0):
        ion = Molecule(np.array([2, 1]), PAIR + shift, charge=1)
        about_origin = np.array([0.0, 0.0, 1.8]) + shift  # of a charge of one
        text = prediction_text(ion, 2, observables([-0.5, 0.25], 0.75, about_origin))
        assert "dipole about the centre of nuclear charge (e·bohr)" in text
        assert "norm 1.2000" in text


@pytest.mark.parametrize(
    ("nelec", "values", "charge", "reason"),
    [
        (0, ([-0.5, 0.25],), 2, "no gap: without electrons"),
        (2, ([-0.5, np.inf],), 0, "no gap: no virtual orbital in this basis"),
        (2, ([-0.5, -0.5], 0.0, [np.nan] * 3, np.nan), 0, "undefined, HOMO and LUMO have the same energy"),
        (2, ([np.nan, np.nan],), 0, "no prediction: the Fock matrix is not finite"),
    ],
)
def test_what_is_missing_has_a_reason(nelec, values, charge, reason):
    text = prediction_text(Molecule(np.array([1, 1]), PAIR, charge), nelec, observables(*values))
    assert reason in text
    assert "nan" not in text
