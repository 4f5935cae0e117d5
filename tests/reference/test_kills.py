"""A run that is killed at any moment and called again gives what an uninterrupted one gives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.molecules import g2
from vpotjax.io.dataset import read_dataset

NAMES = ["H2", "H2O", "NH3", "CH4", "HCN", "N2", "CO", "C2H2"]
OPTIONS = ["--effective-basis", "None", "--large-basis", "6-31g", "--xc", "hf", "--matrices", "fock", "--workers", "2"]


def structures(folder: Path) -> Path:
    lines = []
    for name in NAMES:
        molecule = g2(name).to_ase()
        rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(molecule.symbols, molecule.positions, strict=True)]
        lines += [str(len(rows)), f"name={name}", *rows]
    (folder / "s.xyz").write_text("\n".join(lines) + "\n")
    return folder / "s.xyz"


def started(folder: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vpotjax.cli", "reference", str(folder / "s.xyz"), "--out", str(out), *OPTIONS]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def finished(folder: Path, out: Path) -> None:
    process = started(folder, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def killed(folder: Path, out: Path, rng: np.random.Generator, parts: int) -> None:
    """Kill a run some time after as many parts are there; its workers end by themselves."""
    process = started(folder, out)
    folder_of_parts = out.with_name(out.name + ".parts")
    while process.poll() is None and len(list(folder_of_parts.glob("*.h5"))) < parts:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("moments", [(4,), pytest.param((0, 1, 2, 3, 4, 5, 6, 7, 8, 8), marks=pytest.mark.slow)])
def test_kills_lose_and_change_nothing(tmp_path, moments):
    rng = np.random.default_rng(len(moments))
    structures(tmp_path)
    finished(tmp_path, tmp_path / "whole.h5")
    for moment in moments:
        killed(tmp_path, tmp_path / "killed.h5", rng, moment)
    finished(tmp_path, tmp_path / "killed.h5")
    one, two = read_dataset(tmp_path / "whole.h5"), read_dataset(tmp_path / "killed.h5")
    assert [s.name for s in one.samples] == [s.name for s in two.samples] == NAMES
    stated = [{key: np.asarray(x).tolist() for key, x in d.attributes.items()} for d in (one, two)]
    assert stated[0] == stated[1]
    assert one.methods == two.methods
    for a, b in zip(one.samples, two.samples, strict=True):
        assert (a.split, a.molecule.charge) == (b.split, b.molecule.charge)
        np.testing.assert_array_equal(a.molecule.positions, b.molecule.positions)
        for basis, labels in a.labels.items():
            for key, value in labels.items():
                np.testing.assert_allclose(value, b.labels[basis][key], rtol=0, atol=1e-7, err_msg=f"{basis} {key}")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed.h5", "s.xyz", "whole.h5"]
