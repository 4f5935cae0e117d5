"""From pair features to network inputs: channels of size one that do not repeat each other, and the range they span."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR, NetworkInputs, PairFeatures, rounding
from vpotjax.operators.pairs import kind_count, mixing

MARGIN = 1.5
"""Features beyond this multiple of the largest norm among the training molecules count as out of range."""


@pytree
class Whitening:
    """Mean and transform per kind of pair, from training molecules.

    Only scalars on site have a mean; off site it would not vanish with distance, and elsewhere symmetry forbids it.

    Attributes:
        mean: by irrep, (kinds, channels).
        transform: by irrep, (kinds, channels, channels).
        reach: (kinds,) largest norm of the whitened scalars; −1 for kinds that no training molecule has.
    """

    mean: Mapping[Irrep, Array]
    transform: Mapping[Irrep, Array]
    reach: Array

    def __call__(self, features: PairFeatures, precision: str) -> NetworkInputs:
        """Network inputs of one molecule in `precision`, a dtype name; zero on padding."""
        kinds = jnp.asarray(features.kinds)
        real, values = (kinds >= 0)[:, None, None], {}
        for irrep, x in features.values.items():
            mean, transform = (jnp.asarray(table[irrep], x.dtype)[kinds] for table in (self.mean, self.transform))
            centred = jnp.where(real, x - mean[..., None], 0.0)
            values[irrep] = jnp.einsum("pkc,pkm->pcm", transform, centred).astype(precision)
        operators, near = (
            None if x is None else jnp.asarray(x).astype(precision) for x in (features.operators, features.near)
        )
        return NetworkInputs(
            values, features.even, kinds, features.elements, features.pairs, operators, features.layout, near
        )

    def rows(self, features: PairFeatures, irrep: Irrep, kind: int, chosen: np.ndarray) -> np.ndarray:
        """Whitened features of `chosen` pairs of one kind, (pairs · components, channels), in double precision.

        Args:
            features: with a leading axis of molecules.
            irrep, kind: of the features, and of the pairs.
            chosen: (molecules, npair).
        """
        x = np.asarray(features.values[irrep])[chosen].astype(float) - np.asarray(self.mean[irrep])[kind][:, None]
        return np.swapaxes(x, 1, 2).reshape(-1, x.shape[1]) @ np.asarray(self.transform[irrep])[kind]

    def excess(self, inputs: NetworkInputs) -> jax.Array:
        """(npair,) norm of the scalars over the largest in training: above one out of range, infinite for new kinds."""
        reach = jnp.asarray(self.reach, inputs.values[SCALAR].dtype)[inputs.kinds]
        ratio = scalar_norm(inputs) / (MARGIN * jnp.maximum(reach, 1e-6))
        return jnp.where(inputs.kinds >= 0, jnp.where(reach < 0, jnp.inf, ratio), 0.0)


def scalar_norm(inputs: NetworkInputs) -> jax.Array:
    """(npair,) norm of the even scalars."""
    even, _ = inputs.parts(SCALAR)
    squares = jnp.sum(even[..., 0] ** 2, axis=-1)
    some = squares > 0  # no root is taken of the zeros of far pairs, so derivatives are finite
    return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


def fitted_whitening(
    batches: Iterable[PairFeatures], species: int, matrices: int, noise: float = 1e-2, dtype: Any = None
) -> Whitening:
    """The whitening of training molecules.

    Channels are divided by their root mean square; those that symmetry makes zero for a kind of pair (such as the
    quadrupole of an on-site overlap), so that only rounding is left of them, get zero. The transform is then
    (C + noise)^{−1/2} with their second moments C, so that powers of V, which are nearly parallel, become independent,
    and directions below `noise` stay small. Even and odd channels are not mixed where symmetry forbids it.

    Args:
        batches: with a leading axis of molecules; gone through twice, one at a time in memory.
        species: number of elements.
        matrices: how many matrices the channels come from.
        noise: relative second moment below which a direction counts as noise.
        dtype: in which the features were computed, which decides what is rounding; default: as they are stored.
    """
    sums, sizes, even, stored = _sums(batches, matrices)
    largest, mixed, count = Sizes(sizes), mixing(species), kind_count(species)
    tolerated = rounding(np.dtype(dtype or stored))
    means, transforms = {}, {}
    for irrep, own_even in even.items():
        channels = next(len(total) for (i, _), (_, total, _) in sums.items() if i == irrep)
        means[irrep], transforms[irrep] = np.zeros((count, channels)), np.zeros((count, channels, channels))
        tolerance = tolerated * largest(channels, own_even)
        for kind in range(count):
            if (irrep, kind) not in sums:
                continue
            constant = own_even - 1 if irrep == SCALAR and kind < species else None
            means[irrep][kind], second = _moments(*sums[irrep, kind], constant)
            parts = [slice(0, channels)] if mixed[kind] else [slice(0, own_even), slice(own_even, channels)]
            for part in parts:
                transforms[irrep][kind][part, part] = _inverse_root(second[part, part], tolerance[part], noise)
    unknown = Whitening(means, transforms, np.full(count, -1.0))
    return dataclasses.replace(unknown, reach=_reach(batches, unknown))


Sums = dict[tuple[Irrep, int], tuple[int, np.ndarray, np.ndarray]]


def _sums(batches: Iterable[PairFeatures], matrices: int) -> tuple[Sums, np.ndarray, dict[Irrep, int], np.dtype]:
    """Number of rows, Σ x and Σ x xᵀ by irrep and kind; the largest scalar of each matrix; even channels; dtype."""
    sums: Sums = {}
    sizes, even, dtype = np.zeros(matrices), {}, np.dtype(float)
    for batch in batches:
        even, kinds = dict(batch.even), np.asarray(batch.kinds)
        count = even[SCALAR] - 1  # not the constant
        scalars = np.abs(np.asarray(batch.values[SCALAR])[..., :count, 0])
        sizes = np.maximum(sizes, scalars.reshape(-1, matrices, count // matrices).max(axis=(0, 2)))
        for irrep in even:
            values = np.asarray(batch.values[irrep])
            dtype = values.dtype
            for kind in np.unique(kinds[kinds >= 0]).tolist():
                x = values[kinds == kind]
                rows = np.swapaxes(x, 1, 2).reshape(-1, x.shape[1]).astype(float)
                number, total, second = sums.get((irrep, kind), (0, 0.0, 0.0))
                sums[irrep, kind] = number + len(rows), total + rows.sum(axis=0), second + rows.T @ rows
    return sums, sizes, even, dtype


def _moments(count: int, total: np.ndarray, second: np.ndarray, constant: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean, zero where there is no `constant` channel, and second moments about it; that channel stays."""
    if constant is None:
        return np.zeros(len(total)), second / count
    mean = np.where(np.arange(len(total)) == constant, 0.0, total / count)
    # Σ (x − m)(x − m)ᵀ, for a mean that is that of the rows, or zero
    second = second - np.outer(total, mean) - np.outer(mean, total) + count * np.outer(mean, mean)
    return mean, second / count


class Sizes:
    """The largest scalar of each matrix, for each channel of an irrep; one for the constant channel."""

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = sizes

    def __call__(self, channels: int, even: int) -> np.ndarray:
        """(channels,)"""
        count = len(self.sizes)
        constant = even % count
        own = [np.repeat(self.sizes, even // count), np.ones(constant)]
        return np.concatenate([*own, np.repeat(self.sizes, (channels - even) // count)])


def _inverse_root(second: np.ndarray, tolerance: np.ndarray, noise: float) -> np.ndarray:
    size = np.sqrt(np.maximum(np.diag(second), 0.0))
    scale = np.where(size > tolerance, 1 / np.maximum(size, 1e-300), 0.0)
    values, vectors = np.linalg.eigh(scale[:, None] * second * scale)
    return scale[:, None] * ((vectors / np.sqrt(np.maximum(values, 0) + noise)) @ vectors.T)


def _reach(batches: Iterable[PairFeatures], whitening: Whitening) -> np.ndarray:
    """(kinds,) `Whitening.reach`."""
    reach = np.array(whitening.reach)
    for batch in batches:
        kinds, even = np.asarray(batch.kinds), dict(batch.even)[SCALAR]
        for kind in np.unique(kinds[kinds >= 0]):
            rows = whitening.rows(batch, SCALAR, int(kind), kinds == kind)[:, :even]
            reach[kind] = max(reach[kind], float(np.sqrt(np.sum(rows**2, axis=1).max())))
    return reach
