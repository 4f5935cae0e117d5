"""From pair features to network inputs: channels of size one that do not repeat each other, and the range they span."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR, NetworkInputs, PairFeatures, rounding
from vpotjax.operators.pairs import kind_count, mixing

FARTHEST = 3.0
"""A pair is out of range where a fit to the training molecules knows it this many times worse than a measured one."""
MARGIN = 1.5
"""It is also out of range where its features are this many times as large as the largest of the training molecules."""
PENALTY = 1e-5
"""Of the fit, relative to the mean of Σ ‖w‖² over the kinds: what cross-validation chooses for small data sets."""


@pytree
class Whitening:
    """Mean and transform per kind of pair, from training molecules.

    Only scalars on site have a mean; off site it would not vanish with distance, and elsewhere symmetry forbids it.

    Attributes:
        mean: by irrep, (kinds, channels).
        transform: by irrep, (kinds, channels, channels).
        support: L, (kinds, channels, channels), with L Lᵀ = (Σ w wᵀ + λ)⁻¹ over the whitened scalars w of the training
            molecules.
        reach: (kinds,) largest norm of w; −1 for kinds that no training molecule has.
    """

    mean: Mapping[Irrep, Array]
    transform: Mapping[Irrep, Array]
    support: Array
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
        """(npair,) how far pairs lie from the training molecules: above one out of range, infinite for new kinds.

        The larger of √h / FARTHEST and the norm of the whitened scalars over MARGIN times the largest in training. The
        leverage h = wᵀ (Σ w wᵀ + λ)⁻¹ w is the variance of a ridge fit's prediction in units of that of one measurement
        (Hoaglin & Welsch 1978, doi:10.1080/00031305.1978.10479237): it finds features of a usual size in a direction
        that few training molecules decide. The norm finds those that are larger in a direction that many decide, where
        a linear map may hold no longer.
        """
        w, kinds = inputs.values[SCALAR][..., 0], inputs.kinds
        reach = jnp.asarray(self.reach, w.dtype)[kinds]
        leverage = _norm(jnp.einsum("pk,pkl->pl", w, jnp.asarray(self.support, w.dtype)[kinds])) / FARTHEST
        size = _norm(w) / (MARGIN * jnp.maximum(reach, 1e-6))
        return jnp.where(kinds >= 0, jnp.where(reach < 0, jnp.inf, jnp.maximum(leverage, size)), 0.0)


def _norm(x: Array) -> jax.Array:
    """Of each row; no root is taken of the zeros of far pairs, so derivatives are finite."""
    squares = jnp.sum(jnp.asarray(x) ** 2, axis=-1)
    some = squares > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


def fitted_whitening(batches: Iterable[PairFeatures], species: int, matrices: int, noise: float = 1e-2) -> Whitening:
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
    """
    sums, sizes, even, dtype = _sums(batches, species, matrices)
    largest, mixed, count = Sizes(sizes), mixing(species), kind_count(species)
    tolerated = rounding(dtype)
    means, transforms, grams = {}, {}, {}
    for irrep, own_even in even.items():
        channels = next(len(own.total) for (i, _), own in sums.items() if i == irrep)
        means[irrep], transforms[irrep] = np.zeros((count, channels)), np.zeros((count, channels, channels))
        tolerance = tolerated * largest(channels, own_even)
        for kind in range(count):
            if (irrep, kind) not in sums:
                continue
            means[irrep][kind], second = sums[irrep, kind].moments(own_even - 1)
            parts = [slice(0, channels)] if mixed[kind] else [slice(0, own_even), slice(own_even, channels)]
            for part in parts:
                own = transforms[irrep][kind][part, part] = _inverse_root(second[part, part], tolerance[part], noise)
                if irrep == SCALAR:
                    whitened = grams.setdefault(kind, np.zeros((channels, channels)))
                    whitened[part, part] = sums[irrep, kind].number * own.T @ second[part, part] @ own
    unknown = Whitening(means, transforms, _support(grams, count), np.full(count, -1.0))
    return dataclasses.replace(unknown, reach=_reach(batches, unknown))


class Sums(NamedTuple):
    """Number of rows x, Σ (x − shift) and Σ (x − shift)(x − shift)ᵀ; shift is None where there is no mean."""

    number: int
    shift: np.ndarray | None
    total: np.ndarray
    second: np.ndarray

    def add(self, x: np.ndarray) -> Sums:
        """With more rows."""
        x = x if self.shift is None else x - self.shift
        return Sums(self.number + len(x), self.shift, self.total + x.sum(axis=0), self.second + x.T @ x)

    def moments(self, constant: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and second moments about it; the `constant` channel stays."""
        if self.shift is None:
            return np.zeros(len(self.total)), self.second / self.number
        # A shift near the mean leaves no rounding of squares where a channel is the same in all rows.
        total, others = self.total / self.number, np.arange(len(self.total)) != constant
        mean = np.where(others, total, 0.0)
        change = np.outer(mean, total)  # Σ (y − m)(y − m)ᵀ for a mean m that is that of the rows y, or zero
        second = self.second / self.number - change - change.T + np.outer(mean, mean)
        return np.where(others, self.shift + mean, 0.0), second


def _sums(
    batches: Iterable[PairFeatures], species: int, matrices: int
) -> tuple[dict[tuple[Irrep, int], Sums], np.ndarray, dict[Irrep, int], np.dtype]:
    """Sums by irrep and kind; the largest scalar of each matrix; even channels; dtype."""
    sums: dict[tuple[Irrep, int], Sums] = {}
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
                if (irrep, kind) not in sums:
                    shift = None
                    if irrep == SCALAR and kind < species:
                        shift = np.where(np.arange(rows.shape[1]) == count, 0.0, rows[0])
                    zero = np.zeros(rows.shape[1])
                    sums[irrep, kind] = Sums(0, shift, zero, np.outer(zero, zero))
                sums[irrep, kind] = sums[irrep, kind].add(rows)
    return sums, sizes, even, dtype


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


def _support(grams: Mapping[int, np.ndarray], count: int) -> np.ndarray:
    """`Whitening.support` from Σ w wᵀ by kind."""
    penalty = PENALTY * np.mean([np.trace(gram) for gram in grams.values()])
    channels = len(next(iter(grams.values())))
    support = np.zeros((count, channels, channels))
    for kind, gram in grams.items():
        values, vectors = np.linalg.eigh(gram)
        support[kind] = vectors / np.sqrt(np.maximum(values, 0) + penalty)
    return support


def _reach(batches: Iterable[PairFeatures], whitening: Whitening) -> np.ndarray:
    """(kinds,) `Whitening.reach`."""
    reach = np.array(whitening.reach)
    for batch in batches:
        kinds = np.asarray(batch.kinds)
        for kind in np.unique(kinds[kinds >= 0]):
            rows = whitening.rows(batch, SCALAR, int(kind), kinds == kind)
            reach[kind] = max(reach[kind], float(np.sqrt(np.sum(rows**2, axis=1).max())))
    return reach
