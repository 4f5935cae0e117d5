"""Samples of a data set as arrays in buckets of similar size: geometry, labels, and the checks that they fit
together.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.basis import load_basis
from vpotjax.batching import buckets, pad_arrays
from vpotjax.conventions import matching_ao_order, reorder_ao
from vpotjax.electronic.density import density_matrix
from vpotjax.electronic.eigensolver import eigh
from vpotjax.electronic.observables import OBSERVABLES, Reference
from vpotjax.io.sample import Sample
from vpotjax.models.matrix_model import Geometry, MatrixSettings
from vpotjax.models.property_model import PropertySettings
from vpotjax.train.arrays import chunk_results, chunks, in_chunks, joined, over_molecules, return_memory, selected
from vpotjax.train.geometry import geometry_program

NOBLE_CORES = (0, 2, 10, 18, 36, 54, 86)  # electrons
LEVEL_TOLERANCE = 1e-2  # hartree; programs may store the levels of the step before the last F
DIPOLE_TOLERANCE = 2e-2  # e·bohr, likewise
SAME_LEVEL_HARTREE = 2.0  # occupied levels outside atomic cores differ by less between any two bases
CHUNK = 256  # molecules that are padded in one call


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Molecules of similar size, with a leading axis on every leaf.

    Attributes:
        names: of the molecules.
        content: what the model's settings call geometry at first, `prepared` once its linear map and whitening are
            known.
        reference: labels of the large basis.
        small: labels of the small basis itself, for the basis-set error; None where the data set has none.
        max_occupied: no molecule has more occupied orbitals.
    """

    names: tuple[str, ...]
    content: Any
    reference: Reference
    small: Reference | None
    max_occupied: int

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray) -> Bucket:
        names = tuple(self.names[i] for i in np.arange(len(self))[rows])
        content, reference, small = selected((self.content, self.reference, self.small), rows)
        return Bucket(names, content, reference, small, self.max_occupied)

    def parts(self) -> Iterator[Bucket]:
        """Some molecules at a time, with all of their arrays in memory."""
        start = 0
        for content, reference, small in chunks((self.content, self.reference, self.small)):
            names = self.names[start : start + len(reference.natm)]
            yield Bucket(names, content, reference, small, self.max_occupied)
            start += len(names)

    def with_labels(self, names: Iterable[str]) -> Bucket:
        """The bucket with these labels alone."""
        values = {name: self.reference.values[name] for name in names}
        return dataclasses.replace(self, reference=dataclasses.replace(self.reference, values=values))


def prepared_buckets(
    samples: Sequence[Sample],
    settings: MatrixSettings | PropertySettings,
    labels: Labels,
    count: int = 4,
    folder: Path | None = None,
) -> list[tuple[np.ndarray, Bucket]]:
    """Geometry and labels of samples in at most `count` buckets, each with the places of its samples; smallest first.

    Features keep the precision of the positions, for the linear map's weights on them cancel; in files of `folder`
    where there is one.

    Raises:
        InputError: labels are absent, or do not fit the geometry or each other; the model cannot describe a molecule.
    """
    for sample in samples:
        labels.require(sample)
    molecules = [s.molecule for s in samples]
    result = []
    for group, shape in buckets(molecules, settings.bases, count, pair_cutoff=settings.representation.cutoff):
        program = geometry_program(settings)
        batches = (
            settings.batch([molecules[i] for i in group[start : start + CHUNK]], shape)
            for start in range(0, len(group), CHUNK)
        )
        geometry = joined((part for batch in batches for part in chunk_results(program, batch)), folder)
        own = [samples[i] for i in group]
        reference, small = labels.references(own, geometry, settings, folder)
        names = tuple(s.name for s in own)
        result.append((group, Bucket(names, geometry, reference, small, int(np.max(reference.nelec)) // 2)))
        del program
        return_memory()
    return result


@jax.jit
def _prepare(model: Any, geometry: Any) -> Any:
    return over_molecules(model.prepared, geometry)


def with_model(bucket: Bucket, model: Any, folder: Path | None = None) -> Bucket:
    """The bucket with the linear map and the network inputs of a model in place of geometry, in files of `folder`."""
    content = in_chunks(functools.partial(_prepare, model), bucket.content, folder=folder)
    return dataclasses.replace(bucket, content=content)


@dataclasses.dataclass(frozen=True)
class Labels:
    """Which labels of a data set are used.

    Attributes:
        large: basis of the targets.
        small: basis of the basis-set error; levels are compared up to its number of functions.
        observables: names of the table that must be there.
        matrices: basis of F and S, that of the model; they are the target, or give orbitals to start from. None: not
            used.
        made: what references hold of F, see `Loss.needs`.
    """

    large: str
    small: str
    observables: tuple[str, ...] = ("mo_energies", "dipole", "polarizability")
    matrices: str | None = None
    made: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Labels of those observables."""
        return tuple(dict.fromkeys(OBSERVABLES[name].label for name in self.observables))

    def require(self, sample: Sample) -> None:
        """Raise InputError where labels are absent."""
        matrices = ((self.matrices, ("mo_energies", "fock", "overlap")),) if self.matrices else ()
        levels = ((self.small, ("mo_energies",)),) if "mo_energies" in self.names else ()
        for basis, wanted in ((self.large, self.names), *levels, *matrices):
            if basis not in sample.labels:
                raise InputError(
                    f"sample {sample.name!r} has no labels in basis {basis!r}; choose a basis of the data set."
                )
            lacking = [key for key in wanted if key not in sample.labels[basis]]
            if lacking:
                raise InputError(f"sample {sample.name!r}, labels {basis!r} lack {', '.join(lacking)}; add them.")

    def references(
        self,
        samples: Sequence[Sample],
        geometry: Any,
        settings: MatrixSettings | PropertySettings,
        folder: Path | None = None,
    ) -> tuple[Reference, Reference | None]:
        """Of the large and of the small basis; matrices are in files of `folder` where there is one."""
        nao = geometry.baseline.shape[-1] if isinstance(geometry, Geometry) else 0
        matrices: dict[str, Array] = {}
        if self.matrices:
            space = geometry.space
            matrices["fock"] = joined(_focks(samples, geometry, self.matrices), folder)
            if self.made & {"orbitals", "levels"}:
                arrays = matrices["fock"], space.overlap, space.basis.ao_mask
                matrices["levels"], matrices["orbitals"] = in_chunks(_orbitals, arrays, folder=folder)
            if settings.target == "density" or "density" in self.made:
                arrays = matrices["fock"], space.overlap, space.nelec, space.basis.ao_mask
                matrices["density"] = in_chunks(_densities, arrays, folder=folder)
        large = _reference(samples, self.large, self, settings, nao)
        own = all(set(self.names) <= set(s.labels.get(self.small, ())) for s in samples)
        small = _reference(samples, self.small, self, settings, nao) if own else None
        return dataclasses.replace(large, values={**large.values, **matrices}), small


def _focks(samples: Sequence[Sample], geometry: Geometry, basis: str) -> Iterator[np.ndarray]:
    """F in `basis`, which is that of the model, (molecules, nao, nao), some molecules at a time."""
    nao, start = geometry.baseline.shape[-1], 0
    for overlaps, positions in chunks((geometry.space.overlap, geometry.space.position)):
        focks = []
        for sample, overlap, position in zip(samples[start : start + len(overlaps)], overlaps, positions, strict=True):
            focks.append(_checked_fock(sample, overlap, basis))
            _require_consistent(sample, focks[-1], overlap, position, basis)
        yield pad_arrays(focks, (nao, nao))
        start += len(focks)


@jax.jit
def _orbitals(arrays: Any) -> Any:
    return over_molecules(eigh, *arrays)


@jax.jit
def _densities(arrays: Any) -> jax.Array:
    return over_molecules(density_matrix, *arrays)


def _checked_fock(sample: Sample, overlap: np.ndarray, name: str) -> np.ndarray:
    """F in the package's order, once the stored overlap has shown in which order the file is."""
    labels = sample.labels[name]
    size = len(labels["overlap"])
    basis = load_basis(name, sample.molecule.numbers)
    shells, atoms = basis.shell_angular_momenta(), basis.shell_atoms()
    try:
        order = matching_ao_order(labels["overlap"], overlap[:size, :size], shells, atoms)
    except InputError as error:
        raise InputError(f"sample {sample.name!r}: {error}") from None
    return reorder_ao(labels["fock"], shells, order, "pyscf")


def _require_consistent(sample: Sample, fock: np.ndarray, overlap: np.ndarray, position: np.ndarray, name: str) -> None:
    """Raise InputError unless levels and dipole in the basis of F are those of F: units, charge, origin show."""
    n, molecule = len(fock), sample.molecule
    labels, basis = sample.labels[name], load_basis(name, molecule.numbers)
    inverse = np.linalg.inv(np.linalg.cholesky(overlap[:n, :n]))
    levels, vectors = np.linalg.eigh(inverse @ fock @ inverse.T)
    worst = float(np.abs(levels - labels["mo_energies"]).max())
    if not worst <= LEVEL_TOLERANCE:
        raise InputError(
            f"sample {sample.name!r}: mo_energies in {name!r} differ from the levels of fock by "
            f"{worst:.3g} hartree; check the units of both (hartree)."
        )
    nocc = int(molecule.nelec(basis)) // 2
    if "dipole" not in labels or not 0 < nocc < n or levels[nocc] - levels[nocc - 1] < LEVEL_TOLERANCE:
        return  # no density that F decides
    occupied = inverse.T @ vectors[:, :nocc]
    electronic = 2 * np.einsum("xpq,pi,qi->x", position[:, :n, :n], occupied, occupied, optimize=True)
    dipole = np.asarray(basis.nuclear_charges) @ np.asarray(molecule.positions) - electronic
    worst = float(np.abs(dipole - labels["dipole"]).max())
    if not worst <= DIPOLE_TOLERANCE:
        raise InputError(
            f"sample {sample.name!r}: dipole in {name!r} differs from that of fock by {worst:.3g} "
            f"e·bohr; check its unit (e·bohr), the charge ({molecule.charge}), and of ions the origin (that of the "
            "coordinates)."
        )


def _reference(
    samples: Sequence[Sample], basis: str, labels: Labels, settings: MatrixSettings | PropertySettings, nao: int
) -> Reference:
    orbital = next(iter(settings.bases.values()))  # of a model of a property that of its operators
    levels, masks = np.zeros((len(samples), nao)), np.zeros((len(samples), nao), bool)
    electrons = np.zeros(len(samples), int)
    for i, sample in enumerate(samples):
        if "mo_energies" not in labels.names:  # none is compared
            electrons[i] = sample.molecule.nelec(load_basis(orbital, sample.molecule.numbers))
            continue
        own, exists, electrons[i] = partners(sample, basis, labels.small, orbital)
        levels[i, : len(own)], masks[i, : len(own)] = own, exists
        masks[i, sample.labels[labels.small]["mo_energies"].size :] = False
    values = {name: _stacked(samples, basis, name) for name in labels.names if name != "mo_energies"}
    natm = np.array([s.molecule.natm for s in samples])
    return Reference(values | {"mo_energies": levels}, masks, natm, electrons)


def _stacked(samples: Sequence[Sample], basis: str, name: str) -> np.ndarray:
    """Labels of one name, those of atoms padded."""
    arrays = [np.asarray(s.labels[basis][name]) for s in samples]
    if not arrays[0].ndim:
        return np.stack(arrays)
    return pad_arrays(arrays, tuple(np.max([a.shape for a in arrays], axis=0)))


def partners(sample: Sample, basis: str, small: str, orbital: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Levels of `basis` for those of the model, 0 where there is none; which have one; electrons of the model's basis.

    Levels are paired by their places counted from the HOMO. Where the bases have
    different effective cores, a level that only one of them has may lie among the cores of other atoms, so levels of
    atomic cores have no partner then.

    Raises:
        InputError: with different cores, occupied partners are not the same level.
    """
    numbers = np.asarray(sample.molecule.numbers)
    own, large = (load_basis(name, numbers) for name in (orbital, basis))
    nelec, removed = int(own.nelec(sample.molecule.charge)), own.nelec() - large.nelec()
    count = own.nao
    labels = sample.labels[basis]["mo_energies"]
    partner = np.arange(count) - removed // 2
    exists = (partner >= 0) & (partner < len(labels))
    cores = np.maximum(own.core_electrons, large.core_electrons)
    differ = np.any(own.core_electrons != large.core_electrons)
    if differ:
        noble = np.array([max(n for n in NOBLE_CORES if n < z) for z in numbers.tolist()])
        exists &= np.arange(count) >= (np.maximum(noble, cores) - own.core_electrons).sum() // 2
    levels = np.where(exists, labels[np.clip(partner, 0, len(labels) - 1)], 0.0)
    if differ and small == orbital:
        _require_same_levels(sample, basis, small, levels, exists & (np.arange(count) < nelec // 2))
    return levels, exists, nelec


def _require_same_levels(sample: Sample, basis: str, small: str, levels: np.ndarray, compared: np.ndarray) -> None:
    own = sample.labels[small]["mo_energies"][: len(levels)]
    far = compared & (np.abs(levels - own) > SAME_LEVEL_HARTREE)
    if far.any():
        level = int(np.flatnonzero(far)[0])
        raise InputError(
            f"sample {sample.name!r}: level {level} is {own[level]:.3f} hartree in {small!r} and "
            f"{levels[level]:.3f} in {basis!r}, which has another effective core, so they are not the same level; use "
            "bases with equal cores."
        )
