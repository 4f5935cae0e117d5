"""Uncertainties beyond the size of the training, by labels of larger molecules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset
from vpotjax.io.sample import SPLITS, Sample
from vpotjax.models.ensemble import Ensemble
from vpotjax.train.evaluate import evaluated
from vpotjax.train.pipeline import labelled_buckets, require_elements, require_levels, require_same_labels
from vpotjax.train.report import error_rows
from vpotjax.train.uncertainty import FEWEST, checked, with_calibration, with_growth


class Calibrated(NamedTuple):
    """A model with uncertainties of larger molecules.

    Attributes:
        model: as it was, but for calibration and domain.
        rows: errors of the larger molecules, with the uncertainties before and now, see `error_rows`.
        names: of their geometries.
    """

    model: Ensemble[Any]
    rows: list[dict[str, float | str]]
    names: tuple[str, ...]


def calibrate(
    model: Ensemble[Any],
    dataset: Dataset,
    trained_on: Mapping[str, Any],
    splits: Sequence[str] = SPLITS,
    any_method: bool = False,
) -> Calibrated:
    """Fit how much larger uncertainties are beyond the size of the training, by the errors of such molecules.

    Args:
        model, trained_on, any_method: as of `evaluate`.
        dataset: of which molecules count that are larger than the size of the training, see `Domain`.
        splits: of `dataset` that count.

    Raises:
        InputError: fewer than FEWEST molecules are larger, the model has no calibration or does not say of which size
            its training molecules were, a molecule has a charge or an element that these did not have, or lacks
            labels of what the model has uncertainties of; as of `evaluate`.
    """
    require_levels(model)
    _require_known_size(model)
    require_same_labels(dataset, trained_on, any_method)
    samples = [s for split in splits for s in dataset.split(split) if s.molecule.heavy_atoms > model.domain.size]
    _require_fit(samples, model, splits)
    bare = dataclasses.replace(model, calibration={})
    buckets, names = labelled_buckets(bare, samples, dataset)
    if lacking := sorted(model.calibration.keys() - set(names)):
        raise InputError(
            f"data has molecules without labels of {', '.join(lacking)}, of which the model has uncertainties; add "
            "them, or leave these molecules out."
        )
    evaluation = evaluated(bare, buckets, names)
    calibration = with_growth(model.calibration, evaluation, model.domain)
    both = [with_calibration(evaluation, own, model.domain) for own in (model.calibration, calibration)]
    rows = [row for own in both for row in error_rows({"larger": own})]
    model = dataclasses.replace(model, calibration=calibration, domain=checked(model.domain, evaluation))
    return Calibrated(model, rows, evaluation.names)


def _require_known_size(model: Ensemble[Any]) -> None:
    """Raise InputError unless the model has uncertainties, and says what size they are of."""
    if not model.calibration:
        raise InputError("the model has no uncertainties to grow; train one with validation molecules, on observables.")
    if not model.domain.size:
        raise InputError(
            "the model does not say how many heavy atoms its training molecules had (it is of an older version, or "
            "they had none); train it again."
        )


def _require_fit(samples: Sequence[Sample], model: Ensemble[Any], splits: Sequence[str]) -> None:
    """Raise InputError unless there are enough samples, of elements and charges that the model knows."""
    if (count := len({s.name for s in samples})) < FEWEST:
        raise InputError(
            f"data has {count} molecules of more than {model.domain.size} heavy atoms, the size of its training, "
            f"in the splits {', '.join(splits)}; give at least {FEWEST}."
        )
    for sample in samples:
        require_elements([sample], model.settings.species, sample.split)
        if model.domain.foreign(sample.molecule.charge):
            raise InputError(
                f"sample {sample.name!r} has the charge {sample.molecule.charge}, which no training molecule had; its "
                "error is not one of size, leave it out."
            )
