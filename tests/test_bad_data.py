"""Bad files and arguments of the commands on data: one line, exit code 2, and no file is another one afterwards."""

import shutil
import sqlite3

import h5py
import numpy as np
import pytest

from tests.io.samples import random_sample
from tests.molecules import g2
from vpotjax.cli import main
from vpotjax.io.dataset import Dataset, write_dataset
from vpotjax.io.sample import SPLITS

WATER = "3\nwater\nO 0 0 0\nH 0 0 0.96\nH 0.93 0 -0.24\n"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A data set, and an npz of the cookbook kind."""
    folder, rng = tmp_path_factory.mktemp("sound"), np.random.default_rng(0)
    samples = [random_sample(f"m{i}", SPLITS[i % 3], g2(name), rng) for i, name in enumerate(("H2O", "H2", "NH3"))]
    write_dataset(folder / "a.h5", Dataset(samples, {"xc": "hf"}))
    (folder / "water.xyz").write_text(WATER)
    np.savez(folder / "a.npz", Z=np.array([1, 1]), R=np.diag([0.74, 0, 0])[:2], natoms=[2], E_sto3g=[-1.0])
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    return tmp_path


def cut(folder):
    (folder / "a.h5").write_bytes((folder / "a.h5").read_bytes()[:-2000])


def edited(path, values):
    """The array at a path of the data set gets other values; without checksums, so that what reads it has to see."""

    def edit(folder):
        with h5py.File(folder / "a.h5", "r+") as file:
            array = np.array(file[path])
            array.flat[: len(values)] = values
            del file[path]
            file[path] = array

    return edit


def attribute(name, value):
    def edit(folder):
        with h5py.File(folder / "a.h5", "r+") as file:
            file.attrs[name] = value

    return edit


def flipped(folder):
    """One byte of a label."""
    content = bytearray((folder / "a.h5").read_bytes())
    with h5py.File(folder / "a.h5") as file:
        content[file["labels/small/fock/values"].id.get_chunk_info(0).byte_offset + 40] ^= 1
    (folder / "a.h5").write_bytes(bytes(content))


def unit(folder):
    with h5py.File(folder / "a.h5", "r+") as file:
        file["labels/small/energy/values"].attrs["units"] = "eV"


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def other_tables(folder):
    with sqlite3.connect(folder / "a.db") as file:
        file.execute("CREATE TABLE trips (a)")


def npz(**changes):
    def write(folder):
        with np.load(folder / "a.npz") as file:
            arrays = dict(file) | changes
        np.savez(folder / "a.npz", **{key: value for key, value in arrays.items() if value is not None})

    return write


def nothing(folder):
    """The files as they are."""


INFO, EXPORT = ["info", "a.h5"], ["export", "a.h5", "--out", "new.npz"]
REFERENCE = [
    "reference",
    "s.xyz",
    "--out",
    "new.h5",
    "--xc",
    "hf",
    "--effective-basis",
    "None",
    "--large-basis",
    "None",
]
IMPORT = ["import", "a.npz", "--out", "new.h5", "--xc", "hf", "--bases", "sto3g=sto-3g"]
DATABASE = ["import", "a.db", "--out", "new.h5"]
SPLIT = ["split", "a.h5", "--name", "new"]
PREFIX = "labels/small/"

FILES = {
    "truncated HDF5": (cut, INFO, "a.h5' (cannot be read|is damaged)"),
    "no HDF5": (text("a.h5", "hello"), INFO, "a.h5' cannot be read"),
    "empty file": (text("a.h5", ""), INFO, "a.h5' cannot be read"),
    "another version": (attribute("version", 99), INFO, "version '99'"),
    "another format": (attribute("format", "atoms"), INFO, "format|not a vpotjax data set"),
    "a flipped byte": (flipped, INFO, "a.h5'.*(checksum|filter|damaged|cannot be read)"),
    "another unit": (unit, INFO, "marked with units 'eV'"),
    "NaN": (edited(PREFIX + "energy/values", [np.nan]), INFO, "'energy' is nan"),
    "levels that fall": (edited(PREFIX + "mo_energies/values", [9.0]), INFO, "'mo_energies' falls from 9"),
    "an unknown part": (edited("split", [b"proof"]), INFO, "split 'proof'"),
    "no file": (nothing, ["info", "none.h5"], "none.h5'"),
    "a folder": (nothing, ["info", "."], r"'\.'"),
    "a file as a folder": (nothing, ["info", "a.h5/b.h5"], "a.h5/b.h5'"),
    "no structure": (text("s.xyz", ""), REFERENCE, "s.xyz.* holds no structure"),
    "cut structure": (text("s.xyz", WATER[:20]), REFERENCE, "frame 1.* says 3 atoms"),
    "a ghost": (text("s.xyz", WATER.replace("O", "X")), REFERENCE, "ghost"),
    "two atoms in one place": (text("s.xyz", WATER.replace("0.96", "0.00")), REFERENCE, "on top of each other"),
    "no number": (text("s.xyz", WATER.replace("0.96", "near")), REFERENCE, "near"),
    "no finite number": (text("s.xyz", WATER.replace("0.96", "inf")), REFERENCE, "inf"),
    "an odd electron": (text("s.xyz", "1\nH\nH 0 0 0\n"), REFERENCE, "charge=0 and spin=0 do not fit 1 electrons"),
    "an element without functions": (
        text("s.xyz", "1\nU\nU 0 0 0\n"),
        REFERENCE,
        "does not cover U|no functions for U",
    ),
    "no zip": (text("a.npz", "hello"), IMPORT, "cannot be read as npz or HDF5"),
    "a cut zip": (
        lambda folder: (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:400]),
        IMPORT,
        "cannot be read as npz or HDF5",
    ),
    "no molecules": (npz(Z=np.zeros(0), R=np.zeros((0, 3)), natoms=np.zeros(0, int)), IMPORT, "has no molecules"),
    "a pickle": (npz(Z=np.array([{}, {}])), IMPORT, "cannot be read as npz or HDF5"),
    "no places": (npz(R=None), IMPORT, "lacks R"),
    "other sizes": (npz(natoms=np.array([3])), IMPORT, "natoms make 3 atoms"),
    "an unknown suffix": (npz(E_tz=np.array([1.0])), IMPORT, "has labels of 'tz'; state its basis"),
    "no SQLite": (text("a.db", "SQLite format 3\0"), DATABASE, "cannot be read"),
    "other tables": (other_tables, DATABASE, "of no known data set"),
}

STRUCTURES = text("s.xyz", WATER)
ARGUMENTS = {
    "an unknown basis": ([*REFERENCE, "--small-basis", "sto-4g-plus"], "basis 'sto-4g-plus' is not known"),
    "an unknown functional": ([*REFERENCE, "--xc", "b4lyp"], "xc is 'b4lyp'"),
    "an unknown quantity": ([*REFERENCE, "--observables", "gap"], "observables has 'gap'; give some of energy"),
    "no workers": ([*REFERENCE, "--workers", "0"], "workers is 0; give at least 1"),
    "no grid": ([*REFERENCE, "--grid-level", "10"], "grid_level is 10; give an integer from 0 to 9"),
    "no fractions": ([*REFERENCE, "--validation", "0.6", "--test", "0.4"], "leave no training molecules"),
    "no scheduler": ([*REFERENCE, "--scheduler", "nowhere"], "scheduler='nowhere' does not answer"),
    "a negative temperature": ([*REFERENCE, "--geometries", "2", "--temperature", "-1"], "temperature is -1"),
    "a file of others": ([*REFERENCE[:3], "a.h5"], "a.h5' exists and was not made by"),
    "a folder for a file": ([*REFERENCE[:3], "."], r"out='\.' is a folder"),
    "no folder": ([*REFERENCE[:3], "none/a/b/new.h5", "--workers", "0"], "workers is 0"),
    "no basis of a suffix": ([*IMPORT[:6], "--bases", "sto3g="], "bases is .*; give suffixes"),
    "a basis for all": ([*IMPORT[:6], "--bases", "sto-3g"], "bases has 'sto-3g'; give a suffix"),
    "no functional": ([*IMPORT[:4], "--bases", "sto3g=sto-3g"], "does not say its functional; give xc"),
    "a negative check": ([*IMPORT, "--check", "-1"], "check is -1"),
    "a date in a configuration": (["train", "--set", "run=2024-05-01", "data=a.h5"], "run is datetime.date"),
    "data of a demo": (["demo", "--set", "data=a.h5"], "a demo has its own data"),
    "an option that the optimiser does not have": (
        ["train", "--set", "descent.optimizer_options={colour = 1}"],
        "optimizer_options is .*adam",
    ),
    "an option that does not work": (
        ["train", "--set", "descent.optimizer=muon", "descent.optimizer_options={ns_steps = 3.5}"],
        "with which muon does not work",
    ),
    "too many": ([*IMPORT, "--count", "7"], "count is 7; give 1 to 1"),
    "an existing file for imports": ([*IMPORT[:2], "--out", "a.h5", *IMPORT[4:]], "a.h5' exists"),
    "an existing file for exports": ([*EXPORT[:3], "a.npz"], "a.npz' exists"),
    "an unknown AO order": ([*EXPORT, "--order", "gaussian"], "order is 'gaussian'; give one of pyscf"),
    "unknown elements": ([*SPLIT, "--by", "element", "--elements", "Xx"], "elements has 'Xx'; give symbols"),
    "elements without their split": ([*SPLIT, "--elements", "O"], "give both or none"),
    "an empty part": ([*SPLIT, "--validation", "0.01"], "leaves none of 3 molecules for validation"),
    "no such split": (["train", "--data", "a.h5", "--run", "run", "--split", "mine"], "mine"),
}


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(folder, capsys, monkeypatch, arguments, expected):
    import re

    monkeypatch.chdir(folder)
    before = contents(folder)
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("vpotjax: ")
    assert "\n" not in message
    assert re.search(expected, message), message
    assert contents(folder) == before


@pytest.mark.parametrize("case", FILES)
def test_bad_files(folder, capsys, monkeypatch, case):
    make, arguments, expected = FILES[case]
    make(folder)
    refused(folder, capsys, monkeypatch, arguments, expected)


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments(folder, capsys, monkeypatch, case):
    STRUCTURES(folder)
    refused(folder, capsys, monkeypatch, *ARGUMENTS[case])
