"""Programs over the molecules of a bucket, and arrays of which only the rows in use are in memory."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

CHUNK = 32  # molecules of one call
ALIGNMENT = 64  # bytes, with which JAX reads an array where it is


def return_memory() -> None:
    """Give what was freed back to the system: compilations take more than a GB, and glibc keeps it."""
    with suppress(OSError, AttributeError):  # other libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


class Rows:
    """An array in a file; rows are read when they are asked for, and are not kept, unless it is `mapped`.

    Attributes:
        path: of the raw numbers.
        stored: shape in the file.
        dtype: of the elements.
        chosen: rows of the file that this array has.
    """

    def __init__(self, path: Path, stored: tuple[int, ...], dtype: np.dtype, chosen: np.ndarray | None = None) -> None:
        self.path, self.stored, self.dtype = path, stored, dtype
        self.chosen = np.arange(stored[0]) if chosen is None else chosen

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return (len(self.chosen), *self.stored[1:])

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Any) -> np.ndarray:
        if not math.prod(self.stored):  # such a file cannot be mapped
            return np.empty(self.stored, self.dtype)[self.chosen[rows]]
        whole = np.memmap(self.path, self.dtype, "r", shape=self.stored)  # unmapped at once: its pages would count
        return np.array(whole[self.chosen[rows]])

    def mapped(self) -> tuple[np.ndarray, mmap.mmap]:
        """All of the file, and the memory map, which can give its pages back."""
        with self.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(pages, self.dtype).reshape(self.stored), pages

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory that programs can read where it is."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def selected(tree: Any, rows: np.ndarray) -> Any:
    """Rows of every leaf; those in files stay there."""

    def of_leaf(x: Any) -> Any:
        if isinstance(x, Rows):
            return Rows(x.path, x.stored, x.dtype, x.chosen[rows])
        own = np.arange(len(x))[rows]
        return np.take(x, own, axis=0, out=aligned((len(own), *x.shape[1:]), x.dtype), mode="clip")

    return jax.tree.map(of_leaf, tree)


def joined(parts: Iterator[Any], folder: Path | None = None) -> Any:
    """Trees of NumPy arrays one after the other along the leading axis: in memory, or in files of a folder."""
    if folder is None:
        every = list(parts)
        return every[0] if len(every) == 1 else jax.tree.map(_concatenated, *every)
    first = next(parts)
    leaves, structure = jax.tree.flatten(first)
    own = Path(tempfile.mkdtemp(dir=folder))
    paths = [own / f"{i}.raw" for i in range(len(leaves))]
    counts = [0] * len(leaves)
    for part in itertools.chain([first], parts):
        for i, (path, leaf) in enumerate(zip(paths, jax.tree.leaves(part), strict=True)):
            with path.open("ab") as file:
                np.ascontiguousarray(leaf).tofile(file)
            counts[i] += len(leaf)
    rows = [Rows(p, (n, *x.shape[1:]), x.dtype) for p, n, x in zip(paths, counts, leaves, strict=True)]
    return jax.tree.unflatten(structure, rows)


def _concatenated(*leaves: np.ndarray) -> np.ndarray:
    shape = (sum(map(len, leaves)), *leaves[0].shape[1:])
    return np.concatenate(leaves, out=aligned(shape, leaves[0].dtype))


def chunks(tree: Any, size: int = 2 * CHUNK) -> Iterator[Any]:
    """Rows of every leaf, `size` at a time, in memory; none of no rows."""
    count = len(jax.tree.leaves(tree)[0])
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        yield jax.tree.map(lambda x, r=rows: x[r], tree)


def over_molecules(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` over the leading axis: one after the other on CPUs, where that is faster, batched on other devices."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), trees)
    return jax.vmap(function)(*trees)


def in_chunks(function: Callable[[Any], Any], tree: Any, size: int = CHUNK, folder: Path | None = None) -> Any:
    """Results of a program of `size` molecules on all along the leading axis of `tree`, which has at least one.

    The last call is filled up with copies of the last molecule, so that one program serves any number of them. See
    `joined` for `folder`.
    """
    return joined(chunk_results(function, tree, size), folder)


def chunk_results(function: Callable[[Any], Any], tree: Any, size: int = CHUNK) -> Iterator[Any]:
    """The results of `in_chunks`, chunk by chunk."""
    count = len(jax.tree.leaves(tree)[0])
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = function(jax.tree.map(lambda x, r=rows: x[r], tree))
        yield jax.tree.map(lambda x, n=count - start: np.asarray(x)[:n], part)
