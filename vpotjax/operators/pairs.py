"""Kinds of pairs of atoms, and what an exchange of the two atoms does to a coupled block.

A hermitian operator has one block for each unordered pair: that of ji is the transpose of that of ij. Transposition
takes the channel (n₁l₁, n₂l₂; λ) to (n₂l₂, n₁l₁; λ) times (−1)^{l₁+l₂−λ}. In the combinations (c ± c′)/√2 of a
channel c and its partner c′ it is a sign: even and odd channels. Pairs of two elements have an order, the lower
atomic number first, so all their channels may mix. Pairs of one element have none: even and odd channels must stay
apart, and on one atom the odd ones vanish.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete
from vpotjax._typing import Array
from vpotjax.batching import PairList
from vpotjax.operators.blocks import Coupled, Irrep, ShellLayout, irreps, of_pair, shell_pairs


def known_elements(numbers: Array, species: Sequence[int]) -> jax.Array:
    """() True where all atomic numbers, 0 for padding, are among `species`."""
    return jnp.all(jnp.any(jnp.asarray(numbers)[:, None] == jnp.array([0, *species]), axis=1))


def require_known_elements(numbers: Array, species: Sequence[int]) -> None:
    """Raise InputError unless all known atomic numbers, 0 for padding, are among `species`."""
    foreign = set(np.asarray(numbers).ravel().tolist()) - {0, *species}
    if foreign:
        raise InputError(
            f"numbers contains the elements {sorted(foreign)}, the model knows {sorted(species)}; train with them."
        )


def element_indices(numbers: Array, species: Sequence[int]) -> jax.Array:
    """(natm,) place of each atom's element in `species`; −1 for padding.

    Raises:
        InputError: an element is not among `species` (checked where `numbers` has values).
    """
    if is_concrete(numbers):
        require_known_elements(numbers, species)
    table = np.full(max(species) + 1, -1)
    table[list(species)] = np.arange(len(species))
    return jnp.asarray(table)[jnp.asarray(numbers)]


def pair_kinds(elements: Array, pairs: PairList, species: int) -> jax.Array:
    """(npair,) kind of each pair, see `kind_elements`; −1 for padding.

    Args:
        elements: from `element_indices`.
        pairs: of atoms.
        species: number of elements.
    """
    first, second = jnp.asarray(pairs.first), jnp.asarray(pairs.second)
    a, b = jnp.asarray(elements)[first], jnp.asarray(elements)[second]
    offsite = species + a * species - a * (a - 1) // 2 + b - a
    kinds = jnp.where(first == second, a, offsite)
    return jnp.where(jnp.asarray(pairs.mask) & (a >= 0) & (b >= 0), kinds, -1)


@functools.cache
def kind_elements(species: int) -> np.ndarray:
    """(kinds, 2) places in `species` of the elements of each kind: on site, then two atoms in ascending order."""
    onsite = [(a, a) for a in range(species)]
    return np.array(onsite + [(a, b) for a in range(species) for b in range(a, species)])


def kind_count(species: int) -> int:
    """Number of kinds of pairs among so many elements."""
    return len(kind_elements(species))


def mixing(species: int) -> np.ndarray:
    """(kinds,) True where even and odd channels may mix: pairs of two elements."""
    elements = kind_elements(species)
    return elements[:, 0] != elements[:, 1]


@functools.cache
def exchange(layout: ShellLayout) -> dict[Irrep, tuple[np.ndarray, int]]:
    """By irrep the orthogonal matrix (channels, channels) from channels to even, then odd ones; and how many are
    even.
    """
    partners: dict[Irrep, list[tuple[tuple[int, ...], int]]] = {irrep: [] for irrep in irreps(layout)}
    for l1, l2 in shell_pairs(layout):
        for irrep in of_pair(l1, l2):
            sign = (-1) ** (l1 + l2 - irrep.lam)
            shells = ((n1, n2) for n1 in range(layout.counts[l1]) for n2 in range(layout.counts[l2]))
            partners[irrep] += [((l1, l2, n1, n2), sign) for n1, n2 in shells]
    return {irrep: _combinations(channels) for irrep, channels in partners.items()}


def _combinations(channels: list[tuple[tuple[int, ...], int]]) -> tuple[np.ndarray, int]:
    place = {shells: i for i, (shells, _) in enumerate(channels)}
    even, odd = [], []
    for (l1, l2, n1, n2), sign in channels:
        own, other = place[l1, l2, n1, n2], place[l2, l1, n2, n1]
        row, partner = np.eye(len(channels))[[own, other]]
        if own == other:
            (even if sign > 0 else odd).append(row)
        elif own < other:
            even.append((row + sign * partner) / np.sqrt(2))
            odd.append((row - sign * partner) / np.sqrt(2))
    return np.array(even + odd), len(even)


def even_channels(layout: ShellLayout) -> dict[Irrep, int]:
    """Number of even channels of each irrep."""
    return {irrep: count for irrep, (_, count) in exchange(layout).items()}


def to_exchange(coupled: Coupled, layout: ShellLayout) -> dict[Irrep, jax.Array]:
    """Channels (..., channels, 2λ+1) as even ones, then odd ones."""
    tables = exchange(layout)
    return {i: jnp.einsum("kc,...cm->...km", jnp.asarray(tables[i][0], x.dtype), x) for i, x in coupled.items()}


def from_exchange(coupled: Coupled, layout: ShellLayout) -> dict[Irrep, jax.Array]:
    """The inverse of `to_exchange`."""
    tables = exchange(layout)
    return {i: jnp.einsum("kc,...km->...cm", jnp.asarray(tables[i][0], x.dtype), x) for i, x in coupled.items()}
