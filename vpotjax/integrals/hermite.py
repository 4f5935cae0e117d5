"""Hermite Gaussians (McMurchie and Davidson 1978, doi:10.1016/0021-9991(78)90092-X).

Arrays keep the pairs of primitives on their last axes, so that a recurrence step is one vector operation; the
Hermite index (t, u, v) or the Cartesian powers come first, sorted by total order.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._typing import Array
from vpotjax.integrals.boys import boys


@functools.cache
def hermite_indices(order: int) -> tuple[tuple[int, int, int], ...]:
    """All (t, u, v) with t + u + v ≤ order, lower totals first."""
    return tuple(
        (t, u, total - t - u)
        for total in range(order + 1)
        for t in range(total, -1, -1)
        for u in range(total - t, -1, -1)
    )


@functools.cache
def _raised(order: int) -> tuple[np.ndarray, ...]:
    """Positions of (t+1, u, v), (t, u+1, v) and (t, u, v+1) in the list of order + 1, for all (t, u, v) of `order`."""
    position = {index: i for i, index in enumerate(hermite_indices(order + 1))}
    unit = np.eye(3, dtype=int)
    return tuple(np.array([position[tuple(np.add(i, unit[d]))] for i in hermite_indices(order)]) for d in range(3))


@functools.cache
def _recurrence(total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How order `total` follows from the two below: direction, indices one and two below, factor of the latter."""

    def layer(n: int) -> dict[tuple[int, ...], int]:
        return {i: k for k, i in enumerate(i for i in hermite_indices(n) if sum(i) == n)} if n >= 0 else {}

    one, two, rows = layer(total - 1), layer(total - 2), []
    for index in layer(total):
        direction = max(range(3), key=lambda d: index[d] > 0)  # the first power that can be lowered
        lowered = list(index)
        lowered[direction] -= 1
        twice = list(lowered)
        twice[direction] -= 1
        rows.append((direction, one[tuple(lowered)], two.get(tuple(twice), 0), lowered[direction]))
    direction, first, second, factor = (np.array(column) for column in zip(*rows, strict=True))
    return direction, first, second, factor


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def hermite_potential(order: int, exponent: Array, displacement: Array) -> jax.Array:
    """R_tuv(p, X) = ∂_x^t ∂_y^u ∂_z^v F_0(p X²) for t + u + v ≤ order.

    Its derivative is the same function of higher order: ∂R_tuv/∂X_x = R_{t+1,u,v}, and, because 2√(p/π) F_0(p X²)
    is the potential of a unit Gaussian charge, which obeys the heat equation, ∂R/∂p = −R/2p − ∇²R/4p².

    Args:
        order: highest t + u + v.
        exponent: p > 0, (...) in bohr⁻².
        displacement: X = P − C, (3, ...) in bohr; X = 0 is fine.

    Returns:
        (len(hermite_indices(order)), ...).
    """
    values = boys(order, exponent * jnp.sum(displacement**2, axis=0))
    powers = jnp.stack([(-2 * exponent) ** n for n in range(order + 1)])
    below = None
    layer = (values * powers)[:, None]  # (n, (t, u, v) of this total, ...)
    layers = [layer[0]]
    for total in range(1, order + 1):
        direction, first, second, factor = _recurrence(total)
        raised = displacement[direction] * layer[1:, first]
        if below is not None:
            scale = factor.astype(exponent.dtype).reshape(-1, *[1] * exponent.ndim)
            raised = raised + scale * below[1:-1, second]
        below, layer = layer, raised
        layers.append(layer[0])
    return jnp.concatenate(layers)


@functools.partial(hermite_potential.defjvp, symbolic_zeros=True)
def _hermite_potential_jvp(order: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    exponent, displacement = primals
    exponent_dot, displacement_dot = tangents
    moving = not isinstance(exponent_dot, jax.custom_derivatives.SymbolicZero)
    values = hermite_potential(order + (2 if moving else 1), exponent, displacement)
    count = len(hermite_indices(order))
    tangent = jnp.zeros_like(values[:count])
    raised = _raised(order)
    if not isinstance(displacement_dot, jax.custom_derivatives.SymbolicZero):
        tangent = sum((values[raised[d]] * displacement_dot[d] for d in range(3)), tangent)
    if moving:
        twice = _raised(order + 1)
        laplacian = sum(values[twice[d][raised[d]]] for d in range(3))
        tangent = tangent - (values[:count] / (2 * exponent) + laplacian / (4 * exponent**2)) * exponent_dot
    return values[:count], tangent


def hermite_expansion(la: int, lb: int, pair: Any) -> jax.Array:
    """E_t^{ij}: x_A^i x_B^j exp(−a x_A²) exp(−b x_B²) = Σ_t E_t^{ij} ∂^t/∂P^t exp(−p x_P²), per direction.

    Args:
        la, lb: highest i and j.
        pair: of primitives, see `shell_pairs.PrimitivePairs`.

    Returns:
        (la + 1, lb + 1, la + lb + 1, 3, ...); zero for t > i + j. E_0^{00} is exp(−μ X_AB²).
    """
    top = la + lb
    start = jnp.concatenate([pair.decay[None], jnp.zeros((top, *pair.decay.shape), pair.decay.dtype)])
    weights = np.arange(1, top + 1, dtype=pair.decay.dtype).reshape(-1, *[1] * pair.decay.ndim)

    def raise_power(row: Array, shift: Array) -> jax.Array:
        zero = jnp.zeros_like(row[:1])
        below = jnp.concatenate([zero, row[:-1]]) / (2 * pair.exponent)
        above = jnp.concatenate([weights * row[1:], zero])
        return below + shift * row + above

    rows = [start]
    for _ in range(la):
        rows.append(raise_power(rows[-1], pair.from_a))
    columns = [jnp.stack(rows)]
    for _ in range(lb):
        columns.append(jax.vmap(raise_power, in_axes=(0, None))(columns[-1], pair.from_b))
    return jnp.stack(columns, axis=1)
