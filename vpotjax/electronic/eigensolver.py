"""The generalized symmetric eigenproblem F C = S C ε, with derivatives that are finite and right at degeneracy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.electronic.frames import frame, levels, spectrum
from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser
from vpotjax.electronic.validation import flag, is_symmetric, require_matrices, require_positive

DEGENERATE = 1e-8  # hartree; rotations between levels closer than this are a gauge and get no derivative


def eigh(
    fock: Array, overlap: Array, ao_mask: Array | None = None, *, threshold: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Orbital energies and coefficients.

    dε_i = C_iᵀ (dF − ε_i dS) C_i; in a degenerate level (closer than DEGENERATE) the derivatives of ε and C are exact
    for functions that are symmetric in the level, second derivatives of ε excepted: there they are exact for levels
    that stay degenerate. For the density and all that follows from it use `density_matrix`, which needs no such
    convention.

    Args:
        fock: F, (nao, nao), symmetric, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao), positive definite on the real AOs.
        ao_mask: (nao,) True where an AO is real; default: all.
        threshold: drop combinations of AOs whose eigenvalue of S is below (canonical orthogonalisation); default: none.

    Returns:
        mo_energies (nao,), ascending, hartree; padding and dropped functions come last, above all real levels.
        mo_coefficients (nao, nao), columns are MOs, CᵀSC = 1; zero for padding and dropped functions.
        With α and β both have a leading axis of 2. Under jit all are NaN where F is not symmetric or S not positive.

    Raises:
        InputError: wrong shapes; F that is known not to be symmetric, S that is known not to be positive definite.
    """
    require_matrices(fock, overlap)
    require_positive(overlap, ao_mask, threshold)
    return _eigh(fock, overlap, ao_mask, threshold)


@functools.partial(jax.jit, static_argnames="threshold")
def _eigh(fock: Array, overlap: Array, ao_mask: Array | None, threshold: float | None) -> tuple[jax.Array, jax.Array]:
    valid = flag(is_symmetric(fock)).astype(fock.dtype)
    transformation = orthogonaliser(overlap, ao_mask, threshold)

    def one_spin(fock: Array) -> tuple[jax.Array, jax.Array]:
        matrix = orthogonal_fock(fock, transformation)
        energies, vectors = spectrum(matrix)
        apart = jnp.abs(energies[:, None] - energies[None, :]) > DEGENERATE
        constants = energies, vectors, apart
        return valid * levels(matrix, *constants), valid * (transformation @ frame(matrix, *constants))

    return jax.vmap(one_spin)(fock) if fock.ndim == 3 else one_spin(fock)
