"""Bad input of the electronic layer: an error where values are known, NaN results where they are traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._typing import Array


def require_matrices(fock: Any, overlap: Any) -> None:
    """Raise InputError unless `fock` is (nao, nao) or (2, nao, nao), `overlap` (nao, nao), F symmetric, S positive.

    Values are checked where they are known.
    """
    shape = np.shape(fock)
    if len(shape) == 3:
        require_shape("fock", fock, (2, shape[-1], shape[-1]))
    else:
        require_shape("fock", fock, (shape[-1] if shape else 0, shape[-1] if shape else 0))
    require_shape("overlap", overlap, (shape[-1], shape[-1]))
    if is_concrete(fock):
        values = np.asarray(fock)
        difference = np.abs(values - np.swapaxes(values, -1, -2)).max(initial=0.0)
        if not difference <= asymmetry_tolerance(values.dtype) * np.abs(values).max(initial=1e-300):
            raise InputError(
                f"fock is not symmetric (or not finite), max |F − Fᵀ| is {difference:.1e}; give (F + Fᵀ)/2."
            )


def require_positive(overlap: Any, ao_mask: Any, threshold: float | None) -> None:
    """Raise InputError where the values of `overlap` are known and not those of a positive definite matrix."""
    if not is_concrete(overlap, ao_mask):
        return
    values = np.asarray(overlap, float)
    real = np.ones(len(values), bool) if ao_mask is None else np.asarray(ao_mask)
    values = values[np.ix_(real, real)]
    if not np.isfinite(values).all():
        raise InputError("overlap contains values that are not finite; check the positions.")
    if threshold is not None:
        return
    try:
        np.linalg.cholesky(values)
    except np.linalg.LinAlgError:
        lowest = np.linalg.eigvalsh(values)[0]
        raise InputError(
            f"overlap is not positive definite, its lowest eigenvalue is {lowest:.1e}; for a basis that is"
            " nearly linearly dependent give a threshold such as 1e-7, else check the order of the AOs and the mask."
        ) from None


def require_electrons(fock: Any, nelec: Any, ao_mask: Any) -> None:
    """Raise InputError where the number of electrons is known and does not fit the orbitals or the kind of call."""
    unrestricted = np.ndim(fock) == 3
    require_shape("nelec", nelec, (2,) if unrestricted else ())
    if not is_concrete(nelec, ao_mask):
        return
    electrons = np.asarray(nelec)
    nao = np.shape(fock)[-1] if ao_mask is None else int(np.sum(np.asarray(ao_mask)))
    most = nao if unrestricted else 2 * nao
    if np.any(electrons < 0) or np.any(electrons > most):
        raise InputError(f"nelec is {electrons.tolist()}, but {nao} orbitals hold 0 to {most}; check charge and mask.")
    if not unrestricted and electrons % 2:
        raise InputError(
            f"nelec is {int(electrons)}, an open shell; give fock as (2, nao, nao), α and β, and two numbers."
        )


def require_occupied(max_occupied: int | None, overlap: Any) -> None:
    """Raise InputError unless `max_occupied` is None or between 1 and nao."""
    nao = np.shape(overlap)[-1]
    if max_occupied is not None and not 1 <= max_occupied <= nao:
        raise InputError(f"max_occupied is {max_occupied}, with {nao} AOs; give a number from 1 to {nao}, or None.")


def asymmetry_tolerance(dtype: Any) -> float:
    """Of max |F − Fᵀ| relative to max |F|."""
    return float(np.sqrt(np.finfo(dtype).eps))


def flag(*conditions: Array) -> jax.Array:
    """A factor: 1 where all conditions hold, NaN otherwise."""
    holds = jnp.all(jnp.stack([jnp.all(c) for c in conditions]))
    return jnp.where(holds, 1.0, jnp.nan)


def is_symmetric(matrix: Array) -> jax.Array:
    """() True up to rounding."""
    difference = jnp.max(jnp.abs(matrix - jnp.swapaxes(matrix, -1, -2)))
    return difference <= asymmetry_tolerance(matrix.dtype) * jnp.max(jnp.abs(matrix))
