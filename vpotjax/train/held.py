"""Molecules of a bucket as compiled programs read them: where they are, in memory, in files or on an accelerator."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vpotjax.train.arrays import Rows, over_molecules
from vpotjax.train.devices import Sharing

SMALL = 1 << 20  # bytes of a file that is rather read than mapped: each map holds a file descriptor
MAPPED = 1 << 26  # bytes of files that programs have read, after which their pages are given back


class Held(NamedTuple):
    """What programs read of a leaf: some array, and the rows of it that are meant; None: all."""

    whole: Any
    chosen: Any


def _is_held(x: Any) -> bool:
    return isinstance(x, Held)


class Molecules:
    """Arrays of molecules for compiled programs.

    On one device a program is given all of them and reads those of the rows that it gets; on CPUs where they are, in
    memory or in mapped files, on accelerators in a copy that they hold. Where several devices share a batch, or an
    accelerator has too little memory, it is given the batch.
    """

    def __init__(self, tree: Any, sharing: Sharing | None) -> None:
        self.tree, self.sharing, self.maps = tree, sharing, list[mmap.mmap]()
        leaves = jax.tree.leaves(tree)
        self.size = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in leaves)
        self.read = 0
        self.held = None
        if sharing is None and _fits(self.size * len(leaves[0])):
            self.held = jax.tree.map(self._held, tree)

    def _held(self, leaf: Any) -> Held:
        if not isinstance(leaf, Rows):
            return Held(jax.device_put(np.asarray(leaf)), None)
        small = math.prod(leaf.stored) * leaf.dtype.itemsize < SMALL
        if small or jax.default_backend() != "cpu" or jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            return Held(jax.device_put(leaf[:]), None)
        whole, pages = leaf.mapped()
        self.maps.append(pages)
        every = np.array_equal(leaf.chosen, np.arange(len(whole)))
        return Held(jax.device_put(whole), None if every else jax.device_put(leaf.chosen))

    def filled(self, count: int) -> int:
        """So many rows that every device has as many as the others."""
        return count if self.sharing is None else self.sharing.filled(count)

    def batch(self, rows: np.ndarray) -> tuple[Any, Any]:
        """Arguments of a program that looks at these rows: leaves, each a `Held`, and rows of them for `over_rows`.

        Args:
            rows: (molecules,), or (networks, molecules); devices share the molecules.
        """
        if self.held is not None:
            self._give_back(rows.size)
            return self.held, rows
        devices = 1 if self.sharing is None else self.sharing.count
        parts = rows.reshape(-1, devices, rows.shape[-1] // devices)
        networks, _, own = parts.shape
        flat = np.swapaxes(parts, 0, 1).ravel()  # a device has its molecules of all networks
        places = np.tile(np.arange(networks * own).reshape(networks, own), devices).reshape(rows.shape)
        arrays = jax.tree.map(lambda x: x[flat], self.tree)
        if self.sharing is not None:
            arrays, places = self.sharing.placed(arrays), self.sharing.placed(places, rows.ndim - 1)
        return jax.tree.map(lambda x: Held(x, None), arrays), places

    def _give_back(self, count: int) -> None:
        """Pages of files that were read would count as memory of this process."""
        self.read += count * self.size
        if self.read > MAPPED and hasattr(mmap, "MADV_DONTNEED"):
            self.read = 0
            for pages in self.maps:
                pages.madvise(mmap.MADV_DONTNEED)


def _fits(size: int) -> bool:
    """Whether an accelerator has room for so many bytes of data; CPUs do not copy them."""
    if jax.default_backend() == "cpu":
        return True
    known = jax.local_devices()[0].memory_stats() or {}
    return size < (known.get("bytes_limit", 0) - known.get("bytes_in_use", 0)) / 2


def shared_molecules(part: str, buckets: Sequence[Any], shared: dict[str, Any], sharing: Sharing | None) -> Any:
    """`Molecules` of the buckets of a part, one each, which all networks share by `shared`."""
    if part not in shared:
        shared[part] = [Molecules((b.content, b.reference), sharing) for b in buckets]
    return shared[part]


def over_rows(function: Callable[..., Any], held: Any, rows: Any) -> Any:
    """`over_molecules` of those rows of leaves that are `Held`."""

    def of_row(row: Any) -> Any:
        def of_leaf(x: Held) -> Any:
            return x.whole[row if x.chosen is None else x.chosen[row]]

        return function(*jax.tree.map(of_leaf, held, is_leaf=_is_held))

    return over_molecules(of_row, rows)
