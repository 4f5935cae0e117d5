"""Products of two primitive Gaussians, and the sums over them that make matrices of contracted functions.

All pairs of primitives of two angular momenta form one list, which goes through an operator's integrand in chunks of
`lanes()` pairs: few enough for a core's cache, and memory stays bounded, in the gradient too. Where both angular
momenta are the same, the list holds (about) half of all pairs.
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

from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.basis import Shells
from vpotjax.conventions import angular_functions, cartesian_powers

TRIANGLE_BLOCKS = 6  # row blocks that approximate a triangle


@pytree
class PrimitivePairs:
    """Gaussian products exp(−a r_A²) exp(−b r_B²) = decay exp(−p r_P²); vectors have the direction first.

    P = near + offset, where `near` is the centre of the tighter of the two: so P − C keeps its digits close to a
    nucleus C, in float32 too.

    Attributes:
        exponent: p = a + b, (n,).
        exponent_b: b, (n,).
        half: 1/2p, (n,).
        centre_a, near, offset: A, A or B, and P − near, (3, n).
        from_a, from_b: P − A and P − B, (3, n).
        decay: exp(−ab/p (A − B)²), (n,).
    """

    exponent: jax.Array
    exponent_b: jax.Array
    half: jax.Array
    centre_a: jax.Array
    near: jax.Array
    offset: jax.Array
    from_a: jax.Array
    from_b: jax.Array
    decay: jax.Array


Integrand = Callable[[int, int, PrimitivePairs], Sequence[jax.Array]]
"""(la, lb, pairs) → integrals of unnormalised primitives for each component and Cartesian a and b (the last fastest),
as arrays (n,) or stacks of them (k, n)."""


@pytree
class PairList:
    """Pairs of primitives of two angular momenta that are not negligible; made by `screening.significant_pairs`.

    Attributes:
        first, second: (capacity,) numbers of the primitives; from `count` on those of any pair.
        slot: (nprim_a, nprim_b) where each pair stands in the list; capacity where it is left out.
        count: () of the pairs in the list.
    """

    first: Array
    second: Array
    slot: Array
    count: Array


class _Rectangle(NamedTuple):
    """Rows `start` … `stop` and columns 0 … `width` of the table of all pairs."""

    start: int
    stop: int
    width: int


def lanes() -> int:
    """Pairs (times nuclei) in one vector operation: 32 kB in float64 on a CPU, enough to fill an accelerator."""
    return 2**12 if jax.default_backend() == "cpu" else 2**17


def primitive_pairs(a: jax.Array, b: jax.Array, centre_a: jax.Array, centre_b: jax.Array) -> PrimitivePairs:
    """Pairs from exponents (n,) and centres (3, n)."""
    total = a + b
    separation = centre_a - centre_b
    from_a, from_b = -b / total * separation, a / total * separation
    tighter = a > b
    return PrimitivePairs(
        exponent=total,
        exponent_b=b,
        half=0.5 / total,
        centre_a=centre_a,
        near=jnp.where(tighter, centre_a, centre_b),
        offset=jnp.where(tighter, from_a, from_b),
        from_a=from_a,
        from_b=from_b,
        decay=jnp.exp(-a * b / total * jnp.sum(separation**2, axis=0)),
    )


def contracted(
    integrand: Integrand,
    shells: tuple[Shells, Shells],
    centres: tuple[jax.Array, jax.Array],
    *,
    cartesian: tuple[bool, bool] = (False, False),
    exchange: int = 0,
    pairs: PairList | None = None,
) -> jax.Array:
    """Integrals between all contracted shells of two angular momenta.

    Args:
        integrand: of the operator.
        shells: of the two angular momenta.
        centres: (3, natm) positions of the atoms that either belongs to.
        cartesian: Cartesian functions in place of spherical ones.
        exchange: 1 or −1 where both shells are the same, and the operator symmetric or antisymmetric; 0 otherwise.
        pairs: only these pairs of primitives.

    Returns:
        (components, nshl_a nfun_a, nshl_b nfun_b).
    """
    dtype = centres[0].dtype
    a, b = (jnp.asarray(s.exponents, dtype) for s in shells)
    atom_a, atom_b = (jnp.asarray(s.atom) for s in shells)

    def evaluate(first: Array, second: Array) -> tuple[jax.Array, ...]:
        centre_a, centre_b = _columns(centres[0], atom_a[first]), _columns(centres[1], atom_b[second])
        chosen = primitive_pairs(a[first], b[second], centre_a, centre_b)
        return tuple(integrand(shells[0].l, shells[1].l, chosen))

    if pairs is None:
        rectangles = _rectangles(len(a), len(b), bool(exchange))
        table = _unfolded(_in_chunks(evaluate, *_pair_numbers(rectangles)), rectangles, len(b))
    else:
        values = _in_chunks(evaluate, pairs.first, pairs.second, pairs.count)
        table = jnp.take(values, pairs.slot, axis=1, mode="fill", fill_value=0)
    if exchange:
        row, column = (jax.lax.broadcasted_iota(jnp.int32, table.shape[1:], axis) for axis in (0, 1))
        table = table * jnp.where(row > column, 1.0, jnp.where(row == column, 0.5, 0.0)).astype(dtype)
    matrix = _contraction(table, shells, cartesian)
    return matrix + exchange * jnp.swapaxes(matrix, 1, 2) if exchange else matrix


def _columns(centres: jax.Array, atom: jax.Array) -> jax.Array:
    """centres[:, atom]; on CPU the transpose is a matrix product, many times faster there than scattered additions."""
    return _columns_by_product(centres, atom) if jax.default_backend() == "cpu" else centres[:, atom]


@jax.custom_jvp
def _columns_by_product(centres: jax.Array, atom: jax.Array) -> jax.Array:
    return centres[:, atom]


@_columns_by_product.defjvp
def _columns_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
    (centres, atom), (tangent, _) = primals, tangents
    chosen = (jnp.arange(centres.shape[1])[:, None] == atom).astype(centres.dtype)
    return centres[:, atom], jnp.matmul(tangent, chosen, precision=jax.lax.Precision.HIGHEST)


def _in_chunks(
    evaluate: Callable[..., tuple[jax.Array, ...]], first: Array, second: Array, count: Array | None = None
) -> jax.Array:
    """(values, n) of a function of n pairs, `lanes()` of them at a time; chunks behind the first `count` are skipped.

    What is skipped is zero. Under `vmap` over molecules nothing is: there a `cond` evaluates both of its branches.
    """
    number = len(first)
    # At least two chunks, if possible: the loop keeps XLA from fusing (and repeating) the integrand in what follows.
    # More where some are skipped.
    least = 8 if count is not None and jax.default_backend() == "cpu" else 2
    chunks = max(-(-number // lanes()), min(least, number))
    size = -(-number // chunks)
    numbers = tuple(jnp.pad(n, (0, chunks * size - number)).reshape(chunks, size) for n in (first, second))
    if count is None:
        values = jax.lax.map(jax.checkpoint(lambda chunk: evaluate(*chunk)), numbers)
    else:
        evaluate = jax.jit(evaluate)  # traced once for its shapes and its values
        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(evaluate, *(n[0] for n in numbers)))

        @jax.checkpoint
        def chunk_values(chunk: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            wanted, *chosen = chunk
            return jax.lax.cond(wanted, evaluate, lambda *_: empty, *chosen)

        values = jax.lax.map(chunk_values, (jnp.arange(chunks) * size < count, *numbers))
    rows = [jnp.moveaxis(v.reshape(chunks, -1, size), 0, 1).reshape(-1, chunks * size) for v in values]
    return jnp.concatenate(rows)[:, :number]


@functools.cache
def _rectangles(rows: int, columns: int, triangle: bool) -> tuple[_Rectangle, ...]:
    """The lower triangle in blocks of rows, each as wide as its last row, or the whole table."""
    blocks = min(TRIANGLE_BLOCKS, max(rows // 4, 1)) if triangle else 1
    edges = [rows * k // blocks for k in range(blocks + 1)]
    return tuple(_Rectangle(s, e, e if triangle else columns) for s, e in itertools.pairwise(edges))


@functools.cache
def _pair_numbers(rectangles: tuple[_Rectangle, ...]) -> tuple[np.ndarray, np.ndarray]:
    grids = [np.indices((r.stop - r.start, r.width)).reshape(2, -1) for r in rectangles]
    first = np.concatenate([grid[0] + r.start for grid, r in zip(grids, rectangles, strict=True)])
    return first.astype(np.int32), np.concatenate([grid[1] for grid in grids]).astype(np.int32)


def _unfolded(values: jax.Array, rectangles: tuple[_Rectangle, ...], columns: int) -> jax.Array:
    """From the list of pairs to the table (values, rows, columns), zero where no rectangle reaches."""
    parts, start = [], 0
    for block in rectangles:
        size = (block.stop - block.start) * block.width
        part = values[:, start : start + size].reshape(len(values), -1, block.width)
        parts.append(jnp.pad(part, ((0, 0), (0, 0), (0, columns - block.width))))
        start += size
    return jnp.concatenate(parts, axis=1)


def _contraction(table: jax.Array, shells: tuple[Shells, Shells], cartesian: tuple[bool, bool]) -> jax.Array:
    """Contraction coefficients and angular functions on both sides, in full precision on every device."""
    dtype = table.dtype
    first, second = (s.coefficients.astype(dtype) for s in shells)
    angular_a, angular_b = (
        jnp.asarray(angular_functions(s.l, c), dtype) for s, c in zip(shells, cartesian, strict=True)
    )
    sizes = tuple(len(cartesian_powers(s.l)) for s in shells)
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    blocks = einsum("kij,tj->kit", table, second)
    blocks = einsum("kit,si->kst", blocks, first).reshape(-1, *sizes, len(first), len(second))
    matrix = einsum("cabst,ma,nb->csmtn", blocks, angular_a, angular_b)
    return matrix.reshape(len(matrix), math.prod(matrix.shape[1:3]), math.prod(matrix.shape[3:5]))
