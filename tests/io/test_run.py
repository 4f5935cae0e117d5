"""Run folders: configurations that do not fit are refused, nothing is overwritten, failed runs leave nothing behind."""

import json
import re
import shutil

import pytest

import vpotjax as vp
from tests.io.samples import DATA, GATED, PROPERTY, random_model, refused, saved
from vpotjax.io.checkpoint import read_checkpoint, write_checkpoint
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import new_run_folder, started_run, training_data, write_config, write_metrics


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), random_model(GATED))


def edited(run, folder, change):
    """A copy of a run whose configuration went through `change`."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(content)))
    return folder


def with_entry(name, value):
    """A change of one entry of the settings; its parts are joined by dots."""

    def change(content):
        *before, last = name.split(".")
        branch = content["model"]
        for key in before:
            branch = branch[key]
        branch[last] = value
        return content

    return change


@pytest.mark.parametrize(
    ("entry", "value", "before"),
    [
        ("representation.species", [1, 6], [1, 8]),
        ("representation.basis", "6-31g", "sto-3g"),
        ("representation.inputs", ["overlap", "external"], ["overlap", "sap"]),
        ("representation.power_order", 2, 1),
        ("representation.power_kinds", ["lowdin"], ["metric"]),
        ("representation.cutoff", 6.0, None),
        ("network.gated", 3, 2),
        ("network.hidden", [8], [4]),
        ("orbital_basis", "6-31g", "sto-3g"),
        ("target", "density", "fock"),
        ("frame", "ao", "lowdin"),
        ("baseline", "core", "sap"),
        ("precision", "float32", "float64"),
    ],
)
def test_an_edited_configuration_is_refused(run, tmp_path, entry, value, before):
    both = f"{entry} is {value!r} in config.json and {before!r} in it"
    with refused(re.escape(f"contradicts the checkpoint: {both}")):
        load_model(edited(run, tmp_path, with_entry(entry, value)))


def test_another_network_of_the_package_is_refused(run, tmp_path):
    with refused("network.name is 'Linear' in config.json and 'Gated' in it, network.gated is 'absent' .* and 2 in it"):
        load_model(edited(run, tmp_path, with_entry("network", {"name": "Linear"})))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("data", {**DATA, "geometries": 5, "xc": "hf"}, "contradicts the checkpoint: data is .*'hf'.*'b3lyp'"),
        ("version", 5.0, "version is 5.0 in config.json and 5"),
        ("version", 3, r"version 3 \(written by vpotjax .*train again: its features no longer exist"),
        ("version", 2, "reads vpotjax-run 5; train again: its features"),
        ("version", 99, "version 99 .*train again, or install the version of it"),
        ("version", None, "version None"),
        ("format", "other", "is other version 5"),
        ("kind", "property", "model has entries"),
        ("kind", None, "kind 'None'"),
        ("model", ["sto-3g"], "model is \\['sto-3g'\\], expected an object"),
        ("model", None, "model is None, expected an object"),
        ("model", {"target": "fock"}, "model has entries .*'network'.* that do not fit"),
    ],
)
def test_other_entries_that_do_not_fit_are_refused(run, tmp_path, entry, value, message):
    with refused(message):
        load_model(edited(run, tmp_path, lambda content: {**content, entry: value}))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("representation", None, "model.representation is None, expected an object"),
        ("representation", {"species": [1]}, "model.representation has entries \\['basis'.* that do not fit"),
        ("representation.power_order", "three", "model.representation.power_order is 'three', expected int"),
        ("representation.power_order", True, "power_order is True, expected int"),
        ("representation.power_order", 2.0, "power_order is 2.0, expected int"),
        ("representation.power_order", 0, "order is 0; give at least 1"),
        ("representation.cutoff", "6", "cutoff is '6', expected float"),
        ("representation.cutoff", -1, "cutoff is -1; give a length"),
        ("representation.species", [1, "O"], "species is \\[1, 'O'\\], expected tuple"),
        ("representation.species", 8, "species is 8, expected tuple"),
        ("representation.species", [8, 1], "species is \\(8, 1\\); give .* ascending order"),
        ("representation.basis", {"H": [[0, [1.0, 1.0]]]}, "basis is .*, expected str"),
        ("representation.basis", "6-31", "6-31' is not known"),
        ("network", "Gated", "model.network is 'Gated', expected an object with its name"),
        ("network", {"gated": 2}, "model.network is {'gated': 2}, expected an object with its name"),
        ("network", {"name": "Dense"}, "model.network.name is 'Dense', expected one of Linear, Gated, MatrixPower"),
        ("network", {"name": "Gated", "layers": 2}, "model.network has entries .*'layers'\\] that do not fit"),
        ("network.gated", 0, "gated is 0; give at least 1"),
        ("network.hidden", [], "hidden is \\(\\); give at least 1"),
        ("network.hidden", [True], "model.network.hidden is \\[True\\], expected tuple"),
        ("target", ["fock"], "model.target is \\['fock'\\], expected str"),
        ("target", "energy", "target is 'energy'; give one of fock, density"),
    ],
)
def test_entries_of_the_wrong_type_or_value_are_refused(run, tmp_path, entry, value, message):
    with refused(f"config.json: .*{message}"):
        load_model(edited(run, tmp_path, with_entry(entry, value)))


@pytest.mark.parametrize("text", ["[]", "3", "{", "", "\xff"])
def test_configurations_that_are_no_objects_are_refused(run, tmp_path, text):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with refused("config.json"):
        load_model(tmp_path)


def test_a_property_model_is_held_to_its_configuration_too(tmp_path):
    for name in ("run", "edited"):
        (tmp_path / name).mkdir()
    saved(tmp_path / "run", random_model(PROPERTY))
    change = with_entry("representation.power_kinds", ["raw"])
    with refused("power_kinds is \\['raw'\\] in config.json and \\['metric'\\] in it"):
        load_model(edited(tmp_path / "run", tmp_path / "edited", change))


def test_a_run_that_did_not_finish_is_refused(tmp_path):
    write_config(tmp_path, GATED, {})
    with refused("has no checkpoint; the run did not finish"):
        load_model(tmp_path)
    with refused("holds no config.json"):
        load_model(tmp_path / "absent")


def test_checkpoints_and_configurations_are_not_overwritten(run):
    before = (run / "config.json").read_bytes()
    with refused("exists"):
        save_model(run, random_model(GATED))
    with refused("File exists"):
        write_config(run, GATED, {})
    with refused("exists and is not empty"):
        new_run_folder(run)
    assert (run / "config.json").read_bytes() == before
    load_model(run)


def test_entries_that_json_cannot_hold_or_that_clash_are_refused(tmp_path):
    with refused("entries hold .* of type object"):
        write_config(tmp_path, GATED, {"data": object()})
    with refused("entries has model, which write_config makes"):
        write_config(tmp_path, GATED, {"model": {}})
    assert not list(tmp_path.iterdir())


def test_the_attributes_of_the_data_are_kept(run, tmp_path):
    assert training_data(run) == {"xc": "b3lyp", "small_basis": "sto-3g", "large_basis": "def2-tzvp", "geometries": 5}
    write_config(tmp_path, GATED, {})
    with refused("does not say what the model was trained on"):
        training_data(tmp_path)
    with refused("holds no config.json"):
        training_data(tmp_path / "absent")


def test_metrics_are_a_table(tmp_path):
    write_metrics(tmp_path, "training.csv", [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}])
    assert (tmp_path / "training.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.25"]
    write_metrics(tmp_path, "none.csv", [])
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("error", [vp.InputError, KeyboardInterrupt])
def test_a_failed_run_removes_what_it_made_and_nothing_else(run, tmp_path, error):
    folder, notes = tmp_path / "runs" / "new", tmp_path / "runs" / "new" / "notes.txt"
    arrays, _ = read_checkpoint(run / "checkpoint")

    def failing(keep):
        with started_run(folder, GATED, {}) as made:
            write_checkpoint(made / "checkpoint", arrays, {})
            if keep:
                notes.write_text("of the user")
            raise error

    for _ in range(2):  # the second is not blocked by the first
        with pytest.raises(error):
            failing(keep=False)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(error):
        failing(keep=True)
    assert list(folder.iterdir()) == [notes]
    for path, message in ((folder, "not empty"), (notes / "run", "cannot be made")):
        with refused(message), started_run(path, GATED, {}):
            pass
    assert notes.read_text() == "of the user"
    with refused("of type object"), started_run(tmp_path / "other", GATED, {"data": object()}):
        pass
    assert not (tmp_path / "other").exists()
