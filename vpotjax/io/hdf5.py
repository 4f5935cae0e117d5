"""The HDF5 layout of a data set: version 3 is written, versions 1 to 3 are read (the older ones by `hdf5_older`).

Columns with one entry for each sample: name, split, natm, charge, spin. Joined over all samples: numbers (Σ natm,) and
positions (Σ natm, 3), bohr. splits/<name> are further splits, columns like "split". labels/<set>/<quantity> holds

    rows        (m,) samples that have it, ascending; absent where all have it
    shapes      (m, most axes), −1 after the last axis
    triangle    (m,) whether the last two axes are symmetric, so that their lower triangle is stored; absent for none
    values      of all these samples, one after the other

and labels/<set> may have the attribute "method", JSON. All arrays are compressed and have checksums.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.hdf5_arrays import COLUMNS, Stored, array, expect, groups, pieces, quoted, stored, text_column, unquoted
from vpotjax.io.hdf5_older import version_1_labels, version_2_labels
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule

FORMAT = "vpotjax-dataset"
VERSION = 3
READABLE = ("1", "2", "3")
BUFFER = 1 << 20  # bytes of a quantity that are written at a time
CHUNK = 1 << 11  # numbers that are read, and have a checksum, together


class SampleWriter:
    """Samples one after the other into an open, empty file; in memory are their columns and some labels.

    Whoever calls has checked them, but for that arrays of one quantity have the same dtype.
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.columns: dict[str, list[Any]] = {key: [] for key in sorted(COLUMNS)}
        self.labels: dict[tuple[str, str], _LabelWriter] = {}

    def append(self, sample: Sample) -> None:
        """One more sample.

        Raises:
            InputError: a label has another dtype than that of the samples before.
        """
        molecule, row = sample.molecule, len(self.columns["name"])
        arrays = {
            (name, key): np.asarray(value) for name, labels in sample.labels.items() for key, value in labels.items()
        }
        for label, value in arrays.items():
            if label in self.labels:
                self.labels[label].require(value, sample.name)
        for label, value in arrays.items():
            if label not in self.labels:
                self.labels[label] = _LabelWriter(self.file, *label, value, sample.name)
            self.labels[label].append(row, value)
        positions = np.asarray(molecule.positions, dtype=float)
        values = (sample.name, sample.split, molecule.natm, molecule.charge, molecule.spin, molecule.numbers, positions)
        for key, value in zip(("name", "split", "natm", "charge", "spin", "numbers", "positions"), values, strict=True):
            self.columns[key].append(value)

    def finish(
        self, attributes: Mapping[str, Any], splits: Mapping[str, Sequence[str]], methods: Mapping[str, Any]
    ) -> None:
        """Columns, and what is of the whole file."""
        file, columns = self.file, self.columns
        file.attrs.update({"format": FORMAT, "version": VERSION})
        for key, value in attributes.items():
            try:
                file.attrs[key] = value
            except (TypeError, ValueError, OSError):
                raise InputError(
                    f"attribute {key!r} is a {type(value).__name__} that HDF5 cannot store; give text, a number or a "
                    "list."
                ) from None
        for key in ("name", "split"):
            _write(file, key, _bytes(columns[key]))
        for key in ("natm", "charge", "spin"):
            _write(file, key, np.array(columns[key]))
        _write(file, "numbers", np.concatenate(columns["numbers"]).astype(np.int16))
        _write(file, "positions", np.concatenate(columns["positions"]))
        group = file.create_group("splits")
        for name, parts in splits.items():
            _write(group, quoted(name), _bytes(list(parts)))
        group = file.require_group("labels")
        for name, method in methods.items():
            group.require_group(quoted(name)).attrs["method"] = json.dumps(method)
        for label in self.labels.values():
            label.finish(len(columns["name"]))


class _LabelWriter:
    """One quantity of one set."""

    def __init__(self, file: h5py.File, name: str, key: str, first: np.ndarray, owner: str) -> None:
        self.where, self.owner = f"labels {name!r}: {key!r}", owner
        self.group = file.require_group("labels").require_group(quoted(name)).create_group(quoted(key))
        options = {
            "compression": "gzip",
            "shuffle": True,
            "fletcher32": True,
            "chunks": (CHUNK,),
            "maxshape": (None,),
        }
        self.values = self.group.create_dataset("values", (0,), first.dtype, **options)
        self.rows: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.triangles: list[bool] = []
        self.waiting: list[np.ndarray] = []
        self.bytes = 0

    def require(self, value: np.ndarray, owner: str) -> None:
        """Raise InputError where a value does not fit those before."""
        if value.dtype != self.values.dtype:
            raise InputError(
                f"{self.where} of sample {owner!r} has dtype {value.dtype}, of {self.owner!r} {self.values.dtype}; "
                "give all the same."
            )

    def append(self, row: int, value: np.ndarray) -> None:
        """The value of one more sample."""
        triangle = _symmetric(value)
        self.rows.append(row)
        self.shapes.append(value.shape)
        self.triangles.append(triangle)
        self.waiting.append((value[..., *np.tril_indices(value.shape[-1])] if triangle else value).ravel())
        self.bytes += self.waiting[-1].nbytes
        if self.bytes > BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self.waiting:
            values, start = np.concatenate(self.waiting), len(self.values)
            self.values.resize((start + len(values),))
            self.values[start:] = values
        self.waiting, self.bytes = [], 0

    def finish(self, count: int) -> None:
        """All that waits, and the tables of a file with `count` samples."""
        self._flush()
        most = max(map(len, self.shapes))
        padded = [shape + (-1,) * (most - len(shape)) for shape in self.shapes]
        _write(self.group, "shapes", np.array(padded, dtype=np.int64).reshape(len(padded), most))
        if any(self.triangles):
            _write(self.group, "triangle", np.array(self.triangles))
        if len(self.rows) != count:
            _write(self.group, "rows", np.array(self.rows, dtype=np.int64))


def _symmetric(value: np.ndarray) -> bool:
    """Whether the lower triangle of the last two axes says all."""
    square = value.ndim > 1 and value.shape[-1] == value.shape[-2]
    return square and np.array_equal(value, np.swapaxes(value, -1, -2))


def _write(group: Any, key: str, data: np.ndarray) -> None:
    group.create_dataset(key, data=data, compression="gzip", shuffle=True, fletcher32=True, maxshape=data.shape)


def _bytes(texts: list[str]) -> np.ndarray:
    """As UTF-8 of one length, which unlike text of any length has a checksum in the file."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


class SampleReader:
    """Samples of an open file, any of them at a time; in memory are their columns and the sizes of labels.

    Every access names what is missing or misshapen.

    Attributes:
        attributes: of the file.
        names, parts: of the samples, and of their split.
        splits: further ones, by name.
        methods: by name of the labels that have one.

    Raises:
        InputError: another format or version; arrays that are absent, unknown, or do not fit each other.
    """

    def __init__(self, file: h5py.File) -> None:
        self.attributes = dict(file.attrs)
        found, version = (str(self.attributes.pop(key, "absent")) for key in ("format", "version"))
        if found != FORMAT or version not in READABLE:
            raise InputError(
                f"format is {found[:80]!r}, version {version[:80]!r}, expected {FORMAT!r} version "
                f"{', '.join(READABLE[:-1])} or {READABLE[-1]}; make it again with 'vpotjax reference'."
            )
        self.names, self.parts = text_column(file, "name"), text_column(file, "split")
        count = len(self.names)
        if len(self.parts) != count:
            raise InputError(f"'split' has {len(self.parts)} entries for {count} names; make the file again.")
        sizes, self._charges = (array(file, key, "iu", (count,)) for key in ("natm", "charge"))
        self._spins = array(file, "spin", "iu", (count,)) if version == "3" else np.zeros(count, int)
        self._numbers = pieces(file, "numbers", array(file, "numbers", "iu", (None,)).astype(int), sizes)
        self._positions = pieces(file, "positions", array(file, "positions", "f", (None, 3)), sizes)
        self.splits: dict[str, list[str]] = {}
        self.methods: dict[str, Any] = {}
        self._labels: dict[str, dict[str, Any]] = {}
        if version == "1":
            self._labels = dict(version_1_labels(file, count))
            return
        expect(file, COLUMNS | {"splits", "labels"} if version == "3" else COLUMNS - {"spin"} | {"labels"})
        for name, group in groups(file["labels"]):
            own = version_2_labels(group, count) if version == "2" else _labels(group, count)
            self._labels[unquoted(name)] = dict(own)
        if version == "3":
            self.splits = dict(_splits(file["splits"], count))
            self.methods = {unquoted(k): _method(g) for k, g in groups(file["labels"]) if "method" in g.attrs}

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: Sequence[int]) -> list[Sample]:
        """Samples of these places, in this order."""
        labels: list[dict[str, dict[str, np.ndarray]]] = [defaultdict(dict) for _ in rows]
        for name, quantities in self._labels.items():
            for key, column in quantities.items():
                for own, value in zip(labels, column.read(rows), strict=True):
                    if value is not None:
                        own[name][key] = value
        return [
            Sample(self.names[row], self.parts[row], self.molecule(row), dict(own))
            for row, own in zip(rows, labels, strict=True)
        ]

    def labels(self, name: str, quantity: str) -> list[np.ndarray | None]:
        """One quantity of all samples; None where there is none."""
        column = self._labels.get(name, {}).get(quantity)
        return [None] * len(self) if column is None else column.read(range(len(self)))

    def molecule(self, row: int) -> Molecule:
        """Of one sample."""
        charge, spin = int(self._charges[row]), int(self._spins[row])
        try:
            return Molecule(self._numbers[row], self._positions[row], charge, spin)
        except InputError as error:
            raise InputError(f"sample {self.names[row]!r}: {error}") from None


def _labels(group: Any, count: int) -> Iterator[tuple[str, Stored]]:
    for key, item in groups(group):
        has = {name for name in ("rows", "triangle") if name in item}
        expect(item, {"shapes", "values", *has})
        shapes = array(item, "shapes", "iu", (None, None)).astype(np.int64)
        rows = array(item, "rows", "iu", (len(shapes),)).astype(np.int64) if "rows" in has else np.arange(count)
        triangles = array(item, "triangle", "b", (len(shapes),)) if "triangle" in has else np.zeros(len(shapes), bool)
        if len(rows) != len(shapes) or np.any(np.diff(rows) <= 0) or np.any(rows < 0) or np.any(rows >= count):
            raise InputError(f"{item.name!r} has {len(shapes)} shapes and rows that do not fit them; make it again.")
        yield unquoted(key), stored(item, "values", count, rows, shapes, triangles)


def _splits(group: Any, count: int) -> Iterator[tuple[str, list[str]]]:
    for key in group:
        parts = text_column(group, key)
        if len(parts) != count:
            raise InputError(f"split {unquoted(key)!r} has {len(parts)} entries for {count} samples; make it again.")
        yield unquoted(key), parts


def _method(group: Any) -> Any:
    try:
        return json.loads(str(group.attrs["method"]))
    except ValueError as error:
        raise InputError(f"{group.name!r} has a method that is not JSON ({error}); make the file again.") from None
