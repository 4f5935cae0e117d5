"""Uncertainties of an ensemble from its errors on molecules that it was not trained on, and how often they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.models.calibration import Calibration
from vpotjax.models.ensemble import Ensemble
from vpotjax.train.evaluate import Evaluation, evaluated
from vpotjax.train.samples import Bucket

MOST = 10.0  # of a scale
LEAST = 1e-8  # of a squared floor that is told from none, over the mean square of the errors


def fitted_calibration(evaluation: Evaluation) -> dict[str, Calibration]:
    """Of all that is compared and finite.

    Args:
        evaluation: of an ensemble without a calibration, on molecules that it was not trained on.
    """
    calibration = {}
    for name in evaluation.norms:
        errors, spreads = errors_and_uncertainties(evaluation, name)
        known = np.isfinite(errors) & np.isfinite(spreads)
        if known.any():
            scale, floor = fitted_scale_and_floor(errors[known], spreads[known])
            calibration[name] = Calibration(np.asarray(scale), np.asarray(floor / OBSERVABLES[name].factor))
    return calibration


def calibrated(ensemble: Ensemble[Any], buckets: Sequence[Bucket], names: Sequence[str]) -> Ensemble[Any]:
    """An ensemble with a calibration by its errors; one that it had is replaced.

    Args:
        ensemble: of networks, or of one.
        buckets: of labelled molecules that it was not trained on, with geometry for content. Where they chose its
            weights among evaluations, as validation molecules do, uncertainties are a little too small.
        names: of the table.
    """
    bare = dataclasses.replace(ensemble, calibration={})
    return dataclasses.replace(bare, calibration=fitted_calibration(evaluated(bare, buckets, names)))


def with_calibration(evaluation: Evaluation, calibration: Mapping[str, Calibration]) -> Evaluation:
    """What the evaluation of the calibrated ensemble would be, without another program."""
    uncertainties = dict(evaluation.uncertainties)
    for name, own in calibration.items():
        floor = own.floor * OBSERVABLES[name].factor / _per_element(evaluation, name)
        spreads = evaluation.uncertainties.get(name, np.zeros(len(evaluation.natm)))
        uncertainties[name] = np.hypot(own.scale * spreads, floor)
    return evaluation._replace(uncertainties=uncertainties)


def errors_and_uncertainties(evaluation: Evaluation, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each molecule with something to compare, in the unit of the table: ‖Δ‖/natm, or the root mean square over the
    elements where the observable does not grow with the molecule.
    """
    errors = evaluation.norms[name]
    uncertainties = evaluation.uncertainties.get(name, np.zeros_like(errors))
    factor, known = _per_element(evaluation, name), np.asarray(evaluation.errors[name].compared) > 0
    return (factor * errors)[known], (factor * uncertainties)[known]


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


def coverage(evaluation: Evaluation, name: str) -> tuple[float, float]:
    """Shares of the molecules whose error is below the uncertainty, and below twice that (none that is not finite is);
    see `errors_and_uncertainties`.
    """
    errors, uncertainties = errors_and_uncertainties(evaluation, name)
    below = [float(np.mean(errors <= times * uncertainties)) for times in (1, 2)] if len(errors) else [np.nan] * 2
    return below[0], below[1]
