"""The potential of charges, point-like or Gaussian, over primitive pairs.

The potentials of all charges are summed at the Hermite level, before the AO matrix is assembled.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.hermite import hermite_expansion, hermite_indices, hermite_potential, stacked_expansion
from vpotjax.integrals.shell_pairs import PrimitivePairs, lanes

WRITTEN_OUT = 3  # highest la + lb whose Hermite sums are written out


def integrals(
    centres: jax.Array, charges: jax.Array, widths: jax.Array, la: int, lb: int, pair: PrimitivePairs
) -> Sequence[jax.Array]:
    """Energy of an electron in the field of charges q_C: point charges, or Gaussians of exponent 1/width.

    Two Gaussians of exponents p and α repel like one of pα/(p + α) and a point: the same Hermite potential serves all.

    Args:
        centres, charges, widths: (ncharge, 3), (ncharge,), (ncharge,); bind them to make a `shell_pairs.Integrand`.
    """
    potential = _hermite_sum(la + lb, pair, (centres, charges, widths))
    scale = 2 * math.pi / pair.exponent * pair.decay
    potential = [scale * term for term in potential]
    shifts = pair.from_a, pair.from_b, pair.half
    if la + lb <= WRITTEN_OUT:
        return _projection(la, lb, hermite_expansion(la, lb, *shifts), potential)
    return [_batched_projection(la, lb, stacked_expansion(la, lb, *shifts), jnp.stack(potential))]


def _hermite_sum(order: int, pair: PrimitivePairs, sources: tuple[jax.Array, jax.Array, jax.Array]) -> list[jax.Array]:
    """−Σ_C q_C R_tuv, (n,) for each (t, u, v); several charges at a time where there are few pairs."""
    count, pairs = len(sources[1]), pair.exponent.shape[-1]
    steps = max(1, -(-count // max(1, lanes() // pairs)))
    size = max(1, -(-count // steps))
    centres, charges, widths = (
        jnp.pad(s, ((0, steps * size - count), *[(0, 0)] * (s.ndim - 1))).reshape(steps, size, *s.shape[1:])
        for s in sources
    )

    near, offset = tuple(pair.near), tuple(pair.offset)  # one array per direction: less to add up in the gradient

    @jax.checkpoint
    def add(
        total: tuple[jax.Array, ...], source: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, ...], None]:
        centre, charge, width = source
        scale = 1 / (1 + pair.exponent * width[:, None])
        displacement = tuple((near[d] - centre[:, d, None]) + offset[d] for d in range(3))
        potential = hermite_potential(order, pair.exponent * scale, displacement)
        weight = charge[:, None] * jnp.sqrt(scale)
        return tuple(t - weight * r for t, r in zip(total, potential, strict=True)), None

    empty = (jnp.zeros((size, pairs), pair.exponent.dtype),) * len(hermite_indices(order))
    total, _ = jax.lax.scan(add, empty, (centres, charges, widths))
    return [jnp.sum(term, axis=0) for term in total]


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


def _projection(
    la: int, lb: int, expansion: list[list[list[jax.Array]]], potential: Sequence[jax.Array]
) -> list[jax.Array]:
    """Σ_tuv E_t E_u E_v potential_tuv for each Cartesian a and b, one direction after the other."""
    value = dict(zip(hermite_indices(la + lb), potential, strict=True))
    integrals = []
    for (ax, ay, az), (bx, by, bz) in itertools.product(cartesian_powers(la).tolist(), cartesian_powers(lb).tolist()):
        ex, ey, ez = expansion[ax][bx], expansion[ay][by], expansion[az][bz]
        integrals.append(
            _sum(
                ex[t][0]
                * _sum(ey[u][1] * _sum(ez[v][2] * value[t, u, v] for v in range(len(ez))) for u in range(len(ey)))
                for t in range(len(ex))
            )
        )
    return integrals


def _batched_projection(la: int, lb: int, table: jax.Array, potential: jax.Array) -> jax.Array:
    """The same as small matrix products, one set per pair, (Cartesian a and b, n).

    Few operations to compile, and their derivatives are matrix products again.
    """
    size = la + lb + 1
    powers = _power_pairs(la, lb)
    cube = _select(potential.T, _cube_places(la + lb)).reshape(-1, size, size * size)
    x, y, z = jnp.moveaxis(table, (3, -1), (0, 1)).reshape(3, table.shape[-1], -1, size)
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    along_z = einsum("nzv,nvk->nzk", z, cube).reshape(len(z), -1, size, size)
    along_y = einsum("nyu,nzut->nyzt", y, along_z).reshape(len(z), -1, size)
    return jnp.sum(along_y[:, powers.yz] * x[:, powers.x], axis=-1).T


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _select(rows: jax.Array, places: tuple[int, ...]) -> jax.Array:
    """Columns by number, zero for −1; the derivative is a product with a constant matrix, not scattered additions."""
    return jnp.pad(rows, ((0, 0), (0, 1)))[:, np.array(places)]


@_select.defjvp
def _select_jvp(
    places: tuple[int, ...], primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (rows,), (tangent,) = primals, tangents
    chosen = np.eye(rows.shape[1], rows.shape[1] + 1, dtype=rows.dtype)[:, np.array(places)]
    return _select(rows, places), jnp.matmul(tangent, chosen, precision=jax.lax.Precision.HIGHEST)


@functools.cache
def _cube_places(order: int) -> tuple[int, ...]:
    """Where each (v, u, t), all from 0 to `order`, stands among `hermite_indices`; −1 for a total above `order`."""
    position = {index: k for k, index in enumerate(hermite_indices(order))}
    return tuple(position.get((t, u, v), -1) for v, u, t in np.ndindex(*[order + 1] * 3))


class _PowerPairs(NamedTuple):
    """For each Cartesian a and b the place of its powers (a, b) along x, and of those along y and z together."""

    x: np.ndarray
    yz: np.ndarray


@functools.cache
def _power_pairs(la: int, lb: int) -> _PowerPairs:
    a, b = (np.array(v) for v in zip(*itertools.product(cartesian_powers(la), cartesian_powers(lb)), strict=True))
    x, y, z = (a * (lb + 1) + b).T
    return _PowerPairs(x=x, yz=y * (la + 1) * (lb + 1) + z)
