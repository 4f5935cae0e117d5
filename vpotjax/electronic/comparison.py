"""Fock matrices of different origin or basis made comparable."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._guards import flag, has_inverse, is_hermitian, overlap_is_valid
from vpotjax._numerics import adjoint, unit_padding
from vpotjax._typing import Array
from vpotjax.electronic.eigensolver import eigh
from vpotjax.electronic.orthogonalisation import orthogonaliser, real_orbitals
from vpotjax.electronic.validation import checked_matrices


def fock_with_levels(
    fock: Array,
    overlap: Array,
    mo_energies: Array,
    ao_mask: Array | None = None,
    level_mask: Array | None = None,
) -> jax.Array:
    """S C diag(ε′) Cᴴ S: the orbitals of `fock` with other orbital energies, level by level, (nao, nao), hartree.

    With the lowest levels of a large basis it is a first effective Hamiltonian: its density is that of `fock`, its
    levels are exact. Zero on padding.

    Args:
        fock: F, (nao, nao), hartree.
        overlap: S, (nao, nao).
        mo_energies: ε′, (nao,), ascending, hartree; values on padding do not matter.
        ao_mask: (nao,) True where an AO is real; default: all.
        level_mask: (nao,) False where a level keeps the energy that it has; default: all change.
    """
    fock, overlap = jnp.asarray(fock), jnp.asarray(overlap)
    require_shape("mo_energies", mo_energies, (fock.shape[-1],))
    own, coefficients = eigh(fock, overlap, ao_mask)
    energies = jnp.asarray(mo_energies) if level_mask is None else jnp.where(level_mask, mo_energies, own)
    half = unit_padding(overlap, ao_mask) @ coefficients
    return (half * jnp.where(real_orbitals(coefficients), energies, 0.0)[None, :]) @ adjoint(half)


def eigenbasis_alignment(fock: Array, reference: Array, overlap: Array, ao_mask: Array | None = None) -> jax.Array:
    """The levels of `fock` on the orbitals of `reference`, F_EA = S C_ref (C̃ᴴ F̃ C̃) C_refᴴ S, (nao, nao), hartree.

    What remains of F_EA − F_ref is the error of the levels alone: an effective Hamiltonian may have any orbitals
    (Suman et al. 2025, JCTC 21, 6505).

    Args:
        fock, reference: F̃ and F_ref, (nao, nao), hartree, of the same basis.
        overlap: S, (nao, nao).
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    energies, _ = eigh(fock, overlap, ao_mask)
    return fock_with_levels(reference, overlap, energies, ao_mask)


def projected_fock(
    fock: Array,
    overlap: Array,
    cross_overlap: Array,
    ao_mask: Array | None = None,
    *,
    threshold: float | None = None,
) -> jax.Array:
    """Matrix elements of the operator F of a large basis between the functions of a small one, S_sl S⁻¹ F S⁻¹ S_ls.

    By the variational principle its levels in the small basis lie above those of the large one, one by one.

    Args:
        fock: F in the large basis, (nao, nao), hartree.
        overlap: S of the large basis, (nao, nao).
        cross_overlap: S_ls, (nao, nao_small), as `vp.cross_overlap(large, small, positions)`.
        ao_mask: (nao,) True where an AO of the large basis is real; default: all.
        threshold: see `eigh`.

    Returns:
        (nao_small, nao_small), hartree.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask, threshold)
    require_shape("cross_overlap", cross_overlap, (fock.shape[-1], None))
    transformation = orthogonaliser(overlap, ao_mask, threshold)
    expansion = transformation @ (adjoint(transformation) @ cross_overlap)
    result = adjoint(expansion) @ fock @ expansion
    sound = overlap_is_valid(overlap, ao_mask, threshold) & has_inverse(overlap, transformation)
    valid = flag(is_hermitian(fock), sound).astype(jnp.finfo(result.dtype).dtype)
    return valid * (result + adjoint(result)) / 2
