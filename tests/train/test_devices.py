"""The same training on one device, on four, and in two processes; networks one by one, and at once."""

import csv
import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.train.test_pipeline import dataset_of
from vpotjax.cli import main
from vpotjax.io.dataset import write_dataset
from vpotjax.io.model import load_model


def environment(devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def free_address():
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{own.getsockname()[1]}"


def run_all(*commands, devices):
    """Processes of the training at once; raises with what one says that fails."""
    running = [
        subprocess.Popen(
            [sys.executable, *command], env=environment(devices), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command in commands
    ]
    texts = [process.communicate(timeout=300)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * len(running), texts
    return texts


def require_same(rows):
    wanted = rows["alone"]
    assert any(sum(own["limited"]) for own in wanted)
    assert all(set(own["left_out"]) == {"m3"} for own in wanted)
    assert wanted[0]["losses"] != wanted[1]["losses"]
    for way in ("together", "shared", "shared together", "resumed"):
        for own, other in zip(rows[way], wanted, strict=True):
            assert own["left_out"] == other["left_out"]
            assert own["limited"] == other["limited"]
            for key in ("losses", "training", "params"):
                np.testing.assert_allclose(own[key], other[key], rtol=1e-10, err_msg=f"{way} {key}")


def test_four_devices(tmp_path):
    run_all(["-m", "tests.train.shared_training", str(tmp_path / "rows.json")], devices=4)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows["devices"] == 4
    require_same(rows)


@pytest.mark.slow
def test_two_processes(tmp_path):
    out, address = str(tmp_path / "rows.json"), free_address()
    commands = [["-m", "tests.train.shared_training", out, f"{address},2,{number}"] for number in range(2)]
    run_all(*commands, devices=1)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows["devices"] == 2
    require_same(rows)


@pytest.mark.parametrize("how", ["two", "localhost:1,2", "localhost:1,2,2", "localhost,2,0", "localhost:1,2,0,1"])
def test_processes_that_cannot_be(how, tmp_path, capsys):
    arguments = ["train", "--data", str(tmp_path / "a.h5"), "--run", str(tmp_path / "run"), "--processes", how]
    assert main(arguments) == 2
    assert "give 'auto', or the address" in capsys.readouterr().err


ADAMW = ["descent.optimizer=adamw", "descent.optimizer_options={weight_decay = 1e-4}"]  # which are tried at once


@pytest.mark.slow
def test_the_command_line_gives_the_same_curve_on_all_of_them(tmp_path):
    """Two networks on water: one device with a thread each, four devices, two processes of which one writes."""
    dataset = dataset_of(train=("H2O", 5), validation=("H2O", 3), test=("H2O", 1))
    write_dataset(tmp_path / "data.h5", dataset)
    settings = ["members=2", "basis=sto-3g", "power_order=1", "network.gated=2", "network.hidden=[4]", "buckets=1"]
    settings += ["descent.steps=8", "descent.batch_size=3", "descent.evaluations=4", "orbital_basis=sto-3g"]

    def command(run, *options, changes=()):
        place = ["--data", str(tmp_path / "data.h5"), "--run", str(tmp_path / run)]
        return ["-m", "vpotjax.cli", "train", *place, *options, "--set", *settings, *changes]

    run_all(command("one"), devices=1)
    run_all(command("four"), devices=4)
    address = free_address()
    texts = run_all(*(command("two", "--processes", f"{address},2,{number}") for number in range(2)), devices=1)
    assert "Test molecules" in texts[0]
    assert "Test molecules" not in texts[1]
    wanted = curve(tmp_path / "one")
    assert len(wanted) == 10
    for run in ("four", "two"):
        own = curve(tmp_path / run)
        assert own.keys() == wanted.keys()
        np.testing.assert_allclose([own[key] for key in wanted], list(wanted.values()), rtol=1e-5)
        assert not list((tmp_path / run).glob("features-*"))
        own, other = (jax.tree.leaves(load_model(tmp_path / name).model.params) for name in (run, "one"))
        for x, y in zip(own, other, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)
    address = free_address()
    commands = [
        command("other", "--processes", f"{address},2,{n}", changes=[*ADAMW, f"descent.seed={n}"]) for n in range(2)
    ]
    for text in failed(*commands):
        assert "data and settings are not the same in all processes" in text
    address = free_address()
    for text in failed(*(command("two", "--processes", f"{address},2,{number}") for number in range(2))):
        assert "exists and is not empty" in text


@pytest.mark.slow
@pytest.mark.parametrize("target", ["energy", "dipole", "polarizability"])
def test_models_of_properties_too(target, tmp_path):
    dataset = dataset_of(train=("H2O", 5), validation=("H2O", 3), test=("H2O", 1))
    write_dataset(tmp_path / "data.h5", dataset)
    settings = ["members=2", "basis=sto-3g", "power_order=1", "network.gated=2", "network.hidden=[4]", "buckets=1"]
    settings += ["descent.steps=8", "descent.batch_size=3", "descent.evaluations=4", f"target={target}"]
    for run, devices in (("one", 1), ("four", 4)):
        place = ["--data", str(tmp_path / "data.h5"), "--run", str(tmp_path / run)]
        run_all(["-m", "vpotjax.cli", "train", *place, "--set", *settings], devices=devices)
    own, wanted = curve(tmp_path / "four"), curve(tmp_path / "one")
    assert len(wanted) == 10
    assert own.keys() == wanted.keys()
    np.testing.assert_allclose([own[key] for key in wanted], list(wanted.values()), rtol=1e-5)


def curve(run):
    """Validation losses by network and step."""
    with (run / "training.csv").open() as file:
        return {(row["network"], row["step"]): float(row["validation_loss"]) for row in csv.DictReader(file)}


def failed(*commands):
    """What processes say that all end with exit code 2."""
    running = [
        subprocess.Popen([sys.executable, *command], env=environment(1), stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    texts = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [2] * len(running), texts
    return texts
