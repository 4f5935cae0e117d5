"""Observables of a closed-shell Fock matrix or density."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.electronic.eigensolver import orthogonal_fock
from vpotjax.electronic.response import occupied_projector, occupied_virtual_response


def dipole(density: Array, position_integrals: Array, positions: Array, nuclear_charges: Array) -> jax.Array:
    """μ = −tr(P r) + Σ_A Z_A R_A, (3,) in e·bohr, about the origin of the coordinates.

    Args:
        density: P, (nao, nao), spin-summed.
        position_integrals: r about the origin of the coordinates, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nuclear_charges: (natm,), zero for padding.
    """
    require_shape("position_integrals", position_integrals, (3, *density.shape))
    electronic = jnp.einsum("xpq,qp->x", position_integrals, density)
    return jnp.einsum("a,ax->x", jnp.asarray(nuclear_charges, positions.dtype), positions) - electronic


@jax.jit
def polarizability(
    fock: Array,
    overlap: Array,
    position_integrals: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
) -> jax.Array:
    """Uncoupled static polarizability α = 4 Σ_ia r_ia ⊗ r_ia / (ε_a − ε_i), (3, 3) in bohr³.

    It is the response of the dipole to a field at fixed F, written with the occupied–virtual response, so that its
    derivatives too are free of small denominators.

    Args:
        fock: F, (nao, nao), symmetric, hartree.
        overlap: S, (nao, nao).
        position_integrals: r, (3, nao, nao), bohr; the origin does not matter.
        nelec: number of electrons, even; may be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    require_shape("position_integrals", position_integrals, (3, *fock.shape))
    orthogonal, inverse_factor = orthogonal_fock(fock, overlap, ao_mask)
    projector, energies, vectors = occupied_projector(orthogonal, nelec // 2)
    position = inverse_factor @ position_integrals @ inverse_factor.T
    response = jax.vmap(lambda r: occupied_virtual_response(orthogonal, projector, energies, vectors, r))(position)
    return -4 * jnp.einsum("xpq,ypq->xy", position, response)


def homo_lumo_gap(mo_energies: Array, nelec: Array | int) -> jax.Array:
    """ε_LUMO − ε_HOMO, () in hartree; nan where there is no such level.

    Args:
        mo_energies: (nmo,) ascending, hartree.
        nelec: number of electrons, even; may be traced.
    """
    nocc = jnp.asarray(nelec) // 2
    exists = (nocc > 0) & (nocc < mo_energies.shape[-1])
    return jnp.where(exists, mo_energies[nocc] - mo_energies[nocc - 1], jnp.nan)
