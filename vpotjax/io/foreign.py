"""Matrices of other programs: their AO order is found by the overlap, which is made again here, or they are refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import buckets, map_batch, pad_batch
from vpotjax.conventions import AO_ORDERS, matching_ao_order, reorder_ao
from vpotjax.integrals.overlap import overlap
from vpotjax.molecule import Molecule

OF_AOS = ("fock", "overlap", "density", "kinetic", "core_hamiltonian")
"""Labels with two axes of AOs."""
CHUNK = 256  # molecules of one call


def overlaps(molecules: Sequence[Molecule], basis: str) -> Iterator[tuple[int, np.ndarray]]:
    """The place and the overlap of each molecule, in any order; few programs for all of them."""
    for group, shape in buckets(molecules, basis, 2):
        program = jax.jit(functools.partial(map_batch, lambda one: overlap(one.basis, one.positions)))
        for start in range(0, len(group), CHUNK):
            rows = group[np.minimum(np.arange(start, start + CHUNK), len(group) - 1)][: len(group)]
            batch = pad_batch([molecules[i] for i in rows], basis, shape)
            for i, own, mask in zip(rows, np.asarray(program(batch)), np.asarray(batch.basis.ao_mask), strict=True):
                yield int(i), own[np.ix_(mask, mask)]


def in_own_order(
    where: str,
    molecule: Molecule,
    basis: str,
    labels: Mapping[str, Any],
    expected: np.ndarray | None,
    order: str | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Labels of a molecule in PySCF's AO order, and the order in which they were; None where no label has AOs.

    Args:
        where: what messages begin with.
        molecule, basis: of the labels.
        labels: by quantity; with "overlap" where there are others of OF_AOS, unless `order` is given.
        expected: the overlap of the basis, see `overlaps`.
        order: of AO_ORDERS, as it is stated.

    Raises:
        InputError: the overlap fits in no order, or in another one than is stated; it names the shells that differ.
    """
    own = {key: np.asarray(labels[key], float) for key in OF_AOS if key in labels}
    if not own:
        return dict(labels), None
    functions = load_basis(basis, molecule.numbers)
    shells = functions.shell_angular_momenta()
    if order is not None and order not in AO_ORDERS:
        raise InputError(f"{where}: order is {order!r}; give one of {', '.join(AO_ORDERS)}.")
    for key, matrix in own.items():
        if matrix.shape[-2:] != (functions.nao, functions.nao):
            raise InputError(f"{where}: {key} has shape {matrix.shape}, but {basis!r} has {functions.nao} functions.")
    if "overlap" in own and expected is not None:
        try:
            found = matching_ao_order(own["overlap"], expected, shells, functions.shell_atoms())
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if order is not None and np.abs(reorder_ao(own["overlap"], shells, order, "pyscf") - expected).max() > 1e-6:
            raise InputError(f"{where}: order is stated to be {order!r}, but the overlap is in that of {found!r}.")
        order = found if order is None else order
    if order is None:
        raise InputError(f"{where}: without an overlap the AO order cannot be found; state the order, or add overlap.")
    return {**labels, **{key: reorder_ao(matrix, shells, order, "pyscf") for key, matrix in own.items()}}, order
