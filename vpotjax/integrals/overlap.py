"""Overlap S_μν = ⟨μ|ν⟩, of a basis with itself or with another one."""

from __future__ import annotations

import functools

import jax

from vpotjax._checks import require_positions
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals.assemble import PairLists, rectangular_matrices, separable_matrices
from vpotjax.integrals.screening import pairs_for
from vpotjax.integrals.separable import Operator, integrals, unity

OVERLAP = Operator(components=((1.0, ((unity, unity, unity),)),), layout=0)


def overlap(basis: Basis, positions: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """S, (nao, nao), dimensionless; rows of padding are zero.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: positions of the wrong shape; concrete positions that are not finite, or two nuclei at one place.
    """
    return separable_matrices(OVERLAP, basis, positions, pairs_for(basis, positions, pairs))


def cross_overlap(basis_a: Basis, basis_b: Basis, positions: Array, positions_b: Array | None = None) -> jax.Array:
    """⟨μ|ν⟩ with μ of one basis and ν of another, (nao_a, nao_b).

    Args:
        basis_a, basis_b: from `load_basis`, of the same molecule or of two.
        positions: (natm, 3) in bohr, of the atoms of `basis_a`.
        positions_b: of the atoms of `basis_b`; default: `positions`.

    Raises:
        InputError: as `overlap`.
    """
    positions_b = positions if positions_b is None else positions_b
    require_positions(basis_a.numbers, positions)
    require_positions(basis_b.numbers, positions_b, name="positions_b")
    return _cross_overlap(basis_a, basis_b, positions, positions_b)


@jax.jit
def _cross_overlap(basis_a: Basis, basis_b: Basis, positions_a: Array, positions_b: Array) -> jax.Array:
    integrand = functools.partial(integrals, OVERLAP.components)
    return rectangular_matrices(integrand, (basis_a, basis_b), (positions_a, positions_b))[0]
