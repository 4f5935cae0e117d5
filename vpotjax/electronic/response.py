"""The occupied–virtual response, the only derivative of orbitals that a density needs.

For a symmetric A with the projector P on its occupied space and Q = 1 − P, the response Z of P to a perturbation B
solves Z A − A Z = Q B P; the first-order change of P is Z + Zᵀ. Only the gap between occupied and virtual levels
enters, so degenerate levels on either side are harmless.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._numerics import solve_in_eigenbasis
from vpotjax._typing import Array


def occupied_projector(matrix: Array, nocc: Array | int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P = Σ_{i < nocc} c_i c_iᵀ, with the eigenvalues and eigenvectors (constants) that its response needs.

    Differentiable to any order while the gap between levels nocc − 1 and nocc is open.
    """
    energies, vectors = jnp.linalg.eigh(stop_gradient(matrix), symmetrize_input=False)
    occupied = jnp.arange(len(energies)) < nocc
    return _projector(matrix, energies, vectors, occupied), energies, vectors


@jax.custom_jvp
def _projector(matrix: jax.Array, energies: jax.Array, vectors: jax.Array, occupied: jax.Array) -> jax.Array:
    return (vectors * occupied) @ vectors.T


@_projector.defjvp
def _projector_jvp(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    matrix, energies, vectors, _ = primals
    projector = _projector(*primals)
    response = occupied_virtual_response(matrix, projector, energies, vectors, tangents[0])
    return projector, response + response.T


def occupied_virtual_response(
    matrix: Array, projector: Array, energies: Array, vectors: Array, perturbation: Array
) -> jax.Array:
    """Z = Q Z P with Z A − A Z = Q B P, (n, n); in the eigenbasis Z_ai = B_ai / (ε_i − ε_a).

    Args:
        matrix: A. projector: P. perturbation: B; all (n, n), derivatives flow through these three.
        energies, vectors: eigenpairs of A, used as constants to invert the equation.
    """
    virtual = jnp.eye(len(matrix), dtype=matrix.dtype) - projector

    def operator(
        z: Array,
    ) -> jax.Array:  # the identity on what is not virtual × occupied, so that it has an inverse
        inside = virtual @ z @ projector
        return virtual @ (inside @ matrix - matrix @ inside) @ projector + z - inside

    occupied = jnp.einsum("pi,pq,qi->i", vectors, stop_gradient(projector), vectors) > 0.5
    mixed = ~occupied[:, None] & occupied[None, :]
    factors = jnp.where(mixed, energies[None, :] - energies[:, None], 1.0)
    return solve_in_eigenbasis(operator, factors, vectors, virtual @ perturbation @ projector)
