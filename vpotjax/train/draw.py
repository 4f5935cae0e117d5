"""Batches of molecules at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vpotjax.train.arrays import BatchBuffer, return_memory
from vpotjax.train.descent import Descent
from vpotjax.train.devices import Sharing
from vpotjax.train.samples import Bucket


@dataclasses.dataclass(frozen=True)
class DrawnBatch:
    """One of each network.

    Attributes:
        bucket: of the molecules.
        names: of each network.
        content, reference: arrays, with a leading axis of several networks.
        count: molecules of each network; arrays may have more, at the end, to fill up devices.
    """

    bucket: Bucket
    names: list[tuple[str, ...]]
    content: Any
    reference: Any
    count: int


class Draw:
    """Batches at random: a bucket by its share of the molecules, then some of its molecules for each network."""

    def __init__(
        self, buckets: Sequence[Bucket], settings: Descent, numbers: Sequence[int], sharing: Sharing | None
    ) -> None:
        self.buckets, self.sharing = buckets, sharing
        seeds = [settings.seed, *((settings.seed + number, 1) for number in numbers)]
        self.of_bucket, *self.of_rows = (np.random.default_rng(seed) for seed in seeds)
        self.sizes = [min(settings.batch(max(1, b.reference.level_mask.shape[-1])), len(b)) for b in buckets]
        self.molecules = sum(len(b) for b in buckets)
        self.shares = np.array([len(b) for b in buckets]) / max(1, self.molecules)
        self.mean_size = float(self.shares @ np.array(self.sizes))
        self.buffers = BatchBuffer(), BatchBuffer()  # one is read while the other one is filled
        self.compiled: set[int] = set()

    @property
    def states(self) -> list[Any]:
        """Of the generators."""
        return [rng.bit_generator.state for rng in (self.of_bucket, *self.of_rows)]

    @states.setter
    def states(self, values: Sequence[Any]) -> None:
        for rng, value in zip((self.of_bucket, *self.of_rows), values, strict=True):
            rng.bit_generator.state = value

    def __call__(self, step: int) -> DrawnBatch:
        """Of a step."""
        place = int(self.of_bucket.choice(len(self.buckets), p=self.shares))
        bucket, count, several = self.buckets[place], self.sizes[place], len(self.of_rows) > 1
        rows = [rng.choice(len(bucket), count, replace=False) for rng in self.of_rows]
        names = [tuple(bucket.names[r] for r in own) for own in rows]
        filled = count if self.sharing is None else self.sharing.filled(count)
        padded = np.pad(np.stack(rows), ((0, 0), (0, filled - count)), mode="edge")
        arrays: Any = self.buffers[step % 2].filled((bucket.content, bucket.reference), padded.ravel())
        if several:
            arrays = jax.tree.map(lambda x: x.reshape(len(rows), filled, *x.shape[1:]), arrays)
        if self.sharing is not None:
            arrays = self.sharing.placed(arrays, int(several))
        return DrawnBatch(bucket, names, arrays[0], arrays[1], count)

    def return_memory_once(self, bucket: Bucket) -> None:
        """After the first batch of a bucket, which compiles."""
        if id(bucket) not in self.compiled:
            self.compiled.add(id(bucket))
            return_memory()
