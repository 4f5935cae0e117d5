"""Fermi–Dirac occupations of a matrix, differentiable to any order, degenerate levels and small gaps included.

f(x) = ½ − ½ tanh(x/2), and tanh(2y) = 2 tanh y / (1 + tanh² y): from y small enough for a series the hyperbolic tangent
of a matrix is doubled up. Only products and inverses of well-conditioned matrices occur, so no derivative has a small
denominator. The eigenbasis serves as a constant frame, in which the matrix is diagonal up to rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._numerics import adjoint, inverse_cholesky, spectrum
from vpotjax._typing import Array

DOUBLINGS = 36  # from arguments below 2e-3, so that (ε − μ)/kT may reach 2e8
BISECTIONS = 80


def fermi_matrix(matrix: Array, nocc: Array | int, temperature: Array | float) -> jax.Array:
    """1/(1 + exp((A − μ)/kT)) with trace `nocc`, (n, n).

    Args:
        matrix: A, (n, n), symmetric or Hermitian.
        nocc: number of occupied orbitals.
        temperature: kT > 0, unit of A.
    """
    energies, vectors = spectrum(matrix)
    diagonal = adjoint(vectors) @ matrix @ vectors
    potential = _chemical_potential(energies, jnp.asarray(nocc, energies.dtype), stop_gradient(temperature))
    rounding = len(energies) * jnp.finfo(energies.dtype).eps
    for _ in range(2):  # Newton steps change nothing but derivatives, and make those right to the third order
        occupations = _fermi(diagonal, potential, temperature)
        number = jnp.real(jnp.trace(occupations))
        slope = (number - jnp.real(jnp.sum(occupations * jnp.conj(occupations)))) / temperature
        slope = jnp.maximum(slope, rounding / temperature)  # a gap far above kT: μ has no influence
        excess = number - nocc
        potential = potential - (excess - stop_gradient(excess)) / slope
    return vectors @ _fermi(diagonal, potential, temperature) @ adjoint(vectors)


def _fermi(matrix: jax.Array, potential: jax.Array, temperature: Array | float) -> jax.Array:
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    argument = (matrix - potential * identity) / (2 * temperature) / 2.0**DOUBLINGS
    square = argument @ argument
    tangent = argument @ (identity - square @ (identity - 0.4 * square) / 3)

    def double(tangent: jax.Array, _: None) -> tuple[jax.Array, None]:
        factor = inverse_cholesky(identity + tangent @ tangent)
        result = 2 * adjoint(factor) @ (factor @ tangent)
        return (result + adjoint(result)) / 2, None

    tangent, _ = jax.lax.scan(double, tangent, None, length=DOUBLINGS)
    return (identity - tangent) / 2


def _chemical_potential(energies: Array, nocc: Array, temperature: Array | float) -> jax.Array:
    """μ by bisection, a constant."""
    reach = 100.0 * temperature

    def halve(bounds: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        low, high = bounds
        middle = (low + high) / 2
        few = jnp.sum(jax.nn.sigmoid((middle - energies) / temperature)) < nocc
        return (jnp.where(few, middle, low), jnp.where(few, high, middle)), None

    bounds = energies[0] - reach, energies[-1] + reach
    (low, high), _ = jax.lax.scan(halve, bounds, None, length=BISECTIONS)
    return (low + high) / 2
