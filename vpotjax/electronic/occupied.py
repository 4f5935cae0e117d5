"""Occupied and virtual orbitals as two frames, the common root of the density and of its response."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.electronic.frames import frame, spectrum
from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser, real_orbitals
from vpotjax.electronic.validation import flag, is_symmetric

CLOSED = 1e-7  # a HOMO–LUMO gap below this part of the width of the spectrum is rounding


class OccupiedFrame(NamedTuple):
    """Of one spin.

    Attributes:
        coefficients: C, (nao, nmo), occupied ones first; only the two spaces are defined, not the single columns.
        within: Cᵀ F C, (nmo, nmo), without elements between occupied and virtual.
        energies: (nmo,) as constants.
        occupied: (nmo,) True for occupied orbitals.
        valid: () 1, or NaN for a closed gap, too many electrons, or F that is not symmetric.
    """

    coefficients: jax.Array
    within: jax.Array
    energies: jax.Array
    occupied: jax.Array
    valid: jax.Array


def occupied_frame(
    fock: Array, overlap: Array, nocc: Array | int, ao_mask: Array | None, threshold: float | None
) -> OccupiedFrame:
    """Differentiable to any order while the gap above level nocc is open."""
    transformation = orthogonaliser(overlap, ao_mask, threshold)
    matrix = orthogonal_fock(fock, transformation)
    energies, vectors = spectrum(matrix)
    number = jnp.arange(len(energies))
    occupied = number < nocc
    follower = frame(matrix, energies, vectors, occupied[:, None] != occupied[None, :])
    gap = jnp.min(jnp.where(occupied, jnp.inf, energies)) - jnp.max(jnp.where(occupied, energies, -jnp.inf))
    width = jnp.max(jnp.abs(energies))
    count = jnp.sum(real_orbitals(transformation))
    relative = CLOSED if energies.dtype == jnp.float64 else 1e-5
    open_gap = (gap > relative * width) | (nocc == 0) | (nocc == count)
    return OccupiedFrame(
        coefficients=transformation @ follower,
        within=follower.T @ matrix @ follower,
        energies=energies,
        occupied=occupied,
        valid=flag(open_gap, nocc <= count, is_symmetric(fock)).astype(energies.dtype),
    )


def spin_channels(fock: Array, nelec: Array | int) -> tuple[jax.Array, jax.Array, float, jax.Array]:
    """Matrices (nspin, nao, nao), occupied orbitals (nspin,), electrons per orbital, and NaN for an odd number."""
    electrons, channels = jnp.asarray(nelec), jnp.asarray(fock)
    if fock.ndim == 3:
        return channels, electrons, 1.0, jnp.ones((), fock.dtype)
    return channels[None], electrons[None] // 2, 2.0, flag(electrons % 2 == 0).astype(fock.dtype)
