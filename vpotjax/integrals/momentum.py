"""Momentum without its factor −i: ⟨μ|∇|ν⟩."""

from __future__ import annotations

import functools

import jax

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals import separable
from vpotjax.integrals.assemble import PairLists, symmetric_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import derivative, unity

_INTEGRAND = functools.partial(
    separable.integrals,
    (
        (1.0, ((derivative, unity, unity),)),
        (1.0, ((unity, derivative, unity),)),
        (1.0, ((unity, unity, derivative),)),
    ),
)


def momentum_integrals(basis: Basis, positions: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """∇, (3, nao, nao), 1/bohr, antisymmetric; minus PySCF's `int1e_ipovlp`, which differentiates the bra.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`.
    """
    pairs = pairs_for(basis, positions, pairs)
    return _momentum_integrals(basis, positions, pairs)


@jax.jit
def _momentum_integrals(basis: Basis, positions: Array, pairs: PairLists | None) -> jax.Array:
    return symmetric_matrices(_INTEGRAND, basis, positions, pairs, exchange=-1)
