"""Errors in the units that the literature quotes; error = prediction − target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vpotjax.losses import Targets
from vpotjax.units import HARTREE_TO_EV


@dataclass(frozen=True)
class ObservableErrors:
    """Over a set of molecules.

    Attributes:
        mo_energies: mean absolute error over all levels, eV.
        occupied: the same over occupied levels, eV.
        gap: mean absolute error of the HOMO–LUMO gap, eV, over molecules that have both levels.
        dipole: mean ‖Δμ‖/natm, e·bohr.
        polarizability: mean ‖Δα‖/natm, bohr³, uncoupled.
    """

    mo_energies: float
    occupied: float
    gap: float
    dipole: float
    polarizability: float


def observable_errors(
    mo_energies: np.ndarray, dipole: np.ndarray, polarizability: np.ndarray, targets: Targets
) -> ObservableErrors:
    """Errors of predicted observables of a batch.

    Args:
        mo_energies: (nbatch, nao), hartree.
        dipole: (nbatch, 3), e·bohr.
        polarizability: (nbatch, 3, 3), bohr³.
        targets: of the same molecules.
    """
    nelec = np.asarray(targets.nelec)
    mask = np.asarray(targets.level_mask)
    error = np.abs(np.where(mask, np.asarray(mo_energies) - targets.mo_energies, 0.0)) * HARTREE_TO_EV
    occupied = mask & (np.arange(mask.shape[1]) < nelec[:, None] // 2)
    predicted, real = gaps(np.asarray(mo_energies), mask, nelec), gaps(np.asarray(targets.mo_energies), mask, nelec)
    return ObservableErrors(
        mo_energies=float(error[mask].mean()),
        occupied=float(error[occupied].mean()),
        gap=float(np.nanmean(np.abs(predicted - real))) * HARTREE_TO_EV,
        dipole=_norm_per_atom(np.asarray(dipole) - targets.dipole, targets),
        polarizability=_norm_per_atom(np.asarray(polarizability) - targets.polarizability, targets),
    )


def gaps(mo_energies: np.ndarray, level_mask: np.ndarray, nelec: np.ndarray) -> np.ndarray:
    """HOMO–LUMO gaps (nbatch,) in hartree; nan for a molecule without a LUMO."""
    lumo = np.asarray(nelec)[:, None] // 2
    exists = lumo[:, 0] < level_mask.sum(axis=1)
    padded = np.pad(mo_energies, ((0, 0), (0, 1)))
    difference = np.take_along_axis(padded, lumo, axis=1) - np.take_along_axis(padded, lumo - 1, axis=1)
    return np.where(exists, difference[:, 0], np.nan)


def _norm_per_atom(error: np.ndarray, targets: Targets) -> float:
    norms = np.sqrt(np.sum(error.reshape(len(error), -1) ** 2, axis=1))
    return float(np.mean(norms / np.asarray(targets.natm)))
