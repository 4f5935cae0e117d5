"""What orbital energies say by themselves: gap and density of states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._typing import Array

FALL = 1e-5  # hartree; levels that are degenerate up to rounding come in any order


def homo_lumo_gap(mo_energies: Array, nelec: Array | int, level_mask: Array | None = None) -> jax.Array:
    """ε_LUMO − ε_HOMO, () in hartree; nan where there is no such level.

    With α and β that is the lowest virtual minus the highest occupied level of both. Where HOMO or LUMO is degenerate
    the gap has no derivative; what JAX gives is that of one member of the level, or the mean of exactly equal ones.

    Args:
        mo_energies: (nmo,) or (1, nmo) ascending, hartree; of α and β (2, nmo). Infinite ones are no levels: `eigh`
            returns them for padding and dropped functions.
        nelec: number of electrons, even; of α and β their two numbers. May be traced; then nan where it is odd.
        level_mask: shape of `mo_energies`, True where a level is real; default: all that are finite.

    Raises:
        InputError: `nelec` is known and odd or negative, or not one number for each spin; levels that are known and not
            ascending (nan where they are traced).
    """
    energies, electrons = jnp.asarray(mo_energies), jnp.asarray(nelec)
    if energies.ndim == 2 and len(energies) == 1 and not electrons.ndim:
        energies = energies[0]  # the spin axis of `Orbitals` of a closed shell
        level_mask = None if level_mask is None else jnp.asarray(level_mask).reshape(energies.shape)
    closed = energies.ndim == 1
    fits = closed or (energies.ndim == 2 and len(energies) == 2)
    if not fits or electrons.shape != energies.shape[:-1]:
        raise InputError(
            f"nelec has shape {electrons.shape} for mo_energies of shape {energies.shape}; give one number for (nmo,), "
            "two for (2, nmo), α and β; molecules of a batch by vmap."
        )
    if level_mask is not None:
        require_shape("level_mask", level_mask, energies.shape)
    step, nmo = (2 if closed else 1), energies.shape[-1]
    if is_concrete(nelec) and (np.any(np.asarray(nelec) < 0) or np.any(np.asarray(nelec) % step)):
        raise InputError(
            f"nelec is {np.asarray(nelec).tolist()}; give an even number, or levels and whole numbers of α and β."
        )
    whole = (electrons % step == 0) & (electrons >= 0) & (electrons <= step * nmo)
    nocc = electrons // 2 if closed else electrons[:, None]
    real = jnp.isfinite(energies) if level_mask is None else jnp.isfinite(energies) & jnp.asarray(level_mask)
    if is_concrete(mo_energies, level_mask) and _falls(np.asarray(mo_energies), level_mask):
        raise InputError("mo_energies are not in ascending order; sort them.")
    falls = (jnp.diff(energies, axis=-1) < -FALL) & real[..., 1:] & real[..., :-1]
    place = jnp.arange(nmo) - nocc if closed else jnp.arange(nmo)[None, :] - nocc
    homo = jnp.max(jnp.where(real & (place < 0), energies, -jnp.inf))
    lumo = jnp.min(jnp.where(real & (place >= 0), energies, jnp.inf))
    frontier = (place == -1) | (place == 0)
    exists = jnp.all(whole) & ~jnp.any(falls) & jnp.all(real | ~frontier) & jnp.any(place == -1) & jnp.any(place == 0)
    return jnp.where(exists, lumo - homo, jnp.nan)


def _falls(energies: np.ndarray, level_mask: Array | None) -> bool:
    real = np.isfinite(energies)
    if level_mask is not None:
        real &= np.asarray(level_mask, bool).reshape(energies.shape)
    return bool(np.any(np.diff(np.where(real, energies, np.nan), axis=-1) < -FALL))


def density_of_states(
    mo_energies: Array, energies: Array, width: Array | float, level_mask: Array | None = None
) -> jax.Array:
    """Σ_i exp(−(E − ε_i)²/2σ²)/(σ√2π), (nenergy,) in states (of one spin) per hartree.

    Args:
        mo_energies: ε, (nmo,) hartree; of α and β (2, nmo) the sum of both is returned. Infinite ones are no levels.
        energies: E, (nenergy,) hartree.
        width: σ > 0, hartree.
        level_mask: shape of `mo_energies`, True where a level is real; default: all that are finite.

    Raises:
        InputError: `width` is known and not positive (nan where it is traced).
    """
    if is_concrete(width) and not np.all(np.asarray(width) > 0):
        raise InputError(f"width is {width}; give a positive energy in hartree.")
    levels = jnp.asarray(mo_energies)
    real = jnp.isfinite(levels) if level_mask is None else jnp.isfinite(levels) & jnp.asarray(level_mask)
    levels, real = jnp.where(real, levels, 0.0).reshape(-1), real.reshape(-1)
    width = jnp.where(jnp.asarray(width) > 0, width, jnp.nan)
    shift = (jnp.asarray(energies)[:, None] - levels[None, :]) / width
    peaks = jnp.exp(-0.5 * shift**2) / (width * math.sqrt(2 * math.pi))
    return jnp.sum(jnp.where(real, peaks, 0.0), axis=1)
