"""Linear algebra whose derivatives stay right at degenerate eigenvalues, of symmetric and of Hermitian matrices.

LAPACK is called in two places only, `spectrum` and `inverse_cholesky`, and on a CPU with one matrix at a time, also
under vmap: batched factorisations and triangular solves of jaxlib wait for threads of the very pool that runs them, and
two of them at once wait for ever on two cores (seen with jaxlib 0.10.2 for potrf, trsm and getrf).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.linalg import solve_triangular

from vpotjax._typing import Array


def _one_at_a_time(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """`function` of one matrix for any number of them, (..., n, n): in a loop on CPUs, batched on other devices."""

    @jax.custom_batching.custom_vmap
    def of_many(matrices: jax.Array) -> Any:
        if matrices.ndim == 2:
            return function(matrices)
        flat = matrices.reshape(-1, *matrices.shape[-2:])
        if len(flat) == 1:
            results = jax.tree.map(lambda x: x[None], function(flat[0]))
        else:
            results = jax.lax.platform_dependent(
                flat, cpu=lambda many: jax.lax.map(function, many), default=jax.vmap(function)
            )
        return jax.tree.map(lambda x: x.reshape(*matrices.shape[:-2], *x.shape[1:]), results)

    @of_many.def_vmap
    def rule(size: int, batched: Any, matrices: Array) -> tuple[Any, Any]:
        results = of_many(matrices)
        return results, jax.tree.map(lambda _: True, results)

    return of_many


@_one_at_a_time
def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    energies, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return energies, vectors


@_one_at_a_time
def _inverted_factor(matrix: jax.Array) -> jax.Array:
    factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    return solve_triangular(factor, jnp.eye(len(matrix), dtype=matrix.dtype), lower=True)


def adjoint(matrix: Array) -> jax.Array:
    """The conjugate transpose of the last two axes."""
    return jnp.conj(jnp.swapaxes(matrix, -1, -2))


def spectrum(matrix: Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues (n,) and eigenvectors (n, n) of a symmetric or Hermitian matrix, as constants."""
    return _eigh(jnp.asarray(stop_gradient(matrix)))


@jax.custom_jvp
def inverse_cholesky(matrix: jax.Array) -> jax.Array:
    """L⁻¹ of a symmetric or Hermitian positive definite L Lᴴ, (n, n); NaN where it is not positive definite."""
    inverse = _inverted_factor(stop_gradient(matrix))

    def factor(z: jax.Array) -> jax.Array:  # of L⁻¹ S L⁻ᴴ with the constant L, so 1, with its first two derivatives
        change = inverse @ (matrix - stop_gradient(matrix)) @ adjoint(inverse)
        first = _half(change)
        return z + (first - _half(first @ adjoint(first))) @ z

    def solve(_: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
        return b

    # for reverse mode through a loop, which applies the rule below once and then differentiates this
    return jax.lax.custom_linear_solve(factor, inverse, solve, solve)


@inverse_cholesky.defjvp
def _inverse_cholesky_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # d(L⁻¹) = −Φ(L⁻¹ dS L⁻ᴴ) L⁻¹. In products only.
    inverse = inverse_cholesky(*primals)
    return inverse, -_half(inverse @ tangents[0] @ adjoint(inverse)) @ inverse


def _half(matrix: jax.Array) -> jax.Array:
    """Φ: the lower triangle with half the diagonal, so that Φ + Φᴴ is the matrix."""
    return jnp.tril(matrix) - 0.5 * jnp.diag(jnp.diagonal(matrix))


def linear_solution(
    operator: Callable[[jax.Array], jax.Array],
    right: jax.Array,
    solve: Callable[[jax.Array], jax.Array],
    transposed: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """X with operator(X) = `right`, from a known inverse; derivatives come from those of `operator`.

    Args:
        operator: linear and self-adjoint, written in differentiable terms; for real numbers it is its own transpose.
        right: right-hand side.
        solve, transposed: the inverses of the operator and of its transpose, applied without derivative.
    """
    return jax.lax.custom_linear_solve(
        operator,
        right,
        lambda _, b: solve(b),
        lambda _, b: transposed(b),
        symmetric=not jnp.iscomplexobj(right),
    )


def solve_in_eigenbasis(
    operator: Callable[[jax.Array], jax.Array], factors: Array, vectors: Array, right: Array
) -> jax.Array:
    """Solve operator(X) = right; the self-adjoint `operator` multiplies element ij by factors_ij in a known basis.

    The inverse is applied through the eigenbasis, without derivative; derivatives of the solution come from those of
    `operator`, so they are right to any order and need no derivative of eigenvectors.

    Args:
        operator: linear map of (n, n) matrices, written in differentiable terms.
        factors: (n, n), none of them zero, symmetric.
        vectors: (n, n) unitary, columns are the basis.
        right: (n, n).
    """
    factors, vectors = stop_gradient(factors), jnp.asarray(stop_gradient(vectors))

    def solve(b: jax.Array, basis: jax.Array) -> jax.Array:
        return jnp.asarray(basis @ ((adjoint(basis) @ b @ basis) / factors) @ adjoint(basis))

    return linear_solution(
        operator, jnp.asarray(right), lambda b: solve(b, vectors), lambda b: solve(b, jnp.conj(vectors))
    )


def square_root(matrix: Array) -> jax.Array:
    """S^{1/2} of a Hermitian positive definite matrix, (n, n); differentiable to any order, also at degeneracy.

    The derivative Y′ solves the Sylvester equation Y Y′ + Y′ Y = S′ with Y = S^{1/2}. NaN where S is not positive.
    """
    values, vectors = spectrum(matrix)
    return _square_root(matrix, jnp.sqrt(values), vectors)


@jax.custom_jvp
def _square_root(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    return vectors @ (jnp.diag(roots) + _root_change(matrix, roots, vectors)) @ adjoint(vectors)


def _root_change(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    """Zero, with the first and second derivatives of the square root in its eigenbasis.

    For reverse mode through a loop, which applies the rule below once and then differentiates the function's own body.
    """
    perturbed = adjoint(vectors) @ (matrix @ vectors)
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
    """S^{−1/2} of a Hermitian positive definite matrix, (n, n); dS^{−1/2} = −S^{−1/2} dS^{1/2} S^{−1/2}.

    With the eigenvalues a and b that is the divided difference −1/(√a √b (√a + √b)), without a singularity. NaN where S
    is not positive.
    """
    values, vectors = spectrum(matrix)
    return _inverse_square_root(matrix, jnp.sqrt(values), vectors)


@jax.custom_jvp
def _inverse_square_root(matrix: jax.Array, roots: jax.Array, vectors: jax.Array) -> jax.Array:
    change = _root_change(matrix, roots, vectors) / roots[:, None]
    identity = jnp.eye(len(roots), dtype=roots.dtype)
    return vectors @ ((identity - change + change @ change) / roots[None, :]) @ adjoint(vectors)


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
    mask = jnp.asarray(mask, bool)
    return jnp.where(mask[:, None] & mask[None, :], matrix, jnp.diag(~mask).astype(matrix.dtype))
