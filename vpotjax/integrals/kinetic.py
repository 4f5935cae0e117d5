"""Kinetic energy T_μν = ⟨μ|−½∇²|ν⟩."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.assemble import symmetric_matrices
from vpotjax.integrals.hermite import hermite_expansion
from vpotjax.integrals.shell_pairs import PrimitivePairs


@jax.jit
def kinetic(basis: Basis, positions: Array) -> jax.Array:
    """T, (nao, nao), hartree.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
    """
    return symmetric_matrices(_integrand, basis, positions)[0]


def _integrand(la: int, lb: int, pair: PrimitivePairs) -> jax.Array:
    # ∂² x_B^j e^{−b x_B²} = j (j−1) x_B^{j−2} − 2b (2j+1) x_B^j + 4b² x_B^{j+2}, times e^{−b x_B²}
    extended = hermite_expansion(la, lb + 2, pair)[:, :, 0] * jnp.sqrt(jnp.pi / pair.exponent)
    power = np.arange(lb + 1).reshape(-1, *[1] * pair.decay.ndim)
    b = pair.exponent_b
    inner = extended[:, : lb + 1]
    lowered = jnp.concatenate([jnp.zeros_like(extended[:, :2]), extended], axis=1)[:, : lb + 1]
    second = power * (power - 1) * lowered - 2 * b * (2 * power + 1) * inner + 4 * b**2 * extended[:, 2:]

    powers_a, powers_b = cartesian_powers(la).T[:, :, None], cartesian_powers(lb).T[:, None, :]
    sx, sy, sz = (inner[powers_a[d], powers_b[d], d] for d in range(3))
    dx, dy, dz = (second[powers_a[d], powers_b[d], d] for d in range(3))
    return -0.5 * (dx * sy * sz + sx * dy * sz + sx * sy * dz)[None]
