"""Position ⟨μ|r − O|ν⟩ and second moments ⟨μ|(r − O)(r − O)|ν⟩ about an origin O."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals import separable
from vpotjax.integrals.assemble import PairLists, floating, symmetric_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import position, position_squared, unity

_POSITION = functools.partial(
    separable.integrals,
    (
        (1.0, ((position, unity, unity),)),
        (1.0, ((unity, position, unity),)),
        (1.0, ((unity, unity, position),)),
    ),
)
_SECOND_MOMENT = functools.partial(
    separable.integrals,
    (
        (1.0, ((position_squared, unity, unity),)),
        (1.0, ((position, position, unity),)),
        (1.0, ((position, unity, position),)),
        (1.0, ((unity, position_squared, unity),)),
        (1.0, ((unity, position, position),)),
        (1.0, ((unity, unity, position_squared),)),
    ),
)
_PLACES = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


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
    pairs = pairs_for(basis, positions, pairs)
    require_shape("origin", origin, (3,))
    return _position_integrals(basis, positions, origin, pairs)


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
    pairs = pairs_for(basis, positions, pairs)
    require_shape("origin", origin, (3,))
    return _second_moment_integrals(basis, positions, origin, pairs)


def _relative(positions: Array, origin: Array) -> jax.Array:
    positions = floating(positions)
    return positions - jnp.asarray(origin, positions.dtype)


@jax.jit
def _position_integrals(basis: Basis, positions: Array, origin: Array, pairs: PairLists | None) -> jax.Array:
    return symmetric_matrices(_POSITION, basis, _relative(positions, origin), pairs)


@jax.jit
def _second_moment_integrals(basis: Basis, positions: Array, origin: Array, pairs: PairLists | None) -> jax.Array:
    return symmetric_matrices(_SECOND_MOMENT, basis, _relative(positions, origin), pairs)[_PLACES]
