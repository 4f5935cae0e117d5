"""Errors in the units that the literature quotes; error = prediction − target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.electronic.observables import Observable, Reference, known_observable
from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.units import HARTREE_TO_EV


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one observable over a set of molecules, in its unit of the table.

    Attributes:
        mean_absolute: mean |Δ| over all elements that are compared.
        mean_norm: mean of ‖Δ‖/natm.
        rms_norm: root mean square of ‖Δ‖/natm, the measure of Suman et al. 2025, JCTC 21, 6505.
    """

    mean_absolute: float
    mean_norm: float
    rms_norm: float

    def customary(self, observable: Observable) -> float:
        """Mean |Δ| of levels, mean ‖Δ‖/natm of other observables."""
        return self.mean_absolute if observable.mean_absolute else self.mean_norm


def error_summary(errors: Sequence[MoleculeErrors]) -> ErrorSummary:
    """Over batches of molecules; nan where nothing is compared."""
    absolute, count, norms = (
        np.concatenate([np.ravel(getattr(e, key)) for e in errors]) for key in MoleculeErrors._fields
    )
    return ErrorSummary(
        float(absolute.sum() / count.sum()) if count.sum() else float("nan"),
        float(norms.mean()),
        float(np.sqrt(np.mean(norms**2))),
    )


def bootstrap_interval(
    errors: MoleculeErrors, mean_absolute: bool, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the customary error, by drawing as many molecules with replacement (percentiles).

    Args:
        errors: of all molecules.
        mean_absolute: see `Observable`.
        draws: how often.
        seed: of the draws.
    """
    absolute, compared, norms = (np.ravel(np.asarray(x)) for x in errors)
    rows = np.random.default_rng(seed).integers(0, len(norms), (draws, len(norms)))
    if mean_absolute:
        counts = compared[rows].sum(axis=1)
        means = np.where(counts > 0, absolute[rows].sum(axis=1) / np.maximum(counts, 1), np.nan)
    else:
        means = norms[rows].mean(axis=1)
    low, high = np.nanpercentile(means, (2.5, 97.5)) if np.isfinite(means).any() else (np.nan, np.nan)
    return float(low), float(high)


class MoleculeErrors(NamedTuple):
    """Of each molecule: Σ|Δ|, how many elements are compared, ‖Δ‖/natm."""

    absolute: Array
    compared: Array
    norm: Array


def molecule_errors(name: str, predicted: Array, reference: Reference) -> MoleculeErrors:
    """Errors of one observable of one molecule, in its unit of the table.

    Args:
        name: of `vpotjax.electronic.observables.OBSERVABLES`.
        predicted: in atomic units.
        reference: of the same molecule.

    Raises:
        InputError: the labels lack it.
    """
    observable = known_observable(name)
    wanted = label_of(observable, reference)
    error = observable.factor * observable.difference(predicted, wanted, reference)
    compared = observable.difference(jnp.inf, wanted, reference) == jnp.inf
    norm = jnp.sqrt(jnp.sum(error**2)) / reference.natm
    return MoleculeErrors(jnp.sum(jnp.abs(error)), jnp.sum(compared), norm)


def label_of(observable: Observable, reference: Reference) -> Array:
    """The label that an observable is compared with.

    Raises:
        InputError: the labels lack it.
    """
    if observable.label not in reference.values:
        known = ", ".join(reference.values)
        raise InputError(f"labels lack {observable.label!r} (they have: {known}); leave {observable.symbol} out.")
    return reference.values[observable.label]


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
