"""Errors in the units that the literature quotes; error = prediction − target."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.losses import Targets
from vpotjax.units import HARTREE_TO_EV


@dataclass(frozen=True)
class ObservableErrors:
    """Over a set of molecules.

    Attributes:
        mo_energies: mean absolute error over all levels, eV.
        occupied: the same over occupied levels, eV.
        gap: mean absolute error of the HOMO–LUMO gap, eV, over molecules that have both levels; nan if none has.
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
    predicted, real = (
        np.asarray(jax.vmap(homo_lumo_gap)(jnp.asarray(e), jnp.asarray(nelec), jnp.asarray(mask)))
        for e in (mo_energies, targets.mo_energies)
    )
    gap = np.abs(predicted - real)[~np.isnan(real)]  # not of molecules without a LUMO
    return ObservableErrors(
        mo_energies=float(error[mask].mean()),
        occupied=float(error[occupied].mean()),
        gap=float(gap.mean()) * HARTREE_TO_EV if len(gap) else float("nan"),
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
        level_mask: (nmo,) True where both have a level; default: all that are finite in both.
        tolerance_ev: a level counts as an intruder beyond this distance from HOMO and LUMO.
    """
    energies, expected = np.asarray(mo_energies), np.asarray(reference)
    mask = np.isfinite(expected) & np.isfinite(energies)
    mask = mask if level_mask is None else mask & np.asarray(level_mask)
    occupied = np.arange(len(expected)) < int(nelec) // 2
    gap, real = (float(homo_lumo_gap(e, int(nelec), jnp.asarray(mask))) for e in (energies, expected))

    def mean(chosen: np.ndarray) -> float:
        error = np.abs(energies[chosen] - expected[chosen]) * HARTREE_TO_EV
        return float(error.mean()) if len(error) else float("nan")

    intruders = 0
    if not np.isnan(real):
        homo, lumo, margin = expected[mask & occupied][-1], expected[mask & ~occupied][0], tolerance_ev / HARTREE_TO_EV
        intruders = int(np.sum(mask & (energies > homo + margin) & (energies < lumo - margin)))
    return LevelErrors(mean(mask & occupied), mean(mask & ~occupied), (gap - real) * HARTREE_TO_EV, intruders)


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


def _norm_per_atom(error: np.ndarray, targets: Targets) -> float:
    norms = np.sqrt(np.sum(error.reshape(len(error), -1) ** 2, axis=1))
    return float(np.mean(norms / np.asarray(targets.natm)))
