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
    return [_stacked_projection(la, lb, stacked_expansion(la, lb, *shifts), jnp.stack(potential))]


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


def _stacked_projection(la: int, lb: int, table: jax.Array, potential: jax.Array) -> jax.Array:
    """The same on arrays that hold all powers of one direction, (Cartesian a and b, n)."""
    order = la + lb
    cube = jnp.zeros((order + 1, order + 1, order + 1, *potential.shape[1:]), potential.dtype)
    t, u, v = np.array(hermite_indices(order)).T
    cube = cube.at[v, u, t].set(potential)
    powers = _power_pairs(la, lb)
    z, y, x = powers.z, powers.y, powers.x
    steps = range(order + 1)
    along_z = _sum(table[z[0], z[1], i, 2][:, None, None] * cube[i] for i in steps)
    along_y = _sum(table[y[0], y[1], i, 1][:, None] * along_z[powers.y_from_z, i] for i in steps)
    return _sum(table[x[0], x[1], i, 0] * along_y[powers.x_from_y, i] for i in steps)


class _PowerPairs(NamedTuple):
    """Powers (a, b) that occur along z, along y and z, along all three, and where each continues a shorter one."""

    z: np.ndarray
    y: np.ndarray
    y_from_z: np.ndarray
    x: np.ndarray
    x_from_y: np.ndarray


@functools.cache
def _power_pairs(la: int, lb: int) -> _PowerPairs:
    all_pairs = [(a, b) for a in cartesian_powers(la).tolist() for b in cartesian_powers(lb).tolist()]
    along_z = sorted({(a[2], b[2]) for a, b in all_pairs})
    along_y = sorted({(a[2], b[2], a[1], b[1]) for a, b in all_pairs})
    return _PowerPairs(
        z=np.array(along_z).T,
        y=np.array([key[2:] for key in along_y]).T,
        y_from_z=np.array([along_z.index(key[:2]) for key in along_y]),
        x=np.array([(a[0], b[0]) for a, b in all_pairs]).T,
        x_from_y=np.array([along_y.index((a[2], b[2], a[1], b[1])) for a, b in all_pairs]),
    )
