"""Overlap S_μν = ⟨μ|ν⟩."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.assemble import symmetric_matrices
from vpotjax.integrals.hermite import hermite_expansion
from vpotjax.integrals.shell_pairs import PrimitivePairs, cartesian_product


@jax.jit
def overlap(basis: Basis, positions: Array) -> jax.Array:
    """S, (nao, nao), dimensionless; rows of padding are zero.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
    """
    return symmetric_matrices(_integrand, basis, positions)[0]


def _integrand(la: int, lb: int, pair: PrimitivePairs) -> jax.Array:
    table = hermite_expansion(la, lb, pair)[:, :, 0] * jnp.sqrt(jnp.pi / pair.exponent)
    return cartesian_product(table, la, lb)[None]
