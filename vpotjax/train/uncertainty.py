"""Uncertainties of an ensemble from its errors on molecules that it was not trained on, and how often they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize

from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.models.calibration import Calibration
from vpotjax.models.domain import Domain
from vpotjax.models.ensemble import Ensemble
from vpotjax.train.evaluate import Evaluation, evaluated
from vpotjax.train.samples import Bucket

MOST = 10.0  # of a scale
LEAST = 1e-8  # of a squared floor that is told from none, over the mean square of the errors
FEWEST = 5  # molecules, larger than those of the training, that show how they differ
STEEPEST = 4.0  # growth
NEGLIGIBLE = 1e-2  # of the upper quartile of the errors: what labels and single precision leave of a zero by symmetry
SLIGHT = 1.01  # a factor of the largest molecule that is told from none


def fitted_calibration(evaluation: Evaluation, domain: Domain) -> dict[str, Calibration]:
    """Of all that is compared, finite, and no zero by symmetry: scale and floor by molecules of the training's size,
    jump and growth by larger ones.

    Where there are fewer than FEWEST of either, all give scale and floor, and uncertainties do not grow.

    Args:
        evaluation: of an ensemble without a calibration, on molecules that it was not trained on.
        domain: of the training molecules.
    """
    calibration = {}
    for name in evaluation.norms:
        known, larger = _known(evaluation, name), _larger(evaluation, domain)
        mixed = _shows_growth(evaluation, name, domain) and np.sum(known & ~larger) >= FEWEST
        chosen = known & ~larger if mixed else known
        if chosen.any():
            scale, floor = fitted_scale_and_floor(*errors_and_uncertainties(evaluation, name, chosen))
            own = Calibration(np.asarray(scale), np.asarray(floor / OBSERVABLES[name].factor))
            calibration |= with_growth({name: own}, evaluation, domain) if mixed else {name: own}
    return calibration


def with_growth(
    calibration: Mapping[str, Calibration], evaluation: Evaluation, domain: Domain
) -> dict[str, Calibration]:
    """A calibration with another jump and growth of each observable of which FEWEST larger molecules have something to
    compare.

    Args:
        calibration: by observable.
        evaluation: as of `fitted_calibration`.
        domain: of the training molecules.
    """
    flat = {name: Calibration(own.scale, own.floor) for name, own in calibration.items()}
    widths, result = with_calibration(evaluation, flat, domain), dict(calibration)
    ratio, larger = domain.ratio(evaluation.heavy_atoms), _larger(evaluation, domain)
    for name in calibration.keys() & evaluation.errors.keys():
        if _shows_growth(evaluation, name, domain):
            chosen = larger & _known(evaluation, name)
            errors, uncertainties = errors_and_uncertainties(widths, name, chosen)
            least = LEAST * max(float(np.max(errors)), LEAST)
            growth, jump = fitted_growth_and_jump(errors / np.maximum(uncertainties, least), np.asarray(ratio)[chosen])
            result[name] = flat[name]._replace(growth=np.asarray(growth), jump=np.asarray(jump))
    return result


def checked(domain: Domain, evaluation: Evaluation) -> Domain:
    """With the size of the largest molecule that shows what uncertainties are: of those of the evaluation, where these
    show a growth or are all larger than those of the training.
    """
    larger = _larger(evaluation, domain)
    shown = larger.all() or any(_shows_growth(evaluation, name, domain) for name in evaluation.norms)
    most = int(np.max(evaluation.heavy_atoms, initial=0)) if shown else 0
    return domain._replace(checked=max(domain.size, most))


def _larger(evaluation: Evaluation, domain: Domain) -> np.ndarray:
    """Molecules larger than the training's; none where that has no size."""
    return np.asarray(evaluation.heavy_atoms) > (domain.size or np.inf)


def _known(evaluation: Evaluation, name: str) -> np.ndarray:
    """Molecules with something to compare whose error and spread are finite, and not both next to nothing: of a dipole
    that symmetry forbids they are, and without end would a likelihood gain from a floor of zero.
    """
    errors, spreads = evaluation.norms[name], evaluation.uncertainties.get(name, np.zeros(len(evaluation.natm)))
    known = _compared(evaluation, name) & np.isfinite(errors) & np.isfinite(spreads)
    least = NEGLIGIBLE * np.quantile(errors[known], 0.75) if known.any() else 0.0
    return known & (np.maximum(errors, spreads) >= least)


def _shows_growth(evaluation: Evaluation, name: str, domain: Domain) -> bool:
    """Whether enough molecules are larger; geometries of one count once."""
    rows = np.flatnonzero(_larger(evaluation, domain) & _known(evaluation, name))
    return len({evaluation.names[i] for i in rows}) >= FEWEST


def calibrated(ensemble: Ensemble[Any], buckets: Sequence[Bucket], names: Sequence[str]) -> Ensemble[Any]:
    """An ensemble with a calibration by its errors; one that it had is replaced.

    Args:
        ensemble: of networks, or of one. With a `domain`, as `Domain.of(molecules, held_out=others)` makes it of
            the training molecules and those of `buckets`, uncertainties grow beyond its size if `buckets` have larger
            ones, and predictions warn.
        buckets: of labelled molecules that it was not trained on, with geometry for content. Where they chose its
            weights among evaluations, as validation molecules do, uncertainties are a little too small.
        names: of the table.
    """
    bare = dataclasses.replace(ensemble, calibration={})
    evaluation = evaluated(bare, buckets, names)
    calibration = fitted_calibration(evaluation, bare.domain)
    return dataclasses.replace(bare, calibration=calibration, domain=checked(bare.domain, evaluation))


def with_calibration(evaluation: Evaluation, calibration: Mapping[str, Calibration], domain: Domain) -> Evaluation:
    """What the evaluation of the calibrated ensemble would be, without another program."""
    uncertainties, ratio = dict(evaluation.uncertainties), np.asarray(domain.ratio(evaluation.heavy_atoms))
    for name, own in calibration.items():
        if name not in evaluation.errors:
            continue
        floor = own.floor * OBSERVABLES[name].factor / _per_element(evaluation, name)
        spreads = evaluation.uncertainties.get(name, np.zeros(len(evaluation.natm)))
        uncertainties[name] = np.asarray(own.beyond(ratio)) * np.hypot(own.scale * spreads, floor)
    return evaluation._replace(uncertainties=uncertainties)


def errors_and_uncertainties(
    evaluation: Evaluation, name: str, chosen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of each molecule (of those `chosen`) with something to compare, in the unit of the table: ‖Δ‖/natm, or the root
    mean square over the elements where the observable does not grow with the molecule.
    """
    errors = evaluation.norms[name]
    uncertainties = evaluation.uncertainties.get(name, np.zeros_like(errors))
    factor, known = _per_element(evaluation, name), _compared(evaluation, name)
    known = known if chosen is None else known & chosen
    return (factor * errors)[known], (factor * uncertainties)[known]


def _compared(evaluation: Evaluation, name: str) -> np.ndarray:
    return np.asarray(evaluation.errors[name].compared) > 0


def _per_element(evaluation: Evaluation, name: str) -> np.ndarray:
    """From ‖Δ‖/natm of each molecule to the root mean square over elements; 1 of what grows with the molecule."""
    if OBSERVABLES[name].extensive:
        return np.ones(len(evaluation.natm))
    return evaluation.natm / np.sqrt(np.maximum(np.asarray(evaluation.errors[name].compared), 1))


def fitted_scale_and_floor(errors: np.ndarray, spreads: np.ndarray) -> tuple[float, float]:
    """Those of u² = (scale · s)² + floor² under which errors as normal deviates of width u are most likely.

    The scale is at least 1: networks that disagree are never less uncertain than they say, however few molecules
    there are to fit to. It is at most MOST: a spread of rounding, as of networks that stayed where they started, says
    nothing.

    Args:
        errors: of molecules, (n,).
        spreads: s, (n,).
    """
    size = float(np.mean(errors**2)) if len(errors) else 0.0
    if not size:
        return 1.0, 0.0
    squares, variances = errors**2 / size, spreads**2 / size

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        total = parameters[0] * variances + parameters[1]
        slope = (1 - squares / total) / total
        return float(np.mean(squares / total + np.log(total))), np.array([np.mean(slope * variances), np.mean(slope)])

    wide = min(MOST**2, max(1.0, 1 / max(float(np.mean(variances)), 1e-12)))
    fits = [
        minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1.0, MOST**2), (LEAST, None)])
        for start in ([1.0, 1.0], [wide, 0.1])
    ]
    scale, floor = min(fits, key=lambda fit: fit.fun).x
    return float(np.sqrt(scale)), float(np.sqrt(floor * size)) if floor > 2 * LEAST else 0.0


def fitted_growth_and_jump(deviates: np.ndarray, ratios: np.ndarray) -> tuple[float, float]:
    """Those under which errors as normal deviates of width u jump ratio^growth are most likely: a growth from 0 to
    STEEPEST, a jump of at least 1. Where all are of one size it is a jump; a factor below SLIGHT is none.

    Args:
        deviates: errors over u, (n,).
        ratios: sizes over that of the training, above 1, (n,).
    """
    logarithms = np.log(ratios)

    def jump(growth: float) -> float:
        return max(1.0, float(np.sqrt(np.mean((deviates * np.exp(-growth * logarithms)) ** 2))))

    def slope(growth: float) -> float:
        """Of a convex function, with the jump that goes with the growth."""
        rest = deviates * np.exp(-growth * logarithms) / jump(growth)
        return float(np.mean(logarithms * (1 - rest**2)))

    if slope(0.0) >= -LEAST:
        growth = 0.0
    elif slope(STEEPEST) <= 0:
        growth = STEEPEST
    else:
        found: Any = brentq(slope, 0.0, STEEPEST)
        growth = float(found)
    slight = jump(growth) * np.max(ratios) ** growth < SLIGHT
    return (0.0, 1.0) if slight else (growth, jump(growth))


def coverage(evaluation: Evaluation, name: str) -> tuple[float, float]:
    """Shares of the molecules whose error is below the uncertainty, and below twice that (none that is not finite is);
    see `errors_and_uncertainties`. Zeros by symmetry count.
    """
    errors, uncertainties = errors_and_uncertainties(evaluation, name)
    below = [float(np.mean(errors <= times * uncertainties)) for times in (1, 2)] if len(errors) else [np.nan] * 2
    return below[0], below[1]
