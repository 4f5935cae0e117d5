"""AO matrices as blocks of pairs of atoms, and those as coupled irreps.

A `ShellLayout` is the union of the shells that the elements of a project have, so that every atom, of whatever
element, has the same slots and one program serves mixed compositions; slots that an atom lacks hold zero.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete
from vpotjax._guards import flag
from vpotjax._typing import Array
from vpotjax.basis import Basis, ShellList, element_basis
from vpotjax.batching import PairList
from vpotjax.operators.clebsch_gordan import clebsch_gordan


class ShellLayout(NamedTuple):
    """How many shells of each l an atom may have: counts[l], l = 0, 1, …"""

    counts: tuple[int, ...]

    @property
    def width(self) -> int:
        """Slots per atom."""
        return sum(n * (2 * l + 1) for l, n in enumerate(self.counts))

    @property
    def starts(self) -> np.ndarray:
        """First slot of each l."""
        return np.cumsum([0] + [n * (2 * l + 1) for l, n in enumerate(self.counts)])[:-1]


class Irrep(NamedTuple):
    """A coupled block: 2λ+1 components, parity (−1)^{l₁+l₂} under inversion."""

    lam: int
    parity: int

    def __str__(self) -> str:
        return f"{self.lam}{'+' if self.parity > 0 else '-'}"


Coupled = Mapping[Irrep, jax.Array]
"""(..., channels, 2λ+1) by irrep; channels run over (l₁, l₂, n₁, n₂)."""


def shell_layout(name_or_dict: str | Mapping[str, str | ShellList], numbers: Iterable[int]) -> ShellLayout:
    """The layout that holds the shells of all `numbers` in one basis (see `load_basis`)."""
    counts: dict[int, int] = {}
    for z in set(numbers):
        shells, _ = element_basis(name_or_dict, z)
        for l in {shell[0] for shell in shells}:
            own = sum(len(shell[1]) - 1 for shell in shells if shell[0] == l)
            counts[l] = max(counts.get(l, 0), own)
    return ShellLayout(tuple(counts.get(l, 0) for l in range(max(counts) + 1)))


def ao_slots(basis: Basis, layout: ShellLayout) -> jax.Array:
    """Where each AO stands among natm · width slots, (nao,); natm · width for padding.

    Raises:
        InputError: the basis is Cartesian, or has shells that the layout lacks (checked where it has values).
    """
    if basis.cartesian:
        raise InputError("basis is Cartesian, but irreps need spherical functions: load_basis(..., cartesian=False).")
    if is_concrete(basis.ao_l, basis.ao_shell):
        l, shell = np.asarray(basis.ao_l), np.asarray(basis.ao_shell)
        counts = np.array([*layout.counts, *[0] * (1 + max(0, int(l.max())))])
        if np.any(shell >= np.where(l < 0, 1, counts[l])):
            raise InputError(f"basis has more shells than layout counts={layout.counts}; make it with all elements.")
    l = jnp.asarray(basis.ao_l)
    start = jnp.asarray(layout.starts)[jnp.maximum(l, 0)]
    slot = jnp.asarray(basis.ao_atom) * layout.width + start + jnp.asarray(basis.ao_shell) * (2 * l + 1)
    return jnp.where(jnp.asarray(basis.ao_mask), slot + jnp.asarray(basis.ao_m), basis.natm * layout.width)


def _fits(basis: Basis, layout: ShellLayout) -> jax.Array:
    """A factor: NaN where the basis has shells that the layout lacks."""
    l, counts = jnp.asarray(basis.ao_l), jnp.asarray(layout.counts)
    room = jnp.where(l < len(counts), counts[jnp.clip(l, 0, len(counts) - 1)], 0)
    return flag((jnp.asarray(basis.ao_shell) < room) | ~jnp.asarray(basis.ao_mask))


def pair_blocks(matrix: Array, basis: Basis, layout: ShellLayout, pairs: PairList) -> jax.Array:
    """(..., nao, nao) → (..., npair, width, width); missing slots and padding are zero."""
    natm, width, slot = basis.natm, layout.width, ao_slots(basis, layout)
    source = jnp.full(natm * width + 1, basis.nao).at[slot].set(jnp.arange(basis.nao))[:-1]  # nao where a slot is empty
    source = source.reshape(natm, width)
    padded = jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 2) + [(0, 1), (0, 1)])
    padded = padded * _fits(basis, layout).astype(padded.dtype)
    rows, columns = source[jnp.asarray(pairs.first)], source[jnp.asarray(pairs.second)]
    blocks = padded[..., rows[:, :, None], columns[:, None, :]]
    return jnp.where(jnp.asarray(pairs.mask)[:, None, None], blocks, 0.0)


def dense_blocks(blocks: Array, natm: int, pairs: PairList) -> jax.Array:
    """(..., npair, width, width) → symmetric (..., natm, width, natm, width)."""
    blocks = jnp.asarray(blocks)
    width, lead = blocks.shape[-1], blocks.shape[:-3]
    onsite = jnp.asarray(pairs.first) == jnp.asarray(pairs.second)
    half = jnp.where(onsite[:, None, None], 0.5, 1.0).astype(blocks.dtype)
    real = jnp.where(jnp.asarray(pairs.mask)[:, None, None], blocks, 0.0)
    empty = jnp.zeros((*lead, natm, natm, width, width), blocks.dtype)
    one_way = empty.at[..., jnp.asarray(pairs.first), jnp.asarray(pairs.second), :, :].add(half * real)
    one_way = jnp.swapaxes(one_way, -3, -2)
    return one_way + jnp.moveaxis(one_way, (-2, -1), (-4, -3))


def ao_matrix(blocks: Array, basis: Basis, layout: ShellLayout, pairs: PairList) -> jax.Array:
    """(npair, width, width) → symmetric (nao, nao), the inverse of `pair_blocks`; zero on padding."""
    slot, size = ao_slots(basis, layout), basis.natm * layout.width
    flat = jnp.pad(dense_blocks(blocks, basis.natm, pairs).reshape(size, size), ((0, 1), (0, 1)))
    return flat[slot[:, None], slot[None, :]] * _fits(basis, layout).astype(flat.dtype)


@functools.cache
def irreps(layout: ShellLayout) -> dict[Irrep, int]:
    """The irreps of a block and their numbers of channels; the components of all together are width²."""
    channels: dict[Irrep, int] = {}
    for l1, l2 in shell_pairs(layout):
        for irrep in of_pair(l1, l2):
            channels[irrep] = channels.get(irrep, 0) + layout.counts[l1] * layout.counts[l2]
    return dict(sorted(channels.items()))


def require_irreps(wanted: Iterable[Irrep], layout: ShellLayout, basis: str) -> None:
    """Raise InputError unless blocks of `layout`, that of `basis`, hold all `wanted` irreps."""
    lacking = [str(irrep) for irrep in wanted if irrep not in irreps(layout)]
    if lacking:
        raise InputError(
            f"basis {basis!r} has no blocks of the irreps {', '.join(lacking)} (λ, parity) of the "
            "target; choose one with functions of higher angular momentum."
        )


def shell_pairs(layout: ShellLayout) -> list[tuple[int, int]]:
    """(l₁, l₂) in the order of the channels."""
    present = [l for l, n in enumerate(layout.counts) if n]
    return [(l1, l2) for l1 in present for l2 in present]


def of_pair(l1: int, l2: int) -> list[Irrep]:
    """The irreps to which two shells couple."""
    return [Irrep(lam, (-1) ** (l1 + l2)) for lam in range(abs(l1 - l2), l1 + l2 + 1)]


@functools.cache
def _coupling(l1: int, l2: int, wanted: tuple[Irrep, ...]) -> np.ndarray:
    """((2l₁+1)(2l₂+1), Σ 2λ+1): the Clebsch–Gordan coefficients of the wanted irreps side by side; orthonormal."""
    size = (2 * l1 + 1) * (2 * l2 + 1)
    return np.concatenate([clebsch_gordan(l1, l2, irrep.lam).reshape(size, -1) for irrep in wanted], axis=1)


def couple(blocks: Array, layout: ShellLayout, wanted: Iterable[Irrep] | None = None) -> dict[Irrep, jax.Array]:
    """(..., width, width) → by irrep (..., channels, 2λ+1).

    Args:
        blocks: of atom pairs.
        layout: of the blocks.
        wanted: the irreps to make; default: all.
    """
    chosen = set(irreps(layout)) if wanted is None else set(wanted)
    parts: dict[Irrep, list[jax.Array]] = {irrep: [] for irrep in irreps(layout) if irrep in chosen}
    for l1, l2 in shell_pairs(layout):
        here = tuple(irrep for irrep in of_pair(l1, l2) if irrep in chosen)
        if not here:
            continue
        rows, columns = (_slots(layout, l) for l in (l1, l2))
        n1, n2, d1, d2 = layout.counts[l1], layout.counts[l2], 2 * l1 + 1, 2 * l2 + 1
        part = jnp.asarray(blocks)[..., rows, columns]
        lead = part.shape[:-2]
        part = jnp.swapaxes(part.reshape(*lead, n1, d1, n2, d2), -3, -2).reshape(*lead, n1 * n2, d1 * d2)
        coupled = part @ jnp.asarray(_coupling(l1, l2, here), part.dtype)
        start = 0
        for irrep in here:
            parts[irrep].append(coupled[..., start : start + 2 * irrep.lam + 1])
            start += 2 * irrep.lam + 1
    return {irrep: jnp.concatenate(x, axis=-2) for irrep, x in parts.items()}


def uncouple(coupled: Coupled, layout: ShellLayout) -> jax.Array:
    """By irrep (..., channels, 2λ+1) → (..., width, width); irreps that are absent count as zero."""
    used = dict.fromkeys(coupled, 0)
    first = next(iter(coupled.values()))
    lead, present = first.shape[:-2], [l for l, n in enumerate(layout.counts) if n]
    bands = []
    for l1 in present:
        band = []
        for l2 in present:
            n1, n2, d1, d2 = layout.counts[l1], layout.counts[l2], 2 * l1 + 1, 2 * l2 + 1
            here = tuple(irrep for irrep in of_pair(l1, l2) if irrep in coupled)
            if not here:
                band.append(jnp.zeros((*lead, n1 * d1, n2 * d2), first.dtype))
                continue
            parts = []
            for irrep in here:
                parts.append(coupled[irrep][..., used[irrep] : used[irrep] + n1 * n2, :])
                used[irrep] += n1 * n2
            block = jnp.concatenate(parts, axis=-1) @ jnp.asarray(_coupling(l1, l2, here), first.dtype).T
            block = jnp.swapaxes(block.reshape(*lead, n1, n2, d1, d2), -3, -2)
            band.append(block.reshape(*lead, n1 * d1, n2 * d2))
        bands.append(jnp.concatenate(band, axis=-1))
    return jnp.concatenate(bands, axis=-2)


def _slots(layout: ShellLayout, l: int) -> slice:
    start = int(layout.starts[l])
    return slice(start, start + layout.counts[l] * (2 * l + 1))
