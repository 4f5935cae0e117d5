"""The one error type for bad input, and how a value is shown in a message."""

from __future__ import annotations

from typing import Any

import jax.core
import numpy as np

COINCIDENT = 1e-3  # bohr; nuclei this close are a mistake in the input


class InputError(ValueError):
    """Bad input; the message names the argument, the value and the fix. The command line exits with code 2."""


class PrecisionWarning(UserWarning):
    """A result is right in principle, but has lost digits; the message says how many, and what helps."""


def is_concrete(*arrays: Any) -> bool:
    """True where every array has values, so that they can be checked; False for arguments of jit, vmap or grad.

    Values that a traced function closes over are concrete, too, but what is computed from them inside is not, unless
    under `jax.ensure_compile_time_eval`.
    """
    return not any(isinstance(a, jax.core.Tracer) for a in arrays)


def require_shape(name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Raise InputError unless `array` has `shape`; None in `shape` accepts any size."""
    actual = np.shape(array)
    fits = len(actual) == len(shape) and all(want in (None, have) for want, have in zip(shape, actual, strict=True))
    if not fits:
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise InputError(f"{name} has shape {actual}, expected {wanted}; reshape or check the argument order.")


def require_lengths(name: str, values: Any) -> None:
    """Raise InputError unless `values` are integers or numbers of single or double precision."""
    dtype = values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype
    if dtype.kind not in "iu" and dtype.name not in ("float32", "float64"):
        raise InputError(f"{name} has dtype {dtype}; give numbers of float32 or float64.")


def require_positions(numbers: Any, positions: Any, name: str = "positions") -> None:
    """Raise InputError unless `positions` is (natm, 3) and, where it has values, finite and without coincident nuclei.

    Args:
        numbers: (natm,) atomic numbers, 0 for padding, which may lie anywhere.
        positions: in bohr.
        name: of the argument, for the message.
    """
    require_shape(name, positions, (np.shape(numbers)[-1], 3))
    require_lengths(name, positions)
    if not is_concrete(numbers, positions):
        return
    real = np.flatnonzero(np.asarray(numbers))
    places = np.asarray(positions)[real]
    if not np.isfinite(places).all():
        atom = real[~np.isfinite(places).all(axis=1)][0]
        raise InputError(
            f"{name} of atom {atom} is {np.asarray(positions)[atom].tolist()}; give finite numbers, in bohr."
        )
    distances = np.linalg.norm(places[:, None] - places[None, :], axis=-1) + np.diag(np.full(len(real), np.inf))
    if len(real) and distances.min() < COINCIDENT:
        first, second = real[np.array(np.unravel_index(distances.argmin(), distances.shape))]
        raise InputError(
            f"{name} puts atoms {first} and {second} at one place, {np.asarray(positions)[first].tolist()}; move one."
        )
