"""Powers of the external potential in a non-orthogonal basis.

- "raw": V^k.
- "metric": V (S⁻¹ V)^{k−1}, the k-th power as an operator: independent of the basis where the basis is complete.
- "lowdin": Ṽ^k with Ṽ = S^{−1/2} V S^{−1/2}.
- "rational": (z_k − Ṽ)^{−1} z_k with z_k = 4^k hartree, k = 1 …: all powers at once, between 0 and 1 for any V, since
  an attractive V has no positive eigenvalue.

One more factor adds one centre: (V²)_ij = Σ_k V_ik V_kj is one step of message passing
(Nigam, Smidt, Dusson 2026, arXiv:2602.15345).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._guards import (
    flag,
    floating_array,
    has_inverse,
    is_hermitian,
    overlap_is_valid,
    require_hermitian,
    require_positive,
)
from vpotjax._numerics import adjoint, inverse_cholesky, inverse_square_root, unit_padding
from vpotjax._typing import Array

KINDS = ("raw", "metric", "lowdin", "rational")


def check_power(order: int, kind: str) -> None:
    """Raise InputError for an unknown kind or an order below 1."""
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; give one of {', '.join(KINDS)}.")
    if order < 1:
        raise InputError(f"order is {order}; give at least 1.")


def potential_powers(
    potential: Array, overlap: Array, order: int, kind: str = "metric", ao_mask: Array | None = None
) -> jax.Array:
    """Powers 1 … order of V, (order, nao, nao), hartree^k ("rational": no unit); zero on padding; each symmetric.

    Args:
        potential: V, (nao, nao), zero on padding; for "rational" attractive, without eigenvalues above 4 hartree (nan).
        overlap: S, (nao, nao); not used by "raw".
        order: highest power, ≥ 1.
        kind: one of KINDS.
        ao_mask: (nao,) True where an AO is real; default: all.

    Raises:
        InputError: unknown kind or order < 1; matrices of other shapes; known ones that are not symmetric, S that is
            not positive definite (NaN where they are traced).

    Warns:
        PrecisionWarning: S is known and nearly singular.
    """
    check_power(order, kind)
    potential, overlap = floating_array("potential", potential), floating_array("overlap", overlap)
    require_shape("potential", potential, (None, None))
    require_shape("overlap", overlap, potential.shape)
    require_hermitian("potential", "V", potential)
    valid = is_hermitian(jnp.asarray(potential))
    if kind != "raw":
        require_hermitian("overlap", "S", overlap)
        require_positive(overlap, ao_mask)
        valid = valid & overlap_is_valid(jnp.asarray(overlap), ao_mask, None)
    potential, overlap = jnp.asarray(potential), jnp.asarray(overlap)
    first = step = potential = potential * _factor(potential, valid)
    if kind == "metric":
        inverse = inverse_cholesky(unit_padding(overlap, ao_mask))
        step = adjoint(inverse) @ (inverse @ potential) * _factor(potential, has_inverse(overlap, adjoint(inverse)))
    elif kind in ("lowdin", "rational"):
        root = inverse_square_root(unit_padding(overlap, ao_mask))
        first = step = root @ potential @ root * _factor(potential, has_inverse(overlap, root))
    if kind == "rational":
        return _resolvents(first, order, ao_mask)
    powers = [first]
    for _ in range(order - 1):
        product = powers[-1] @ step
        powers.append((product + adjoint(product)) / 2)
    return jnp.stack(powers)


def _factor(matrix: Array, condition: Array) -> jax.Array:
    return flag(condition).astype(matrix.dtype)


def lowdin(operators: Array, overlap: Array, ao_mask: Array | None = None) -> jax.Array:
    """S^{−1/2} O S^{−1/2} of operators (..., nao, nao)."""
    root = inverse_square_root(unit_padding(overlap, ao_mask))
    return root @ operators @ root


def _resolvents(potential: Array, order: int, ao_mask: Array | None) -> jax.Array:
    identity = jnp.eye(len(potential), dtype=potential.dtype)
    mask = jnp.ones(len(potential), bool) if ao_mask is None else jnp.asarray(ao_mask, bool)
    real = (mask[:, None] & mask[None, :]).astype(potential.dtype)
    results = []
    for k in range(1, order + 1):
        factor = inverse_cholesky(identity - potential / 4.0**k)  # positive definite, as V has no positive eigenvalue
        results.append(real * (adjoint(factor) @ factor))
    powers = jnp.stack(results)
    if is_concrete(powers, potential) and not np.isfinite(np.asarray(powers)).all():
        raise InputError("potential has an eigenvalue of 4 hartree or more; the rational kind is for attractive ones.")
    return powers
