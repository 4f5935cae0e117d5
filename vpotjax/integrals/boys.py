"""The Boys function F_m(T) = ∫₀¹ t^{2m} exp(−T t²) dt.

Below a switch-over point the highest order comes from a Taylor table (step 1/16, six terms), above it from the
asymptotic form (2m−1)!!/2^{m+1} √(π/T^{2m+1}); lower orders follow by the stable downward recursion
F_m = (2T F_{m+1} + e^{−T}) / (2m+1). Helgaker, Jørgensen, Olsen, "Molecular Electronic-Structure Theory",
section 9.8, doi:10.1002/9781119019572.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

STEP = 1 / 16
TERMS = 6


def _switch_over(order: int) -> float:
    """Where the neglected e^{−T}/2T of the asymptotic form is below 1e-15 of F at any order up to `order`."""
    return 34.0 + 3.0 * order


@functools.cache
def _table(order: int) -> np.ndarray:
    """Taylor coefficients (−1)^k F_{order+k} / k! at the grid points, (points, TERMS); all summands are positive."""
    grid = np.arange(0.0, _switch_over(order) + 2 * STEP, STEP)
    columns = []
    for k in range(TERMS):
        m = order + k
        term = np.full_like(grid, 1.0 / (2 * m + 1))
        total = term.copy()
        for i in range(1, 4 * int(grid[-1]) + 60):
            term = term * 2 * grid / (2 * m + 2 * i + 1)
            total += term
        columns.append(np.exp(-grid) * total * (-1) ** k / math.factorial(k))
    return np.stack(columns, axis=1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def boys(order: int, argument: jax.Array) -> jax.Array:
    """F_0 … F_order at `argument` ≥ 0, stacked on a new first axis; dF_m/dT = −F_{m+1}, to any order of derivative."""
    # The argument is clamped before each branch, so that no branch makes an inf that a derivative turns into NaN.
    switch = _switch_over(order)
    near = jnp.clip(argument, 0.0, switch)
    index = jnp.round(near / STEP).astype(jnp.int32)
    offset = near - index * STEP
    coefficients = jnp.asarray(_table(order), dtype=argument.dtype)[index]
    taylor = coefficients[..., TERMS - 1]
    for k in reversed(range(TERMS - 1)):
        taylor = taylor * offset + coefficients[..., k]
    far = jnp.maximum(argument, switch)
    factor = math.prod(range(1, 2 * order, 2)) / 2 ** (order + 1) * math.sqrt(math.pi)
    highest = jnp.where(argument < switch, taylor, factor * far ** -(order + 0.5))
    exponential = jnp.exp(-argument)

    def down(upper: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        lower = (2 * argument * upper + exponential) / (2 * m + 1)
        return lower, lower

    # A scan, not an unrolled stack: XLA on CPU would recompute the chain for every entry of the stack.
    orders = jnp.arange(order - 1, -1, -1, dtype=argument.dtype)
    _, lower = jax.lax.scan(down, highest, orders)
    return jnp.concatenate([lower[::-1], highest[None]])


@boys.defjvp
def _boys_jvp(order: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (argument,), (tangent,) = primals, tangents
    values = boys(order + 1, argument)
    return values[:-1], -values[1:] * tangent
