"""From the blocks of two angular momenta to a matrix in the AO order of the basis."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete
from vpotjax._guards import flag, positions_are_valid
from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals import separable
from vpotjax.integrals.shell_pairs import Integrand, PairList, contracted

LARGEST_MOVE = 0.1  # bohr, in which no pair of primitives grows from the threshold of 1e-14 to 1e-9


@pytree
class PairLists:
    """Pairs of primitives that are not negligible; made by `screening.significant_pairs`.

    Attributes:
        lists: by positions of two shells in `Basis.shells`, the first not below the second.
        overflow: () True where a list was too short; every integral over such lists is NaN.
        positions: (natm, 3) that the lists were made for; other places, by more than LARGEST_MOVE, give NaN.
    """

    lists: dict[tuple[int, int], PairList]
    overflow: Array
    positions: Array

    @property
    def capacity(self) -> tuple[tuple[tuple[int, int], int], ...]:
        """Lengths of the lists, static, see `significant_pairs`; under jit as many as there are pairs, unless given."""
        return tuple((key, pairs.first.shape[-1]) for key, pairs in self.lists.items())

    def serve(self, positions: Array) -> jax.Array:
        """() True where the lists were made for these positions, (natm, 3), or nearly these."""
        move = jnp.abs(jax.lax.stop_gradient(positions) - jnp.asarray(self.positions))
        return jnp.all(move <= LARGEST_MOVE)


def symmetric_matrices(
    integrand: Integrand, basis: Basis, positions: Array, pairs: PairLists | None = None, exchange: int = 1
) -> jax.Array:
    """(components, nao, nao) of a real operator that is symmetric, or antisymmetric (`exchange` −1)."""
    shells, centres = basis.shells, floating(positions).T
    if pairs is not None:
        _check_lists(basis, pairs)
    blocks = {}
    for i in range(len(shells)):
        for j in range(i + 1):
            blocks[i, j] = contracted(
                integrand,
                (shells[i], shells[j]),
                (centres, centres),
                cartesian=(basis.cartesian, basis.cartesian),
                exchange=exchange if i == j else 0,
                pairs=None if pairs is None else pairs.lists[i, j],
            )
            blocks[j, i] = blocks[i, j] if i == j else exchange * jnp.swapaxes(blocks[i, j], 1, 2)
    matrices = _in_ao_order(blocks, basis, basis)
    complete = jnp.array(True) if pairs is None else ~pairs.overflow & pairs.serve(positions)
    return matrices * flag(complete, positions_are_valid(basis.numbers, positions)).astype(matrices.dtype)


@functools.partial(jax.jit, static_argnames="operator")
def separable_matrices(
    operator: separable.Operator, basis: Basis, positions: Array, pairs: PairLists | None
) -> jax.Array:
    """Matrices of an operator of `separable`, (*shape of its layout, nao, nao)."""
    return joint_matrices((operator,), basis, positions, pairs)[0]


@functools.partial(jax.jit, static_argnames="operators")
def joint_matrices(
    operators: tuple[separable.Operator, ...], basis: Basis, positions: Array, pairs: PairLists | None = None
) -> tuple[jax.Array, ...]:
    """`separable_matrices` of several operators of one `exchange`: to compile, they cost little more than one."""
    if not operators:
        return ()
    components = tuple(component for operator in operators for component in operator.components)
    integrand = functools.partial(separable.integrals, components)
    (exchange,) = {operator.exchange for operator in operators}
    matrices = symmetric_matrices(integrand, basis, positions, pairs, exchange)
    ends = itertools.accumulate(len(operator.components) for operator in operators)
    own = [matrices[end - len(operator.components) : end] for operator, end in zip(operators, ends, strict=True)]
    return tuple(m if o.layout is None else m[np.array(o.layout)] for o, m in zip(operators, own, strict=True))


def require_near(positions: Array, pairs: PairLists | None) -> None:
    """Raise InputError where `pairs` are known to be of another geometry."""
    if pairs is None or not is_concrete(positions, pairs.positions) or positions.shape != pairs.positions.shape:
        return  # lists of another basis are found in `symmetric_matrices`
    move = np.abs(np.asarray(positions) - np.asarray(pairs.positions)).max()
    if not move <= LARGEST_MOVE:
        raise InputError(
            f"pairs were made for positions that differ by up to {move:.3g} bohr; make them with significant_pairs for "
            "these."
        )


def _check_lists(basis: Basis, pairs: PairLists) -> None:
    sizes = [len(shells.exponents) for shells in basis.shells]
    wanted = {(i, j): (sizes[i], sizes[j]) for i in range(len(sizes)) for j in range(i + 1)}
    if {key: one.slot.shape for key, one in pairs.lists.items()} != wanted:
        raise InputError("pairs belong to another basis or batch; make them with significant_pairs for this one.")


def rectangular_matrices(integrand: Integrand, bases: tuple[Basis, Basis], positions: tuple[Array, Array]) -> jax.Array:
    """(components, nao_a, nao_b) between two bases."""
    centres_of = first, second = tuple(floating(p) for p in positions)
    dtype = jnp.result_type(first, second)
    centres = (first.T.astype(dtype), second.T.astype(dtype))
    cartesian = (bases[0].cartesian, bases[1].cartesian)
    blocks = {
        (i, j): contracted(integrand, (a, b), centres, cartesian=cartesian)
        for i, a in enumerate(bases[0].shells)
        for j, b in enumerate(bases[1].shells)
    }
    apart = flag(*(positions_are_valid(basis.numbers, r) for basis, r in zip(bases, centres_of, strict=True)))
    return _in_ao_order(blocks, *bases) * apart.astype(dtype)


def _in_ao_order(blocks: dict[tuple[int, int], jax.Array], row_basis: Basis, column_basis: Basis) -> jax.Array:
    rows = [
        jnp.concatenate([blocks[i, j] for j in range(len(column_basis.shells))], axis=2)
        for i in range(len(row_basis.shells))
    ]
    grouped = jnp.concatenate(rows, axis=1)
    return grouped[:, row_basis.grouped_index, :][:, :, column_basis.grouped_index]


def floating(positions: Array) -> jax.Array:
    """As floating-point numbers, of the dtype they have if they have one."""
    positions = jnp.asarray(positions)
    return positions if jnp.issubdtype(positions.dtype, jnp.floating) else positions.astype(float)
