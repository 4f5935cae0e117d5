"""Products of two primitive Gaussians, and the sums over them that make matrices in the AO basis."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.basis import Shells
from vpotjax.conventions import cartesian_powers, solid_harmonics

CHUNK_ELEMENTS = 2**18  # intermediate numbers per chunk of pairs: 2 MB in float64, a core's cache


@pytree
class PrimitivePairs:
    """Gaussian products exp(−a r_A²) exp(−b r_B²) = decay exp(−p r_P²); vectors have the direction first.

    Attributes:
        exponent: p = a + b, (...).
        exponent_b: b, broadcastable to (...).
        centre: P, (3, ...).
        from_a, from_b: P − A and P − B, (3, ...).
        decay: exp(−ab/p (A − B)²) per direction, (3, ...).
    """

    exponent: Array
    exponent_b: Array
    centre: Array
    from_a: Array
    from_b: Array
    decay: Array


Integrand = Callable[[int, int, PrimitivePairs], jax.Array]
"""(la, lb, pairs) → (components, Cartesian a, Cartesian b, ...) of unnormalised primitives."""


def primitive_pairs(a: Array, b: Array, position_a: Array, position_b: Array) -> PrimitivePairs:
    """All pairs of two lists of primitives: exponents (na,) and (nb,), positions (na, 3) and (nb, 3)."""
    a, b = a[:, None], b[None, :]
    total = a + b
    centre_a, centre_b = position_a.T[:, :, None], position_b.T[:, None, :]
    separation = centre_a - centre_b
    return PrimitivePairs(
        exponent=total,
        exponent_b=jnp.broadcast_to(b, total.shape),
        centre=(a * centre_a + b * centre_b) / total,
        from_a=-b / total * separation,
        from_b=a / total * separation,
        decay=jnp.exp(-a * b / total * separation**2),
    )


def cartesian_product(table: Array, la: int, lb: int) -> jax.Array:
    """Π_d table[a_d, b_d, d] for all Cartesian functions: (i, j, 3, ...) → (Cartesian a, Cartesian b, ...)."""
    (ax, ay, az), (bx, by, bz) = cartesian_powers(la).T[:, :, None], cartesian_powers(lb).T[:, None, :]
    return table[ax, bx, 0] * table[ay, by, 1] * table[az, bz, 2]


def contracted(integrand: Integrand, shells_a: Shells, shells_b: Shells, positions: Array) -> jax.Array:
    """Integrals between all contracted shells of two angular momenta, in spherical form.

    The pairs go through `integrand` in chunks of rows, which bounds memory also in the gradient.

    Returns:
        (components, nshl_a (2la + 1), nshl_b (2lb + 1)).
    """
    la, lb, dtype = shells_a.l, shells_b.l, positions.dtype
    harmonics_a, harmonics_b = (jnp.asarray(solid_harmonics(l), dtype) for l in (la, lb))
    a, b = shells_a.exponents.astype(dtype), shells_b.exponents.astype(dtype)
    coefficients_a, coefficients_b = shells_a.coefficients.astype(dtype), shells_b.coefficients.astype(dtype)
    position_a, position_b = positions[shells_a.atom], positions[shells_b.atom]

    @jax.checkpoint
    def rows(chunk: tuple[jax.Array, jax.Array]) -> jax.Array:
        cartesian = integrand(la, lb, primitive_pairs(chunk[0], b, chunk[1], position_b))
        spherical = jnp.einsum("ma,nb,cabij->cmnij", harmonics_a, harmonics_b, cartesian)
        return jnp.einsum("cmnij,sj->cmnis", spherical, coefficients_b)

    count = len(a)
    size = min(count, max(1, CHUNK_ELEMENTS // (_elements_per_pair(la, lb) * len(b))))
    chunks = -(-count // size)
    padding = chunks * size - count
    a = jnp.pad(a, (0, padding), constant_values=1.0).reshape(chunks, size)
    position_a = jnp.pad(position_a, ((0, padding), (0, 0))).reshape(chunks, size, 3)
    blocks = jax.lax.map(rows, (a, position_a)) if chunks > 1 else rows((a[0], position_a[0]))[None]
    blocks = jnp.moveaxis(blocks, 0, 3).reshape(*blocks.shape[1:4], chunks * size, -1)[:, :, :, :count]
    matrix = jnp.einsum("si,cmnit->csmtn", coefficients_a, blocks)
    return matrix.reshape(matrix.shape[0], len(coefficients_a) * (2 * la + 1), len(coefficients_b) * (2 * lb + 1))


@functools.cache
def _elements_per_pair(la: int, lb: int) -> int:
    """Roughly how many intermediate numbers an integrand makes for one pair."""
    functions = len(cartesian_powers(la)) * len(cartesian_powers(lb))
    return int(functions * (la + lb + 1) + np.prod(np.arange(1, 4) + la + lb))
