"""AOs at points of space."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vpotjax._checks import require_positions, require_shape
from vpotjax._guards import flag, positions_are_valid
from vpotjax._typing import Array
from vpotjax.basis import Basis, Shells
from vpotjax.conventions import angular_functions, cartesian_powers, function_count
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
    displacement = jnp.asarray(points, positions.dtype)[:, None] - positions
    grouped = [
        _shell_values(shells, atoms, displacement, basis.cartesian)
        for shells, atoms in zip(basis.shells, _shell_atoms(basis), strict=True)
    ]
    apart = flag(positions_are_valid(basis.numbers, positions)).astype(positions.dtype)
    return apart * jnp.concatenate(grouped, axis=1)[:, basis.grouped_index]


def _shell_atoms(basis: Basis) -> list[jax.Array]:
    """Per angular momentum the atom of each shell, (nshl,); 0 for padding."""
    sizes = [(len(shells.coefficients), function_count(shells.l, basis.cartesian)) for shells in basis.shells]
    owners = jnp.zeros(sum(nshl * nfun for nshl, nfun in sizes), int)
    owners = owners.at[jnp.asarray(basis.grouped_index)].set(jnp.maximum(jnp.asarray(basis.ao_atom), 0))
    atoms, start = [], 0
    for nshl, nfun in sizes:
        atoms.append(owners[start : start + nshl * nfun : nfun])
        start += nshl * nfun
    return atoms


def _shell_values(shells: Shells, atoms: jax.Array, displacement: jax.Array, cartesian: bool) -> jax.Array:
    """(npoint, nshl nfun) of the shells of one angular momentum, which stand at `atoms`, from all r − R.

    Powers of x, y and z are products, so that derivatives of any order are right where one of them is zero.
    """
    dtype = displacement.dtype
    exponents, coefficients = (jnp.asarray(a, dtype) for a in (shells.exponents, shells.coefficients))
    squares = jnp.sum(displacement * displacement, axis=-1)[:, jnp.asarray(shells.atom)]
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    radial = einsum("pi,si->ps", jnp.exp(-exponents * squares), coefficients)
    own = displacement[:, atoms]
    powers = [jnp.ones_like(own)]
    for _ in range(shells.l):
        powers.append(powers[-1] * own)
    monomials = [powers[x][..., 0] * powers[y][..., 1] * powers[z][..., 2] for x, y, z in cartesian_powers(shells.l)]
    angular = jnp.asarray(angular_functions(shells.l, cartesian), dtype)
    return einsum("cps,mc,ps->psm", jnp.stack(monomials), angular, radial).reshape(len(displacement), -1)
