"""Predictions are written in constant memory, and files that are none are refused."""

import tracemalloc
from contextlib import ExitStack
from itertools import islice

import h5py
import numpy as np
import pytest

from tests.io.test_predictions import predicted, write_water
from vpotjax._checks import InputError
from vpotjax.io.predictions import prediction_writer, read_predictions
from vpotjax.molecule import Molecule, iterate_molecules


def peak(folder, count):
    """Of Python's memory, while `count` structures are read, and written in chunks to a file of every kind."""
    folder.mkdir()
    (folder / "in.xyz").write_text(count * "1\n\nHe 0 0 0\n")
    values, uncertainties = predicted([Molecule(np.array([2]), np.zeros((1, 3)))], with_uncertainties=True)
    names = ("dipole", "mo_energies", "lowdin_charges")
    columns = [{k: 50 * part[k] for k in names} for part in (values, uncertainties)]
    tracemalloc.start()
    with ExitStack() as stack:
        writers = [stack.enter_context(prediction_writer(folder / f"out.{e}")) for e in ("extxyz", "h5", "csv")]
        stream = iterate_molecules(folder / "in.xyz")
        while chunk := list(islice(stream, 50)):
            for writer in writers:
                writer.write(*zip(*chunk, strict=True), *columns, 50 * [["far from the data"]])
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


@pytest.mark.slow
def test_memory_is_constant(tmp_path):
    used = {count: peak(tmp_path / str(count), count) for count in (50, 500, 5000)}  # the first loads modules
    assert used[5000] < used[500] + (1 << 20)  # full chunks of HDF5; one molecule with its values takes 2 kB


def test_files_that_are_no_predictions(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(InputError, match=r"a\.h5' cannot be read: .*; check the path"):
        read_predictions(path)
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(path)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "vpotjax-predictions", "version": 1})
    with pytest.raises(InputError, match="version '1', expected 'vpotjax-predictions' version 2"):
        read_predictions(path)
    for change, message in [
        (lambda f: f["values/dipole"].resize(1, axis=0), "'dipole' has 1 entries for 2 names"),
        (lambda f: f["structures/offsets"].write_direct(np.array([0, 4, 6])), "atoms 0 and 3 are 0 Å apart"),
        (lambda f: f["structures/offsets"].write_direct(np.array([0, 3, 5])), "offsets of '/structures/numbers'"),
        (lambda f: f.__delitem__("warnings"), "are damaged .KeyError"),
        (lambda f: f["structures/numbers"].write_direct(np.full(6, 1, np.int16)), "charge=0 and spin=0 do not fit"),
    ]:
        path.unlink()
        with prediction_writer(path) as writer:
            write_water(writer)
            write_water(writer)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(InputError, match=message) as error:
            read_predictions(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
