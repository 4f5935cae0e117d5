"""The electron density at points of space."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.electronic.multipoles import spin_summed


def electron_density(density: Array, ao_values: Array) -> jax.Array:
    """ρ(r) = Σ_μν P_μν φ_μ(r) φ_ν(r), (npoint,), electrons per bohr³.

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        ao_values: (npoint, nao), from `vp.ao_values`.
    """
    total = spin_summed(density)
    require_shape("ao_values", ao_values, (None, total.shape[0]))
    return jnp.real(jnp.sum((ao_values @ total) * ao_values, axis=1))


def spin_density(density: Array, ao_values: Array) -> jax.Array:
    """ρ_α(r) − ρ_β(r), (npoint,), electrons per bohr³.

    Args:
        density: P of α and β, (2, nao, nao).
        ao_values: (npoint, nao), from `vp.ao_values`.
    """
    require_shape("density", density, (2, None, None))
    return electron_density(density[0] - density[1], ao_values)
