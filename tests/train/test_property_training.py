"""Models of properties by the command that trains models of F: folder, prediction, evaluation, resume, refusals."""

import csv
import dataclasses
import functools
import json

import ase.build
import ase.io
import jax
import numpy as np
import pytest

import vpotjax as vp
from tests.train.test_pipeline import Silent
from vpotjax.cli import main
from vpotjax.interop.ase import VpotjaxCalculator
from vpotjax.interop.pyscf import initial_guess, to_pyscf
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.model import load_model
from vpotjax.nn import Gated, Linear
from vpotjax.train.config import Training
from vpotjax.train.descent import Descent
from vpotjax.train.pipeline import train_run
from vpotjax.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

TARGETS = ["dipole", *(pytest.param(name, marks=pytest.mark.slow) for name in ("energy", "polarizability"))]
TRAIN = ("H2O", "H2CO", "CH3OH", "HCOOH", "H2O2")
TINY = Training(
    network=Gated(2, (4,)),
    members=2,
    basis="6-31g",
    power_order=1,
    descent=Descent(steps=4, batch_size=4, evaluations=2),
    buckets=1,
)


class Ending(Silent):
    """As a user who presses Ctrl-C after the first evaluation of the second network."""

    def progress(self, row, members):
        if row["network"] == 1 and row["step"] == 2:
            raise KeyboardInterrupt


@functools.cache
def data():
    full = read_dataset(embedded_dataset_path())
    chosen = []
    for name in TRAIN:
        own = [s for s in full.samples if s.name == name]
        assert own
        parts = ["train"] * (len(own) - 2) + ["validation", "test"] if len(own) > 2 else ["train"] * len(own)
        chosen += [dataclasses.replace(s, split=split) for s, split in zip(own, parts, strict=True)]
    return Dataset(chosen, full.attributes)


def options(target, **others):
    return dataclasses.replace(TINY, target=target, **others)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without(labels, name):
    return {basis: {key: x for key, x in own.items() if key != name} for basis, own in labels.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@functools.cache
def run(folder, target):
    """By the command line, with the settings of `options`."""
    if not (folder / "data.h5").exists():
        write_dataset(folder / "data.h5", data())
    settings = ["basis=6-31g", "power_order=1", "members=2", "buckets=1", "network.gated=2", "network.hidden=[4]"]
    settings += ["descent.steps=4", "descent.batch_size=4", "descent.evaluations=2", f"target={target}"]
    place = ["--data", str(folder / "data.h5"), "--run", str(folder / target)]
    assert main(["train", *place, "--set", *settings]) == 0
    return folder / target


@pytest.mark.parametrize("target", TARGETS)
def test_a_property_trains_is_evaluated_and_predicted(folder, target, tmp_path, capsys):
    path = run(folder, target)
    model = load_model(path)
    assert (model.members, model.settings.target) == (2, target)
    (row,) = [r for r in table(path / "test_errors.csv") if r["model"] == "trained"]
    errors = tmp_path / "errors.json"
    assert main(["evaluate", str(path), str(folder / "data.h5"), "--json", str(errors)]) == 0
    rows = json.loads(errors.read_text())["splits"]["test"]
    assert float(row[target]) == pytest.approx(rows[-1][target], rel=1e-6)
    samples = data().split("test")
    labels = np.array([s.labels["def2-tzvp"][target] for s in samples])
    spread = np.abs(labels - labels.mean(axis=0)).mean()
    predicted = np.mean([model.member(i).predict([s.molecule for s in samples]) for i in range(2)], axis=0)
    assert 0 < np.abs(predicted - labels).mean() < 0.5 * spread  # it has learned something
    error = (predicted - labels).reshape(len(samples), -1)
    per_atom = np.linalg.norm(error, axis=1) / [s.molecule.natm for s in samples]
    unit = HARTREE_TO_EV if target == "energy" else 1.0
    assert rows[-1][target] == pytest.approx(unit * per_atom.mean(), rel=1e-4)  # float32 networks
    assert (path / "report" / "index.html").is_file()

    ase.io.write(tmp_path / "water.xyz", ase.build.molecule("H2O"))
    assert main(["predict", str(tmp_path / "water.xyz"), "--run", str(path), "--out", str(tmp_path / "out.csv")]) == 0
    (written,) = table(tmp_path / "out.csv")
    assert any(key.startswith(target) and key.endswith("_uncertainty") for key in written)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "water.xyz"), "--run", str(path)]) == 0
    assert f"  {target} " in capsys.readouterr().out


def test_other_uses_of_a_property(folder):
    model, water = load_model(run(folder, "dipole")), ase.build.molecule("H2O")
    water.calc = VpotjaxCalculator(model)
    alone = np.mean([model.member(i).predict([vp.Molecule.from_ase(water.copy())])[0] for i in range(2)], axis=0)
    np.testing.assert_allclose(water.get_dipole_moment(), BOHR_TO_ANGSTROM * alone, atol=1e-5)  # float32 networks
    assert "dipole_uncertainty" in water.calc.results
    with pytest.raises(vp.InputError, match="model is one of 'dipole', which has no density"):
        initial_guess(model, to_pyscf(vp.Molecule.from_ase(water.copy()), "sto-3g"))


def test_a_training_that_was_ended_goes_on(folder, tmp_path):
    whole = load_model(run(folder, "dipole"))
    how = options("dipole", together=True)
    with pytest.raises(KeyboardInterrupt):
        train_run(data(), tmp_path / "run", how, Ending())
    model = train_run(data(), tmp_path / "run", how, Silent()).model
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # float32, in one program or two


def test_fine_tuning_and_linear_models(folder, tmp_path, monkeypatch):
    before = load_model(run(folder, "dipole"))
    how = Training(target="dipole", members=2, start=str(run(folder, "dipole")), descent=TINY.descent, buckets=1)
    outcome = train_run(data(), tmp_path / "tuned", how, Silent())
    assert [row["model"] for row in outcome.rows] == ["sto-3g", "before", "trained"]
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), outcome.model.model.params, before.model.params)
    assert max(jax.tree.leaves(moved)) > 0
    jax.tree.map(np.testing.assert_array_equal, outcome.model.model.linear, before.model.linear)
    monkeypatch.setattr("vpotjax.models.domain.NEARLY_ALL", 0.2)
    waters = [s for s in data().samples if s.split != "validation" or s.name == "H2O"]
    linear = train_run(
        Dataset(waters, data().attributes), tmp_path / "linear", options("dipole", network=Linear()), Silent()
    )
    assert linear.model.domain.size == 1  # that of the validation molecules
    assert linear.rows[-1]["dipole"] == linear.rows[-2]["dipole"]
    far = load_model(tmp_path / "linear").model.whitening.reach
    assert np.any(far > 0)  # a linear model knows its range, too


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"dipole": 1.0}}, "weights is .*, but target is 'dipole', whose model has no matrix"),
        ({"elements": 1.0}, "elements is 1.0, but target is 'dipole'"),
        ({"orbital_basis": "sto-3g"}, "orbital_basis is 'sto-3g', but target is 'dipole'"),
        ({"target": "mass"}, "target is 'mass'; give one of fock, density, energy, dipole, polarizability"),
    ],
)
def test_settings_without_meaning_are_refused(change, message):
    with pytest.raises(vp.InputError, match=message):
        Training(**{"target": "dipole", **change})


def test_what_does_not_fit_is_refused(folder, tmp_path):
    path = run(folder, "dipole")
    with pytest.raises(vp.InputError, match="target is 'fock', but 'dipole' in the model of start"):
        train_run(data(), tmp_path / "run", Training(start=str(path)), Silent())
    few = Dataset([s for s in data().samples if s.name in TRAIN[:2] or s.split != "train"], data().attributes)
    with pytest.raises(vp.InputError, match="at least 5 different ones"):
        train_run(few, tmp_path / "run", options("dipole"), Silent())
    bare = [dataclasses.replace(s, labels=without(s.labels, "dipole")) for s in data().samples]
    with pytest.raises(vp.InputError, match="labels 'def2-tzvp' lack dipole"):
        train_run(Dataset(bare, data().attributes), tmp_path / "run", options("dipole"), Silent())
    assert not (tmp_path / "run").exists()
