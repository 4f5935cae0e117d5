"""Data sets: labelled molecules in memory, and in the file that keeps them (its layout is in `hdf5`)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.raw_file import RawFile
from vpotjax.io.sample import SPLITS, UNITS, Sample, one_line, require_sample, require_text
from vpotjax.molecule import Molecule

READ = 256  # samples at a time


SPLIT_BY = "split_by"
"""Attribute with the name of the split that a data set was divided by, see `Dataset.split_by`."""


@dataclass(frozen=True)
class Dataset:
    """Labelled molecules.

    Attributes:
        samples: see `Sample`.
        attributes: how they were made: command, functional, versions, …
        splits: further ones beside that of the samples, by name: of each sample one of SPLITS, or "" for none.
        methods: by name of a set of labels, what made it, as JSON can hold it.
    """

    samples: Sequence[Sample]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def split(self, name: str) -> list[Sample]:
        """The samples of one split."""
        if name not in SPLITS:
            raise InputError(f"split is {name!r}; give one of {', '.join(SPLITS)}.")
        return [sample for sample in self.samples if sample.split == name]

    def split_by(self, name: str) -> Dataset:
        """With the samples that one of `splits` has, and that split for theirs; the attribute SPLIT_BY says so.

        Raises:
            InputError: there is no such split.
        """
        attributes = {**self.attributes, SPLIT_BY: name}
        kept = [(s, part) for s, part in zip(self.samples, known_split(self.splits, name), strict=True) if part]
        return Dataset([dataclasses.replace(s, split=part) for s, part in kept], attributes, {}, self.methods)

    def attribute(self, name: str) -> Any:
        """How the data set was made, by name: "xc", "small_basis", "large_basis", …

        Raises:
            InputError: the data set does not say it.
        """
        if name not in self.attributes:
            known = ", ".join(map(repr, self.attributes)) or "none"
            raise InputError(
                f"data set has no attribute {name!r} (it has: {known}); write it with "
                f"Dataset(samples, {{{name!r}: …}}), or make the file with 'vpotjax reference'."
            )
        return self.attributes[name]


def known_split(splits: Mapping[str, Sequence[str]], name: str) -> Sequence[str]:
    """One of the splits; InputError where there is none of that name."""
    if name not in splits:
        known = ", ".join(map(repr, splits)) or "none"
        raise InputError(f"data set has no splits {name!r} (it has: {known}); make it with 'vpotjax split'.")
    return splits[name]


def embedded_dataset_path() -> Path:
    """The data set that the package ships: small molecules of H, C, N, O with B3LYP labels."""
    return Path(__file__).parent.parent / "data" / "hcno_b3lyp.h5"


class DatasetWriter:
    """Samples one after the other into a new file, of any number: what is in memory are their geometries.

    The file is there, whole, when the context ends without an error, and not before; one that exists is not touched::

        with DatasetWriter("water.h5") as writer:
            for sample in samples:
                writer.append(sample)
            writer.attributes["xc"] = "b3lyp"

    Attributes:
        attributes, splits, methods: see `Dataset`; may be set until the context ends.

    Raises:
        InputError: the path exists or cannot be written; a sample, a split or an attribute is not what `Sample` and
            `Dataset` say; there is no sample.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists():
            raise InputError(f"{str(path)!r} exists; delete it or choose another name.")
        self._unfinished = self.path.with_name(self.path.name + ".unfinished")
        self.count = 0
        self.attributes: dict[str, Any] = {}
        self.splits: dict[str, Sequence[str]] = {}
        self.methods: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> DatasetWriter:
        import h5py

        from vpotjax.io.hdf5 import SampleWriter

        with self._named():
            self._raw = RawFile(self._unfinished, "w+")
        try:
            with self._named(), self._raw.at_work():  # "v110": with checksums of all that describes data
                self._file = h5py.File(self._raw, "w", libver=("v110", "v110"))
            self._writer = SampleWriter(self._file)
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, sample: Sample) -> None:
        """One more sample; a refused one leaves the others."""
        require_sample(sample)
        with self._named(), self._raw.at_work():
            self._writer.append(sample)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._require_whole()
                with self._named(), self._raw.at_work():
                    self._writer.finish(self.attributes, self.splits, self.methods)
                    self._file.close()
                with self._named():
                    os.fsync(self._raw.fileno())
                    self._unfinished.rename(self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close what is open, and remove what is not whole."""
        with contextlib.suppress(Exception), self._raw.at_work():
            self._file.close()
        self._raw.close()
        self._unfinished.unlink(missing_ok=True)

    def _require_whole(self) -> None:
        if not self.count:
            raise InputError("dataset has no samples; give at least one.")
        _check_attributes(self.attributes)
        for name, parts in self.splits.items():
            require_text("name of a split", name)
            if len(parts) != self.count or not set(parts) <= {*SPLITS, ""}:
                raise InputError(
                    f"split {name!r} has {len(parts)} entries, {one_line(sorted(set(parts)))}, for {self.count} "
                    f"samples; give one of {', '.join(SPLITS)}, or '' for none, for each."
                )

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py raises the latter where a file cannot be closed
            raise InputError(
                f"data set {str(self.path)!r} cannot be written: {one_line(error)}; check the folder and the space on "
                "the disk."
            ) from None


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write `dataset` to a new file, whole or not at all; refuses to overwrite.

    Every label comes back with its shape and dtype. Names may hold any characters.

    Raises:
        InputError: see `DatasetWriter`.
    """
    with DatasetWriter(path) as writer:
        for sample in dataset.samples:
            writer.append(sample)
        writer.attributes |= dataset.attributes
        writer.splits |= dataset.splits
        writer.methods |= dataset.methods


class DatasetFile:
    """A file that `write_dataset` made, of this version or an earlier one, read as it is asked for.

        with DatasetFile("water.h5") as file:
            first, last, some = file[0], file[-1], file[[3, 1, 4]]

    In memory are the geometries. Places that are side by side in the file are read fastest.

    Attributes:
        names: of the molecules.
        attributes, splits, methods: see `Dataset`.

    Raises:
        InputError: the file is absent, damaged, not such a file, or from a later version; or a label in it is not
            what `Sample` says. Names the file and what is wrong.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        from vpotjax.io.hdf5 import SampleReader

        self.path = Path(path)
        with self._named():
            self._file = h5py.File(self.path, "r")
            try:
                self._reader = SampleReader(self._file)
                _check_attributes(self._reader.attributes)
            except BaseException:
                self._file.close()
                raise
        reader, self._sound = self._reader, np.zeros(len(self._reader), bool)
        self.names, self.attributes, self.splits, self.methods = (
            reader.names,
            reader.attributes,
            reader.splits,
            reader.methods,
        )

    def __enter__(self) -> DatasetFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, rows: Any) -> Any:
        """A sample of a place, or the samples of a slice or of a list of places."""
        if isinstance(rows, int | np.integer):
            return self._read([range(len(self))[rows]])[0]
        return self._read(np.arange(len(self))[rows].tolist())

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), READ):
            yield from self[start : start + READ]

    def rows(self, split: str | None = None, by: str | None = None) -> list[int]:
        """Places of the samples of a part (default: of all), by one of the splits (default: that of the samples).

        Raises:
            InputError: there is no such part or split.
        """
        if split is not None and split not in SPLITS:
            raise InputError(f"split is {split!r}; give one of {', '.join(SPLITS)}.")
        parts = self._reader.parts if by is None else known_split(self.splits, by)
        return [row for row, part in enumerate(parts) if part == split or (split is None and part)]

    def molecules(self) -> list[Molecule]:
        """Of all samples; no label is read."""
        with self._named():
            return [self._reader.molecule(row) for row in range(len(self))]

    def labels(self, name: str, quantity: str) -> list[np.ndarray | None]:
        """One quantity of a set of labels, of all samples; None where there is none."""
        with self._named():
            return self._reader.labels(name, quantity)

    def _read(self, rows: list[int]) -> list[Sample]:
        with self._named():
            samples = self._reader.read(rows)
            for row, sample in zip(rows, samples, strict=True):
                if not self._sound[row]:  # later the checksums of the file are enough
                    require_sample(sample)
            self._sound[rows] = True
        return samples

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        where = f"data set {str(self.path)!r}"
        try:
            yield
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        except OSError as error:
            raise InputError(f"{where} cannot be read: {one_line(error)}; check the path.") from None
        except (RuntimeError, ValueError, TypeError, KeyError) as error:  # what h5py raises on a damaged file
            raise InputError(
                f"{where} is damaged ({type(error).__name__}: {one_line(error)}); make it again."
            ) from None


def read_dataset(path: str | Path) -> Dataset:
    """All of a file, see `DatasetFile`."""
    with DatasetFile(path) as file:
        if not len(file):
            raise InputError(f"data set {str(path)!r}: dataset has no samples; give at least one.")
        return Dataset(list(file), file.attributes, file.splits, file.methods)


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    for key in attributes:
        require_text("name of an attribute", key)
        if key in ("", "format", "version"):
            raise InputError(f"attribute {key!r} is not free: the format has its own; choose another name.")
    if not str(attributes.get("units", UNITS)).startswith(UNITS):
        raise InputError(
            f"attribute 'units' is {one_line(attributes['units'])!r}, but labels are in {UNITS}; convert them."
        )
