"""Losses on observables: pure, masked, error = prediction − target."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._pytree import pytree
from vpotjax._typing import Array


@pytree
class Targets:
    """Reference observables of one molecule (or, with a leading axis, of a batch).

    Attributes:
        mo_energies: (nao,), the lowest levels, hartree; 0 for padding.
        level_mask: (nao,) True where a level is real.
        dipole: (3,), e·bohr.
        polarizability: (3, 3), bohr³, uncoupled.
        natm: () number of atoms.
        nelec: () number of electrons, even.
    """

    mo_energies: Array
    level_mask: Array
    dipole: Array
    polarizability: Array
    natm: Array
    nelec: Array


@pytree
class LossWeights:
    """Factors of ‖Δ‖²/natm² of each observable: wanted weight over variance of the target.

    That of the HOMO–LUMO gap is relative to the variance of the orbital energies.
    """

    mo_energies: Array | float
    gap: Array | float
    dipole: Array | float
    polarizability: Array | float


def variance_weights(
    targets: Targets, mo_energies: float = 1e4, gap: float = 0.0, dipole: float = 1e3, polarizability: float = 1e2
) -> LossWeights:
    """Weights over the variances of the targets of a batch (Suman et al. 2025, JCTC 21, 6505).

    The variance is the mean over molecules of ‖x − ⟨x⟩‖²/natm²; the mean level is that of all levels. The recipe has no
    term for the gap; with one, HOMO and LUMO count more than other levels.
    """
    natm = np.asarray(targets.natm, float)
    levels, mask = np.asarray(targets.mo_energies), np.asarray(targets.level_mask)
    centred = np.where(mask, levels - levels[mask].mean(), 0.0)

    def variance(x: np.ndarray) -> float:
        return float(np.mean(np.sum(x.reshape(len(natm), -1) ** 2, axis=1) / natm**2))

    def spread(x: np.ndarray) -> float:
        return variance(x - x.mean(axis=0))

    return LossWeights(
        mo_energies / variance(centred),
        gap / variance(centred),
        dipole / spread(np.asarray(targets.dipole)),
        polarizability / spread(np.asarray(targets.polarizability)),
    )


def observable_loss(
    mo_energies: Array, dipole: Array, polarizability: Array, targets: Targets, weights: LossWeights
) -> jax.Array:
    """Σ_q w_q ‖Δ_q‖²/natm² over ε, gap, μ and α of one molecule, ().

    Args:
        mo_energies: (nao,), hartree.
        dipole: (3,), e·bohr.
        polarizability: (3, 3), bohr³.
        targets: of the same molecule.
        weights: see `variance_weights`.
    """
    levels = jnp.where(targets.level_mask, mo_energies - targets.mo_energies, 0.0)
    homo = targets.nelec // 2 - 1
    has_gap = (homo >= 0) & (homo + 1 < jnp.sum(targets.level_mask))
    gap = jnp.where(has_gap, levels[homo + 1] - levels[homo], 0.0)
    total = (
        weights.mo_energies * jnp.sum(levels**2)
        + weights.gap * gap**2
        + weights.dipole * jnp.sum((dipole - targets.dipole) ** 2)
        + weights.polarizability * jnp.sum((polarizability - targets.polarizability) ** 2)
    )
    return jnp.asarray(total / targets.natm**2)
