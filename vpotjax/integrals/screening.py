"""Lists of the pairs of primitives that are not negligible, for large molecules.

A pair is left out where

    |c_a c_b| (1 + √(2a) |P − A|)^{l_a} (1 + √(2b) |P − B|)^{l_b} (1 + μ (3 + 2μR²)) exp(−μR²) < threshold,

with μ = ab/(a + b), R = |A − B| and c the largest contraction coefficient of a normalised primitive: within small
factors a bound of its overlap and of its kinetic energy. An element then changes by some tens of thresholds, of V by as
many times the nuclear charge. Functions that are called with concrete positions make such lists themselves above
AUTOMATIC_ABOVE pairs, where that begins to pay (docs/benchmarks/integrals.md); under jit they use all
pairs, unless given lists, as models do by `pairs_of_program`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError, is_concrete, require_positions
from vpotjax._typing import Array
from vpotjax.basis import Basis, Shells
from vpotjax.integrals.assemble import PairLists, floating, require_near
from vpotjax.integrals.shell_pairs import PairList

AUTOMATIC_ABOVE = 100_000  # pairs of primitives
IN_PROGRAMS_ABOVE = 1_500_000  # pairs of primitives times charges

Capacity = tuple[tuple[tuple[int, int], int], ...]
"""Lengths of the lists by positions of two shells in `Basis.shells`; `PairLists.capacity` of an earlier call."""


def significant_pairs(
    basis: Basis, positions: Array, *, threshold: float = 1e-14, capacity: Capacity | None = None
) -> PairLists:
    """The pairs of primitives that matter at a geometry, for the argument `pairs` of the integrals.

    Without that argument, a call with concrete positions makes lists by itself for large molecules (above
    AUTOMATIC_ABOVE pairs); all other calls use all pairs.

    Of positions with values the lists are made long enough, with lengths rounded up by at most an eighth, so that
    similar geometries share a program. Of traced ones (jit, grad, vmap) they have room for all pairs, and integrals
    skip what is empty; lengths that are given save memory, and time under `vmap`, where nothing is skipped. Where a
    list is too short, `overflow` of the result is True and all integrals over it are NaN.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr; derivatives do not pass through the choice of pairs.
        threshold: pairs below it are left out.
        capacity: lengths of the lists, `.capacity` of an earlier result. Molecules of a padded batch share a program
            with the largest length that any of them has, list by list.

    Raises:
        InputError: as `overlap`; a threshold outside 0 … 1; a capacity of another basis.
    """
    require_positions(basis.numbers, positions)
    if not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}; give a number between 0 and 1, such as 1e-14.")
    if capacity is not None:
        _check_capacity(basis, capacity)
        return _lists(basis, positions, threshold, capacity)
    if not is_concrete(positions, *jax.tree.leaves(basis)):
        return _lists(basis, positions, threshold, None)
    with jax.ensure_compile_time_eval():  # for geometries that a jitted function closes over
        counts = _counts(basis, positions, threshold)
        capacity = tuple((key, _rounded_up(int(count))) for key, count in counts.items())
        return _lists(basis, positions, threshold, capacity)


def _check_capacity(basis: Basis, capacity: Capacity) -> None:
    wanted = [(i, j) for i in range(len(basis.shells)) for j in range(i + 1)]
    if not isinstance(capacity, tuple):
        raise InputError(f"capacity is {capacity!r}; give the .capacity of lists for this basis.")
    if sorted(key for key, _ in capacity) != wanted or any(size < 1 for _, size in capacity):
        raise InputError(
            f"capacity is {capacity}, but the basis needs a length of at least 1 for each of {wanted}; use the "
            ".capacity of lists for this basis."
        )


def pairs_for(basis: Basis, positions: Array, pairs: PairLists | None) -> PairLists | None:
    """`pairs`, or the default: lists where positions have values and the molecule is large, else all pairs.

    Raises:
        InputError: as `overlap`.
    """
    require_positions(basis.numbers, positions)
    require_near(positions, pairs)
    if pairs is not None or not is_concrete(positions, *jax.tree.leaves(basis)):
        return pairs
    return significant_pairs(basis, positions) if _number(basis) > AUTOMATIC_ABOVE else None


def pairs_of_program(basis: Basis, positions: Array, screened: bool) -> PairLists | None:
    """Lists for potentials in a program that takes one molecule after the other, as on CPUs; None if not worth it.

    Under `vmap` over molecules they save nothing.

    Args:
        basis, positions: as `significant_pairs`.
        screened: whether the screened potential is among them, which has the most charges.
    """
    charges = basis.natm * (1 + basis.screening_charges.shape[-1] if screened else 1)
    worth = jax.default_backend() == "cpu" and _number(basis) * charges > IN_PROGRAMS_ABOVE
    return significant_pairs(basis, positions) if worth else None


def _number(basis: Basis) -> float:
    """Of pairs of primitives."""
    return sum(len(shells.exponents) for shells in basis.shells) ** 2 / 2


def _rounded_up(count: int) -> int:
    """To the next of eight steps per factor of two, at least 64."""
    step = 2 ** max(math.ceil(math.log2(max(count, 64))) - 4, 3)
    return -(-max(count, 64) // step) * step


class _Span(NamedTuple):
    """All pairs of two shells in the row of all pairs.

    Attributes:
        key: positions of the shells.
        sizes: how many primitives they have.
        offsets: numbers of their first primitives, counted through the basis.
        start: place of the first pair.
    """

    key: tuple[int, int]
    sizes: tuple[int, int]
    offsets: tuple[int, int]
    start: int

    @property
    def inside(self) -> slice:
        """Their places."""
        return slice(self.start, self.start + math.prod(self.sizes))

    @property
    def most(self) -> int:
        """How many there are, each in one order alone."""
        first, second = self.sizes
        return first * (first + 1) // 2 if self.key[0] == self.key[1] else first * second


def _spans(basis: Basis) -> list[_Span]:
    sizes = [len(shells.exponents) for shells in basis.shells]
    offsets, start, spans = [0, *itertools.accumulate(sizes)], 0, []
    for i in range(len(sizes)):
        for j in range(i + 1):
            spans.append(_Span((i, j), (sizes[i], sizes[j]), (offsets[i], offsets[j]), start))
            start += sizes[i] * sizes[j]
    return spans


def _numbers(spans: Sequence[_Span]) -> jax.Array:
    """(2, n) primitives of all pairs, counted through the basis; made by the program, which would else hold them."""
    grids = []
    for span in spans:
        row, column = (jax.lax.broadcasted_iota(jnp.int32, span.sizes, axis).ravel() for axis in (0, 1))
        grids.append(jnp.stack([row + span.offsets[0], column + span.offsets[1]]))
    return jnp.concatenate(grids, axis=1)


def _mask(basis: Basis, positions: Array, threshold: float, numbers: jax.Array) -> jax.Array:
    """(n,) True for pairs of primitives, (2, n), that are not below the threshold, each in one of its two orders."""
    positions = jax.lax.stop_gradient(floating(positions))
    exponents = jnp.concatenate([jnp.asarray(shells.exponents) for shells in basis.shells])
    centres = positions[jnp.concatenate([jnp.asarray(shells.atom) for shells in basis.shells])]
    size = jnp.concatenate([_logarithms(shells) for shells in basis.shells])
    power = jnp.concatenate([jnp.full(len(shells.exponents), shells.l, exponents.dtype) for shells in basis.shells])
    first, second = numbers
    a, b = exponents[first], exponents[second]
    distance = jnp.sqrt(sum((x[first] - x[second]) ** 2 for x in centres.T))
    reduced = a * b / (a + b)
    decay = reduced * distance**2
    logarithm = size[first] + size[second] + jnp.log1p(reduced * (3 + 2 * decay)) - decay
    for l, exponent in ((power[first], a), (power[second], b)):
        logarithm = logarithm + l * jnp.log1p(jnp.sqrt(2 * exponent) * reduced / exponent * distance)
    return ~(logarithm < jnp.log(threshold)) & (first >= second)  # keeps NaN


def _logarithms(shells: Shells) -> jax.Array:
    """ln of the largest contraction coefficient of each normalised primitive, (nprim,); −∞ for padding."""
    power = shells.l + 1.5
    norm = jnp.sqrt(2 * (2 * jnp.asarray(shells.exponents)) ** power / math.gamma(power))
    return jnp.log(jnp.max(jnp.abs(jnp.asarray(shells.coefficients)), axis=0) / norm)


@jax.jit
def _counts(basis: Basis, positions: Array, threshold: float) -> dict[tuple[int, int], jax.Array]:
    spans = _spans(basis)
    mask = _mask(basis, positions, threshold, _numbers(spans))
    return {span.key: jnp.sum(mask[span.inside]) for span in spans}


@functools.partial(jax.jit, static_argnames="capacity")
def _lists(basis: Basis, positions: Array, threshold: float, capacity: Capacity | None) -> PairLists:
    """Without a capacity with room for all; one search makes all lists, which is quicker to compile than many."""
    spans = _spans(basis)
    capacities = [span.most for span in spans] if capacity is None else [dict(capacity)[span.key] for span in spans]
    numbers = _numbers(spans)
    mask = _mask(basis, positions, threshold, numbers)
    rank = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(mask, dtype=jnp.int32)])  # pairs before each one
    before = [rank[span.start] for span in spans]
    counts = [rank[span.inside.stop] - n for span, n in zip(spans, before, strict=True)]
    wanted = [
        n + jnp.minimum(jnp.arange(1, most + 1, dtype=jnp.int32), count)
        for n, most, count in zip(before, capacities, counts, strict=True)
    ]
    found = numbers[:, jnp.searchsorted(rank[1:], jnp.concatenate(wanted), method="scan")]
    lists, overflow, done = {}, jnp.zeros((), bool), 0
    for span, n, most, count in zip(spans, before, capacities, counts, strict=True):
        own = zip(found[:, done : done + most], span.offsets, span.sizes, strict=True)
        first, second = (jnp.clip(number - offset, 0, size - 1) for number, offset, size in own)
        place = rank[span.inside] - n
        slot = jnp.where(mask[span.inside] & (place < most), place, most).reshape(span.sizes)
        lists[span.key] = PairList(first, second, slot, jnp.minimum(count, most))
        overflow, done = overflow | (count > most), done + most
    return PairLists(lists, overflow, jax.lax.stop_gradient(floating(positions)))
