"""The spin-summed one-particle density matrix of a closed shell."""

from __future__ import annotations

import jax

from vpotjax._typing import Array
from vpotjax.electronic.eigensolver import orthogonal_fock
from vpotjax.electronic.response import occupied_projector


@jax.jit
def density_matrix(fock: Array, overlap: Array, nelec: Array | int, ao_mask: Array | None = None) -> jax.Array:
    """P = 2 Σ_occ C Cᵀ, (nao, nao), with tr PS = nelec; zero on padding.

    The projector on the occupied space is differentiated, not the orbitals, so derivatives of any order in F and S
    are right while the HOMO–LUMO gap is open, degenerate levels or not.

    Args:
        fock: F, (nao, nao), symmetric, hartree.
        overlap: S, (nao, nao).
        nelec: number of electrons, even; may be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    orthogonal, inverse_factor = orthogonal_fock(fock, overlap, ao_mask)
    projector, _, _ = occupied_projector(orthogonal, nelec // 2)
    return 2 * inverse_factor.T @ projector @ inverse_factor
