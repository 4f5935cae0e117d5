"""The one error type for bad input, and how a value is shown in a message."""

from __future__ import annotations

from typing import Any

import jax.core
import numpy as np


class InputError(ValueError):
    """Bad input; the message names the argument, the value and the fix. The command line exits with code 2."""


def is_concrete(*arrays: Any) -> bool:
    """True where every array has values, so that they can be checked; False under jit, vmap or grad."""
    return not any(isinstance(a, jax.core.Tracer) for a in arrays)


def require_shape(name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Raise InputError unless `array` has `shape`; None in `shape` accepts any size."""
    actual = np.shape(array)
    fits = len(actual) == len(shape) and all(want in (None, have) for want, have in zip(shape, actual, strict=True))
    if not fits:
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise InputError(f"{name} has shape {actual}, expected {wanted}; reshape or check the argument order.")
