"""Kinetic energy T_μν = ⟨μ|−½∇²|ν⟩."""

from __future__ import annotations

import jax

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.assemble import PairLists, separable_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import Operator, second_derivative, unity

KINETIC = Operator(
    components=(
        (
            -0.5,
            (
                (second_derivative, unity, unity),
                (unity, second_derivative, unity),
                (unity, unity, second_derivative),
            ),
        ),
    ),
    layout=0,
)


def kinetic(basis: Basis, positions: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """T, (nao, nao), hartree.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`.
    """
    return separable_matrices(KINETIC, basis, positions, pairs_for(basis, positions, pairs))
