"""The command line end to end on a few molecules, and one clear line for every bad input."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from vpotjax.cli import main
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.model import load_model
from vpotjax.io.predictions import read_predictions
from vpotjax.train.pipeline import evaluate

NETWORK = ["network.gated=4", "network.hidden=[8]"]
WATER = "3\nwater\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of a few embedded molecules and a run trained on it for a few steps."""
    folder = tmp_path_factory.mktemp("cli")
    full = read_dataset(embedded_dataset_path())
    chosen = {split: [] for split in ("train", "validation", "test")}
    for sample in full.samples:
        names = {s.name for s in chosen[sample.split]}
        if 7 in sample.molecule.numbers:  # not in the few training molecules, so that it would be refused
            continue
        if sample.molecule.natm <= 7 and (sample.name in names or len(names) < 3):
            chosen[sample.split].append(sample)
    write_dataset(folder / "tiny.h5", Dataset([s for part in chosen.values() for s in part], full.attributes))
    arguments = ["--set", "descent.steps=6", "descent.batch_size=4", "descent.evaluations=2", "power_order=2"]
    arguments += ["members=2", "basis=6-31g", "orbital_basis=sto-3g"]  # no d functions: compiles fast
    arguments += ["buckets=1", *NETWORK]
    assert main(["train", "--data", str(folder / "tiny.h5"), "--run", str(folder / "run"), *arguments]) == 0
    (folder / "water.xyz").write_text(WATER)
    return folder


def test_train_writes_a_run_folder(folder):
    run = folder / "run"
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["representation"]["power_order"] == 2
    assert config["model"]["network"] == {"name": "Gated", "gated": 4, "hidden": [8]}
    assert config["training"]["descent"]["steps"] == 6
    with (run / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 6
    with (run / "test_errors.csv").open() as file:
        models = [row["model"] for row in csv.DictReader(file)]
    assert models == ["sto-3g", "direct fit", "closed-form start", "trained"]
    for name in ("mo_energies", "dipole", "polarizability"):
        assert (run / f"parity_{name}.png").read_bytes().startswith(b"\x89PNG")


PROGRAMS = ("jit_potentials", "jit_geometry", "jit__predicted")


@pytest.mark.parametrize("chosen", [None, pytest.param("mine", marks=pytest.mark.slow)])
def test_a_second_command_finds_the_programs_of_the_first(chosen, folder, tmp_path):
    """In the user's cache folder, or where the environment says."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    for variable in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):  # of the tests
        del environment[variable]
    if chosen:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / chosen)
    command = [sys.executable, "-m", "vpotjax.cli", "predict", str(folder / "water.xyz"), "--run", str(folder / "run")]
    texts, programs = [], []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        texts.append(done.stdout)
        found = [file.name for file in tmp_path.rglob("*-cache")]
        programs.append(sorted(name for name in found if name.split("-")[0] in PROGRAMS))
        assert not done.stderr
    assert texts[0] == texts[1]
    assert len(programs[0]) == len(PROGRAMS)
    assert programs[0] == programs[1]
    own = sorted(path.name for path in tmp_path.iterdir())
    assert own == (["mine"] if chosen else ["cache"])


def test_predict_prints_observables(folder, capsys):
    assert main(["predict", str(folder / "water.xyz"), "--run", str(folder / "run")]) == 0
    text = capsys.readouterr().out
    for word in ("H2O", "HOMO", "LUMO", "gap", "dipole", "polarizability"):
        assert word in text


def test_ions_are_predicted_about_their_centre(folder, tmp_path, capsys):
    """The same numbers wherever the ion stands; H2²⁺ has no electron, so no gap."""
    lines = []
    for shift in (0.0, 7.0):
        atoms = "".join(f"{s} {x + shift} {y} {z}\n" for s, x, y, z in [("O", 0, 0, 0), ("H", 0, 0, 0.97)])
        (tmp_path / "ion.xyz").write_text(f"2\ncharge=-1\n{atoms}")
        assert main(["predict", str(tmp_path / "ion.xyz"), "--run", str(folder / "run")]) == 0
        text = capsys.readouterr().out
        lines.append(next(line for line in text.splitlines() if "centre of nuclear charge" in line))
    norms = [float(line.split("norm ")[1].split()[0]) for line in lines]
    assert norms[0] == pytest.approx(norms[1], abs=2e-4)  # four digits are printed
    assert "WARNING: charge -1, training molecules: 0; " in text
    (tmp_path / "stripped.xyz").write_text("2\ncharge=2\nH 0 0 0\nH 0 0 1\n")
    assert main(["predict", str(tmp_path / "stripped.xyz"), "--run", str(folder / "run")]) == 0
    text = capsys.readouterr().out
    assert "no gap: without electrons" in text
    assert "  gap " not in text


def test_predict_writes_files(folder, tmp_path, capsys):
    """Every structure of a folder, with uncertainties, and a warning for hydrogen far from its partner."""
    (tmp_path / "in").mkdir()
    seen = next(s.molecule for s in read_dataset(folder / "tiny.h5").split("train") if s.name == "H2O").to_ase()
    atoms = "\n".join(f"{a.symbol} {a.x:.9f} {a.y:.9f} {a.z:.9f}" for a in seen)
    water = f"3\nwater\n{atoms}\n"
    (tmp_path / "in" / "a.xyz").write_text(water)
    (tmp_path / "in" / "b.xyz").write_text("2\nname=far\nH 0 0 0\nH 0 0 0.25\n" + water)
    for name in ("out.extxyz", "out.h5", "out.csv"):
        out = str(tmp_path / name)
        assert main(["predict", str(tmp_path / "in"), "--run", str(folder / "run"), "--out", out]) == 0
        assert "3 molecules written" in capsys.readouterr().out
    read = read_predictions(tmp_path / "out.h5")
    assert [p.molecule.formula for p in read] == ["H2O", "H2", "H2O"]
    assert read[0].uncertainties["homo_lumo_gap"] > 0
    assert not read[0].warnings
    assert any("range" in warning for warning in read[1].warnings)
    np.testing.assert_allclose(read[0].values["mo_energies"], read[2].values["mo_energies"], rtol=1e-6)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["homo_lumo_gap_hartree"]) == pytest.approx(float(read[0].values["homo_lumo_gap"]), rel=1e-5)
    again = ["predict", str(tmp_path / "in"), "--run", str(folder / "run"), "--out", str(tmp_path / "out.csv")]
    assert main(again) == 2
    _one_line(capsys, "exists")


def test_molecules_that_the_model_does_not_know_are_left_out_where_that_is_wanted(folder, tmp_path, capsys):
    lone = "1\na lone atom\nN 0 0 0\n"
    (tmp_path / "mixed.xyz").write_text(BAD_XYZ["foreign"][0] + WATER + lone + BAD_XYZ["open"][0])
    command = ["predict", str(tmp_path / "mixed.xyz"), "--run", str(folder / "run")]
    out = tmp_path / "out.h5"
    assert main([*command, "--out", str(out), "--skip"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1 molecules written" in text
    assert text.count("left out: molecule") == 2
    assert "frame 3: charge=0 and spin=0 do not fit 7 electrons" in text
    assert "3 left out, named above" in text
    assert "the model knows [1, 6, 8]" in text
    assert [p.molecule.formula for p in read_predictions(out)] == ["H2O"]
    assert main([*command, "--skip"]) == 0
    assert "gap" in capsys.readouterr().out
    assert main(command) == 2
    _one_line(capsys, "elements")
    (tmp_path / "mixed.xyz").write_text(BAD_XYZ["open"][0])
    assert main([*command, "--skip", "--out", str(tmp_path / "none.csv")]) == 2
    assert "holds no molecule that the model knows" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


def test_a_run_and_its_predictions_say_the_errors_of_validation_molecules(folder, capsys):
    """They are those that an evaluation of these molecules finds."""
    with (folder / "run" / "validation_errors.csv").open() as file:
        (kept,) = csv.DictReader(file)
    data = read_dataset(folder / "tiny.h5")
    *_, found = evaluate(load_model(folder / "run"), data, "validation", data.attributes)
    for name in ("mo_energies", "homo_lumo_gap", "dipole", "polarizability"):
        np.testing.assert_allclose(float(kept[name]), found[name], rtol=1e-6)
    assert main(["predict", str(folder / "water.xyz"), "--run", str(folder / "run")]) == 0
    text = capsys.readouterr().out
    assert f"gap {found['homo_lumo_gap']:.2g} eV, μ {found['dipole']:.2g} e·bohr per atom" in text


def test_evaluate_prints_the_table(folder, capsys):
    arguments = ["evaluate", str(folder / "run"), str(folder / "tiny.h5"), "--split", "test", "validation"]
    assert main([*arguments, "--json", str(folder / "errors.json")]) == 0
    text = capsys.readouterr().out
    assert "Split 'test'" in text
    assert "Split 'validation'" in text
    content = json.loads((folder / "errors.json").read_text())
    assert content["method"] == "B3LYP/def2-tzvp"
    for row in content["splits"]["test"]:
        assert row["mo_energies_low"] <= row["mo_energies"] <= row["mo_energies_high"]
    assert main([*arguments, "--json", str(folder / "errors.json")]) == 2
    _one_line(capsys, "errors.json' exists")


@pytest.mark.slow
def test_labels_of_larger_molecules_calibrate_a_run(folder, tmp_path, capsys):
    """Weights and all else stay; too few molecules, or a file of the wrong sort, change nothing."""
    run, data, full = tmp_path / "run", tmp_path / "larger.h5", read_dataset(embedded_dataset_path())
    shutil.copytree(folder / "run", run)
    before = load_model(run)
    size = before.domain.size
    assert before.domain.checked >= size > 0
    known = [s for s in full.samples if 7 not in s.molecule.numbers and s.molecule.natm <= 9]
    larger = [*{s.name: s for s in known if s.molecule.heavy_atoms > size}.values()][:6]  # of each one geometry
    smaller = [s for s in known if s.molecule.heavy_atoms <= size][:2]
    write_dataset(data, Dataset([*smaller, *larger], full.attributes))
    assert main(["calibrate", str(run), str(data)]) == 0
    text = capsys.readouterr().out
    after = load_model(run)
    most = max(s.molecule.heavy_atoms for s in larger)
    assert (after.domain.size, after.domain.checked) == (size, most)
    assert f"6 geometries of {size + 1} to {most} heavy atoms against B3LYP/def2-tzvp" in text
    assert ("are multiplied: " in text) == any(own.grows for own in after.calibration.values())
    assert "larger_errors.csv" in text
    same = dataclasses.replace(after, calibration=before.calibration, domain=before.domain)
    assert jax.tree.structure(same) == jax.tree.structure(before)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (same, before)), strict=True))
    for name, own in after.calibration.items():
        assert (own.scale, own.floor) == (before.calibration[name].scale, before.calibration[name].floor)
    with (run / "larger_errors.csv").open() as file:
        (row,) = csv.DictReader(file)
    write_dataset(
        tmp_path / "as test.h5", Dataset([dataclasses.replace(s, split="test") for s in larger], full.attributes)
    )
    *_, found = evaluate(after, read_dataset(tmp_path / "as test.h5"), "test", full.attributes)
    for key in ("homo_lumo_gap", "homo_lumo_gap_uncertainty", "homo_lumo_gap_within", "polarizability_uncertainty"):
        np.testing.assert_allclose(float(row[key]), found[key], rtol=1e-5)
    capsys.readouterr()
    for own, model in ((folder / "run", before), (run, after)):
        assert main(["evaluate", str(own), str(tmp_path / "as test.h5")]) == 0
        beyond = sum(bool([*model.domain.doubts(s.molecule)]) for s in larger)
        assert (f"{beyond} of 6 geometries are not like" in capsys.readouterr().out) == (beyond > 0)
    write_dataset(tmp_path / "few.h5", Dataset([*smaller, *larger[:4]], full.attributes))
    assert main(["calibrate", str(run), str(tmp_path / "few.h5")]) == 2
    _one_line(capsys, f"data has 4 molecules of more than {size} heavy atoms, the size of its training, in")
    assert load_model(run).domain == after.domain


def test_info(folder, capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "477 geometries of 209 molecules" in text
    assert "large_basis = def2-tzvp" in text
    assert main(["info", str(folder / "tiny.h5")]) == 0
    assert f"{folder / 'tiny.h5'}: " in capsys.readouterr().out
    assert main(["info", str(folder / "water.xyz")]) == 2
    _one_line(capsys, "water.xyz' cannot be read")


def test_a_split_is_stored(folder, tmp_path, capsys):
    data = tmp_path / "a.h5"
    data.write_bytes((folder / "tiny.h5").read_bytes())
    assert main(["split", str(data), "--name", "large", "--by", "size", "--test", "0.3", "--validation", "0.2"]) == 0
    assert "split 'large'" in capsys.readouterr().out
    split = read_dataset(data).split_by("large")
    sizes = {part: [s.molecule.natm for s in split.split(part)] for part in ("train", "test")}
    assert max(sizes["train"]) <= min(sizes["test"])  # the largest test
    arguments = ["train", "--data", str(data), "--run", str(tmp_path / "run"), "--split"]
    assert main([*arguments, "small"]) == 2
    _one_line(capsys, "no splits 'small' .it has: 'large'.; make it with 'vpotjax split'")
    for bad, expected in {
        ("--by", "element"): "elements is .. for a split by 'element'; give both or none",
        ("--by", "element", "--elements", "Xx"): "elements has 'Xx'; give symbols",
        ("--test", "0.99"): "leave no training molecules",
    }.items():
        assert main(["split", str(data), "--name", "b", *bad]) == 2
        _one_line(capsys, expected)


@pytest.mark.slow
def test_a_stored_split_is_trained_on(folder, tmp_path, capsys):
    """The largest molecules test, by another split than the data set came with."""
    data = tmp_path / "a.h5"
    data.write_bytes((folder / "tiny.h5").read_bytes())
    assert main(["split", str(data), "--name", "large", "--by", "size", "--test", "0.3", "--validation", "0.2"]) == 0
    wanted = [s.name for s in read_dataset(data).split_by("large").split("test")]
    arguments = ["train", "--data", str(data), "--run", str(tmp_path / "run"), "--split", "large"]
    options = ["--set", "descent.steps=1", "descent.batch_size=2", "power_order=1", "basis=sto-3g"]
    options += ["orbital_basis=sto-3g", "members=1", "buckets=1", *NETWORK]
    assert main([*arguments, *options]) == 0
    assert f"test: {len(set(wanted)):3d} molecules, {len(wanted):4d} geometries" in capsys.readouterr().out


def test_labels_of_a_file_of_structures(tmp_path, capsys):
    """A radical, and two structures of one name; then other settings on the same file."""
    (tmp_path / "s.xyz").write_text(
        "2\nname=x\nH 0 0 0\nH 0 0 0.74\n2\nname=x\nH 0 0 0\nH 0 0 0.8\n2\nname=OH spin=1\nO 0 0 0\nH 0 0 0.97\n"
    )
    arguments = ["reference", str(tmp_path / "s.xyz"), "--out", str(tmp_path / "a.h5"), "--xc", "hf"]
    options = ["--effective-basis", "None", "--large-basis", "6-31g", "--observables", "energy", "forces"]
    assert main([*arguments, *options]) == 0
    assert f"3 molecules are in {tmp_path / 'a.h5'}" in capsys.readouterr().out
    samples = read_dataset(tmp_path / "a.h5").samples
    assert [(s.name, s.molecule.spin) for s in samples] == [("x", 0), ("x#1", 0), ("OH", 1)]
    assert set(samples[0].labels["sto-3g"]) == {"energy", "forces", "fock", "overlap"}
    assert main([*arguments, *options, "--grid-level", "1"]) == 2
    _one_line(capsys, "grid_level 3 there, 1 now")
    assert main([*arguments, *options, "--observables", "gap"]) == 2
    _one_line(capsys, "observables has 'gap'; give some of")


def test_molecules_that_fail_are_told_and_the_exit_code_says_so(tmp_path, capsys, monkeypatch):
    from vpotjax.reference.generate import Outcome

    monkeypatch.setattr("vpotjax.reference.generate.generate", lambda *_: Outcome(7, {"Cr2": "RuntimeError: no"}))
    (tmp_path / "s.xyz").write_text("2\nname=Cr2\nCr 0 0 0\nCr 0 0 1.7\n")
    assert main(["reference", str(tmp_path / "s.xyz"), "--out", str(tmp_path / "a.h5")]) == 1
    text = capsys.readouterr().out
    assert f"7 molecules are in {tmp_path / 'a.h5'}" in text
    assert "not labelled: Cr2: RuntimeError: no" in text


BAD_XYZ = {
    "empty": ("", "holds no structure"),
    "broken": ("3\nwater\nO 0 0\n", "frame 1, line 1: says 3 atoms, but 1"),
    "odd": ("1\nradical\nH 0 0 0\n", "electrons"),
    "coincident": ("2\nH2\nH 0 0 0\nH 0 0 0.01\n", "on top of each other"),
    "foreign": ("2\nHCl\nH 0 0 0\nCl 0 0 1.28\n", "elements"),
    "open": ("2\nspin=2\nO 0 0 0\nO 0 0 1.21\n", "closed shells"),
}


@pytest.mark.parametrize("case", BAD_XYZ)
def test_bad_molecules_are_one_line_and_code_2(folder, tmp_path, capsys, case):
    content, expected = BAD_XYZ[case]
    (tmp_path / "bad.xyz").write_text(content)
    assert main(["predict", str(tmp_path / "bad.xyz"), "--run", str(folder / "run")]) == 2
    _one_line(capsys, expected)


def test_other_versions_of_run_folders_are_refused(folder, tmp_path, capsys):
    content = json.loads((folder / "run" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"version": 99}))
    assert main(["predict", str(folder / "water.xyz"), "--run", str(tmp_path)]) == 2
    _one_line(capsys, "version 99")


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_folders_that_are_no_runs_are_refused(folder, tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["predict", str(folder / "water.xyz"), "--run", str(tmp_path)]) == 2
    _one_line(capsys, "run=|config.json")


def test_unfinished_runs_are_refused(folder, tmp_path, capsys):
    (tmp_path / "config.json").write_text((folder / "run" / "config.json").read_text())
    assert main(["predict", str(folder / "water.xyz"), "--run", str(tmp_path)]) == 2
    _one_line(capsys, "no checkpoint")


def test_nothing_is_overwritten(folder, capsys):
    before = {file: file.stat().st_mtime_ns for file in (folder / "run").rglob("*")}
    assert main(["train", "--data", str(folder / "tiny.h5"), "--run", str(folder / "run")]) == 2
    _one_line(capsys, "not empty")
    assert main(["reference", "--out", str(folder / "tiny.h5")]) == 2
    _one_line(capsys, "exists and was not made by 'vpotjax reference'")
    assert before == {file: file.stat().st_mtime_ns for file in (folder / "run").rglob("*")}


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("power_kinds", '["cubic"]', "kind is 'cubic'|power_kinds"),
        ("power_kinds", "cubic", "power_kinds is 'cubic'; give a list of"),
        ("descent.steps", "0", "steps is 0"),
        ("descent.steps", "many", "descent.steps is 'many'; give a whole number"),
        ("descent.learning_rate", "nan", "learning_rate is nan"),
        ("descent.learningrate", "1", "descent.learningrate is no setting of descent; did you mean 'learning_rate'"),
        ("descent.optimizer", "adamm", "optimizer is 'adamm'; did you mean 'adam'"),
        ("network.name", "Mlp", "network.name is 'Mlp'; give one of Gated, MatrixPower, Linear"),
        ("descent", "3", "descent is 3; give a table"),
        ("weights.dipole", '"big"', "weights.dipole is 'big'; give a number"),
        ("colour", "1", "colour is no setting; "),
        ("descent.seed", "-1", "seed is -1"),
        ("basis", "x", "not known"),
        ("frame", "x", "frame is"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(folder, tmp_path, capsys, option, value, word):
    data = str(folder / "tiny.h5")
    run = tmp_path / "run"
    assert main(["train", "--data", data, "--run", str(run), "--set", f"{option}={value}"]) == 2
    _one_line(capsys, word)
    assert not run.exists()


def test_one_training_molecule_is_refused_in_one_line(folder, tmp_path, capsys):
    full = read_dataset(folder / "tiny.h5")
    first = next(s for s in full.samples if s.split == "train")
    rest = [s for s in full.samples if s.split != "train"]
    write_dataset(
        tmp_path / "one.h5",
        Dataset([first, *[s for s in rest if set(s.molecule.numbers) <= set(first.molecule.numbers)]], full.attributes),
    )
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "one.h5"),
                "--run",
                str(tmp_path / "run"),
                "--set",
                "basis=6-31g",
            ]
        )
        == 2
    )
    _one_line(capsys, "does not vary over the 1 training molecules|no molecules in the split")
    assert not (tmp_path / "run").exists()


def _one_line(capsys, expected):
    import re

    message = capsys.readouterr().err.strip()
    assert message.startswith("vpotjax: ")
    assert "\n" not in message
    assert re.search(expected, message), message


def test_import_is_light_and_needs_no_pyscf():
    """Without PySCF, ASE and h5py on the path, the package imports, and all its names are there."""
    code = (
        "import sys\n"
        "for name in ('pyscf', 'pyscfad', 'e3nn_jax', 'h5py', 'ase', 'matplotlib', 'orbax'): sys.modules[name] = None\n"
        "import vpotjax as vp\n"
        "assert all(vars(vp)[name] is not None for name in vp.__all__)\n"
        "assert vp.nn.Gated and vp.train.fit and vp.losses.Observed and vp.models.Ensemble and vp.io.read_dataset\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
