"""Atomic charges and bond orders from the density of the AOs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._guards import flag, floating_array, is_hermitian, require_hermitian, require_positive
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

    Raises:
        InputError: other shapes; P or S that is known not to be Hermitian (NaN where it is traced).
    """
    density, overlap, valid = _checked(density, overlap, basis)
    return valid * _charges(jnp.real(jnp.sum(spin_summed(density) * jnp.conj(overlap), axis=1)), basis)


def lowdin_charges(density: Array, overlap: Array, basis: Basis) -> jax.Array:
    """q_A = Z_A − Σ_{μ∈A} (S^{1/2} P S^{1/2})_μμ, (natm,) in e; zero on padding (Löwdin 1950, doi:10.1063/1.1747632).

    Args:
        density, overlap, basis: as `mulliken_charges`.
    """
    density, overlap, valid = _checked(density, overlap, basis)
    root = square_root(unit_padding(overlap, jnp.asarray(basis.ao_mask)))
    return valid * _charges(jnp.real(jnp.sum(jnp.conj(root) * (root @ spin_summed(density)), axis=1)), basis)


def mayer_bond_orders(density: Array, overlap: Array, basis: Basis) -> jax.Array:
    """B_AB = Σ_{μ∈A, ν∈B} (PS)_μν (PS)_νμ, (natm, natm), diagonal zero (Mayer 1983, doi:10.1016/0009-2614(83)80005-0).

    For α and β it is 2 Σ_σ (P_σS)_μν (P_σS)_νμ.

    Args:
        density, overlap, basis: as `mulliken_charges`.
    """
    density, overlap, valid = _checked(density, overlap, basis)
    products = density @ overlap
    orders = jnp.real(products * jnp.swapaxes(products, -1, -2))
    if orders.ndim == 3:
        orders = 2 * jnp.sum(orders, axis=0)
    members = atom_membership(basis, orders.dtype)
    result = members @ orders @ members.T
    return valid * result * (1 - jnp.eye(len(result), dtype=result.dtype))


def _checked(density: Array, overlap: Array, basis: Basis) -> tuple[jax.Array, jax.Array, jax.Array]:
    """P and S as arrays, and a factor: NaN where one of them is traced and not Hermitian.

    Raises:
        InputError: shapes that do not fit the basis; known values that are not Hermitian, S with negative eigenvalues.
    """
    density, overlap = floating_array("density", density), floating_array("overlap", overlap)
    nao = basis.nao
    require_shape("density", density, (2, nao, nao) if density.ndim == 3 else (nao, nao))
    require_shape("overlap", overlap, (nao, nao))
    require_hermitian("density", "P", density)
    require_hermitian("overlap", "S", overlap)
    require_positive(overlap, basis.ao_mask, threshold=0.0)
    density, overlap = jnp.asarray(density), jnp.asarray(overlap)
    valid = flag(is_hermitian(density), is_hermitian(overlap))
    return density, overlap, valid.astype(jnp.finfo(density.dtype).dtype)


def atom_membership(basis: Basis, dtype: jnp.dtype) -> jax.Array:
    """(natm, nao): 1 where an AO is real and belongs to the atom."""
    owner = jnp.arange(basis.natm)[:, None] == jnp.asarray(basis.ao_atom)[None, :]
    return (owner & jnp.asarray(basis.ao_mask)[None, :]).astype(dtype)


def _charges(populations: jax.Array, basis: Basis) -> jax.Array:
    return (
        jnp.asarray(basis.nuclear_charges, populations.dtype) - atom_membership(basis, populations.dtype) @ populations
    )
