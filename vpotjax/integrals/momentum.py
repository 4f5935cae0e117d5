"""Momentum without its factor −i: ⟨μ|∇|ν⟩."""

from __future__ import annotations

import jax

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.assemble import PairLists, separable_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import Operator, derivative, unity

MOMENTUM = Operator(
    components=(
        (1.0, ((derivative, unity, unity),)),
        (1.0, ((unity, derivative, unity),)),
        (1.0, ((unity, unity, derivative),)),
    ),
    exchange=-1,
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
    return separable_matrices(MOMENTUM, basis, positions, pairs_for(basis, positions, pairs))
