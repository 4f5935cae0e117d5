"""AO matrices as blocks of atom pairs, and those as coupled irreps.

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
from vpotjax._typing import Array
from vpotjax.basis import Basis, ShellList, element_basis
from vpotjax.operators.angular import clebsch_gordan


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


def atom_pair_blocks(matrix: Array, basis: Basis, layout: ShellLayout) -> jax.Array:
    """(..., nao, nao) → (..., natm, natm, width, width); missing slots are zero."""
    natm, width, slot = basis.natm, layout.width, ao_slots(basis, layout)
    source = jnp.full(natm * width + 1, basis.nao).at[slot].set(jnp.arange(basis.nao))[:-1]  # nao where a slot is empty
    padded = jnp.pad(matrix, [(0, 0)] * (matrix.ndim - 2) + [(0, 1), (0, 1)])
    blocks = padded[..., source[:, None], source[None, :]]
    return jnp.swapaxes(blocks.reshape(*matrix.shape[:-2], natm, width, natm, width), -3, -2)


def ao_matrix(blocks: Array, basis: Basis, layout: ShellLayout) -> jax.Array:
    """(natm, natm, width, width) → (nao, nao), the inverse of `atom_pair_blocks`; zero on padding."""
    slot = ao_slots(basis, layout)
    size = basis.natm * layout.width
    flat = jnp.pad(jnp.swapaxes(blocks, 1, 2).reshape(size, size), ((0, 1), (0, 1)))
    return flat[slot[:, None], slot[None, :]]


@functools.cache
def irreps(layout: ShellLayout) -> dict[Irrep, np.ndarray]:
    """For each irrep the coupling (width, width, channels, 2λ+1); all of them together are orthogonal."""
    parts: dict[Irrep, list[np.ndarray]] = {}
    for l1, n1 in enumerate(layout.counts):
        for l2, n2 in enumerate(layout.counts):
            for lam in range(abs(l1 - l2), l1 + l2 + 1):
                parts.setdefault(Irrep(lam, (-1) ** (l1 + l2)), []).append(
                    _shell_couplings(layout, l1, n1, l2, n2, lam)
                )
    return {irrep: np.concatenate(parts[irrep], axis=2) for irrep in sorted(parts)}


def _shell_couplings(layout: ShellLayout, l1: int, n1: int, l2: int, n2: int, lam: int) -> np.ndarray:
    coupling = np.zeros((layout.width, layout.width, n1 * n2, 2 * lam + 1))
    for i in range(n1):
        for j in range(n2):
            rows = layout.starts[l1] + i * (2 * l1 + 1) + np.arange(2 * l1 + 1)
            columns = layout.starts[l2] + j * (2 * l2 + 1) + np.arange(2 * l2 + 1)
            coupling[rows[:, None], columns[None, :], i * n2 + j] = clebsch_gordan(l1, l2, lam)
    return coupling


def couple(blocks: Array, layout: ShellLayout, wanted: Iterable[Irrep] | None = None) -> dict[Irrep, jax.Array]:
    """(..., width, width) → by irrep (..., channels, 2λ+1).

    Args:
        blocks: of atom pairs.
        layout: of the blocks.
        wanted: the irreps to make; default: all.
    """
    table = irreps(layout)
    chosen = table.keys() if wanted is None else [irrep for irrep in table if irrep in set(wanted)]
    return {i: jnp.einsum("...pq,pqcm->...cm", blocks, jnp.asarray(table[i], blocks.dtype)) for i in chosen}


def uncouple(coupled: Coupled, layout: ShellLayout) -> jax.Array:
    """By irrep (..., channels, 2λ+1) → (..., width, width); irreps that are absent count as zero."""
    table = irreps(layout)
    return sum(
        (jnp.einsum("...cm,pqcm->...pq", x, jnp.asarray(table[i], x.dtype)) for i, x in coupled.items()),
        start=jnp.zeros(()),
    )
