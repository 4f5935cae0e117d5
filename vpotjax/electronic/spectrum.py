"""What orbital energies say by themselves: gap and density of states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from vpotjax._typing import Array


def homo_lumo_gap(mo_energies: Array, nelec: Array | int) -> jax.Array:
    """ε_LUMO − ε_HOMO, () in hartree; nan where there is no such level.

    With α and β that is the lowest virtual minus the highest occupied level of both. Where HOMO or LUMO is degenerate
    the gap has no derivative; what JAX gives is that of one member of the level, or the mean of exactly equal ones.

    Args:
        mo_energies: (nmo,) ascending, hartree; of α and β (2, nmo).
        nelec: number of electrons, even; of α and β their two numbers. May be traced.
    """
    energies, electrons = jnp.asarray(mo_energies), jnp.asarray(nelec)
    nocc = electrons[:, None] if energies.ndim == 2 else electrons // 2
    occupied = jnp.arange(energies.shape[-1]) < nocc
    exists = jnp.any(occupied) & ~jnp.all(occupied)
    homo = jnp.max(jnp.where(occupied, energies, -jnp.inf))
    lumo = jnp.min(jnp.where(occupied, jnp.inf, energies))
    return jnp.where(exists, lumo - homo, jnp.nan)


def density_of_states(
    mo_energies: Array, energies: Array, width: Array | float, level_mask: Array | None = None
) -> jax.Array:
    """Σ_i exp(−(E − ε_i)²/2σ²)/(σ√2π), (nenergy,) in states (of one spin) per hartree.

    Args:
        mo_energies: ε, (nmo,) hartree; of α and β (2, nmo) the sum of both is returned.
        energies: E, (nenergy,) hartree.
        width: σ > 0, hartree.
        level_mask: shape of `mo_energies`, True where a level is real; default: all.
    """
    shift = (jnp.asarray(energies)[:, None] - mo_energies.reshape(-1)) / width
    peaks = jnp.exp(-0.5 * shift**2) / (width * math.sqrt(2 * math.pi))
    if level_mask is not None:
        peaks = jnp.where(level_mask.reshape(-1), peaks, 0.0)
    return jnp.sum(peaks, axis=1)
