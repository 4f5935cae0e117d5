"""Position r_μν = ⟨μ|r − O|ν⟩ about an origin O."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.assemble import symmetric_matrices
from vpotjax.integrals.hermite import hermite_expansion
from vpotjax.integrals.shell_pairs import PrimitivePairs


@jax.jit
def position_integrals(basis: Basis, positions: Array, origin: Array) -> jax.Array:
    """r, (3, nao, nao), bohr.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        origin: O, (3,) in bohr.
    """
    require_shape("origin", origin, (3,))
    return symmetric_matrices(functools.partial(_integrand, jnp.asarray(origin)), basis, positions)


def _integrand(origin: Array, la: int, lb: int, pair: PrimitivePairs) -> jax.Array:
    # x exp(−p x_P²) integrates to P times the norm; E_1 belongs to the one Hermite function with a dipole.
    expansion = hermite_expansion(la, lb, pair)
    norm = jnp.sqrt(jnp.pi / pair.exponent)
    plain = expansion[:, :, 0] * norm
    moment = (pair.centre - origin.astype(pair.centre.dtype)[:, None, None]) * plain
    if la + lb:
        moment = moment + expansion[:, :, 1] * norm
    powers_a, powers_b = cartesian_powers(la).T[:, :, None], cartesian_powers(lb).T[:, None, :]
    sx, sy, sz = (plain[powers_a[d], powers_b[d], d] for d in range(3))
    mx, my, mz = (moment[powers_a[d], powers_b[d], d] for d in range(3))
    return jnp.stack([mx * sy * sz, sx * my * sz, sx * sy * mz])
