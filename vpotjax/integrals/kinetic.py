"""Kinetic energy T_μν = ⟨μ|−½∇²|ν⟩."""

from __future__ import annotations

import functools

import jax

from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals import separable
from vpotjax.integrals.assemble import PairLists, symmetric_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import second_derivative, unity

_INTEGRAND = functools.partial(
    separable.integrals,
    (
        (
            -0.5,
            (
                (second_derivative, unity, unity),
                (unity, second_derivative, unity),
                (unity, unity, second_derivative),
            ),
        ),
    ),
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
    pairs = pairs_for(basis, positions, pairs)
    return _kinetic(basis, positions, pairs)


@jax.jit
def _kinetic(basis: Basis, positions: Array, pairs: PairLists | None) -> jax.Array:
    return symmetric_matrices(_INTEGRAND, basis, positions, pairs)[0]
