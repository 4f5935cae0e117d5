"""Orthonormal combinations of AOs: X with Xᵀ S X = 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.linalg import solve_triangular

from vpotjax._numerics import inverse_square_root, unit_padding
from vpotjax._typing import Array
from vpotjax.electronic.frames import frame, in_eigenbasis, spectrum


def orthogonaliser(overlap: Array, ao_mask: Array | None = None, threshold: float | None = None) -> jax.Array:
    """X, (nao, nao), with Xᵀ S X = 1 on the real functions; columns of padding and of dropped functions are zero.

    Without `threshold` X = L⁻ᵀ with S = L Lᵀ: it costs a fraction of an eigenproblem. With it, canonical
    orthogonalisation: X = U s^{−1/2} without the eigenvalues s < threshold (Löwdin 1970,
    doi:10.1016/S0065-3276(08)60339-1). X follows S up to rotations among its columns, which no observable depends on.
    """
    padded = unit_padding(overlap, ao_mask)
    if threshold is None:
        matrix = _inverse_cholesky(padded).T
    else:
        values, vectors = spectrum(padded)
        kept = values >= threshold
        follower, within = frame(padded, in_eigenbasis(padded, vectors), vectors, kept[:, None] != kept[None, :])
        root = inverse_square_root(unit_padding(within, kept))
        matrix = (follower * kept) @ (root * kept)
    return matrix if ao_mask is None else matrix * jnp.asarray(ao_mask)[:, None]


@jax.custom_jvp
def _inverse_cholesky(matrix: jax.Array) -> jax.Array:
    factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    return solve_triangular(factor, jnp.eye(len(matrix), dtype=matrix.dtype), lower=True)


@_inverse_cholesky.defjvp
def _inverse_cholesky_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # d(L⁻¹) = −Φ(L⁻¹ dS L⁻ᵀ) L⁻¹, Φ: the lower triangle with half the diagonal. In products only.
    inverse = _inverse_cholesky(*primals)
    change = inverse @ tangents[0] @ inverse.T
    lower = jnp.tril(change) - 0.5 * jnp.diag(jnp.diagonal(change))
    return inverse, -lower @ inverse


def orthogonal_fock(fock: Array, transformation: Array, margin: Array | float = 0.0) -> jax.Array:
    """Xᵀ F X, (nao, nao), with the zero columns of X above the spectrum by more than 1 + `margin` hartree."""
    matrix = transformation.T @ fock @ transformation
    matrix = jnp.asarray((matrix + matrix.T) / 2)
    # Above every level by Gershgorin's theorem, yet of their size, so that no digits are lost.
    bound = stop_gradient(jnp.max(jnp.sum(jnp.abs(matrix), axis=1)))
    missing = ~real_orbitals(transformation)
    return jnp.asarray(matrix) + jnp.diag(jnp.where(missing, bound + 1.0 + margin, 0.0))


def real_orbitals(coefficients: Array) -> jax.Array:
    """(nmo,) True for orbitals that are neither padding nor dropped as linearly dependent."""
    return jnp.any(coefficients != 0, axis=-2)
