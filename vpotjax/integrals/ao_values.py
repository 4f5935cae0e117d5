"""AOs at points of space."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_positions, require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis, Shells
from vpotjax.conventions import angular_functions, cartesian_powers
from vpotjax.integrals.assemble import floating


def ao_values(basis: Basis, positions: Array, points: Array) -> jax.Array:
    """φ_μ(r) at points, (npoint, nao), bohr^{−3/2} (PySCF's `eval_gto`).

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        points: (npoint, 3) in bohr.

    Raises:
        InputError: as `overlap`; points of the wrong shape.
    """
    require_positions(basis.numbers, positions)
    require_shape("points", points, (None, 3))
    return _ao_values(basis, positions, points)


@jax.jit
def _ao_values(basis: Basis, positions: Array, points: Array) -> jax.Array:
    positions = floating(positions)
    points = jnp.asarray(points, positions.dtype)
    grouped = [_shell_values(shells, positions, points, basis.cartesian) for shells in basis.shells]
    return jnp.concatenate(grouped, axis=1)[:, basis.grouped_index]


def _shell_values(shells: Shells, positions: jax.Array, points: jax.Array, cartesian: bool) -> jax.Array:
    """(npoint, nshl nfun) of the shells of one angular momentum."""
    dtype = positions.dtype
    exponents, coefficients = (jnp.asarray(a, dtype) for a in (shells.exponents, shells.coefficients))
    displacement = points[:, None] - positions[jnp.asarray(shells.atom)]  # (npoint, nprim, 3)
    radial = jnp.exp(-exponents * jnp.sum(displacement**2, axis=-1))
    powers = [jnp.prod(displacement**power, axis=-1) for power in cartesian_powers(shells.l)]
    values = jnp.einsum("cpi,pi,si->psc", jnp.stack(powers), radial, coefficients)
    angular = jnp.asarray(angular_functions(shells.l, cartesian), dtype)
    return (values @ angular.T).reshape(len(points), -1)
