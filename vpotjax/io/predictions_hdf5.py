"""Predictions as HDF5, version 2, in atomic units.

- structures: names, charge, spin (n,), offsets (n + 1,) into the atoms, numbers (Σ natm,), positions (Σ natm, 3), bohr.
- values/<observable>, uncertainties/<observable>: (n, 3, …) where all axes are x, y, z or there are none; else a group
  with shapes (n, ndim), offsets (n + 1,), and values, which holds all numbers joined, rows first. The attribute units
  is on the numbers, "" where there is none.
- warnings: offsets (n + 1,) into texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.predictions_chunk import Observable, Prediction
from vpotjax.io.raw_file import RawFile
from vpotjax.molecule import Molecule

FORMAT = "vpotjax-predictions"
VERSION = 2
_CHUNK = 1 << 16  # bytes
_TEXT = h5py.string_dtype("utf-8")


class Hdf5Sink:
    """A new file.

    Args:
        path: of an empty file.
    """

    def __init__(self, path: Path) -> None:
        self._raw = RawFile(path, "w+")
        self._file: Any = None
        self._open: dict[str, Any] = {}
        self._ends: dict[str, int] = {}
        try:
            with self._raw.at_work():
                # Versions with checksums of all that describes data; of each array the last chunks stay in memory.
                self._file = h5py.File(self._raw, "w", libver=("v110", "v110"), rdcc_nbytes=4 * _CHUNK)
                self._file.attrs.update({"format": FORMAT, "version": VERSION})
                for group in ("values", "uncertainties"):
                    self._file.create_group(group)
            self.append([], [])
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()
            raise

    def append(self, predictions: Sequence[Prediction], observables: Sequence[Observable]) -> None:
        """Write these after what is there."""
        with self._raw.at_work():
            self._append_structures(predictions)
            for one in observables:
                self._append_observable("values", one, [p.values[one.name] for p in predictions])
                if one.uncertain:
                    self._append_observable("uncertainties", one, [p.uncertainties[one.name] for p in predictions])
            self._append_offsets("warnings/offsets", [len(p.warnings) for p in predictions])
            texts = [text for p in predictions for text in p.warnings]
            self._append("warnings/texts", np.array(texts, dtype=_TEXT))

    def close(self) -> None:
        """Finish the file."""
        try:
            with self._raw.at_work():
                if self._file is not None:
                    self._file.close()
        finally:
            self._raw.close()

    def _append_structures(self, predictions: Sequence[Prediction]) -> None:
        molecules = [p.molecule for p in predictions]
        self._append("structures/names", np.array([p.name for p in predictions], dtype=_TEXT))
        self._append("structures/charge", np.array([m.charge for m in molecules], dtype=np.int32))
        self._append("structures/spin", np.array([m.spin for m in molecules], dtype=np.int32))
        self._append_offsets("structures/offsets", [m.natm for m in molecules])
        numbers = [np.asarray(m.numbers, dtype=np.int16) for m in molecules]
        self._append("structures/numbers", np.concatenate([np.zeros(0, np.int16), *numbers]))
        positions = [np.asarray(m.positions, dtype=float) for m in molecules]
        self._append("structures/positions", np.concatenate([np.zeros((0, 3)), *positions]), "bohr")

    def _append_observable(self, group: str, one: Observable, arrays: list[np.ndarray]) -> None:
        key = f"{group}/{one.name}"
        if set(one.axes) <= {"xyz"}:
            self._append(key, np.stack(arrays), one.unit)
            return
        self._append(f"{key}/shapes", np.array([a.shape for a in arrays], dtype=np.int64))
        self._append_offsets(f"{key}/offsets", [a.size for a in arrays])
        self._append(f"{key}/values", np.concatenate([a.ravel() for a in arrays]), one.unit)

    def _append_offsets(self, key: str, sizes: list[int]) -> None:
        ends = np.cumsum([self._ends.get(key, 0), *sizes], dtype=np.int64)
        self._append(key, ends[1:] if key in self._ends else ends)
        self._ends[key] = int(ends[-1])

    def _append(self, key: str, data: np.ndarray, unit: str | None = None) -> None:
        """Rows after those that are there."""
        item = self._open.get(key)
        if item is None:
            item = self._open[key] = self._new(key, data)
            if unit is not None:
                item.attrs["units"] = unit
        if len(data):
            item.resize(len(item) + len(data), axis=0)
            item[-len(data) :] = data

    def _new(self, key: str, data: np.ndarray) -> Any:
        row = data.shape[1:]
        packing: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        return self._file.create_dataset(
            key,
            shape=(0, *row),
            maxshape=(None, *row),
            dtype=data.dtype,
            chunks=(max(1, _CHUNK // (data.dtype.itemsize * int(np.prod(row, dtype=int)))), *row),
            **({} if data.dtype == _TEXT else packing),  # texts lie elsewhere in the file, where no filter reaches
        )


def read(path: Path) -> list[Prediction]:
    """Everything in a file.

    Raises:
        InputError: see `vpotjax.io.predictions.read_predictions`.
    """
    try:
        with h5py.File(path, "r") as file:
            return _decoded(file)
    except InputError as error:
        raise InputError(f"predictions {str(path)!r}: {error}") from None
    except OSError as error:
        raise InputError(f"predictions {str(path)!r} cannot be read: {_line(error)}; check the path.") from None
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:  # of a damaged file
        raise InputError(
            f"predictions {str(path)!r} are damaged ({type(error).__name__}: {_line(error)}); make them again."
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _decoded(file: Any) -> list[Prediction]:
    found, version = file.attrs.get("format"), file.attrs.get("version")
    if found != FORMAT or version != VERSION:
        raise InputError(
            f"format is {str(found)[:80]!r}, version {str(version)[:80]!r}, expected {FORMAT!r} version {VERSION}; "
            "make it again with 'vpotjax predict'."
        )
    structures, warnings = file["structures"], file["warnings"]
    names, charges, spins = structures["names"].asstr()[()], structures["charge"][()], structures["spin"][()]
    atoms = zip(_pieces(structures, "numbers"), _pieces(structures, "positions"), charges, spins, strict=True)
    molecules = [Molecule(z.astype(int), x, charge=int(charge), spin=int(spin)) for z, x, charge, spin in atoms]
    values, uncertainties = (
        {key: list(_arrays(item)) for key, item in file[group].items()} for group in ("values", "uncertainties")
    )
    for key, entries in [*values.items(), *uncertainties.items()]:
        if len(entries) != len(names):
            raise InputError(f"{key!r} has {len(entries)} entries for {len(names)} names; make it again.")
    return [
        Prediction(
            str(name),
            molecule,
            {key: entries[i] for key, entries in values.items()},
            {key: entries[i] for key, entries in uncertainties.items()},
            tuple(text.decode() for text in texts),
        )
        for i, (name, molecule, texts) in enumerate(zip(names, molecules, _pieces(warnings, "texts"), strict=True))
    ]


def _arrays(item: Any) -> Iterator[np.ndarray]:
    """The numbers of every molecule."""
    if isinstance(item, h5py.Dataset):
        yield from map(np.asarray, item[()])
        return
    for shape, part in zip(item["shapes"][()], _pieces(item, "values"), strict=True):
        yield part.reshape(shape)


def _pieces(group: Any, key: str) -> list[np.ndarray]:
    offsets, data = group["offsets"][()], group[key][()]
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(data) or np.any(np.diff(offsets) < 0):
        raise InputError(f"the offsets of {group[key].name!r} do not fit its {len(data)} entries; make it again.")
    return [data[a:b] for a, b in pairwise(offsets)]
