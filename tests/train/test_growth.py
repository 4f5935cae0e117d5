"""Labels of larger molecules for a model's uncertainties: what is refused, before the weights are looked at."""

import dataclasses

import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.io.dataset import Dataset
from vpotjax.io.sample import Sample
from vpotjax.models import Calibration, Domain, Ensemble, MatrixModel
from vpotjax.nn import Gated
from vpotjax.train import calibrate
from vpotjax.train.config import Training

ATTRIBUTES = {"xc": "b3lyp", "small_basis": "sto-3g", "large_basis": "def2-tzvp"}
SETTINGS = Training(network=Gated(2, (4,)), basis="sto-3g", power_order=1).settings((1, 6, 8), "sto-3g")
CALIBRATION = {"dipole": Calibration(*map(np.asarray, (1.0, 0.1, 0.0)))}
MODEL = Ensemble(1, MatrixModel(SETTINGS, None, None, None, None), CALIBRATION, Domain((0,), 2, 2))
NAMES = ("C3H8", "2-butyne", "C3H4_C2v", "trans-butane", "isobutane")


def dataset(molecules, split="train"):
    labels = {"def2-tzvp": {"dipole": np.zeros(3)}, "sto-3g": {}}
    return Dataset([Sample(name, split, m, labels) for name, m in molecules.items()], ATTRIBUTES)


FIVE = {name: g2(name) for name in NAMES}
ION = vp.Molecule(FIVE["C3H8"].numbers, FIVE["C3H8"].positions, charge=2)
NO_ORBITALS = dataclasses.replace(MODEL.model, settings=dataclasses.replace(SETTINGS, target="density"))


@pytest.mark.parametrize(
    ("message", "model", "molecules", "options"),
    [
        ("no uncertainties to grow", dataclasses.replace(MODEL, calibration={}), FIVE, {}),
        ("does not say how many heavy atoms", dataclasses.replace(MODEL, domain=Domain((0,))), FIVE, {}),
        ("target is 'density'", dataclasses.replace(MODEL, model=NO_ORBITALS), FIVE, {}),
        ("data has 0 molecules of more than 2 heavy .* splits test; give", MODEL, FIVE, {"splits": ["test"]}),
        ("data has 1 molecules of more than 2 .* at least 5", MODEL, {"C3H8": g2("C3H8"), "C2H6": g2("C2H6")}, {}),
        (r"the elements \[7\]", MODEL, FIVE | {"C3H9N": g2("C3H9N")}, {}),
        ("'ion' has the charge 2, which no training molecule had", MODEL, FIVE | {"ion": ION}, {}),
    ],
)
def test_what_shows_no_growth_is_refused(message, model, molecules, options):
    with pytest.raises(vp.InputError, match=message) as error:
        calibrate(model, dataset(molecules), ATTRIBUTES, **options)
    assert "\n" not in str(error.value)


def test_labels_of_another_method_are_refused():
    with pytest.raises(vp.InputError, match="xc differs"):
        calibrate(MODEL, dataset(FIVE), ATTRIBUTES | {"xc": "pbe"})
