"""Dipole and quadrupole of a density."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._guards import flag, floating_array, is_hermitian, require_hermitian
from vpotjax._typing import Array


def dipole(density: Array, position_integrals: Array, positions: Array, nuclear_charges: Array) -> jax.Array:
    """μ = −tr(P r) + Σ_A Z_A R_A, (3,) in e·bohr, about the origin of the coordinates.

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        position_integrals: r about the origin of the coordinates, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nuclear_charges: (natm,), zero for padding; those of the basis, which may have effective cores.

    Raises:
        InputError: other shapes; P or integrals that are known not to be Hermitian (NaN where they are traced).
    """
    total, operator, valid = _checked(density, "position_integrals", position_integrals, 1)
    electronic = jnp.real(jnp.einsum("xpq,qp->x", operator, total))
    places, charges = nuclei(positions, nuclear_charges)
    return valid * (charges @ places - electronic)


def quadrupole(density: Array, second_moments: Array, positions: Array, nuclear_charges: Array) -> jax.Array:
    """Q = ½ (3 M − tr M), (3, 3) in e·bohr², traceless (Buckingham 1959, doi:10.1039/QR9591300183).

    M = −tr(P rr) + Σ_A Z_A R_A R_A are the second moments of the charge about the origin of the coordinates.

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        second_moments: rr about the origin of the coordinates, (3, 3, nao, nao), bohr².
        positions: (natm, 3), bohr.
        nuclear_charges: (natm,), zero for padding; those of the basis, which may have effective cores.

    Raises:
        InputError: other shapes; P or integrals that are known not to be Hermitian (NaN where they are traced).
    """
    total, operator, valid = _checked(density, "second_moments", second_moments, 2)
    places, charges = nuclei(positions, nuclear_charges)
    moments = jnp.einsum("a,ax,ay->xy", charges, places, places)
    moments = moments - jnp.real(jnp.einsum("xypq,qp->xy", operator, total))
    return valid * (3 * moments - jnp.trace(moments) * jnp.eye(3, dtype=moments.dtype)) / 2


def _checked(density: Array, name: str, operator: Array, rank: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P and the operator as arrays, and a factor: NaN where one of them is traced and not Hermitian."""
    density, operator = floating_array("density", density), floating_array(name, operator)
    total = spin_summed(jnp.asarray(density))
    require_shape(name, operator, (*(3,) * rank, *total.shape))
    require_hermitian("density", "P", density)
    require_hermitian(name, name, operator)
    valid = flag(is_hermitian(total), is_hermitian(jnp.asarray(operator)))
    return total, jnp.asarray(operator), valid.astype(jnp.finfo(total.dtype).dtype)


def nuclei(positions: Array, nuclear_charges: Array) -> tuple[jax.Array, jax.Array]:
    """Floating-point positions (natm, 3) and charges (natm,)."""
    require_shape("positions", positions, (None, 3))
    require_shape("nuclear_charges", nuclear_charges, (len(positions),))
    places = jnp.asarray(floating_array("positions", positions))
    return places, jnp.asarray(nuclear_charges).astype(places.dtype)


def spin_summed(density: Array) -> jax.Array:
    """(nao, nao) of a density that may have a leading axis for α and β."""
    require_shape("density", density, (2, None, None) if density.ndim == 3 else (None, None))
    return jnp.sum(density, axis=0) if density.ndim == 3 else jnp.asarray(density)
