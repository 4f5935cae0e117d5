"""Operators that are sums of products of one-dimensional ones: 1, x, x², ∂/∂x, ∂²/∂x².

Their integrals over primitives are products of three one-dimensional integrals, which follow from the Obara–Saika
recurrence s_{i+1,j} = X_PA s_ij + (i s_{i−1,j} + j s_{i,j−1}) / 2p (doi:10.1063/1.450106).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.shell_pairs import PrimitivePairs

WRITTEN_OUT = 3  # highest la + lb whose products are written out

Table = list[list[jax.Array]]
"""[i][j] of arrays (3, n)."""


def unity(la: int, lb: int, pair: PrimitivePairs) -> Table:
    """s_ij of exp(−p x_P²) in units of √(π/p)."""
    rows: Table = [[jnp.ones_like(pair.from_a)]]
    for i in range(la):
        value = pair.from_a * rows[i][0]
        rows.append([value + i * pair.half * rows[i - 1][0] if i else value])
    for j in range(lb):
        for i, row in enumerate(rows):
            value = pair.from_b * row[j]
            value = value + i * pair.half * rows[i - 1][j] if i else value
            row.append(value + j * pair.half * row[j - 1] if j else value)
    return rows


def position(la: int, lb: int, pair: PrimitivePairs) -> Table:
    """x = x_A + A, about the origin of the coordinates."""
    s = unity(la + 1, lb, pair)
    return [[s[i + 1][j] + pair.centre_a * s[i][j] for j in range(lb + 1)] for i in range(la + 1)]


def position_squared(la: int, lb: int, pair: PrimitivePairs) -> Table:
    """x² = x_A² + 2A x_A + A²."""
    s, a = unity(la + 2, lb, pair), pair.centre_a
    return [[s[i + 2][j] + 2 * a * s[i + 1][j] + a * a * s[i][j] for j in range(lb + 1)] for i in range(la + 1)]


def derivative(la: int, lb: int, pair: PrimitivePairs) -> Table:
    """∂ x_B^j e^{−b x_B²} = (j x_B^{j−1} − 2b x_B^{j+1}) e^{−b x_B²}."""
    s, b = unity(la, lb + 1, pair), pair.exponent_b
    return [
        [j * s[i][j - 1] - 2 * b * s[i][j + 1] if j else -2 * b * s[i][1] for j in range(lb + 1)] for i in range(la + 1)
    ]


def second_derivative(la: int, lb: int, pair: PrimitivePairs) -> Table:
    """∂² x_B^j e^{−b x_B²} = (j (j−1) x_B^{j−2} − 2b (2j+1) x_B^j + 4b² x_B^{j+2}) e^{−b x_B²}."""
    s, b = unity(la, lb + 2, pair), pair.exponent_b
    rows = [[4 * b * b * s[i][j + 2] - 2 * b * (2 * j + 1) * s[i][j] for j in range(lb + 1)] for i in range(la + 1)]
    return [[v + j * (j - 1) * s[i][j - 2] if j > 1 else v for j, v in enumerate(row)] for i, row in enumerate(rows)]


Factor = Callable[[int, int, PrimitivePairs], Table]
Component = tuple[float, tuple[tuple[Factor, Factor, Factor], ...]]
"""A number times a sum of products of operators along x, y and z."""


class Operator(NamedTuple):
    """A real operator, symmetric or antisymmetric; hashable, so that it can be a static argument.

    Attributes:
        components: its distinct components.
        layout: the array of matrices in terms of them: a number, or nested tuples of numbers; None: as they stand.
        exchange: 1 where ⟨μ|O|ν⟩ = ⟨ν|O|μ⟩, −1 where it is the negative.
    """

    components: tuple[Component, ...]
    layout: Any = None
    exchange: int = 1


def integrals(components: Sequence[Component], la: int, lb: int, pair: PrimitivePairs) -> Sequence[jax.Array]:
    """Integrand of an operator; bind `components` to make it a `shell_pairs.Integrand`."""
    needed = dict.fromkeys(factor for _, terms in components for term in terms for factor in term)
    tables = {factor: factor(la, lb, pair) for factor in needed}
    weight = (math.pi / pair.exponent) ** 1.5 * pair.decay
    if la + lb <= WRITTEN_OUT:
        return _written_out(components, tables, weight, la, lb)
    stacked = {factor: jnp.stack([jnp.stack(row) for row in table]) for factor, table in tables.items()}
    ax, ay, az = np.repeat(cartesian_powers(la), len(cartesian_powers(lb)), axis=0).T
    bx, by, bz = np.tile(cartesian_powers(lb), (len(cartesian_powers(la)), 1)).T
    rows: list[jax.Array] = []
    for number, terms in components:
        products = (stacked[fx][ax, bx, 0] * stacked[fy][ay, by, 1] * stacked[fz][az, bz, 2] for fx, fy, fz in terms)
        rows.append(number * weight * functools.reduce(jnp.add, products))
    return rows


def _written_out(
    components: Sequence[Component], tables: dict[Factor, Table], weight: jax.Array, la: int, lb: int
) -> list[jax.Array]:
    values = []
    for number, terms in components:
        for a, b in itertools.product(cartesian_powers(la), cartesian_powers(lb)):
            parts = [
                functools.reduce(jnp.multiply, (tables[factor][a[d]][b[d]][d] for d, factor in enumerate(term)))
                for term in terms
            ]
            values.append(number * weight * functools.reduce(jnp.add, parts))
    return values
