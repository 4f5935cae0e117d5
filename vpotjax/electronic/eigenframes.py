"""Eigenvectors as frames of subspaces, with derivatives that are right to any order at degenerate levels.

Inside a degenerate level, or inside the occupied space when only the density matters, the choice of eigenvectors is a
gauge. A frame Y of such blocks follows a perturbation B = Yᴴ dA Y by dY = Y K, where K couples different blocks only:

    W K − K W = −B  between blocks,  W = Yᴴ A Y  (block diagonal).

A is symmetric, or Hermitian.

The rule is covariant under rotations inside the blocks, so the derivatives of everything that does not depend on the
gauge are exact, and those of higher order too, because W and Y are differentiated again. Only differences between
levels of different blocks enter. The equation is solved in the eigenbasis; its own derivative comes from W.

Reverse mode through a loop (`lax.scan`, `lax.map`) applies such a rule once and then differentiates the function's own
body. So the bodies, too, are written such that their second derivatives are right: with constants that make the first
and second orders exact and cost nothing when no derivative is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._numerics import adjoint, linear_solution
from vpotjax._typing import Array


def in_eigenbasis(matrix: Array, vectors: Array) -> jax.Array:
    """Vᴴ A V, diagonal up to its derivatives, with the constants V of `spectrum`."""
    return adjoint(vectors) @ (matrix @ vectors)


@jax.custom_jvp
def frame(matrix: jax.Array, perturbed: jax.Array, vectors: jax.Array, apart: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvectors Y that follow `matrix`, and W = Yᴴ A Y without elements between blocks.

    Args:
        matrix: A, (n, n), symmetric or Hermitian.
        perturbed: A from `in_eigenbasis`.
        vectors: of A, from `spectrum`.
        apart: (n, n) True where two eigenvectors belong to different blocks; symmetric.
    """
    coupling = _coupling(perturbed, apart)
    rotation = response(perturbed, apart, -coupling)

    def solve(_: Callable[[jax.Array], jax.Array], b: jax.Array) -> jax.Array:
        return b  # the rotation vanishes, up to its derivatives

    # Y (1 + K/2) (1 − K/2)⁻¹ = 2 Y (1 − K/2)⁻¹ − Y, equal to Y exp(K) to second order
    half = jax.lax.custom_linear_solve(lambda z: z - z @ rotation / 2, vectors, solve, solve)
    mixing = coupling @ rotation
    within = jnp.where(apart, 0.0, perturbed + (mixing + adjoint(mixing)) / 2)
    return 2 * half - vectors, within


@frame.defjvp
def _frame_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    apart = primals[3]
    follower, within = frame(*primals)
    perturbation = adjoint(follower) @ (tangents[0] @ follower)
    rotation = response(within, apart, -perturbation)
    return (follower, within), (follower @ rotation, jnp.where(apart, 0.0, perturbation))


@jax.custom_jvp
def levels(matrix: jax.Array, perturbed: jax.Array, vectors: jax.Array, apart: jax.Array) -> jax.Array:
    """Eigenvalues (n,) that follow `matrix`; arguments as `frame`.

    The derivative of a degenerate level is that of its vectors' diagonal: exact for symmetric functions of the level.
    """
    coupling = _coupling(perturbed, apart)
    second = jnp.sum(jnp.conj(coupling) * response(perturbed, apart, coupling), axis=1)
    return jnp.real(jnp.diagonal(perturbed) + second)


@levels.defjvp
def _levels_jvp(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    follower, _ = frame(*primals)
    return levels(*primals), jnp.real(jnp.sum(jnp.conj(follower) * (tangents[0] @ follower), axis=0))


def _coupling(perturbed: jax.Array, apart: jax.Array) -> jax.Array:
    """Elements between blocks: zero, up to their derivatives."""
    coupling = jnp.where(apart, perturbed, 0.0)
    return coupling - stop_gradient(coupling)


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
