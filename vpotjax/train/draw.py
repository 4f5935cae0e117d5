"""Batches of molecules at random."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpotjax.train.descent import Descent
from vpotjax.train.held import Molecules
from vpotjax.train.samples import Bucket


@dataclasses.dataclass(frozen=True)
class DrawnBatch:
    """One of each network.

    Attributes:
        bucket: of the molecules.
        chosen: places in the bucket, (networks, molecules).
    """

    bucket: Bucket
    chosen: np.ndarray

    @property
    def count(self) -> int:
        """Molecules of each network."""
        return self.chosen.shape[1]

    def names(self, network: int) -> list[str]:
        """Of the molecules of one of the networks."""
        return [self.bucket.names[row] for row in self.chosen[network]]


class Draw:
    """Batches at random: a bucket by its share of the molecules, then some of its molecules for each network."""

    def __init__(
        self, buckets: Sequence[Bucket], molecules: Sequence[Molecules], settings: Descent, numbers: Sequence[int]
    ) -> None:
        self.buckets, self.molecules = buckets, molecules
        seeds = [settings.seed, *((settings.seed + number, 1) for number in numbers)]
        self.of_bucket, *self.of_rows = (np.random.default_rng(seed) for seed in seeds)
        self.sizes = [min(settings.batch(max(1, b.reference.level_mask.shape[-1])), len(b)) for b in buckets]
        self.total = sum(len(b) for b in buckets)
        self.shares = np.array([len(b) for b in buckets]) / max(1, self.total)
        self.mean_size = float(self.shares @ np.array(self.sizes))

    @property
    def states(self) -> list[Any]:
        """Of the generators."""
        return [rng.bit_generator.state for rng in (self.of_bucket, *self.of_rows)]

    @states.setter
    def states(self, values: Sequence[Any]) -> None:
        for rng, value in zip((self.of_bucket, *self.of_rows), values, strict=True):
            rng.bit_generator.state = value

    def __call__(self) -> tuple[DrawnBatch, Any, Any]:
        """The next one; content and reference of its molecules, and their rows, see `Molecules.batch`.

        Rows have a leading axis of several networks, and at the end some more molecules to fill up devices.
        """
        place = int(self.of_bucket.choice(len(self.buckets), p=self.shares))
        bucket, molecules = self.buckets[place], self.molecules[place]
        chosen = np.stack([rng.choice(len(bucket), self.sizes[place], replace=False) for rng in self.of_rows])
        rows = chosen
        if more := molecules.filled(chosen.shape[1]) - chosen.shape[1]:
            rows = np.pad(chosen, ((0, 0), (0, more)), mode="edge")
        return DrawnBatch(bucket, chosen), *molecules.batch(rows if len(rows) > 1 else rows[0])
