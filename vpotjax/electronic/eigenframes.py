"""Eigenvectors as frames of subspaces, with derivatives that are right to any order at degenerate levels.

Inside a degenerate level, or inside the occupied space when only the density matters, the choice of eigenvectors is a
gauge. A frame Z of such blocks follows a perturbation B = Zᴴ dM Z of a matrix M, symmetric or Hermitian, by dZ = Z K,
where K couples different blocks only:

    W K − K W = −B  between blocks,  W = Zᴴ M Z  (block diagonal).

The rule is covariant under rotations inside the blocks, so the derivatives of everything that does not depend on the
gauge are exact, and those of higher order too, because W and Z are differentiated again. Only differences between
levels of different blocks enter.

M is given in the eigenbasis (`in_eigenbasis`): it is diagonal and Z is 1, but for their derivatives. Products with such
matrices are linear equations with known solutions (`_known`), which are multiplied out where they are differentiated.

Reverse mode through a loop (`lax.scan`, `lax.map`) applies such a rule once and then differentiates the function's own
body. So the body, too, is written such that its second derivatives are right.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._numerics import adjoint, linear_solution
from vpotjax._typing import Array


def in_eigenbasis(matrix: Array, energies: Array, vectors: Array) -> jax.Array:
    """Vᴴ A V, (n, n): the diagonal `energies`, with the derivatives of the product.

    Args:
        matrix: A.
        energies, vectors: its eigenvalues and V, in A's own basis or in any other.
    """

    def product() -> jax.Array:
        result = adjoint(vectors) @ (matrix @ vectors)
        return (result + adjoint(result)) / 2

    return _with_derivatives(jnp.diag(energies).astype(matrix.dtype), product)


@jax.custom_jvp
def frame(matrix: jax.Array, apart: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Z and W = Zᴴ M Z without elements between blocks; Z is 1 up to its derivatives.

    Args:
        matrix: M, (n, n), diagonal up to its derivatives.
        apart: (n, n) True where two eigenvectors belong to different blocks; symmetric.
    """
    coupling = jnp.where(apart, matrix - stop_gradient(matrix), 0.0)
    rotation = response(matrix, apart, -coupling)
    unit = jnp.eye(len(matrix), dtype=matrix.dtype)
    inside = jnp.where(apart, 0.0, matrix)

    def within() -> jax.Array:
        mixing = coupling @ rotation
        return jnp.where(apart, 0.0, matrix + (mixing + adjoint(mixing)) / 2)

    # exp(K) to second order
    return (
        _with_derivatives(unit, lambda: unit + rotation + rotation @ rotation / 2),
        _with_derivatives(stop_gradient(inside), within),
    )


@frame.defjvp
def _frame_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    apart = primals[1]
    follower, within = frame(*primals)
    perturbation = _known(lambda z: follower @ z @ adjoint(follower), tangents[0])
    rotation = response(within, apart, -perturbation)
    change = _known(lambda z: adjoint(follower) @ z, rotation)
    return (follower, within), (change, jnp.where(apart, 0.0, perturbation))


def turned(vectors: Array, follower: jax.Array) -> jax.Array:
    """V Z, (m, n), with Z of `frame`: V, with the derivatives of the product."""
    return _known(lambda z: z @ adjoint(follower), jnp.asarray(vectors))


def _known(operator: Callable[[jax.Array], jax.Array], right: jax.Array) -> jax.Array:
    """The solution of operator(X) = `right` for an operator that is 1 up to its derivatives."""
    return jnp.asarray(jax.lax.custom_linear_solve(operator, right, lambda _, b: b, lambda _, b: b))


def _with_derivatives(value: jax.Array, function: Callable[[], jax.Array]) -> jax.Array:
    """`value`, with the derivatives of function(), which is not computed where none is taken."""

    def operator(rows: jax.Array) -> jax.Array:
        result = function()
        return jnp.concatenate([rows[:-1] - rows[-1:] * (result - stop_gradient(result)), rows[-1:]])

    return _known(operator, jnp.concatenate([value, jnp.ones_like(value[:1])]))[:-1]


def response(within: Array, apart: Array, right: Array, shift: Array | float | None = None) -> jax.Array:
    """K with W K − K W = `right` between blocks and zero inside; with `shift` (W·−·W)² K + shift K = `right`.

    Args:
        within: W, (n, n), block diagonal with the eigenvalues on its diagonal; derivatives flow through it.
        apart: (n, m) True where K may differ from zero; m < n for K with the first m columns only, which then must hold
            the whole of every block that has True in its columns.
        right: (..., n, m).
        shift: see above.
    """
    energies = jnp.real(stop_gradient(jnp.diagonal(within)))
    few = within[: apart.shape[1], : apart.shape[1]]
    difference = energies[:, None] - energies[None, : apart.shape[1]]
    factors = difference if shift is None else difference**2 + stop_gradient(shift)
    factors = jnp.where(apart, factors, 1.0)

    def commutator(z: jax.Array) -> jax.Array:
        return jnp.where(apart, within @ z - z @ few, 0.0)

    def operator(z: jax.Array) -> jax.Array:  # the identity inside blocks, so that it has an inverse
        inside = jnp.where(apart, z, 0.0)
        result = commutator(inside) if shift is None else commutator(commutator(inside)) + shift * inside
        return result + z - inside

    def solve(b: jax.Array) -> jax.Array:
        return b / jnp.broadcast_to(factors, b.shape)

    return linear_solution(operator, jnp.where(apart, right, 0.0), solve, solve)
