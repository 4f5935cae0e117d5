"""The HDF5 layout of a data set: version 2 is written, versions 1 and 2 are read.

Columns with one entry for each sample: name, split, natm, charge. Joined over all samples: numbers (Σ natm,) and
positions (Σ natm, 3), bohr. Version 2 has labels/<basis>/<quantity>/{shapes, values}: one row of shapes for each
sample, the values of all samples in one array; of matrices that are all symmetric only the lower triangles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.io.dataset import MATRICES, UNITS, Dataset, Sample
from vpotjax.molecule import Molecule

FORMAT = "vpotjax-dataset"
VERSION = 2
READABLE = ("1", "2")
COLUMNS = ("name", "split", "natm", "charge", "numbers", "positions")
EMPTY = "%"  # stands for an empty name in the file; no quoted name is this


def encode(file: h5py.File, dataset: Dataset) -> None:
    """Write checked samples and attributes into an open, empty file."""
    file.attrs.update({"format": FORMAT, "version": VERSION})
    for key, value in dataset.attributes.items():
        try:
            file.attrs[key] = value
        except (TypeError, ValueError, OSError):
            raise InputError(
                f"attribute {key!r} is a {type(value).__name__} that HDF5 cannot store; give text, a number or a list."
            ) from None
    samples = dataset.samples
    _write(file, "name", _bytes([s.name for s in samples]))
    _write(file, "split", _bytes([s.split for s in samples]))
    _write(file, "natm", np.array([s.molecule.natm for s in samples]))
    _write(file, "charge", np.array([s.molecule.charge for s in samples]))
    _write(file, "numbers", np.concatenate([s.molecule.numbers for s in samples]).astype(np.int16))
    _write(file, "positions", np.concatenate([np.asarray(s.molecule.positions, dtype=float) for s in samples]))
    group = file.create_group("labels")
    for basis, labels in samples[0].labels.items():
        inner = group.create_group(_quoted(basis))
        for key in labels:
            _encode_label(inner.create_group(_quoted(key)), f"labels {basis!r}: {key!r}", samples, basis, key)


def _encode_label(group: Any, where: str, samples: Sequence[Sample], basis: str, key: str) -> None:
    values = [np.asarray(s.labels[basis][key]) for s in samples]
    other = next((i for i, v in enumerate(values) if v.ndim != values[0].ndim), None)
    if other is not None:
        raise InputError(
            f"{where} of sample {samples[other].name!r} has {values[other].ndim} axes, of {samples[0].name!r} "
            f"{values[0].ndim}; give all the same number of axes."
        )
    triangle = values[0].ndim == 2 and all(np.array_equal(v, v.T) for v in values)
    group.attrs["lower_triangle"] = triangle
    _write(group, "shapes", np.array([v.shape for v in values], dtype=np.int64).reshape(len(values), -1))
    _write(group, "values", np.concatenate([v[np.tril_indices(len(v))] if triangle else v.ravel() for v in values]))


def _write(group: Any, key: str, data: np.ndarray) -> None:
    group.create_dataset(key, data=data, compression="gzip", shuffle=True, fletcher32=True)


def _bytes(texts: list[str]) -> np.ndarray:
    """As UTF-8 of one length, which unlike text of any length has a checksum in the file."""
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def _quoted(name: str) -> str:
    return quote(name, safe=" ()*+,").replace(".", "%2E") or EMPTY


def _unquoted(name: str) -> str:
    return "" if name == EMPTY else unquote(name)


def decode(file: h5py.File) -> Dataset:
    """What an open file holds; every access names what is missing or misshapen.

    Raises:
        InputError: another format or version; arrays that are absent, unknown, or do not fit each other.
    """
    attributes = dict(file.attrs)
    found, version = (str(attributes.pop(key, "absent")) for key in ("format", "version"))
    if found != FORMAT or version not in READABLE:
        raise InputError(
            f"format is {found[:80]!r}, version {version[:80]!r}, expected {FORMAT!r} version "
            f"{' or '.join(READABLE)}; make it again with 'vpotjax reference'."
        )
    return Dataset(_samples(file, version), attributes)


def _samples(file: Any, version: str) -> list[Sample]:
    names, splits = _text(file, "name"), _text(file, "split")
    count = len(names)
    if len(splits) != count:
        raise InputError(f"'split' has {len(splits)} entries for {count} names; make the file again.")
    natm, charges = (_array(file, key, "iu", (count,)) for key in ("natm", "charge"))
    numbers = _pieces(file, "numbers", _array(file, "numbers", "iu", (None,)).astype(int), natm)
    positions = _pieces(file, "positions", _array(file, "positions", "f", (None, 3)), natm)
    if version == "1":
        columns = dict(_version_1_labels(file, count))
    else:
        _expect(file, {*COLUMNS, "labels"})
        groups = _groups(file["labels"])
        columns = {_unquoted(basis): dict(_version_2_labels(group, count)) for basis, group in groups}
    samples = []
    for i in range(count):
        try:
            molecule = Molecule(numbers[i], positions[i], charge=int(charges[i]))
        except InputError as error:
            raise InputError(f"sample {names[i]!r}: {error}") from None
        labels = {basis: {key: values[i] for key, values in column.items()} for basis, column in columns.items()}
        samples.append(Sample(names[i], splits[i], molecule, labels))
    return samples


def _version_2_labels(group: Any, count: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    for key, item in _groups(group):
        _expect(item, {"shapes", "values"})
        shapes = _array(item, "shapes", "iu", (count, None))
        triangle = bool(item.attrs.get("lower_triangle", False))
        if np.any(shapes < 0) or (triangle and (shapes.shape[1:] != (2,) or np.any(shapes[:, 0] != shapes[:, 1]))):
            raise InputError(f"{item.name!r} has shapes that are negative or, of triangles, not square; make it again.")
        sizes = shapes[:, 0] * (shapes[:, 0] + 1) // 2 if triangle else np.prod(shapes, axis=1, dtype=np.int64)
        parts = _pieces(item, "values", _array(item, "values", "biuf", (None,)), sizes)
        if triangle:
            yield _unquoted(key), [_full(part, n) for part, n in zip(parts, shapes[:, 0], strict=True)]
        else:
            yield _unquoted(key), [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _version_1_labels(file: Any, count: int) -> Iterator[tuple[str, dict[str, list[np.ndarray]]]]:
    """Groups beside the columns: nao, matrices as triangles, mo_energies joined, all else of one shape."""
    _expect(file, {*COLUMNS, *(key for key, item in file.items() if hasattr(item, "items"))})
    for basis, group in _groups(file, skip=COLUMNS):
        nao = _array(group, "nao", "iu", (count,)).astype(int)
        column = {}
        for key in group:
            if key in MATRICES:
                parts = _pieces(group, key, _array(group, key, "f", (None,)), nao * (nao + 1) // 2)
                column[key] = [_full(part, n) for part, n in zip(parts, nao, strict=True)]
            elif key == "mo_energies":
                column[key] = _pieces(group, key, _array(group, key, "f", (None,)), nao)
            elif key != "nao":
                column[key] = list(_array(group, key, "biuf", (count, ...)))
        yield basis, column


def _expect(group: Any, keys: set[str]) -> None:
    extra, missing = sorted(set(group) - keys), sorted(keys - set(group))
    if extra or missing:
        what = f"holds {extra[0]!r}, which the format does not know" if extra else f"lacks {missing[0]!r}"
        raise InputError(f"group {group.name!r} {what}; make the file again with write_dataset.")


def _groups(group: Any, skip: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    if not hasattr(group, "items"):
        raise InputError(f"{group.name!r} is not a group; make the file again with write_dataset.")
    for key, item in group.items():
        if key in skip:
            continue
        if not hasattr(item, "items"):
            raise InputError(f"{group.name!r} holds {key!r}, which is not a group; make the file again.")
        yield key, item


def _array(group: Any, key: str, kinds: str, shape: tuple[Any, ...]) -> np.ndarray:
    """An array of the file; None in `shape` accepts any size, a final ... any further axes."""
    item = _dataset(group, key)
    if "units" in item.attrs:
        raise InputError(
            f"{item.name!r} is marked with units {str(item.attrs['units'])[:80]!r}; this format has {UNITS} without "
            "marks: convert, and write with write_dataset."
        )
    if item.dtype.kind not in kinds:
        raise InputError(f"{item.name!r} has dtype {item.dtype}, expected a kind of {kinds!r}; make the file again.")
    if shape[-1] is ...:
        shape = (*shape[:-1], *item.shape[len(shape) - 1 :])
    require_shape(repr(item.name), item, shape)
    return item[()]


def _text(file: Any, key: str) -> list[str]:
    item = _dataset(file, key)
    if h5py.check_string_dtype(item.dtype) is None or item.ndim != 1:
        raise InputError(f"{item.name!r} is not a list of text; make the file again.")
    return [str(text) for text in item.asstr()[()]]


def _dataset(group: Any, key: str) -> Any:
    item = group.get(key)
    if item is None or hasattr(item, "items"):
        raise InputError(f"group {group.name!r} has no array {key!r}; make the file again with write_dataset.")
    return item


def _pieces(group: Any, key: str, data: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    if np.any(sizes < 0) or sizes.sum(dtype=np.int64) != len(data):
        raise InputError(
            f"{key!r} of group {group.name!r} has {len(data)} entries, but the sizes of the samples make "
            f"{sizes.sum(dtype=np.int64)}; make the file again."
        )
    return np.split(data, np.cumsum(sizes, dtype=np.int64)[:-1])


def _full(triangle: np.ndarray, n: int) -> np.ndarray:
    matrix = np.zeros((n, n), dtype=triangle.dtype)
    matrix[np.tril_indices(n)] = triangle
    return np.where(np.tri(n, dtype=bool), matrix, matrix.T)
