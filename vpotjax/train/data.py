"""Samples of a data set as arrays: prepared molecules, targets, Fock matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax._pytree import pytree
from vpotjax.basis import load_basis
from vpotjax.batching import BatchShape, map_batch, pad_arrays
from vpotjax.conventions import matching_ao_order, reorder_ao
from vpotjax.electronic.density import density_matrix
from vpotjax.io.dataset import Sample
from vpotjax.losses import Targets
from vpotjax.model import ModelConfig, Prepared, prepare

OBSERVABLES = ("mo_energies", "dipole", "polarizability")
NOBLE_CORES = (0, 2, 10, 18, 36, 54, 86)  # electrons
LEVEL_TOLERANCE = 1e-2  # hartree; programs may store the levels of the step before the last F
DIPOLE_TOLERANCE = 2e-2  # e·bohr, likewise
SAME_LEVEL_HARTREE = 2.0  # occupied levels outside atomic cores differ by less between any two bases


@pytree
class TrainingArrays:
    """Prepared samples with a leading batch axis on every leaf.

    Attributes:
        prepared: inputs of the model.
        targets: observables in the large basis.
        small: observables of the small basis itself, for the basis-set error.
        fock: what the model's target names: F of the small basis, hartree, or its P, (nbatch, nao, nao).
    """

    prepared: Prepared
    targets: Targets
    small: Targets
    fock: Any

    def __getitem__(self, index: Any) -> TrainingArrays:
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __len__(self) -> int:
        return len(self.fock)


def training_arrays(
    samples: Sequence[Sample], config: ModelConfig, large_basis: str, shape: BatchShape | None = None
) -> TrainingArrays:
    """Integrals, features and labels of samples, in one padded batch.

    Raises:
        InputError: labels are absent, or a sample's stored overlap is not that of its geometry and basis.
    """
    for sample in samples:
        for basis, wanted in ((large_basis, OBSERVABLES), (config.orbital_basis, (*OBSERVABLES, "fock", "overlap"))):
            if basis not in sample.labels:
                raise InputError(
                    f"sample {sample.name!r} has no labels in basis {basis!r}; choose a basis of the data set."
                )
            lacking = [key for key in wanted if key not in sample.labels[basis]]
            if lacking:
                raise InputError(f"sample {sample.name!r}, labels {basis!r} lack {', '.join(lacking)}; add them.")
    batch = config.batch([s.molecule for s in samples], shape)
    prepared = jax.jit(map_batch, static_argnums=(0, 2))(prepare, batch, config)
    nao = prepared.overlap.shape[-1]
    focks = [_checked_fock(s, np.asarray(o), config) for s, o in zip(samples, prepared.overlap, strict=True)]
    for i, sample in enumerate(samples):
        _require_consistent(sample, focks[i], np.asarray(prepared.overlap[i]), np.asarray(prepared.position[i]), config)
    matrices = pad_arrays(focks, (nao, nao))
    if config.target == "density":
        solve = jax.jit(jax.vmap(density_matrix))
        matrices = solve(matrices, prepared.overlap, prepared.nelec, prepared.basis.ao_mask)
    return TrainingArrays(
        prepared=jax.tree.map(np.asarray, prepared),
        targets=_targets(samples, large_basis, config.orbital_basis, nao),
        small=_targets(samples, config.orbital_basis, config.orbital_basis, nao),
        fock=np.asarray(matrices),
    )


def _checked_fock(sample: Sample, overlap: np.ndarray, config: ModelConfig) -> np.ndarray:
    """F in the package's order, once the stored overlap has shown in which order the file is."""
    labels = sample.labels[config.orbital_basis]
    size = len(labels["overlap"])
    basis = load_basis(config.orbital_basis, sample.molecule.numbers)
    shells, atoms = basis.shell_angular_momenta(), basis.shell_atoms()
    try:
        order = matching_ao_order(labels["overlap"], overlap[:size, :size], shells, atoms)
    except InputError as error:
        raise InputError(f"sample {sample.name!r}: {error}") from None
    return reorder_ao(labels["fock"], shells, order, "pyscf")


def _require_consistent(
    sample: Sample, fock: np.ndarray, overlap: np.ndarray, position: np.ndarray, config: ModelConfig
) -> None:
    """Raise InputError unless levels and dipole of the small basis are those of its F: units, charge, origin show."""
    n, molecule = len(fock), sample.molecule
    labels, basis = sample.labels[config.orbital_basis], load_basis(config.orbital_basis, molecule.numbers)
    inverse = np.linalg.inv(np.linalg.cholesky(overlap[:n, :n]))
    levels, vectors = np.linalg.eigh(inverse @ fock @ inverse.T)
    worst = float(np.abs(levels - labels["mo_energies"]).max())
    if not worst <= LEVEL_TOLERANCE:
        raise InputError(
            f"sample {sample.name!r}: mo_energies in {config.orbital_basis!r} differ from the levels of fock by "
            f"{worst:.3g} hartree; check the units of both (hartree)."
        )
    nocc = int(molecule.nelec(basis)) // 2
    if not 0 < nocc < n or levels[nocc] - levels[nocc - 1] < LEVEL_TOLERANCE:
        return  # no density that F decides
    occupied = inverse.T @ vectors[:, :nocc]
    electronic = 2 * np.einsum("xpq,pi,qi->x", position[:, :n, :n], occupied, occupied, optimize=True)
    dipole = np.asarray(basis.nuclear_charges) @ np.asarray(molecule.positions) - electronic
    worst = float(np.abs(dipole - labels["dipole"]).max())
    if not worst <= DIPOLE_TOLERANCE:
        raise InputError(
            f"sample {sample.name!r}: dipole in {config.orbital_basis!r} differs from that of fock by {worst:.3g} "
            f"e·bohr; check its unit (e·bohr), the charge ({molecule.charge}), and of ions the origin (that of the "
            "coordinates)."
        )


def _targets(samples: Sequence[Sample], basis: str, small_basis: str, nao: int) -> Targets:
    levels, masks = np.zeros((len(samples), nao)), np.zeros((len(samples), nao), bool)
    electrons = np.zeros(len(samples), int)
    for i, sample in enumerate(samples):
        own = sample.labels[small_basis]["mo_energies"].size
        levels[i, :own], masks[i, :own], electrons[i] = _partners(sample, basis, small_basis)
    return Targets(
        mo_energies=levels,
        level_mask=masks,
        dipole=np.stack([s.labels[basis]["dipole"] for s in samples]),
        polarizability=np.stack([s.labels[basis]["polarizability"] for s in samples]),
        natm=np.array([s.molecule.natm for s in samples]),
        nelec=electrons,
    )


def _partners(sample: Sample, basis: str, small_basis: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Levels of `basis` for those of `small_basis` (nao,), 0 where there is none; which have one; electrons.

    Levels are paired by their places counted from the HOMO. Where the bases have different effective cores, a level
    that only one of them has may lie among the cores of other atoms, so levels of atomic cores have no partner then.

    Raises:
        InputError: with different cores, occupied partners are not the same level.
    """
    numbers = np.asarray(sample.molecule.numbers)
    small, large = (load_basis(name, numbers) for name in (small_basis, basis))
    nelec, own = int(small.nelec(sample.molecule.charge)), sample.labels[small_basis]["mo_energies"]
    labels, removed = sample.labels[basis]["mo_energies"], small.nelec() - large.nelec()
    partner = np.arange(len(own)) - removed // 2
    exists = (partner >= 0) & (partner < len(labels))
    cores = np.maximum(small.core_electrons, large.core_electrons)
    differ = np.any(small.core_electrons != large.core_electrons)
    if differ:
        noble = np.array([max(n for n in NOBLE_CORES if n < z) for z in numbers.tolist()])
        exists &= np.arange(len(own)) >= (np.maximum(noble, cores) - small.core_electrons).sum() // 2
    levels = np.where(exists, labels[np.clip(partner, 0, len(labels) - 1)], 0.0)
    far = exists & (np.abs(levels - own) > SAME_LEVEL_HARTREE) & (np.arange(len(own)) < nelec // 2)
    if differ and far.any():
        level = int(np.flatnonzero(far)[0])
        raise InputError(
            f"sample {sample.name!r}: level {level} is {own[level]:.3f} hartree in {small_basis!r} and "
            f"{levels[level]:.3f} in {basis!r}, which has another effective core, so they are not the same level; use "
            "bases with equal cores."
        )
    return levels, exists, nelec
