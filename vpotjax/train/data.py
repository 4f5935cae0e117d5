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
    for basis in (config.orbital_basis, large_basis):
        lacking = next((s.name for s in samples if basis not in s.labels), None)
        if lacking is not None:
            raise InputError(f"sample {lacking!r} has no labels in basis {basis!r}; choose a basis of the data set.")
    batch = config.batch([s.molecule for s in samples], shape)
    prepared = jax.jit(map_batch, static_argnums=(0, 2))(prepare, batch, config)
    nao = prepared.overlap.shape[-1]
    focks = [_checked_fock(s, np.asarray(o), config) for s, o in zip(samples, prepared.overlap, strict=True)]
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


def _targets(samples: Sequence[Sample], basis: str, small_basis: str, nao: int) -> Targets:
    levels, masks = np.zeros((len(samples), nao)), np.zeros((len(samples), nao), bool)
    electrons = np.zeros(len(samples), int)
    for i, sample in enumerate(samples):
        small, large = (_electrons(sample, name) for name in (small_basis, basis))
        own, labels = sample.labels[small_basis]["mo_energies"].size, sample.labels[basis]["mo_energies"]
        partner = np.arange(own) + (large - small) // 2  # the same level counted from the HOMO
        masks[i, :own] = (partner >= 0) & (partner < len(labels))
        levels[i, :own][masks[i, :own]] = labels[partner[masks[i, :own]]]
        electrons[i] = small
    return Targets(
        mo_energies=levels,
        level_mask=masks,
        dipole=np.stack([s.labels[basis]["dipole"] for s in samples]),
        polarizability=np.stack([s.labels[basis]["polarizability"] for s in samples]),
        natm=np.array([s.molecule.natm for s in samples]),
        nelec=electrons,
    )


def _electrons(sample: Sample, basis: str) -> int:
    return int(sample.molecule.nelec(load_basis(basis, sample.molecule.numbers)))
