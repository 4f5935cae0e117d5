"""Lists of the pairs of primitives that are not negligible, for large molecules.

A pair is left out where

    |c_a c_b| (1 + √(2a) |P − A|)^{l_a} (1 + √(2b) |P − B|)^{l_b} (1 + μ (3 + 2μR²)) exp(−μR²) < threshold,

with μ = ab/(a + b), R = |A − B| and c the largest contraction coefficient of a normalised primitive: within small
factors a bound of its overlap and of its kinetic energy. An element then changes by some tens of thresholds, of V by as
many times the nuclear charge. Functions that are called with concrete positions make such lists themselves above
AUTOMATIC_ABOVE pairs, where that begins to pay (docs/benchmarks/integrals.md); under jit they use all
pairs, unless given lists.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError, is_concrete, require_positions
from vpotjax._typing import Array
from vpotjax.basis import Basis, Shells
from vpotjax.integrals.assemble import PairLists, floating, require_near
from vpotjax.integrals.shell_pairs import PairList

AUTOMATIC_ABOVE = 100_000  # pairs of primitives

Capacity = tuple[tuple[tuple[int, int], int], ...]
"""Lengths of the lists by positions of two shells in `Basis.shells`; `PairLists.capacity` of an earlier call."""


def significant_pairs(
    basis: Basis, positions: Array, *, threshold: float = 1e-14, capacity: Capacity | None = None
) -> PairLists:
    """The pairs of primitives that matter at a geometry, for the argument `pairs` of the integrals.

    Without that argument, a call with concrete positions makes lists by itself for large molecules (above
    AUTOMATIC_ABOVE pairs); all other calls use all pairs.

    Outside jit the lists are made long enough, with lengths rounded up by at most an eighth, so that similar
    geometries share a program. Under jit the lengths have to be given. Where a list is too short, `overflow` of the
    result is True and all integrals over it are NaN.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr; derivatives do not pass through the choice of pairs.
        threshold: pairs below it are left out.
        capacity: lengths of the lists, `.capacity` of an earlier result; needed under jit. Molecules of a padded batch
            share a program with the largest length that any of them has, list by list.

    Raises:
        InputError: as `overlap`; a threshold outside 0 … 1; no capacity for traced positions, or one of another basis.
    """
    require_positions(basis.numbers, positions)
    if not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}; give a number between 0 and 1, such as 1e-14.")
    if capacity is not None:
        _check_capacity(basis, capacity)
        return _lists(basis, positions, threshold, capacity)
    if not is_concrete(positions, *jax.tree.leaves(basis)):
        raise InputError(
            "capacity is None, but positions or basis are traced (jit, vmap, grad); give the .capacity of lists that "
            "were made outside."
        )
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
    primitives = sum(len(shells.exponents) for shells in basis.shells)
    return significant_pairs(basis, positions) if primitives**2 / 2 > AUTOMATIC_ABOVE else None


def _rounded_up(count: int) -> int:
    """To the next of eight steps per factor of two, at least 64."""
    step = 2 ** max(math.ceil(math.log2(max(count, 64))) - 4, 3)
    return -(-max(count, 64) // step) * step


def _masks(basis: Basis, positions: Array, threshold: float) -> dict[tuple[int, int], jax.Array]:
    positions = jax.lax.stop_gradient(floating(positions))
    sizes = [_logarithms(shells) for shells in basis.shells]
    masks = {}
    for i, first in enumerate(basis.shells):
        for j, second in enumerate(basis.shells[: i + 1]):
            a, b = jnp.asarray(first.exponents)[:, None], jnp.asarray(second.exponents)[None, :]
            separation = positions[first.atom][:, None] - positions[second.atom][None, :]
            distance = jnp.linalg.norm(separation, axis=-1)
            reduced = a * b / (a + b)
            decay = reduced * distance**2
            angular = first.l * jnp.log1p(jnp.sqrt(2 * a) * b / (a + b) * distance)
            angular = angular + second.l * jnp.log1p(jnp.sqrt(2 * b) * a / (a + b) * distance)
            logarithm = sizes[i][:, None] + sizes[j][None, :] + angular + jnp.log1p(reduced * (3 + 2 * decay)) - decay
            mask = ~(logarithm < jnp.log(threshold))  # keeps NaN
            masks[i, j] = jnp.tril(mask) if i == j else mask
    return masks


def _logarithms(shells: Shells) -> jax.Array:
    """ln of the largest contraction coefficient of each normalised primitive, (nprim,); −∞ for padding."""
    power = shells.l + 1.5
    norm = jnp.sqrt(2 * (2 * jnp.asarray(shells.exponents)) ** power / math.gamma(power))
    return jnp.log(jnp.max(jnp.abs(jnp.asarray(shells.coefficients)), axis=0) / norm)


@jax.jit
def _counts(basis: Basis, positions: Array, threshold: float) -> dict[tuple[int, int], jax.Array]:
    return {key: jnp.sum(mask) for key, mask in _masks(basis, positions, threshold).items()}


@functools.partial(jax.jit, static_argnames="capacity")
def _lists(basis: Basis, positions: Array, threshold: float, capacity: Capacity) -> PairLists:
    masks = _masks(basis, positions, threshold)
    lists, overflow = {}, jnp.zeros((), bool)
    for key, size in capacity:
        mask = masks[key]
        place = jnp.cumsum(mask.ravel(), dtype=jnp.int32)  # from 1
        wanted = jnp.arange(1, size + 1, dtype=jnp.int32)
        number = jnp.searchsorted(place, wanted, method="scan")
        number = jnp.where(wanted <= place[-1], number, 0)
        slot = jnp.where(mask & (place.reshape(mask.shape) <= size), place.reshape(mask.shape) - 1, size)
        lists[key] = PairList(number // mask.shape[1], number % mask.shape[1], slot)
        overflow = overflow | (place[-1] > size)
    return PairLists(lists, overflow, jax.lax.stop_gradient(floating(positions)))
