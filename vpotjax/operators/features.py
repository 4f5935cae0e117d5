"""What a model sees of a molecule: coupled blocks of operators and of their products, one for each pair of atoms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.batching import PairList
from vpotjax.operators.blocks import Irrep, ShellLayout
from vpotjax.operators.pairs import mixing

SCALAR = Irrep(0, 1)


@pytree
class PairFeatures:
    """Features of one molecule, in atomic units.

    Attributes:
        values: by irrep, (npair, channels, 2λ+1), even channels first (see `pairs`), zero on padding. Even channels run
            over matrices, then over pairs of shells; so do odd ones. The last even scalar is 1 on site and 0 off site.
        even: how many channels of each irrep are even.
        kinds: (npair,), see `pair_kinds`.
        elements: (natm,), see `element_indices`.
        pairs: of atoms.
        operators: Löwdin-orthogonal, (count, npair, width, width), of networks that multiply; None for others.
        layout: of these blocks.
        near: (npair,) the cutoff function of each pair's distance, which is in all channels; None without a cutoff.
    """

    values: Mapping[Irrep, Array]
    even: tuple[tuple[Irrep, int], ...] = static_field()
    kinds: Array
    elements: Array
    pairs: PairList
    operators: Array | None
    layout: ShellLayout = static_field()
    near: Array | None = None

    def parts(self, irrep: Irrep) -> tuple[jax.Array, jax.Array]:
        """Even and odd channels of an irrep."""
        count = dict(self.even)[irrep]
        values = jnp.asarray(self.values[irrep])
        return values[:, :count], values[:, count:]


@pytree
class NetworkInputs(PairFeatures):
    """What a network sees: features that `Whitening` gave size one, in the network's precision."""


T = TypeVar("T", PairFeatures, NetworkInputs)


def exchanged(features: T, species: int) -> T:
    """The same molecule with the two atoms of each pair of one element named in the other order."""
    table = jnp.asarray(~mixing(species))[features.kinds] & (jnp.asarray(features.kinds) >= 0)
    counts, pairs = dict(features.even), features.pairs
    values = {}
    for irrep, x in features.values.items():
        odd = jnp.arange(jnp.shape(x)[1]) >= counts[irrep]
        values[irrep] = jnp.where((table[:, None] & odd)[:, :, None], -jnp.asarray(x), x)
    first, second = (jnp.where(table, b, a) for a, b in ((pairs.first, pairs.second), (pairs.second, pairs.first)))
    operators = features.operators
    if operators is not None:
        operators = jnp.where(table[:, None, None], jnp.swapaxes(jnp.asarray(operators), -1, -2), operators)
    return dataclasses.replace(
        features, values=values, pairs=dataclasses.replace(pairs, first=first, second=second), operators=operators
    )


def rounding(dtype: np.dtype) -> float:
    """Channels below this share of the largest scalar of a matrix are rounding: 1e-6 in float32, 1e-8 in float64."""
    return float(max(8 * np.finfo(dtype).eps, 1e-8))
