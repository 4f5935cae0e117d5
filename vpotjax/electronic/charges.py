"""Atomic charges and bond orders from the density of the AOs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._numerics import square_root, unit_padding
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.electronic.multipoles import spin_summed


def mulliken_charges(density: Array, overlap: Array, basis: Basis) -> jax.Array:
    """q_A = Z_A − Σ_{μ∈A} (PS)_μμ, (natm,) in e; zero on padding (Mulliken 1955, doi:10.1063/1.1740588).

    Args:
        density: P, (nao, nao), spin-summed; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        basis: of both; its nuclear charges are the Z_A.
    """
    return _charges(jnp.real(jnp.sum(spin_summed(density) * jnp.conj(overlap), axis=1)), basis)


def lowdin_charges(density: Array, overlap: Array, basis: Basis) -> jax.Array:
    """q_A = Z_A − Σ_{μ∈A} (S^{1/2} P S^{1/2})_μμ, (natm,) in e; zero on padding (Löwdin 1950, doi:10.1063/1.1747632).

    Args:
        density, overlap, basis: as `mulliken_charges`.
    """
    root = square_root(unit_padding(overlap, jnp.asarray(basis.ao_mask)))
    return _charges(jnp.real(jnp.sum(jnp.conj(root) * (root @ spin_summed(density)), axis=1)), basis)


def mayer_bond_orders(density: Array, overlap: Array, basis: Basis) -> jax.Array:
    """B_AB = Σ_{μ∈A, ν∈B} (PS)_μν (PS)_νμ, (natm, natm), diagonal zero (Mayer 1983, doi:10.1016/0009-2614(83)80005-0).

    For α and β it is 2 Σ_σ (P_σS)_μν (P_σS)_νμ.

    Args:
        density, overlap, basis: as `mulliken_charges`.
    """
    spin_summed(density)  # checks the shape
    products = density @ overlap
    orders = jnp.real(products * jnp.swapaxes(products, -1, -2))
    if orders.ndim == 3:
        orders = 2 * jnp.sum(orders, axis=0)
    members = atom_membership(basis, orders.dtype)
    result = members @ orders @ members.T
    return result * (1 - jnp.eye(len(result), dtype=result.dtype))


def atom_membership(basis: Basis, dtype: jnp.dtype) -> jax.Array:
    """(natm, nao): 1 where an AO is real and belongs to the atom."""
    owner = jnp.arange(basis.natm)[:, None] == jnp.asarray(basis.ao_atom)
    return (owner & jnp.asarray(basis.ao_mask)).astype(dtype)


def _charges(populations: jax.Array, basis: Basis) -> jax.Array:
    return (
        jnp.asarray(basis.nuclear_charges, populations.dtype) - atom_membership(basis, populations.dtype) @ populations
    )
