"""The generalized symmetric eigenproblem F C = S C ε, with derivatives that are finite and right at degeneracy."""

from __future__ import annotations

import jax

from vpotjax._typing import Array
from vpotjax.electronic.orbitals import solutions
from vpotjax.electronic.validation import checked_matrices


def eigh(
    fock: Array, overlap: Array, ao_mask: Array | None = None, *, threshold: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Orbital energies and coefficients.

    dε_i = C_iᴴ (dF − ε_i dS) C_i; in a degenerate level (closer than 1e-8 hartree) the derivatives of ε and C are exact
    for functions that are symmetric in the level; second derivatives of ε leave out the couplings inside such a level.
    For the density and all that follows from it use `density_matrix`, which needs no such convention; for several
    observables at the price of one eigenproblem `orbitals`.

    Args:
        fock: F, (nao, nao), symmetric or Hermitian, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao), symmetric or Hermitian, positive definite on the real AOs.
        ao_mask: (nao,) True where an AO is real; default: all.
        threshold: drop combinations of AOs whose eigenvalue of S is below (canonical orthogonalisation); default: none.

    Returns:
        mo_energies (nao,), ascending, hartree; infinite for padding and dropped functions, which come last.
        mo_coefficients (nao, nao), columns are MOs, CᴴSC = 1; zero for padding and dropped functions.
        With α and β both have a leading axis of 2. Under jit all are NaN where F is not symmetric or S not positive.

    Raises:
        InputError: wrong shapes or types of numbers; F or S that is known not to be symmetric (Hermitian), S that is
            known not to be positive definite.

    Warns:
        PrecisionWarning: S is known, and so nearly singular that its inverse has lost most digits.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask, threshold)
    solved = solutions(fock, overlap, (0, 0) if fock.ndim == 3 else 0, ao_mask, threshold)
    return solved.mo_energies.reshape(fock.shape[:-1]), solved.mo_coefficients.reshape(fock.shape)
