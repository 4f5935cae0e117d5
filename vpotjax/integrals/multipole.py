"""Position ⟨μ|r − O|ν⟩ and second moments ⟨μ|(r − O)(r − O)|ν⟩ about an origin O."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.assemble import PairLists, floating, separable_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import Operator, position, position_squared, unity

POSITION = Operator(
    components=(
        (1.0, ((position, unity, unity),)),
        (1.0, ((unity, position, unity),)),
        (1.0, ((unity, unity, position),)),
    ),
)
SECOND_MOMENT = Operator(
    components=(
        (1.0, ((position_squared, unity, unity),)),
        (1.0, ((position, position, unity),)),
        (1.0, ((position, unity, position),)),
        (1.0, ((unity, position_squared, unity),)),
        (1.0, ((unity, position, position),)),
        (1.0, ((unity, unity, position_squared),)),
    ),
    layout=((0, 1, 2), (1, 3, 4), (2, 4, 5)),
)


def position_integrals(basis: Basis, positions: Array, origin: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """r, (3, nao, nao), bohr.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        origin: O, (3,) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`; an origin of the wrong shape.
    """
    return _about_origin(POSITION, basis, positions, origin, pairs)


def second_moment_integrals(
    basis: Basis, positions: Array, origin: Array, *, pairs: PairLists | None = None
) -> jax.Array:
    """r r, (3, 3, nao, nao), bohr², symmetric in the first two axes (PySCF's `int1e_rr`).

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        origin: O, (3,) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`; an origin of the wrong shape.
    """
    return _about_origin(SECOND_MOMENT, basis, positions, origin, pairs)


def _about_origin(
    operator: Operator, basis: Basis, positions: Array, origin: Array, pairs: PairLists | None
) -> jax.Array:
    pairs = pairs_for(basis, positions, pairs)
    require_shape("origin", origin, (3,))
    positions = floating(positions)
    origin = jnp.asarray(origin, positions.dtype)
    if pairs is not None:
        pairs = dataclasses.replace(pairs, positions=pairs.positions - origin)
    return separable_matrices(operator, basis, positions - origin, pairs)
