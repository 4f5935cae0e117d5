"""The one-particle density matrix."""

from __future__ import annotations

import functools

import jax

from vpotjax._typing import Array
from vpotjax.electronic.fermi import fermi_matrix
from vpotjax.electronic.occupied import occupied_frame, spin_channels
from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser
from vpotjax.electronic.validation import flag, is_symmetric, require_electrons, require_matrices, require_positive


def density_matrix(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
    *,
    smearing: Array | float | None = None,
    threshold: float | None = None,
) -> jax.Array:
    """P = 2 Σ_occ C Cᵀ, (nao, nao), with tr PS = nelec; zero on padding.

    The occupied space is differentiated, not the orbitals, so derivatives of any order in F and S are right while the
    HOMO–LUMO gap is open, degenerate levels or not. With `smearing` P = 2 Σ_i f_i C_i C_iᵀ with the occupations
    f = 1/(1 + exp((ε − μ)/kT)); its derivatives, those of the chemical potential μ included, are right at any gap.

    Args:
        fock: F, (nao, nao), symmetric, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        nelec: number of electrons, even; for α and β their two numbers. May be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
        smearing: kT > 0 in hartree, may be traced; default: integer occupations.
        threshold: see `eigh`.

    Returns:
        P, spin-summed, (nao, nao); with α and β the two densities (2, nao, nao), tr P_σ S = nelec_σ.
        NaN where the gap is closed (below 1e-7 of the spectrum's width; not with `smearing`), and under jit where F is
        not symmetric, S not positive definite, or the number of electrons odd or too large.

    Raises:
        InputError: wrong shapes; known values that are bad in the sense above, a closed gap excepted.
    """
    require_matrices(fock, overlap)
    require_positive(overlap, ao_mask, threshold)
    require_electrons(fock, nelec, ao_mask)
    return _density_matrix(fock, overlap, nelec, ao_mask, smearing, threshold)


@functools.partial(jax.jit, static_argnames="threshold")
def _density_matrix(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None,
    smearing: Array | float | None,
    threshold: float | None,
) -> jax.Array:
    channels, nocc, electrons, closed_shell = spin_channels(fock, nelec)

    def filled(fock: Array, nocc: Array) -> jax.Array:
        frame = occupied_frame(fock, overlap, nocc, ao_mask, threshold)
        return frame.valid * (frame.coefficients * frame.occupied) @ frame.coefficients.T

    def smeared(fock: Array, nocc: Array) -> jax.Array:
        assert smearing is not None
        transformation = orthogonaliser(overlap, ao_mask, threshold)
        matrix = orthogonal_fock(fock, transformation, 100.0 * smearing)
        return flag(is_symmetric(fock)) * (transformation @ fermi_matrix(matrix, nocc, smearing) @ transformation.T)

    density = electrons * closed_shell * jax.vmap(filled if smearing is None else smeared)(channels, nocc)
    return density if fock.ndim == 3 else density[0]
