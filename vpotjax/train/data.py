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
    shells = load_basis(config.orbital_basis, sample.molecule.numbers).shell_angular_momenta()
    try:
        order = matching_ao_order(labels["overlap"], overlap[:size, :size], shells)
    except InputError as error:
        raise InputError(f"sample {sample.name!r}: {error}") from None
    return reorder_ao(labels["fock"], shells, order, "pyscf")


def _targets(samples: Sequence[Sample], basis: str, small_basis: str, nao: int) -> Targets:
    counts = [s.labels[small_basis]["mo_energies"].size for s in samples]
    levels = [s.labels[basis]["mo_energies"][:n] for s, n in zip(samples, counts, strict=True)]
    return Targets(
        mo_energies=pad_arrays(levels, (nao,)),
        level_mask=np.arange(nao)[None, :] < np.array(counts)[:, None],
        dipole=np.stack([s.labels[basis]["dipole"] for s in samples]),
        polarizability=np.stack([s.labels[basis]["polarizability"] for s in samples]),
        natm=np.array([s.molecule.natm for s in samples]),
        nelec=np.array([s.molecule.nelec for s in samples]),
    )
