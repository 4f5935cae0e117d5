"""Fock matrices of a small basis that carry the levels of a large one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._numerics import unit_padding
from vpotjax._typing import Array
from vpotjax.electronic.eigensolver import eigh


def fock_with_levels(fock: Array, overlap: Array, mo_energies: Array, ao_mask: Array | None = None) -> jax.Array:
    """S C diag(ε′) Cᵀ S: the orbitals of `fock` with other orbital energies, level by level, (nao, nao), hartree.

    With the lowest levels of a large basis it is a first effective Hamiltonian: its density is that of `fock`, its
    levels are exact. Zero on padding.

    Args:
        fock: F, (nao, nao), hartree.
        overlap: S, (nao, nao).
        mo_energies: ε′, (nao,), ascending, hartree; values on padding do not matter.
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    require_shape("mo_energies", mo_energies, (fock.shape[-1],))
    _, coefficients = eigh(fock, overlap, ao_mask)
    half = unit_padding(overlap, ao_mask) @ coefficients
    result = (half * mo_energies) @ half.T
    return result if ao_mask is None else jnp.where(ao_mask[:, None] & ao_mask[None, :], result, 0.0)
