"""Arrays of a data set file, checked as they are read; every refusal names what is missing or misshapen."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.io.sample import UNITS

COLUMNS = {"name", "split", "natm", "charge", "spin", "numbers", "positions"}
KEPT = 1 << 22  # bytes of a quantity that stay in memory whole
EMPTY = "%"  # stands for an empty name in the file; no quoted name is this


def quoted(name: str) -> str:
    """A name as HDF5 can have it."""
    return quote(name, safe=" ()*+,").replace(".", "%2E") or EMPTY


def unquoted(name: str) -> str:
    """The name of `quoted`."""
    return "" if name == EMPTY else unquote(name)


def expect(group: Any, keys: set[str]) -> None:
    """Raise InputError unless a group has these keys and no other."""
    extra, missing = sorted(set(group) - keys), sorted(keys - set(group))
    if extra or missing:
        what = f"holds {extra[0]!r}, which the format does not know" if extra else f"lacks {missing[0]!r}"
        raise InputError(f"group {group.name!r} {what}; make the file again with write_dataset.")


def groups(group: Any, skip: set[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Groups in a group, which has nothing else but `skip`."""
    if not hasattr(group, "items"):
        raise InputError(f"{group.name!r} is not a group; make the file again with write_dataset.")
    for key, item in group.items():
        if skip and key in skip:
            continue
        if not hasattr(item, "items"):
            raise InputError(f"{group.name!r} holds {key!r}, which is not a group; make the file again.")
        yield key, item


def array(group: Any, key: str, kinds: str, shape: tuple[Any, ...]) -> np.ndarray:
    """An array of the file; None in `shape` accepts any size, a final ... any further axes."""
    return checked(group, key, kinds, shape)[()]


def checked(group: Any, key: str, kinds: str, shape: tuple[Any, ...]) -> Any:
    """The same, not read."""
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
    return item


def text_column(file: Any, key: str) -> list[str]:
    """A list of text."""
    item = _dataset(file, key)
    if h5py.check_string_dtype(item.dtype) is None or item.ndim != 1:
        raise InputError(f"{item.name!r} is not a list of text; make the file again.")
    return [str(text) for text in item.asstr()[()]]


def _dataset(group: Any, key: str) -> Any:
    item = group.get(key)
    if item is None or hasattr(item, "items"):
        raise InputError(f"group {group.name!r} has no array {key!r}; make the file again with write_dataset.")
    return item


def pieces(group: Any, key: str, data: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Data of all samples, sample by sample."""
    _require_sizes(group, key, len(data), sizes)
    return np.split(data, np.cumsum(sizes, dtype=np.int64)[:-1])


def _require_sizes(group: Any, key: str, length: int, sizes: np.ndarray) -> None:
    if np.any(sizes < 0) or math.fsum(sizes.tolist()) != length:
        raise InputError(
            f"{key!r} of group {group.name!r} has {length} entries, but the sizes of the samples make "
            f"{sizes.sum(dtype=np.int64)}; make the file again."
        )


class Stored:
    """Values of one quantity in a file."""

    def __init__(
        self, values: Any, places: np.ndarray, shapes: np.ndarray, triangles: np.ndarray, starts: np.ndarray
    ) -> None:
        self.values, self.places, self.shapes, self.triangles, self.starts = values, places, shapes, triangles, starts
        self._kept: np.ndarray | None = None

    def read(self, rows: Sequence[int]) -> list[np.ndarray | None]:
        """Of these samples; None where there is none."""
        places = self.places[np.asarray(rows, dtype=int)]
        wanted = np.unique(places[places >= 0])
        found = dict(zip(wanted.tolist(), self._flat(wanted), strict=True))
        return [None if p < 0 else self._shaped(found[p], p) for p in places.tolist()]

    def _flat(self, places: np.ndarray) -> list[np.ndarray]:
        """Numbers of ascending places."""
        starts, ends = self.starts[places], self.starts[places + 1]
        if self.values.nbytes <= KEPT:
            kept = self._kept = self.values[()] if self._kept is None else self._kept
            return [kept[i:j] for i, j in zip(starts, ends, strict=True)]
        lengths = ends - starts
        data = np.empty(int(lengths.sum()), self.values.dtype)
        space = self.values.id.get_space()  # one call for all: each takes longer than what it reads
        space.select_none()
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            if length:
                space.select_hyperslab((start,), (length,), op=h5py.h5s.SELECT_OR)
        if len(data):
            self.values.id.read(h5py.h5s.create_simple(data.shape), space, data)
        return np.split(data, np.cumsum(lengths)[:-1])

    def _shaped(self, data: np.ndarray, place: int) -> np.ndarray:
        shape = tuple(n for n in self.shapes[place].tolist() if n >= 0)
        if not self.triangles[place]:
            return data.reshape(shape).copy()
        full, (i, j) = np.zeros(shape, data.dtype), _lower(shape[-1])
        full[..., i, j] = full[..., j, i] = data.reshape(*shape[:-2], -1)
        return full


@functools.lru_cache(64)
def _lower(n: int) -> tuple[np.ndarray, ...]:
    return np.tril_indices(n)


def stored(group: Any, key: str, count: int, rows: np.ndarray, shapes: np.ndarray, triangles: np.ndarray) -> Stored:
    """A quantity whose values are the array `key`, and whose tables fit them."""
    real = shapes >= 0
    axes = real.sum(axis=1)
    if np.any(real != (np.arange(shapes.shape[1]) < axes[:, None])) or np.any(shapes < -1):
        raise InputError(f"{group.name!r} has shapes with negative axes; make it again.")
    sizes = np.prod(np.where(real, shapes, 1), axis=1, dtype=np.int64)
    for row in np.flatnonzero(triangles):
        *_, height, width = (-1, -2, *shapes[row, real[row]])
        if height != width:
            raise InputError(f"{group.name!r} has shapes of triangles that are not square; make it again.")
        sizes[row] -= sizes[row] * (width - 1) // (2 * width) if width else 0
    values = checked(group, key, "biuf", (None,))
    _require_sizes(group, key, len(values), sizes)
    places = np.full(count, -1)
    places[rows] = np.arange(len(rows))
    return Stored(values, places, shapes, triangles, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]))
