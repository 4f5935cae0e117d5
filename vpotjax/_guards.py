"""Guards on values: an error where they are known, NaN in what depends on them where they are traced.

| guard | known values | traced values |
|---|---|---|
| `require_hermitian`, `is_hermitian` | F, S, V not symmetric or Hermitian, or not finite | NaN |
| `require_positive`, `has_inverse` | S not positive definite; a word where it is nearly singular | NaN |
| `require_positions` (of `_checks`), `positions_are_valid` | nuclei at one place, positions not finite | NaN |
| `flag` | any other condition | NaN |
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import COINCIDENT, InputError, PrecisionWarning, is_concrete
from vpotjax._numerics import adjoint, spectrum, unit_padding
from vpotjax._typing import Array

LARGEST_ERROR = {"float64": 1e-8, "float32": 1e-2}
"""Relative rounding error of S⁻¹, ε max |S| max (S⁻¹)_ii, above which a word is due."""
SINGULAR = 0.1
"""The same, above which no digit is left."""


def flag(*conditions: Array) -> jax.Array:
    """A factor: 1 where all conditions hold, NaN otherwise."""
    holds = jnp.all(jnp.stack([jnp.all(c) for c in conditions]))
    return jnp.where(holds, 1.0, jnp.nan)


def floating_array(name: str, matrix: Any) -> Any:
    """`matrix` as an array of real or complex floating-point numbers; lists and integers are converted.

    Raises:
        InputError: it is no array, or of a type that LAPACK does not know.
    """
    try:
        array = matrix if isinstance(matrix, jax.Array | np.ndarray) else np.asarray(matrix)
    except ValueError as error:
        raise InputError(f"{name} is no array ({error}); give rows of one length.") from None
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(float)
    if array.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise InputError(f"{name} has dtype {array.dtype}; give float32, float64, complex64 or complex128.")
    return array


def asymmetry_tolerance(dtype: Any) -> float:
    """Of ‖F − Fᴴ‖ relative to ‖F‖ (Frobenius)."""
    return float(np.sqrt(np.finfo(dtype).eps))


def require_hermitian(name: str, symbol: str, matrix: Any) -> None:
    """Raise InputError where `matrix`, (..., n, n), is known and not symmetric or Hermitian up to rounding."""
    if not is_concrete(matrix):
        return
    values = np.asarray(matrix)
    difference = np.linalg.norm(values - np.conj(np.swapaxes(values, -1, -2)))
    size = np.linalg.norm(values)
    if not (difference <= asymmetry_tolerance(values.dtype) * size and np.isfinite(size)):
        word, cross = ("Hermitian", "ᴴ") if np.iscomplexobj(values) else ("symmetric", "ᵀ")
        raise InputError(
            f"{name} is not {word} (or not finite), ‖{symbol} − {symbol}{cross}‖ is {difference:.1e}; if that is "
            f"rounding, give ({symbol} + {symbol}{cross})/2, else check what it holds."
        )


def is_hermitian(matrix: Array) -> jax.Array:
    """() True up to rounding; False where it is not finite."""
    difference, elements = (matrix - adjoint(matrix)).ravel(), matrix.ravel()  # as dot products, which are fast
    square = jnp.real(jnp.vdot(elements, elements))
    tolerance = asymmetry_tolerance(matrix.dtype) ** 2
    return (jnp.real(jnp.vdot(difference, difference)) <= tolerance * square) & jnp.isfinite(square)


def _negative_tolerance(dtype: Any) -> float:
    """How far below zero, relative to the highest, rounding may bring an eigenvalue of S."""
    return float(1e3 * np.finfo(dtype).eps)


def require_positive(overlap: Any, ao_mask: Any, threshold: float | None = None) -> None:
    """Check `overlap`, (nao, nao), where it is known.

    Raises:
        InputError: it is not positive definite on the real AOs; with a threshold, it has negative eigenvalues.

    Warns:
        PrecisionWarning: it is nearly singular, and no threshold is given.
    """
    if not is_concrete(overlap, ao_mask):
        return
    values = np.asarray(overlap)
    real = np.ones(len(values), bool) if ao_mask is None else np.asarray(ao_mask, bool)
    values = values[np.ix_(real, real)]
    levels, vectors = np.linalg.eigh(values)
    if not len(levels):
        return
    lowest, highest, eps = float(levels[0]), float(levels[-1]), float(np.finfo(values.dtype).eps)
    inverse = np.abs(vectors) ** 2 @ (1 / np.maximum(levels, 1e-300))  # the diagonal of S⁻¹
    error = eps * float(np.abs(values).max() * inverse.max())
    negative = lowest < -_negative_tolerance(values.dtype) * highest
    if negative or (threshold is None and (lowest <= 0 or error > SINGULAR)):
        raise InputError(
            f"overlap is not positive definite up to rounding, its lowest eigenvalue is {lowest:.1e}; for a basis that "
            "is nearly linearly dependent give a threshold such as 1e-7, else check the order of the AOs and the mask."
        )
    if threshold is not None and highest < threshold:
        raise InputError(f"threshold is {threshold}, above all eigenvalues of overlap; give a number such as 1e-7.")
    if threshold is None and error > LARGEST_ERROR[np.finfo(values.dtype).dtype.name]:
        warnings.warn(
            f"the lowest eigenvalue of overlap is {lowest:.1e}, so that relative errors of about {error:.0e} are to be "
            "expected; give a threshold such as 1e-7.",
            PrecisionWarning,
            stacklevel=3,
        )


def overlap_is_valid(overlap: Array, ao_mask: Array | None, threshold: float | None) -> jax.Array:
    """() True where `overlap` is Hermitian and, with a threshold, has no negative eigenvalue.

    Without one the factorisation finds out whether S is positive, and `has_inverse` whether it is more than rounding.
    """
    if threshold is None:
        return is_hermitian(overlap)
    levels, _ = spectrum(unit_padding(overlap, ao_mask))
    return is_hermitian(overlap) & (levels[0] >= -_negative_tolerance(overlap.dtype) * levels[-1])


def has_inverse(overlap: Array, root: Array) -> jax.Array:
    """() False where S is singular up to rounding, so that its factorisation went on with noise.

    Args:
        overlap: S, (n, n).
        root: (n, n) with root rootᴴ = S⁻¹.
    """
    inverse = jnp.max(jnp.sum(jnp.real(root * jnp.conj(root)), axis=1))  # of the diagonal
    return float(jnp.finfo(overlap.dtype).eps) * jnp.max(jnp.abs(overlap)) * inverse < SINGULAR


def positions_are_valid(numbers: Array, positions: Array) -> jax.Array:
    """() False where two nuclei stand at one place, or one at no finite place.

    Args:
        numbers: (natm,) atomic numbers, 0 for padding and ghosts.
        positions: (natm, 3), bohr.
    """
    places, real = jax.lax.stop_gradient(jnp.asarray(positions)), jnp.asarray(numbers) > 0
    squares = jnp.sum((places[:, None] - places[None, :]) ** 2, axis=-1)
    pairs = real[:, None] & real[None, :] & ~jnp.eye(len(real), dtype=bool)
    lost = real & ~jnp.all(jnp.isfinite(places), axis=-1)
    return ~(jnp.any(pairs & (squares < COINCIDENT**2)) | jnp.any(lost))
