"""From the blocks of two angular momenta to a symmetric matrix in the AO order of the basis."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.shell_pairs import Integrand, contracted


def symmetric_matrices(integrand: Integrand, basis: Basis, positions: Array) -> jax.Array:
    """(components, nao, nao) of an operator that is real and symmetric.

    Raises:
        InputError: `positions` is not (natm, 3) with the natm of `basis`.
    """
    require_shape("positions", positions, (basis.natm, 3))
    positions = jnp.asarray(positions)
    if not jnp.issubdtype(positions.dtype, jnp.floating):
        positions = positions.astype(float)
    shells = basis.shells
    blocks = {
        (i, j): contracted(integrand, shells[i], shells[j], positions) for i in range(len(shells)) for j in range(i + 1)
    }
    rows = [
        jnp.concatenate(
            [blocks[i, j] if j <= i else jnp.swapaxes(blocks[j, i], 1, 2) for j in range(len(shells))], axis=2
        )
        for i in range(len(shells))
    ]
    grouped = jnp.concatenate(rows, axis=1)
    return grouped[:, basis.grouped_index[:, None], basis.grouped_index[None, :]]
