"""Linear algebra whose derivatives stay right at degenerate eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._typing import Array


def solve_in_eigenbasis(
    operator: Callable[[jax.Array], jax.Array], factors: Array, vectors: Array, right: Array
) -> jax.Array:
    """Solve operator(X) = right; the self-adjoint `operator` multiplies element ij by factors_ij in a known basis.

    The inverse is applied through the eigenbasis, without derivative; derivatives of the solution come from those of
    `operator`, so they are right to any order and need no derivative of eigenvectors.

    Args:
        operator: linear map of (n, n) matrices, written in differentiable terms.
        factors: (n, n), none of them zero.
        vectors: (n, n) orthogonal, columns are the basis.
        right: (n, n).
    """
    factors, vectors = stop_gradient(factors), stop_gradient(vectors)

    def solve(_: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
        return jnp.asarray(vectors @ ((vectors.T @ b @ vectors) / factors) @ vectors.T)

    return jax.lax.custom_linear_solve(operator, right, solve, symmetric=True)


def square_root(matrix: Array) -> jax.Array:
    """S^{1/2} of a symmetric positive definite matrix, (n, n); differentiable to any order, also at degeneracy.

    The derivative Y′ solves the Sylvester equation Y Y′ + Y′ Y = S′ with Y = S^{1/2}.
    """
    values, vectors = jnp.linalg.eigh(stop_gradient(matrix))
    return _square_root(matrix, jnp.sqrt(values), vectors)


@jax.custom_jvp
def _square_root(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    return vectors @ (jnp.diag(roots) + _root_change(matrix, roots, vectors)) @ vectors.T


def _root_change(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    """Zero, with the first and second derivatives of the square root in its eigenbasis.

    For reverse mode through a loop, which applies the rule below once and then differentiates the function's own body.
    """
    perturbed = vectors.T @ (matrix @ vectors)
    sums = roots[:, None] + roots[None, :]
    first = (perturbed - stop_gradient(perturbed)) / sums
    return first - first @ first / sums


@_square_root.defjvp
def _square_root_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    _, roots, vectors = primals
    root = _square_root(*primals)
    factors = roots[:, None] + roots[None, :]
    return root, solve_in_eigenbasis(lambda x: root @ x + x @ root, factors, vectors, tangents[0])


def inverse_square_root(matrix: Array) -> jax.Array:
    """S^{−1/2} of a symmetric positive definite matrix, (n, n); dS^{−1/2} = −S^{−1/2} dS^{1/2} S^{−1/2}.

    With the eigenvalues a and b that is the divided difference −1/(√a √b (√a + √b)), without a singularity.
    """
    values, vectors = jnp.linalg.eigh(stop_gradient(matrix))
    return _inverse_square_root(matrix, jnp.sqrt(values), vectors)


@jax.custom_jvp
def _inverse_square_root(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    change = _root_change(matrix, roots, vectors) / roots[:, None]
    identity = jnp.eye(len(roots), dtype=roots.dtype)
    return vectors @ ((identity - change + change @ change) / roots) @ vectors.T


@_inverse_square_root.defjvp
def _inverse_square_root_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    inverse = _inverse_square_root(*primals)
    _, change = _square_root_jvp(primals, tangents)
    return inverse, -inverse @ change @ inverse


def unit_padding(matrix: Array, mask: Array | None) -> jax.Array:
    """`matrix` with rows and columns of padding replaced by those of the identity."""
    if mask is None:
        return jnp.asarray(matrix)
    return jnp.where(mask[:, None] & mask[None, :], matrix, jnp.diag(~mask).astype(matrix.dtype))
