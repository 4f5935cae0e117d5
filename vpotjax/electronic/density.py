"""The one-particle density matrix."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete
from vpotjax._guards import flag, has_inverse, is_hermitian, overlap_is_valid
from vpotjax._numerics import adjoint
from vpotjax._typing import Array
from vpotjax.electronic.fermi import fermi_matrix
from vpotjax.electronic.orbitals import solutions
from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser, real_orbitals
from vpotjax.electronic.validation import checked_matrices, require_electrons


def density_matrix(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
    *,
    smearing: Array | float | None = None,
    threshold: float | None = None,
) -> jax.Array:
    """P = 2 Σ_occ C Cᴴ, (nao, nao), with tr PS = nelec; zero on padding.

    The occupied space is differentiated, not the orbitals, so derivatives of any order in F and S are right while the
    HOMO–LUMO gap is open, degenerate levels or not. With `smearing` P = 2 Σ_i f_i C_i C_iᴴ with the occupations
    f = 1/(1 + exp((ε − μ)/kT)); its derivatives, those of the chemical potential μ included, are right at any gap.

    Args:
        fock: F, (nao, nao), symmetric or Hermitian, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        nelec: number of electrons, even; for α and β their two numbers. May be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
        smearing: kT > 0 in hartree, may be traced; default: integer occupations.
        threshold: see `eigh`.

    Returns:
        P, spin-summed, (nao, nao); with α and β the two densities (2, nao, nao), tr P_σ S = nelec_σ.
        NaN where the gap is closed (below 1e-7 of the largest |ε|, in float32 1e-5; not with `smearing`), and under
        jit where F or S is not symmetric (Hermitian), S not positive definite, `smearing` not positive, or the number
        of electrons odd, negative or too large.

    Raises:
        InputError: wrong shapes; known values that are bad in the sense above, a closed gap excepted.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask, threshold)
    require_electrons(fock, nelec, ao_mask)
    if smearing is None:
        return solutions(fock, overlap, nelec, ao_mask, threshold).density
    if is_concrete(smearing) and not np.all(np.asarray(smearing) > 0):
        raise InputError(f"smearing is {smearing}, expected kT > 0 in hartree; leave it out for integer occupations.")
    return _smeared(fock, overlap, nelec, ao_mask, smearing, threshold)


@functools.partial(jax.jit, static_argnames="threshold")
def _smeared(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None,
    smearing: Array | float,
    threshold: float | None,
) -> jax.Array:
    transformation = orthogonaliser(overlap, ao_mask, threshold)
    electrons = 1.0 if fock.ndim == 3 else 2.0
    real = jnp.finfo(fock.dtype).dtype
    number = jnp.asarray(nelec).astype(real) / electrons
    count = jnp.sum(real_orbitals(transformation)).astype(real)
    sound = overlap_is_valid(overlap, ao_mask, threshold) & has_inverse(overlap, transformation)

    def one_spin(fock: Array, number: Array) -> jax.Array:
        matrix = orthogonal_fock(fock, transformation, 100.0 * smearing)
        holds = (number <= count) & (number >= 0) & (number % 1 == 0) & (jnp.asarray(smearing) > 0)
        valid = flag(is_hermitian(fock), sound, holds).astype(real)
        occupations = fermi_matrix(matrix, number, smearing)
        return valid * electrons * (transformation @ occupations @ adjoint(transformation))

    return jax.vmap(one_spin)(fock, number) if fock.ndim == 3 else one_spin(fock, number)
