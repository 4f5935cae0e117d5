"""Hermite Gaussians (McMurchie and Davidson 1978, doi:10.1016/0021-9991(78)90092-X).

Arrays hold pairs of primitives ("lanes") on their last axes, so that a step of a recurrence is one vector operation.
Low orders are written out, one array per Hermite index, because XLA then fuses whole recurrences into loops without
memory traffic; high orders work on stacked arrays, because code that is written out would compile for minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax.integrals.boys import boys

WRITTEN_OUT = 6  # highest order of `hermite_potential` whose recurrences are written out

Index = tuple[int, int, int]


@functools.cache
def hermite_indices(order: int) -> tuple[Index, ...]:
    """All (t, u, v) with t + u + v ≤ order, lower totals first."""
    return tuple(
        (t, u, total - t - u)
        for total in range(order + 1)
        for t in range(total, -1, -1)
        for u in range(total - t, -1, -1)
    )


@functools.cache
def _raised(order: int) -> tuple[tuple[int, ...], ...]:
    """Positions of (t+1, u, v), (t, u+1, v) and (t, u, v+1) in the list of order + 1, for all (t, u, v) of `order`."""
    position = {index: i for i, index in enumerate(hermite_indices(order + 1))}
    indices = hermite_indices(order)
    return (
        tuple(position[t + 1, u, v] for t, u, v in indices),
        tuple(position[t, u + 1, v] for t, u, v in indices),
        tuple(position[t, u, v + 1] for t, u, v in indices),
    )


def _lowered(index: Index) -> tuple[int, Index, Index, int]:
    """The step that leads to `index`: direction, index one and two lower there, factor of the latter."""
    direction = max(range(3), key=lambda d: index[d] > 0)  # the first power that can be lowered
    one, two = list(index), list(index)
    one[direction] -= 1
    two[direction] -= 2
    return direction, (one[0], one[1], one[2]), (two[0], two[1], two[2]), one[direction]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def hermite_potential(order: int, exponent: jax.Array, displacement: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """R_tuv(p, X) = ∂_x^t ∂_y^u ∂_z^v F_0(p X²) for t + u + v ≤ order.

    Its derivative is the same function of higher order: ∂R_tuv/∂X_x = R_{t+1,u,v}, and, because 2√(p/π) F_0(p X²)
    is the potential of a unit Gaussian charge, which obeys the heat equation, ∂R/∂p = −R/2p − ∇²R/4p².

    Args:
        order: highest t + u + v.
        exponent: p > 0, (...) in bohr⁻².
        displacement: X = P − C, three arrays (...) in bohr; X = 0 is fine.

    Returns:
        One array (...) for each of `hermite_indices(order)`.
    """
    x, y, z = displacement
    values = boys(order, exponent * (x * x + y * y + z * z))
    return (_written_out if order <= WRITTEN_OUT else _stacked)(order, exponent, (x, y, z), values)


def _written_out(
    order: int, exponent: jax.Array, displacement: Sequence[jax.Array], values: jax.Array
) -> tuple[jax.Array, ...]:
    """R^n_{t+1,u,v} = X R^{n+1}_{tuv} + t R^{n+1}_{t−1,u,v}, from R^n_000 = (−2p)^n F_n."""
    table: dict[tuple[int, Index], jax.Array] = {(0, (0, 0, 0)): values[0]}
    power = scale = -2 * exponent
    for n in range(1, order + 1):
        table[n, (0, 0, 0)] = power * values[n]
        power = power * scale
    for index in hermite_indices(order)[1:]:
        direction, one, two, factor = _lowered(index)
        for n in range(order - sum(index) + 1):
            value = displacement[direction] * table[n + 1, one]
            table[n, index] = value + factor * table[n + 1, two] if factor else value
    return tuple(table[0, index] for index in hermite_indices(order))


def _stacked(
    order: int, exponent: jax.Array, displacement: Sequence[jax.Array], values: jax.Array
) -> tuple[jax.Array, ...]:
    """The same recurrence, all n and all (t, u, v) of one total at a time."""
    vector = jnp.stack(displacement)
    powers = jnp.stack([(-2 * exponent) ** n for n in range(order + 1)])
    below = None
    layer = (values * powers)[:, None]  # (n, (t, u, v) of this total, ...)
    layers = [layer[0]]
    for total in range(1, order + 1):
        direction, first, second, factor = _layer_steps(total)
        raised = vector[direction] * layer[1:, first]
        if below is not None:
            scale = factor.astype(exponent.dtype).reshape(-1, *[1] * exponent.ndim)
            raised = raised + scale * below[1:-1, second]
        below, layer = layer, raised
        layers.append(layer[0])
    return tuple(row for layer in layers for row in layer)


@functools.cache
def _layer_steps(total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`_lowered` for all indices of one total, as positions among those of the totals below."""

    def layer(n: int) -> dict[Index, int]:
        return {i: k for k, i in enumerate(i for i in hermite_indices(max(n, 0)) if sum(i) == n)}

    ones, twos = layer(total - 1), layer(total - 2)
    steps = [_lowered(index) for index in layer(total)]
    rows = [(direction, ones[one], twos.get(two, 0), factor) for direction, one, two, factor in steps]
    direction, first, second, factor = np.array(rows).T
    return direction, first, second, factor


@functools.partial(hermite_potential.defjvp, symbolic_zeros=True)
def _hermite_potential_jvp(order: int, primals: Any, tangents: Any) -> Any:
    exponent, displacement = primals
    exponent_dot, displacement_dot = tangents
    zero = jax.custom_derivatives.SymbolicZero
    widening = not isinstance(exponent_dot, zero)
    values = hermite_potential(order + (2 if widening else 1), exponent, displacement)
    raised = _raised(order)
    tangent = [jnp.zeros_like(values[0])] * len(raised[0])
    for d in range(3):
        if not isinstance(displacement_dot[d], zero):
            tangent = [t + values[k] * displacement_dot[d] for t, k in zip(tangent, raised[d], strict=True)]
    if widening:
        twice = _raised(order + 1)
        for i in range(len(tangent)):
            laplacian = sum(values[twice[d][raised[d][i]]] for d in range(3))
            tangent[i] = tangent[i] - (values[i] / (2 * exponent) + laplacian / (4 * exponent**2)) * exponent_dot
    return values[: len(tangent)], tuple(tangent)


def hermite_expansion(
    la: int, lb: int, from_a: jax.Array, from_b: jax.Array, half: jax.Array
) -> list[list[list[jax.Array]]]:
    """E_t^{ij}: x_A^i x_B^j exp(−p x_P²) = Σ_t E_t^{ij} ∂^t/∂P^t exp(−p x_P²), per direction.

    Args:
        la, lb: highest i and j.
        from_a, from_b: P − A and P − B, (3, ...).
        half: 1/2p, (...).

    Returns:
        Nested lists [i][j][t], t ≤ i + j, of arrays (3, ...); E_0^{00} = 1.
    """

    def raise_power(row: list[jax.Array], shift: jax.Array) -> list[jax.Array]:
        # E_t^{i+1} = E_{t−1}^i / 2p + X_PA E_t^i + (t + 1) E_{t+1}^i
        terms: list[list[jax.Array]] = [[] for _ in range(len(row) + 1)]
        for t, value in enumerate(row):
            terms[t + 1].append(half * value)
            terms[t].append(shift * value)
            if t:
                terms[t - 1].append(t * value)
        return [functools.reduce(jnp.add, parts) for parts in terms]

    rows = [[[jnp.ones_like(jnp.asarray(from_a))]]]
    for _ in range(la):
        rows.append([raise_power(rows[-1][0], from_a)])
    for row in rows:
        for _ in range(lb):
            row.append(raise_power(row[-1], from_b))
    return rows


def stacked_expansion(la: int, lb: int, from_a: jax.Array, from_b: jax.Array, half: jax.Array) -> jax.Array:
    """The same as one array (la + 1, lb + 1, la + lb + 1, 3, ...), zero for t > i + j, made in fewer operations."""
    top = la + lb
    start = jnp.concatenate([jnp.ones_like(from_a)[None], jnp.zeros((top, *from_a.shape), from_a.dtype)])
    weights = np.arange(1, top + 1, dtype=from_a.dtype).reshape(-1, *[1] * from_a.ndim)

    def raise_power(row: jax.Array, shift: jax.Array) -> jax.Array:
        zero = jnp.zeros_like(row[:1])
        return half * jnp.concatenate([zero, row[:-1]]) + shift * row + jnp.concatenate([weights * row[1:], zero])

    rows = [start]
    for _ in range(la):
        rows.append(raise_power(rows[-1], from_a))
    columns = [jnp.stack(rows)]
    for _ in range(lb):
        columns.append(jax.vmap(raise_power, in_axes=(0, None))(columns[-1], from_b))
    return jnp.stack(columns, axis=1)
