"""A training that is ended at any moment goes on by the same command, as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.train.test_loop import SQUARE, bucket
from vpotjax.cli import main
from vpotjax.io.checkpoint import Checkpoints, NotKeptError
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.model import load_model
from vpotjax.train.descent import Descent
from vpotjax.train.loop import EndedError, descend, descend_all

X = np.linspace(0.5, 1.5, 12)
SETTINGS = Descent(steps=60, batch_size=3, learning_rate=0.03, evaluations=12)


class Line:
    """y = a x + b, and a count of the steps that were compiled; see `tests.train.test_loop.Slope`."""

    def initial(self, key, content):
        return {"a": jax.random.normal(key), "b": jnp.zeros(3)}

    def output(self, params, content):
        return params["a"] * content + params["b"].sum()

    def predicted(self, output, content, max_occupied):
        return output


def walked(settings, keeper=None, report=lambda row: None):
    train, check = [bucket(X, 2 * X + 1), bucket(X[:5], 2 * X[:5] + 1)], [bucket(X[3:6], 2 * X[3:6] + 1)]
    return descend(Line(), train, check, SQUARE, settings, report, None, keeper)


def until(step):
    """Ends a training as a kill does, after the evaluation at a step."""

    def report(row):
        if row["step"] == step:
            raise KeyboardInterrupt

    return report


OPTIONS = [
    {},
    {"optimizer": "muon"},
    {"optimizer": "lion", "optimizer_options": {"weight_decay": 0.1}, "schedule": "linear"},
    {"accumulation": 3, "ema": 0.9, "schedule": "exponential"},
    {"epochs": 7.0, "batch_aos": 4, "schedule": "constant", "warmup": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_states_restore_everything(tmp_path, options):
    settings = Descent(**{**SETTINGS.__dict__, **options})
    whole = walked(settings)
    for step in [row["step"] for row in whole.history][2:8:2]:
        keeper = Checkpoints(tmp_path / "states")
        with pytest.raises(KeyboardInterrupt):
            walked(settings, keeper, until(step))
        keeper.close()
    again = walked(settings, Checkpoints(tmp_path / "states"))
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    for one, two in zip(whole.history, again.history, strict=True):
        assert {k: v for k, v in one.items() if "second" not in k} == pytest.approx(
            {k: v for k, v in two.items() if "second" not in k}, nan_ok=True, abs=0
        )


def test_a_state_that_is_cut_in_half_is_told_and_the_one_before_taken(tmp_path):
    whole, told, keeper = walked(SETTINGS), [], Checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        walked(SETTINGS, keeper, until(30))
    keeper.close()
    last = tmp_path / "30"
    large = max((last / "d").iterdir(), key=lambda f: f.stat().st_size)  # that of the numbers
    large.write_bytes(large.read_bytes()[: large.stat().st_size // 2])
    keeper = Checkpoints(tmp_path, told.append)
    again = walked(SETTINGS, keeper)
    keeper.close()
    assert "cannot be read" in told[0]
    np.testing.assert_array_equal(again.params["a"], whole.params["a"])
    for state in tmp_path.iterdir():
        (state / "_METADATA").write_text("{")
        for data in state.rglob("manifest.ocdbt"):
            data.unlink()
    with pytest.raises(vp.InputError, match="cannot be read"):
        walked(SETTINGS, Checkpoints(tmp_path))


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    whole, keeper, count = walked(SETTINGS), Checkpoints(tmp_path), [0]
    save = ocp.Checkpointer.save

    def full(self, *arguments, **options):
        count[0] += 1
        if count[0] == 3:
            raise OSError(28, "No space left on device")
        return save(self, *arguments, **options)

    monkeypatch.setattr(ocp.Checkpointer, "save", full)
    with pytest.raises(NotKeptError, match=r"No space left.*start the same command again"):
        walked(SETTINGS, keeper)
    assert sorted(int(f.name) for f in tmp_path.iterdir()) == [5, 10]
    np.testing.assert_array_equal(walked(SETTINGS, Checkpoints(tmp_path)).params["a"], whole.params["a"])


def test_patience_and_time_end_a_training():
    early = walked(
        Descent(steps=400, batch_size=12, learning_rate=0.3, schedule="constant", evaluations=100, patience=2)
    )
    losses = [row["validation_loss"] for row in early.history]
    assert len(losses) < 101
    assert min(losses[-2:]) >= min(losses)
    assert len(walked(Descent(steps=400, batch_size=12, evaluations=100, seconds=1e-6)).history) == 2


def test_averaged_weights_are_those_that_are_judged_and_kept():
    settings = Descent(steps=100, batch_size=12, learning_rate=0.1, schedule="constant", evaluations=1, ema=0.5)
    done = walked(settings)
    plain = walked(Descent(**{**settings.__dict__, "ema": 0.0}))
    assert done.params["a"] != plain.params["a"]
    error = float(np.mean((done.params["a"] * X[3:6] + done.params["b"].sum() - 2 * X[3:6] - 1) ** 2))
    assert min(row["validation_loss"] for row in done.history) == pytest.approx(error, rel=1e-5)


OPTION_TEXTS = [
    "descent.steps=40",
    "descent.batch_size=2",
    "descent.evaluations=10",
    "power_order=1",
    "members=2",
    "basis=sto-3g",
    "orbital_basis=sto-3g",
    "buckets=1",
    "network.gated=4",
    "network.hidden=[8]",
]


def small_dataset(path):
    full = read_dataset(embedded_dataset_path())
    chosen = [s for s in full.samples if s.molecule.natm <= 4][:60]
    write_dataset(path, Dataset(chosen, full.attributes))


def arguments(folder, run, *changes):
    place = ["--data", str(folder / "a.h5"), "--run", str(folder / run)]
    return ["train", *place, "--set", *OPTION_TEXTS, *changes]


def started(folder, run):
    command = [sys.executable, "-m", "vpotjax.cli", *arguments(folder, run)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def killed(folder, run, states, delay):
    """Start, and kill by SIGKILL some seconds after so many states of networks are there."""
    process = started(folder, run)
    while process.poll() is None and len(list((folder / run).glob("states/network-*/[0-9]*"))) < states:
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def finished(folder, run):
    output, _ = (process := started(folder, run)).communicate()
    assert process.returncode == 0, output.decode()


def require_same_runs(folder, one, two):
    models = (load_model(folder / run).model for run in (one, two))
    for a, b in zip(*(jax.tree.leaves(model.params) for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
    files = {file.name for file in (folder / two).iterdir()}
    assert files == {file.name for file in (folder / one).iterdir()}
    assert not {"states", "lock"} & files


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path):
    small_dataset(tmp_path / "a.h5")
    finished(tmp_path, "whole")
    rng = np.random.default_rng(1)
    for _ in range(5):
        if not (tmp_path / "killed" / "checkpoint").exists():
            killed(tmp_path, "killed", int(rng.integers(1, 5)), rng.uniform(0, 1))
    if not (tmp_path / "killed" / "checkpoint").exists():
        finished(tmp_path, "killed")
    require_same_runs(tmp_path, "whole", "killed")


@pytest.mark.slow
def test_a_killed_training_keeps_its_states_through_bad_input_and_goes_on(tmp_path, capsys, monkeypatch):
    """Other settings, other molecules, another functional, a package that is absent: refused, and nothing is lost."""
    small_dataset(tmp_path / "a.h5")
    finished(tmp_path, "whole")
    killed(tmp_path, "killed", 1, 0.0)
    before = {file for file in (tmp_path / "killed" / "states").rglob("*") if file.is_file()}
    assert main(arguments(tmp_path, "killed", "descent.learning_rate=1e-4")) == 2
    message = capsys.readouterr().err
    assert "training of other settings: training.descent.learning_rate 0.002 there, 0.0001 now" in message

    def lacking(*_):
        raise vp.InputError("something is absent")

    with monkeypatch.context() as patched:
        patched.setattr("vpotjax.train.pipeline.TrainingLog", lacking)
        assert main(arguments(tmp_path, "killed")) == 2
    assert "something is absent" in capsys.readouterr().err
    (tmp_path / "a.h5").rename(tmp_path / "kept.h5")
    data = read_dataset(tmp_path / "kept.h5")
    others = {
        "samples": Dataset(data.samples[1:], data.attributes),
        "xc": Dataset(data.samples, data.attributes | {"xc": "pbe"}),
    }
    for name, dataset in others.items():
        write_dataset(tmp_path / "a.h5", dataset)
        assert main(arguments(tmp_path, "killed")) == 2
        assert f"training of other settings: {'data.xc' if name == 'xc' else name} " in capsys.readouterr().err
        (tmp_path / "a.h5").unlink()
    (tmp_path / "kept.h5").rename(tmp_path / "a.h5")
    assert before <= {file for file in (tmp_path / "killed" / "states").rglob("*") if file.is_file()}
    assert main(arguments(tmp_path, "killed")) == 0
    require_same_runs(tmp_path, "whole", "killed")


def test_a_folder_of_states_that_is_somebody_elses_is_left_alone(tmp_path, capsys):
    small_dataset(tmp_path / "a.h5")
    mine = tmp_path / "mine" / "states" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("of mine")
    assert main(arguments(tmp_path, "mine")) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert mine.read_text() == "of mine"


def test_a_folder_that_is_in_use_is_refused(tmp_path, capsys):
    import filelock

    from vpotjax.io.run import LOCK

    small_dataset(tmp_path / "a.h5")
    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / LOCK):
        assert main(arguments(tmp_path, "run")) == 2
    assert "is in use by another process" in capsys.readouterr().err


def test_a_training_ends_when_it_is_told():
    ended = []

    def report(number, row):
        ended.append(row["step"])

    with pytest.raises(EndedError):
        descend_all([Line()], [bucket(X, X)], [bucket(X, X)], SQUARE, SETTINGS, report, ended=lambda: len(ended) > 2)
    assert len(ended) == 3
