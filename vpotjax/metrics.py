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


@dataclass(frozen=True)
class LevelErrors:
    """Of the orbital energies of one molecule.

    Attributes:
        occupied, virtual: mean absolute errors, eV; nan where there is no such level.
        gap: signed error of the HOMO–LUMO gap, eV.
        intruders: predicted levels inside the reference's HOMO–LUMO gap, by more than the tolerance.
    """

    occupied: float
    virtual: float
    gap: float
    intruders: int


def level_errors(
    mo_energies: np.ndarray,
    reference: np.ndarray,
    nelec: int,
    level_mask: np.ndarray | None = None,
    tolerance_ev: float = 0.5,
) -> LevelErrors:
    """Errors of the levels, occupied and virtual apart.

    Args:
        mo_energies, reference: (nmo,), ascending, hartree.
        nelec: number of electrons, even.
        level_mask: (nmo,) True where both have a level; default: all.
        tolerance_ev: a level counts as an intruder beyond this distance from HOMO and LUMO.
    """
    mask = np.ones(len(reference), bool) if level_mask is None else np.asarray(level_mask)
    energies, expected = np.asarray(mo_energies)[mask], np.asarray(reference)[mask]
    nocc = int(nelec) // 2
    error = np.abs(energies - expected) * HARTREE_TO_EV

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else float("nan")

    if not 0 < nocc < len(expected):
        return LevelErrors(mean(error[:nocc]), mean(error[nocc:]), float("nan"), 0)
    margin = tolerance_ev / HARTREE_TO_EV
    inside = (energies > expected[nocc - 1] + margin) & (energies < expected[nocc] - margin)
    gap = (energies[nocc] - energies[nocc - 1]) - (expected[nocc] - expected[nocc - 1])
    return LevelErrors(mean(error[:nocc]), mean(error[nocc:]), float(gap) * HARTREE_TO_EV, int(inside.sum()))


def subspace_overlap(density: np.ndarray, reference: np.ndarray, overlap: np.ndarray) -> float:
    """tr(P S P_ref S) / tr(P_ref S P_ref S): the share of the reference's occupied space that is covered, 0 to 1.

    A comparison of projectors: unlike the cosine orbital by orbital it does not change when degenerate orbitals rotate
    or change order.

    Args:
        density, reference: P of closed shells, (nao, nao), zero on padding.
        overlap: S, (nao, nao).
    """
    projector, expected = np.asarray(density) @ overlap, np.asarray(reference) @ overlap
    return float(np.sum(projector * expected.T) / np.sum(expected * expected.T))


def matrix_error(matrix: np.ndarray, reference: np.ndarray, ao_mask: np.ndarray | None = None) -> float:
    """Mean absolute error of the elements in 1e-6 of their unit, as µhartree in the literature on Fock matrices.

    Args:
        matrix, reference: (nao, nao).
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    real = np.ones(len(matrix), bool) if ao_mask is None else np.asarray(ao_mask)
    return 1e6 * float(np.abs(np.asarray(matrix) - reference)[np.ix_(real, real)].mean())


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
