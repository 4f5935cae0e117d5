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

from vpotjax._checks import InputError
from vpotjax._numerics import inverse_square_root, unit_padding
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
        potential: V, (nao, nao), zero on padding; for "rational" without positive eigenvalues.
        overlap: S, (nao, nao); not used by "raw".
        order: highest power, ≥ 1.
        kind: one of KINDS.
        ao_mask: (nao,) True where an AO is real; default: all.

    Raises:
        InputError: unknown kind or order < 1.
    """
    check_power(order, kind)
    first = step = potential
    if kind == "metric":
        factor = jnp.linalg.cholesky(unit_padding(overlap, ao_mask))
        step = jax.scipy.linalg.cho_solve((factor, True), potential)
    elif kind in ("lowdin", "rational"):
        first = step = lowdin(potential, overlap, ao_mask)
    if kind == "rational":
        return _resolvents(first, order, ao_mask)
    powers = [first]
    for _ in range(order - 1):
        product = powers[-1] @ step
        powers.append((product + product.T) / 2)
    return jnp.stack(powers)


def lowdin(operators: Array, overlap: Array, ao_mask: Array | None = None) -> jax.Array:
    """S^{−1/2} O S^{−1/2} of operators (..., nao, nao)."""
    root = inverse_square_root(unit_padding(overlap, ao_mask))
    return root @ operators @ root


def _resolvents(potential: Array, order: int, ao_mask: Array | None) -> jax.Array:
    identity = jnp.eye(len(potential), dtype=potential.dtype)
    real = 1.0 if ao_mask is None else (ao_mask[:, None] & ao_mask[None, :]).astype(potential.dtype)
    results = []
    for k in range(1, order + 1):
        inverse = jnp.linalg.inv(identity - potential / 4.0**k)
        results.append(real * (inverse + inverse.T) / 2)
    return jnp.stack(results)
