"""Bad input of the electronic layer: an error where values are known, NaN results where they are traced."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._guards import floating_array, require_hermitian, require_positive


def checked_matrices(
    fock: Any, overlap: Any, ao_mask: Any = None, threshold: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """F and S as arrays of real or complex floating-point numbers.

    Raises:
        InputError: `threshold` is not a positive number; `fock` is not (nao, nao) or (2, nao, nao), `overlap` not
            (nao, nao), or their numbers are of a type that LAPACK does not know; values that are known are not those of
            Hermitian matrices, or S not positive.

    Warns:
        PrecisionWarning: see `require_positive`.
    """
    if threshold is not None and not 0 < threshold < np.inf:
        raise InputError(f"threshold is {threshold}; give a small positive number such as 1e-7, or None.")
    fock, overlap = floating_array("fock", fock), floating_array("overlap", overlap)
    nao = fock.shape[-1] if fock.ndim else 0
    require_shape("fock", fock, (2, nao, nao) if fock.ndim == 3 else (nao, nao))
    require_shape("overlap", overlap, (nao, nao))
    if ao_mask is not None:
        require_shape("ao_mask", ao_mask, (nao,))
    require_hermitian("fock", "F", fock)
    require_hermitian("overlap", "S", overlap)
    require_positive(overlap, ao_mask, threshold)
    matrices = jnp.asarray(fock), jnp.asarray(overlap)  # after the checks: under jit this makes tracers of known values
    dtype = jnp.result_type(*matrices)
    return matrices[0].astype(dtype), matrices[1].astype(dtype)


def require_electrons(fock: Any, nelec: Any, ao_mask: Any) -> None:
    """Raise InputError where the number of electrons is known and does not fit the orbitals or the kind of call."""
    unrestricted = np.ndim(fock) == 3
    require_shape("nelec", nelec, (2,) if unrestricted else ())
    if not is_concrete(nelec, ao_mask):
        return
    electrons = np.asarray(nelec)
    if electrons.dtype.kind not in "iuf":
        raise InputError(f"nelec is {nelec!r}; give numbers, such as molecule.nelec(basis).")
    nao = np.shape(fock)[-1] if ao_mask is None else int(np.sum(np.asarray(ao_mask)))
    most = nao if unrestricted else 2 * nao
    if not np.all((electrons >= 0) & (electrons <= most)):
        raise InputError(f"nelec is {electrons.tolist()}, but {nao} orbitals hold 0 to {most}; check charge and mask.")
    if np.any(electrons % 1):
        raise InputError(f"nelec is {electrons.tolist()}; give whole numbers.")
    if not unrestricted and electrons % 2:
        raise InputError(
            f"nelec is {int(electrons)}, an open shell; give fock as (2, nao, nao), α and β, and two numbers."
        )


def require_occupied(max_occupied: int | None, fock: Any, nelec: Any) -> None:
    """Raise InputError unless `max_occupied` is None or between 1 and nao, and enough where the electrons are known."""
    nao = np.shape(fock)[-1]
    if max_occupied is not None and is_concrete(nelec):
        most = np.max(np.asarray(nelec)) // (1 if np.ndim(fock) == 3 else 2)
        if most > max_occupied:
            raise InputError(f"max_occupied is {max_occupied}, but {most} orbitals are occupied; give at least that.")
    if max_occupied is not None and not 1 <= max_occupied <= nao:
        raise InputError(f"max_occupied is {max_occupied}, with {nao} AOs; give a number from 1 to {nao}, or None.")
