"""The Boys function F_m(T) = ∫₀¹ t^{2m} exp(−T t²) dt, without tables, gathers or branches.

The highest order comes from a polynomial below a switch-over point. Above it F_0 = ½√(π/T) erf(√T), with
erf(x) = 1 − exp(−x²) w(x)/x and a polynomial for w in (x − 2)/(x + 2), is carried upward by
F_{m+1} = ((2m+1) F_m − e^{−T}) / 2T. The two are blended by a mask, and lower orders follow by the downward recursion
F_m = (2T F_{m+1} + e^{−T}) / (2m+1), which is stable everywhere. Relative error in float64: 5e-15 up to m = 6,
1e-12 up to m = 14. Helgaker, Jørgensen, Olsen, "Molecular Electronic-Structure Theory", section 9.8,
doi:10.1002/9781119019572.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import chebyshev

FAR_DEGREE = 14
FAR_SHIFT = 2.0
WEIGHTED_ABOVE = 6  # the polynomial of a higher order needs the factor exp(−T/2), or it cancels at large T


def _switch_over(order: int) -> float:
    """From here on the upward recursion loses no digit: e^{−T} is well below F_order there."""
    return order + 3.0


def boys_series(order: int, argument: np.ndarray) -> np.ndarray:
    """F_order from its series of positive terms, in extended precision; for moderate arguments."""
    argument = np.asarray(argument, dtype=np.longdouble)
    term = np.full_like(argument, 1 / np.longdouble(2 * order + 1))
    total = term.copy()
    for i in range(1, 4 * int(argument.max()) + 80):
        term = term * 2 * argument / (2 * order + 2 * i + 1)
        total += term
    return np.exp(-argument) * total


def _interpolation(function: Callable[[np.ndarray], np.ndarray], degree: int) -> list[float]:
    """Coefficients, lowest power first, of the Chebyshev interpolant on −1 … 1."""
    count = degree + 20
    angles = np.longdouble(np.pi) * (np.arange(count) + 0.5) / count
    values = function(np.cos(angles))
    series = np.array([2 / np.longdouble(count) * np.sum(values * np.cos(j * angles)) for j in range(degree + 1)])
    series[0] /= 2
    return [float(c) for c in chebyshev.cheb2poly(series)]


@functools.cache
def _near_coefficients(order: int) -> list[float]:
    """F_order, or e^{T/2} F_order, in 2T/switch − 1."""
    switch = _switch_over(order)
    weight = 0.5 if order > WEIGHTED_ABOVE else 0.0

    def function(x: np.ndarray) -> np.ndarray:
        argument = (x + 1) * switch / 2
        return boys_series(order, argument) * np.exp(weight * argument)

    return _interpolation(function, 16 + order)


def _far_range(order: int) -> tuple[float, float]:
    """Offset and scale that take (x − 2)/(x + 2), x = √T above the switch-over, to −1 … 1."""
    x = math.sqrt(_switch_over(order))
    start = (x - FAR_SHIFT) / (x + FAR_SHIFT)
    return start, 2 / (1 - start)


@functools.cache
def _far_coefficients(order: int) -> list[float]:
    """w(x) = x exp(x²) erfc(x), from its continued fraction."""
    start, scale = _far_range(order)

    def function(y: np.ndarray) -> np.ndarray:
        u = (y + 1) / scale + start
        half_inverse = ((1 - u) / (FAR_SHIFT * (1 + u))) ** 2 / 2  # 1/2x²
        fraction = np.ones_like(half_inverse)
        for k in range(600, 0, -1):
            fraction = 1 + k * half_inverse / fraction
        return 1 / (np.sqrt(np.longdouble(np.pi)) * fraction)

    return _interpolation(function, FAR_DEGREE)


def _polynomial(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def _highest(order: int, argument: jax.Array) -> tuple[jax.Array, jax.Array]:
    """F_order and e^{−T}."""
    switch = _switch_over(order)
    exponential = jnp.exp(-argument)
    near = _polynomial(_near_coefficients(order), jnp.minimum(argument, switch) * (2 / switch) - 1)
    if order > WEIGHTED_ABOVE:
        near = near * jnp.exp(-0.5 * argument)
    beyond = jnp.maximum(argument, 0.99 * switch)  # not `switch`: a maximum of equals passes on half a derivative
    root_inverse = jax.lax.rsqrt(beyond)
    root = beyond * root_inverse
    start, scale = _far_range(order)
    w = _polynomial(_far_coefficients(order), ((root - FAR_SHIFT) / (root + FAR_SHIFT) - start) * scale - 1)
    half_inverse = 0.5 * root_inverse * root_inverse
    far = 0.5 * math.sqrt(math.pi) * (root_inverse - 2 * half_inverse * exponential * w)
    for m in range(order):
        far = ((2 * m + 1) * far - exponential) * half_inverse
    is_near = (argument < switch).astype(argument.dtype)
    return near * is_near + far * (1 - is_near), exponential


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def boys(order: int, argument: jax.Array) -> jax.Array:
    """F_0 … F_order at `argument` ≥ 0, stacked on a new first axis; dF_m/dT = −F_{m+1}, to any order of derivative."""
    # A scan of at least two steps, not an unrolled stack: XLA on CPU would recompute the polynomials for every order.
    start = max(order, 2) if order else 0
    argument = jnp.asarray(argument)
    highest, exponential = _highest(start, argument)
    if not order:
        return highest[None]

    def down(upper: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
        lower = (2 * argument * upper + exponential) / (2 * m + 1)
        return lower, lower

    orders = jnp.arange(start - 1, -1, -1, dtype=argument.dtype)
    _, lower = jax.lax.scan(down, highest, orders)
    return jnp.concatenate([lower[::-1], highest[None]])[: order + 1]


@boys.defjvp
def _boys_jvp(order: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (argument,), (tangent,) = primals, tangents
    values = boys(order + 1, argument)
    return values[:-1], -values[1:] * tangent
