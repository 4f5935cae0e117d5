"""A training from data to run folder, and one clear line, with nothing left behind, where it cannot be."""

import csv
import dataclasses
import sys
from collections import Counter

import ase.io
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.cli import main
from vpotjax.interop.pyscf_labels import method_description
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.method import fingerprints
from vpotjax.io.model import load_model
from vpotjax.io.run import training_data
from vpotjax.models import Domain, Ensemble, MatrixModel
from vpotjax.nn import Gated
from vpotjax.train import Labels, calibrated, predictions, prepared_buckets
from vpotjax.train.config import Training
from vpotjax.train.descent import Descent
from vpotjax.train.pipeline import evaluate, require_same_labels, train_run

TINY = Training(
    network=Gated(2, (4,)),
    members=1,
    orbital_basis="sto-3g",
    basis="sto-3g",
    power_order=1,
    descent=Descent(steps=2, batch_size=2, evaluations=1),
    buckets=1,
)


LABELS = Labels("def2-tzvp", "sto-3g", ("dipole",))


class Silent:
    def say(self, text):
        pass

    def progress(self, row, members):
        pass


def dataset_of(**splits):
    """Embedded samples: by split a molecule and how many of its geometries."""
    full = read_dataset(embedded_dataset_path())
    chosen = []
    for split, (name, count) in splits.items():
        own = [sample for sample in full.samples if sample.name == name]
        assert len(own) >= count
        chosen += [dataclasses.replace(sample, split=split) for sample in own[:count]]
    return Dataset(chosen, full.attributes)


def refused(match, dataset, folder, **options):
    with pytest.raises(vp.InputError, match=match) as error:
        train_run(dataset, folder, dataclasses.replace(TINY, **options), Silent())
    assert "\n" not in str(error.value)
    assert not folder.exists()


def test_one_molecule_in_every_split_trains_loads_and_evaluates(tmp_path):
    dataset, folder = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1)), tmp_path / "runs" / "new"
    outcome = train_run(dataset, folder, TINY, Silent())
    assert {"config.json", "checkpoint", "training.csv", "test_errors.csv"} <= {file.name for file in outcome.files}
    page = (folder / "report" / "index.html").read_text()
    for picture in ("learning_curves.png", "errors_by_size.png", "../parity_dipole.png"):
        assert f'src="{picture}"' in page
        assert (folder / "report" / picture).stat().st_size > 1000
    assert "<td>H2O</td>" in page
    (worst,) = ase.io.read(folder / "report" / "worst.xyz", ":")
    assert worst.info["name"] == "H2O"
    with (folder / "training.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "2"]
    assert list((folder / "tensorboard" / "network-0").glob("events*"))
    trained_on = training_data(folder)
    assert {k: trained_on[k] for k in ("xc", "large_basis")} == {"xc": "b3lyp", "large_basis": "def2-tzvp"}
    model = load_model(folder)
    assert model.domain == Domain((0,), 1, 1, ("H(O)", "O(H,H)"))
    assert model.calibration.keys() >= {"mo_energies", "homo_lumo_gap", "dipole", "polarizability"}
    buckets = [b for _, b in prepared_buckets(dataset.split("validation"), model.settings, LABELS)]
    again = calibrated(model, buckets, ("dipole",)).calibration  # not of what is calibrated already
    np.testing.assert_allclose(again["dipole"], model.calibration["dipole"], rtol=1e-4)
    grows = {name: own._replace(growth=np.asarray(2.0)) for name, own in model.calibration.items()}
    of_size = [dataclasses.replace(model, calibration=grows, domain=Domain((0,), n, 2)) for n in (1, 2)]
    peroxide, padded = [("H2O2", g2("H2O2"))], [("H2O", g2("H2O")), ("H2O2", g2("H2O2"))]
    smaller, equal = (list(predictions(own, padded))[1] for own in of_size)
    for name, own in equal.uncertainties.items():
        factor = 4 if name in grows else 1
        np.testing.assert_allclose(smaller.uncertainties[name], factor * own, rtol=1e-6)
    assert not [text for text in equal.warnings if "heavy atoms" in text]
    (alone,) = predictions(model, peroxide)
    assert "2 heavy atoms, trained for up to 1" in alone.warnings[0]
    assert alone.warnings[1].startswith("atoms 0, 1 (O) bonded to H, O, by distance, unlike those of the training")
    rows = evaluate(model, dataset, "test", trained_on)
    for name, row in ((0, 0), (1, 3)):  # the small basis, and the trained model
        for key, value in rows[name].items():
            if key != "model" and "_within" not in key:  # the validation molecule is this one: errors are at the bound
                np.testing.assert_allclose(value, outcome.rows[row][key], rtol=1e-6)  # another program of float32


def test_a_training_whose_gradients_are_lost_ends_with_one_line_and_code_2(tmp_path, capsys, monkeypatch):
    """Advice and the molecule's name in the line; no folder is left."""
    write_dataset(tmp_path / "data.h5", complete())
    monkeypatch.setattr(sys.modules["vpotjax.train.fit"], "descend_all", _lost)
    arguments = ["train", "--data", str(tmp_path / "data.h5"), "--run", str(tmp_path / "runs" / "new")]
    arguments += ["--set", "basis=sto-3g", "power_order=1", "members=1", "orbital_basis=sto-3g", "buckets=1"]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "first of them H2O" in lines[0]
    assert "lower learning_rate" in lines[0]
    assert [file.name for file in tmp_path.iterdir()] == ["data.h5"]


def _lost(models, train, *_, **__):
    from vpotjax.train.loop import metrics_row
    from vpotjax.train.steps import Counts

    values = np.full(2, np.nan)
    pending = [(train[0].names[:2], Counts(values, np.isfinite(values), np.isfinite(values)))]
    metrics_row(1, pending, Counter(), Descent())


def test_splits_that_do_not_serve_are_refused(tmp_path):
    folder = tmp_path / "run"
    lacking = dataset_of(train=("H2O", 2), test=("H2O", 1))
    refused("no molecules in the split 'validation' .it has: train 2, validation 0, test 1", lacking, folder)
    foreign = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("NH3", 1))
    refused(r"sample 'NH3' of the split 'test' has the elements \[7\]", foreign, folder)
    unknown = dataclasses.replace(foreign, attributes={"small_basis": "sto-3g"})
    refused("no attribute 'large_basis'", unknown, folder)
    refused("frame is 'mo'", complete(), folder, frame="mo")
    refused("buckets is 0", complete(), folder, buckets=0)
    refused("observable is 'spin'", complete(), folder, weights={"spin": 1.0})
    refused("all weights of the loss are 0", complete(), folder, weights={"dipole": 0.0})


def without_weights():
    return Ensemble(1, MatrixModel(TINY.settings((1, 8), "sto-3g"), None, None, None, None))


def complete():
    return dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1))


@pytest.mark.parametrize("error", [vp.InputError, MemoryError])
def test_whatever_stops_a_training_leaves_nothing(tmp_path, monkeypatch, error):
    def stopped(*_):
        raise error("stopped")

    monkeypatch.setattr("vpotjax.train.stages.prepared_buckets", stopped)
    with pytest.raises(error, match="stopped"):
        train_run(complete(), tmp_path / "run", TINY, Silent())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xc": "hf"}, "labels of hf/def2-tzvp .* trained on b3lyp/def2-tzvp .*: xc differs"),
        ({"large_basis": "6-31g"}, "labels of b3lyp/6-31g .* trained on b3lyp/def2-tzvp .*: large_basis differs"),
        ({"xc": "hf", "large_basis": "6-31g"}, "hf/6-31g .*b3lyp/def2-tzvp .*: xc, large_basis differs"),
        ({"small_basis": "6-31g"}, "matrices in 6-31g, .* matrices in sto-3g: small_basis differs"),
    ],
)
def test_labels_of_another_method_are_not_scored(change, message):
    dataset = complete()
    model = without_weights()  # refused before the weights are looked at
    other = Dataset(dataset.samples, {**dataset.attributes, **change})
    with pytest.raises(vp.InputError, match=message) as error:
        evaluate(model, other, "test", dataset.attributes)
    assert "\n" not in str(error.value)


def test_a_functional_of_the_same_name_is_told_apart():
    """B3LYP with VWN-RPA and with VWN5; a basis whose functions differ; and where that is asked for."""
    dataset, model = complete(), without_weights()
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    one, other = (method_description(large, xc, [1, 8]) for xc in ("b3lyp", "b3lyp5"))
    trained_on = dict(dataset.attributes) | {"methods": fingerprints({large: one, small: one})}
    for method, match in {
        "functional": (other, r"labels 'def2-tzvp' .* functional .*402.* and .*; evaluate on labels of one method, or"),
        "basis": (method_description("def2-svp", "b3lyp", [1, 8, 9]), "basis functions of the elements 1, 8; evaluate"),
    }.values():
        with pytest.raises(vp.InputError, match=match.replace("and .*", ".*")):
            evaluate(model, dataclasses.replace(dataset, methods={large: method}), "test", trained_on)
        require_same_labels(dataclasses.replace(dataset, methods={large: method}), trained_on, any_method=True)
    for methods in ({}, {large: one}, {small: one, large: fingerprints({"": one})[""]}):
        require_same_labels(dataclasses.replace(dataset, methods=methods), trained_on)


def test_evaluation_of_what_is_not_there_is_refused():
    model, dataset = without_weights(), complete()
    cases = {
        "no molecules in the split 'test'": (Dataset(dataset.split("train"), dataset.attributes), dataset.attributes),
        "trained_on lacks 'xc'": (dataset, {}),
        r"'NH3' of the split 'test' has the elements \[7\]": (dataset_of(test=("NH3", 1)), dataset.attributes),
        "no attribute 'xc'": (Dataset(dataset.samples, {}), dataset.attributes),
    }
    for message, (data, trained_on) in cases.items():
        with pytest.raises(vp.InputError, match=message):
            evaluate(model, data, "test", trained_on)


def test_labels_that_are_not_there_are_named(tmp_path):
    dataset = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1))
    large = dataset.attribute("large_basis")
    without = [
        dataclasses.replace(s, labels={b: {k: v for k, v in x.items() if k != "dipole"} for b, x in s.labels.items()})
        for s in dataset.samples
    ]
    refused(
        f"sample 'H2O', labels '{large}' lack dipole; add them", Dataset(without, dataset.attributes), tmp_path / "a"
    )
    alone = [dataclasses.replace(s, labels={large: s.labels[large]}) for s in dataset.samples]
    refused("has no labels in basis 'sto-3g'", Dataset(alone, dataset.attributes), tmp_path / "b")


@pytest.mark.parametrize(
    ("key", "factor", "message"),
    [
        ("fock", 27.2114, "mo_energies in 'sto-3g' differ from the levels of fock"),
        ("mo_energies", 27.2114, "mo_energies in 'sto-3g' differ from the levels of fock"),
        ("dipole", 2.5417, "dipole in 'sto-3g' differs from that of fock"),
    ],
)
def test_labels_in_other_units_are_refused(tmp_path, key, factor, message):
    dataset = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1))
    samples = [
        dataclasses.replace(
            s, labels={**s.labels, "sto-3g": s.labels["sto-3g"] | {key: factor * s.labels["sto-3g"][key]}}
        )
        for s in dataset.samples
    ]
    refused(message, Dataset(samples, dataset.attributes), tmp_path / "run")


def test_a_charge_that_labels_do_not_have_is_refused(tmp_path):
    dataset = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1))
    samples = [
        dataclasses.replace(s, molecule=vp.Molecule(s.molecule.numbers, s.molecule.positions, charge=2))
        for s in dataset.samples
    ]
    refused("dipole in 'sto-3g' differs .* the charge", Dataset(samples, dataset.attributes), tmp_path / "run")
