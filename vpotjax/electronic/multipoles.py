"""Dipole and quadrupole of a density."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array


def dipole(density: Array, position_integrals: Array, positions: Array, nuclear_charges: Array) -> jax.Array:
    """μ = −tr(P r) + Σ_A Z_A R_A, (3,) in e·bohr, about the origin of the coordinates.

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        position_integrals: r about the origin of the coordinates, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nuclear_charges: (natm,), zero for padding.
    """
    total = spin_summed(density)
    require_shape("position_integrals", position_integrals, (3, *total.shape))
    electronic = jnp.real(jnp.einsum("xpq,qp->x", position_integrals, total))
    return jnp.einsum("a,ax->x", jnp.asarray(nuclear_charges, positions.dtype), positions) - electronic


def quadrupole(density: Array, second_moments: Array, positions: Array, nuclear_charges: Array) -> jax.Array:
    """Q = ½ (3 M − tr M), (3, 3) in e·bohr², traceless (Buckingham 1959, doi:10.1039/QR9591300183).

    M = −tr(P rr) + Σ_A Z_A R_A R_A are the second moments of the charge about the origin of the coordinates.

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        second_moments: rr about the origin of the coordinates, (3, 3, nao, nao), bohr².
        positions: (natm, 3), bohr.
        nuclear_charges: (natm,), zero for padding.
    """
    total = spin_summed(density)
    require_shape("second_moments", second_moments, (3, 3, *total.shape))
    charges = jnp.asarray(nuclear_charges, positions.dtype)
    moments = jnp.einsum("a,ax,ay->xy", charges, positions, positions)
    moments = moments - jnp.real(jnp.einsum("xypq,qp->xy", second_moments, total))
    return (3 * moments - jnp.trace(moments) * jnp.eye(3, dtype=moments.dtype)) / 2


def spin_summed(density: Array) -> jax.Array:
    """(nao, nao) of a density that may have a leading axis for α and β."""
    require_shape("density", density, (2, None, None) if density.ndim == 3 else (None, None))
    return jnp.sum(density, axis=0) if density.ndim == 3 else jnp.asarray(density)
