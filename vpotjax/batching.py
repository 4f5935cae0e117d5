"""Batches of molecules of different size: all padding and all masks are made here.

Every size is padded to the largest of the batch, or to a given `BatchShape`, so that one compiled program serves all
batches of that shape. Padded atoms have number and charge zero, padded primitives have coefficient zero, padded AOs
come last; all integrals over them are zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._pytree import pytree
from vpotjax.basis import Basis, Shells, load_basis
from vpotjax.conventions import function_count
from vpotjax.molecule import Molecule


class BasisShape(NamedTuple):
    """Sizes of a padded basis: AOs, by l (0, 1, …) primitives and shells, screening charges per atom, and its kind."""

    nao: int
    nprim: tuple[int, ...]
    nshl: tuple[int, ...]
    nscreen: int
    cartesian: bool = False


class BatchShape(NamedTuple):
    """Sizes of a padded batch: atoms, bases in the order of the batch's, and pairs of atoms."""

    natm: int
    bases: tuple[tuple[str, BasisShape], ...]
    npair: int


@pytree
class PairList:
    """Pairs of atoms, each once: an operator is hermitian, so that its blocks ij and ji are one.

    Attributes:
        first, second: (npair,) atoms; the first natm pairs are those of each atom with itself, in order, then the
            element of the first is not above that of the second. 0 for padding.
        shift: (npair, 3) cell of the second atom in lattice vectors; zero in molecules.
        mask: (npair,) True where a pair is real.
    """

    first: Any
    second: Any
    shift: Any
    mask: Any


@pytree
class Batch:
    """Molecules with a leading batch axis on every leaf; `jax.vmap` or `jax.lax.map` over it sees one molecule.

    Attributes:
        numbers: (nbatch, natm), 0 for padding.
        positions: (nbatch, natm, 3), bohr, 0 for padding.
        atom_mask: (nbatch, natm) True where an atom is real.
        charge, spin: (nbatch,) total charges, and nα − nβ.
        bases: by role, see `pad_batch`.
        pairs: of atoms.
    """

    numbers: Any
    positions: Any
    atom_mask: Any
    charge: Any
    spin: Any
    bases: dict[str, Basis]
    pairs: PairList

    @property
    def basis(self) -> Basis:
        """The only basis of a batch that has one."""
        if len(self.bases) != 1:
            raise InputError(f"batch has bases {', '.join(self.bases)}; take one by name from .bases.")
        return next(iter(self.bases.values()))

    @property
    def nelec(self) -> Any:
        """(nbatch,) electrons that the only basis holds, or the one of the role "orbital"; see `Basis.nelec`."""
        basis = self.bases.get("orbital")
        return (self.basis if basis is None else basis).nelec(self.charge)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Batch:
        """A part of the batch, by slice or index array; an integer gives one molecule without the batch axis."""
        return jax.tree.map(lambda leaf: leaf[index], self)


def pad_batch(
    molecules: Sequence[Molecule],
    basis: str | Mapping[str, Any],
    shape: BatchShape | None = None,
    *,
    cartesian: bool = False,
    pair_cutoff: float | None = None,
) -> Batch:
    """Stack molecules, with one or more bases, into arrays of one size.

    Args:
        molecules: at least one.
        basis: a name of basis-set-exchange, or a dict from roles to what `load_basis` takes, for example
            {"orbital": "sto-3g", "potential": "def2-svp"}.
        shape: pad to these sizes (see `batch_shape`); default: the largest of `molecules`.
        cartesian: as in `load_basis`, for all bases.
        pair_cutoff: bohr; pairs of atoms that are farther apart are left out of `Batch.pairs`.

    Raises:
        InputError: no molecules, a molecule is larger than `shape`, or `shape` contradicts itself or `cartesian`.
    """
    bases = {"orbital": basis} if isinstance(basis, str) else dict(basis)
    if isinstance(molecules, Molecule) or not all(isinstance(m, Molecule) for m in molecules):
        raise InputError("molecules is no list of vpotjax.Molecule; put one into a list, and read files first.")
    if not molecules:
        raise InputError("molecules is empty; give at least one.")
    loaded = {
        role: [load_basis(spec, m.numbers, cartesian=cartesian) for m in molecules] for role, spec in bases.items()
    }
    natm = max(m.natm for m in molecules)
    offsite = [_offsite_pairs(m, pair_cutoff) for m in molecules]
    joint = tuple((role, _joint_shape(list(b))) for role, b in loaded.items())
    needed = BatchShape(natm, joint, natm + max(len(p) for p in offsite))
    shape = needed if shape is None else shape
    if tuple(role for role, _ in shape.bases) != tuple(bases):
        raise InputError(f"shape has bases {[r for r, _ in shape.bases]}, the batch has {list(bases)}; use the same.")
    if any(sizes.cartesian != cartesian for _, sizes in shape.bases):
        raise InputError(f"shape={shape} is not for cartesian={cartesian}; make both with the same setting.")
    if any(sizes.nao > _group_starts(sizes)[-1] for _, sizes in shape.bases):
        raise InputError(f"shape={shape} has more AOs than its shells hold; use a shape from batch_shape or buckets.")
    if joint_batch_shape([shape, needed]) != shape:
        raise InputError(f"shape={shape} is too small, molecules need {needed}; pad to their joint_batch_shape.")
    numbers = pad_arrays([m.numbers for m in molecules], (shape.natm,))
    return Batch(
        numbers=numbers,
        positions=pad_arrays([np.asarray(m.positions) for m in molecules], (shape.natm, 3)),
        atom_mask=numbers > 0,
        charge=np.array([m.charge for m in molecules]),
        spin=np.array([m.spin for m in molecules]),
        bases={
            role: jax.tree.map(
                lambda *leaves: np.stack(leaves), *(_pad_basis(b, sizes, shape.natm) for b in loaded[role])
            )
            for role, sizes in shape.bases
        },
        pairs=_pair_list(numbers, offsite, shape.npair),
    )


def _offsite_pairs(molecule: Molecule, cutoff: float | None) -> np.ndarray:
    """(n, 2) atoms of each pair of different ones."""
    numbers, positions = np.asarray(molecule.numbers), np.asarray(molecule.positions)
    first, second = np.triu_indices(molecule.natm, 1)
    swap = numbers[first] > numbers[second]
    pairs = np.stack([np.where(swap, second, first), np.where(swap, first, second)], axis=1)
    if cutoff is None:
        return pairs
    return pairs[np.linalg.norm(positions[first] - positions[second], axis=1) <= cutoff]


def _pair_list(numbers: np.ndarray, offsite: Sequence[np.ndarray], npair: int) -> PairList:
    nbatch, natm = numbers.shape
    atoms = np.broadcast_to(np.arange(natm)[None, :, None], (nbatch, natm, 2))
    pairs = np.concatenate([atoms, pad_arrays(offsite, (npair - natm, 2))], axis=1)
    real = np.arange(npair - natm) < np.array([len(p) for p in offsite])[:, None]
    mask = np.concatenate([numbers > 0, real], axis=1)
    return PairList(pairs[..., 0], pairs[..., 1], np.zeros((*mask.shape, 3), int), mask)


def batch_shape(batch: Batch) -> BatchShape:
    """The sizes of a batch, to pad another one alike."""
    bases = tuple((role, _shape(basis)) for role, basis in batch.bases.items())
    return BatchShape(batch.numbers.shape[-1], bases, batch.pairs.first.shape[-1])


def joint_batch_shape(shapes: Iterable[BatchShape]) -> BatchShape:
    """The smallest shape that holds all of `shapes`."""
    shapes = list(shapes)
    bases = [
        (role, _largest([dict(s.bases)[role] for s in shapes if role in dict(s.bases)])) for role, _ in shapes[0].bases
    ]
    natm, offsite = max(s.natm for s in shapes), max(s.npair - s.natm for s in shapes)
    return BatchShape(natm, tuple(bases), natm + offsite)


def buckets(
    molecules: Sequence[Molecule],
    basis: str | Mapping[str, Any],
    count: int = 6,
    *,
    cartesian: bool = False,
    pair_cutoff: float | None = None,
) -> list[tuple[np.ndarray, BatchShape]]:
    """Groups of molecules of similar size, each with the one shape, and hence the one program, that serves it.

    The rule: molecules are sorted by the number of AOs (of all bases together) and cut into at most `count` groups such
    that the sum over molecules of the group's largest number of AOs, squared, is least; a group's shape is the joint
    shape of its members.

    Args:
        molecules: at least one.
        basis: as in `pad_batch`.
        count: most groups, ≥ 1.
        cartesian: as in `load_basis`, for all bases.
        pair_cutoff: as in `pad_batch`.

    Returns:
        For each group, smallest first: positions in `molecules` and shape for `pad_batch`.

    Raises:
        InputError: no molecules, or count below 1.
    """
    if not molecules or count < 1:
        raise InputError(f"count is {count} for {len(molecules)} molecules; give at least one of each.")
    shapes = molecule_shapes(molecules, basis, cartesian, pair_cutoff)
    sizes = np.array([sum(shape.nao for _, shape in own.bases) for own in shapes])
    edges = _cuts(sizes, count)
    groups = [np.flatnonzero((sizes > low) & (sizes <= high)) for low, high in zip([0, *edges], edges, strict=False)]
    return [(group, joint_batch_shape(shapes[i] for i in group)) for group in groups]


def molecule_shapes(
    molecules: Sequence[Molecule], basis: str | Mapping[str, Any], cartesian: bool, pair_cutoff: float | None
) -> list[BatchShape]:
    """The sizes of each molecule alone; those of bases follow from the composition."""
    bases = {"orbital": basis} if isinstance(basis, str) else dict(basis)
    known: dict[tuple[int, ...], tuple[tuple[str, BasisShape], ...]] = {}
    shapes = []
    for molecule in molecules:
        key = tuple(sorted(molecule.numbers.tolist()))
        if key not in known:
            loaded = ((role, load_basis(spec, np.array(key), cartesian=cartesian)) for role, spec in bases.items())
            known[key] = tuple((role, _shape(own)) for role, own in loaded)
        npair = molecule.natm + len(_offsite_pairs(molecule, pair_cutoff))
        shapes.append(BatchShape(molecule.natm, known[key], npair))
    return shapes


def _cuts(sizes: np.ndarray, count: int) -> list[int]:
    """Upper ends of at most `count` ranges of sizes with the least Σ (upper end)², by dynamic programming."""
    values, members = np.unique(sizes, return_counts=True)
    below = np.concatenate([[0], np.cumsum(members)])
    best = np.where(np.arange(len(values) + 1) == 0, 0.0, np.inf)  # of the first k values, in no range so far
    choices = []
    for _ in range(min(count, len(values))):
        # cost[k, j]: the last range holds values j … k−1
        cost = best[None, :] + (below[:, None] - below[None, :]) * np.concatenate([[0], values])[:, None] ** 2.0
        cost[np.triu_indices(len(values) + 1)] = np.inf
        choices.append(cost.argmin(axis=1))
        best = cost.min(axis=1)
    edges, stop = [], len(values)
    for choice in reversed(choices):
        edges.append(int(values[stop - 1]))
        stop = int(choice[stop])
    return edges[::-1]


def pad_arrays(arrays: Sequence[Any], shape: tuple[int, ...], fill: Any = 0) -> np.ndarray:
    """Stack arrays of different sizes, each padded at the end of its axes to `shape` with `fill`."""
    padded = []
    for array in map(np.asarray, arrays):
        width = [(0, size - have) for size, have in zip(shape, array.shape, strict=True)]
        if any(after < 0 for _, after in width):
            raise InputError(f"array of shape {array.shape} does not fit into {shape}; pad to a larger shape.")
        padded.append(np.pad(array, width, constant_values=fill))
    return np.stack(padded)


T = TypeVar("T")


def map_batch(function: Callable[..., T], batch: Any, *rest: Any) -> T:
    """`function` over a batch, one molecule after the other in one program: less memory than vmap, faster on CPU."""
    return jax.lax.map(lambda molecule: function(molecule, *rest), jax.tree.map(jnp.asarray, batch))


def map_arrays(function: Callable[..., Any], batch: Any, *rest: Any) -> Any:
    """Jitted `map_batch` with NumPy arrays as result."""
    return jax.tree.map(np.asarray, jax.jit(functools.partial(map_batch, function))(batch, *rest))


def _shape(basis: Basis) -> BasisShape:
    sizes = {shells.l: shells.coefficients.shape[-2:] for shells in basis.shells}
    nshl, nprim = zip(*(sizes.get(l, (0, 0)) for l in range(max(sizes) + 1)), strict=True)
    return BasisShape(basis.nao, tuple(nprim), tuple(nshl), basis.screening_charges.shape[-1], basis.cartesian)


def _joint_shape(bases: list[Basis]) -> BasisShape:
    return _largest([_shape(basis) for basis in bases])


def _largest(shapes: Sequence[BasisShape]) -> BasisShape:
    ls = range(max(len(s.nshl) for s in shapes))
    nprim = tuple(max(s.nprim[l] if l < len(s.nprim) else 0 for s in shapes) for l in ls)
    nshl = tuple(max(s.nshl[l] if l < len(s.nshl) else 0 for s in shapes) for l in ls)
    return BasisShape(max(s.nao for s in shapes), nprim, nshl, max(s.nscreen for s in shapes), shapes[0].cartesian)


def _pad_basis(basis: Basis, shape: BasisShape, natm: int) -> Basis:
    """`basis` with more room; padded AOs are spread over slots that no real AO uses, where all integrals are zero."""
    own = {shells.l: shells for shells in basis.shells}
    sizes = _shape(basis)
    old_starts, new_starts = _group_starts(sizes), _group_starts(shape)
    ls = np.asarray(basis.ao_l)
    grouped = np.asarray(basis.grouped_index) - old_starts[ls] + new_starts[ls]
    free = np.setdiff1d(np.arange(new_starts[-1]), grouped)
    extra = shape.nao - basis.nao

    def longer(values: Any, fill: Any) -> np.ndarray:
        return np.concatenate([values, np.full(extra, fill, dtype=np.asarray(values).dtype)])

    return Basis(
        shells=tuple(_pad_shells(own.get(l), l, shape) for l in range(len(shape.nshl)) if shape.nshl[l]),
        grouped_index=np.concatenate([grouped, free[:extra]]),
        ao_mask=longer(basis.ao_mask, False),
        ao_atom=longer(basis.ao_atom, -1),
        ao_l=longer(basis.ao_l, -1),
        ao_shell=longer(basis.ao_shell, -1),
        ao_m=longer(basis.ao_m, -1),
        numbers=pad_arrays([basis.numbers], (natm,))[0],
        core_electrons=pad_arrays([basis.core_electrons], (natm,))[0],
        nuclear_charges=pad_arrays([basis.nuclear_charges], (natm,))[0],
        screening_charges=pad_arrays([basis.screening_charges], (natm, shape.nscreen))[0],
        screening_exponents=pad_arrays([basis.screening_exponents], (natm, shape.nscreen), fill=1.0)[0],
        cartesian=basis.cartesian,
    )


def _group_starts(shape: BasisShape) -> np.ndarray:
    return np.cumsum([0] + [n * function_count(l, shape.cartesian) for l, n in enumerate(shape.nshl)])


def _pad_shells(shells: Shells | None, l: int, shape: BasisShape) -> Shells:
    nprim, nshl = shape.nprim[l], shape.nshl[l]
    if shells is None:
        return Shells(l, np.zeros(nprim, dtype=int), np.ones(nprim), np.zeros((nshl, nprim)))
    return Shells(
        l,
        pad_arrays([shells.atom], (nprim,))[0],
        pad_arrays([shells.exponents], (nprim,), fill=1.0)[0],
        pad_arrays([shells.coefficients], (nshl, nprim))[0],
    )
