"""The generalized symmetric eigenproblem F C = S C ε, with derivatives that are finite and right at degeneracy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from vpotjax._checks import require_shape
from vpotjax._numerics import unit_padding
from vpotjax._typing import Array

DEGENERATE = 1e-8  # hartree; rotations between levels closer than this are a gauge and get no derivative


@jax.jit
def eigh(fock: Array, overlap: Array, ao_mask: Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Orbital energies and coefficients.

    dε_i = C_iᵀ (dF − ε_i dS) C_i; in a degenerate level this is the mean-preserving derivative, exact for symmetric
    functions of the level. dC leaves out rotations inside a degenerate level (closer than DEGENERATE), exact for
    every function that does not depend on them. For the density and its response use `density_matrix`, whose
    derivative needs no such convention.

    Args:
        fock: F, (nao, nao), symmetric, hartree.
        overlap: S, (nao, nao), positive definite on the real AOs.
        ao_mask: (nao,) True where an AO is real; default: all.

    Returns:
        mo_energies (nao,), ascending, hartree; padding comes last, above all real levels.
        mo_coefficients (nao, nao), columns are MOs, CᵀSC = 1.

    Raises:
        InputError: fock and overlap are not square of one size.
    """
    orthogonal, inverse_factor = orthogonal_fock(fock, overlap, ao_mask)
    energies, vectors = _symmetric_eigh(orthogonal)
    return energies, inverse_factor.T @ vectors


def orthogonal_fock(fock: Array, overlap: Array, ao_mask: Array | None = None) -> tuple[jax.Array, jax.Array]:
    """L⁻¹ F L⁻ᵀ and L⁻¹ for S = L Lᵀ; padding is a diagonal block above the spectrum.

    Cholesky, not S^{−1/2}: its derivative has no small denominators and it costs a fraction of an eigenproblem.
    """
    require_shape("fock", fock, (fock.shape[-1], fock.shape[-1]))
    require_shape("overlap", overlap, fock.shape)
    factor = jnp.linalg.cholesky(unit_padding(overlap, ao_mask))
    inverse_factor = solve_triangular(factor, jnp.eye(len(fock), dtype=fock.dtype), lower=True)
    orthogonal = inverse_factor @ unit_padding(fock, ao_mask) @ inverse_factor.T
    orthogonal = (orthogonal + orthogonal.T) / 2
    if ao_mask is not None:  # above every level by Gershgorin's theorem, yet of their size, so that no digits are lost
        bound = jax.lax.stop_gradient(jnp.max(jnp.sum(jnp.abs(orthogonal), axis=1)))
        orthogonal = orthogonal + jnp.diag(jnp.where(ao_mask, 0.0, bound + 1.0))
    return orthogonal, inverse_factor


@jax.custom_jvp
def _symmetric_eigh(matrix: Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return values, vectors


@_symmetric_eigh.defjvp
def _symmetric_eigh_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    values, vectors = _symmetric_eigh(*primals)
    (tangent,) = tangents
    perturbation = vectors.T @ tangent @ vectors
    difference = values[None, :] - values[:, None]
    apart = jnp.abs(difference) > DEGENERATE
    rotation = jnp.where(apart, perturbation / jnp.where(apart, difference, 1.0), 0.0)
    return (values, vectors), (jnp.diagonal(perturbation), vectors @ rotation)
