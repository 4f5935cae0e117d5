"""The main job: labelled molecules in, run folder out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.dataset import SPLITS, Dataset, Sample
from vpotjax.io.run import json_ready, save_model, started_run, write_metrics
from vpotjax.model import Model, ModelConfig, Observables, require_target
from vpotjax.train.data import TrainingArrays, training_arrays
from vpotjax.train.fit import (
    TrainConfig,
    direct_fit,
    errors_of,
    normalised_arrays,
    predicted_observables,
    train_on_observables,
)
from vpotjax.train.report import error_rows, parity_plots


class Reporter(Protocol):
    """What the pipeline tells whoever watches."""

    def say(self, text: str) -> None:
        """A line of text."""

    def progress(self, row: dict[str, Any]) -> None:
        """A row of metrics of the training, with its step."""


class Outcome(NamedTuple):
    """Model, error rows on the test molecules, and the files written."""

    model: Model
    rows: list[dict[str, float | str]]
    files: list[Path]


def train_run(
    dataset: Dataset, folder: str | Path, settings: TrainConfig, options: dict[str, Any], reporter: Reporter
) -> Outcome:
    """Fit, train, evaluate on the test molecules, and write everything into a new folder.

    Args:
        dataset: with labels in the small (matrices) and the large basis that its attributes name.
        folder: new or empty.
        settings: of the training.
        options: fields of `ModelConfig` other than species and orbital basis.
        reporter: is told about the progress.

    Raises:
        InputError: a split is empty or has elements that the training molecules lack, the data set does not say how it
            was made, the folder is not empty, or the training diverges. No folder is left then.
    """
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    parts = {name: _samples_of(dataset, name) for name in SPLITS}
    species = tuple(sorted({int(z) for s in parts["train"] for z in s.molecule.numbers if z}))
    for name, samples in parts.items():
        _require_elements(samples, species, name)
    config = ModelConfig(species=species, orbital_basis=small, **options)
    content = {"training": dataclasses.asdict(settings), "data": json_ready(dataset.attributes)}
    with started_run(folder, config, content) as run:
        try:
            trained = _train(parts, config, large, settings, reporter)
        except FloatingPointError as error:
            raise InputError(str(error)) from None
        save_model(run, trained.model, content["data"])
    return Outcome(trained.model, trained.rows, _write(run, trained))


class _Trained(NamedTuple):
    model: Model
    history: list[dict[str, Any]]
    rows: list[dict[str, float | str]]
    test: TrainingArrays
    predicted: Observables


def _train(
    parts: dict[str, list[Sample]], config: ModelConfig, large: str, settings: TrainConfig, reporter: Reporter
) -> _Trained:
    small = config.orbital_basis
    for name, samples in parts.items():
        reporter.say(f"{name:>10}: {len({s.name for s in samples}):3d} molecules, {len(samples):4d} geometries")
    reporter.say(
        f"Integrals and features: powers 1…{config.power_order} of V in {config.potential_basis}, "
        f"products {' and '.join(config.power_kinds)}"
    )
    arrays = _split_arrays(parts, config, large)
    reporter.say(f"Direct fit: ridge regression of the {small} Fock matrix")
    fit = direct_fit(arrays["train"], arrays["validation"], config, settings)
    test = normalised_arrays(arrays["test"], fit.model.statistics, config.precision)
    count = len(config.networks())
    reporter.say(f"Training {count} networks on ε, μ and α of {large}: {settings.steps} steps of {settings.batch_size}")
    model, history = train_on_observables(fit, settings, reporter.progress)
    predicted = predicted_observables(model, test)
    errors = {
        small: errors_of(test.small, test),
        "direct fit": errors_of(predicted_observables(fit.model, test), test),
        "trained on observables": errors_of(predicted, test),
    }
    return _Trained(model, history, error_rows(errors, baseline=small), test, predicted)


def evaluate(model: Model, dataset: Dataset, split: str, trained_on: Mapping[str, Any]) -> list[dict[str, float | str]]:
    """Error rows of the small basis and of a trained model on one split.

    Args:
        model: that predicts F.
        dataset: with labels of the method and bases that the model was trained on.
        split: of `dataset`.
        trained_on: attributes of the data set that the model was trained on, see `vpotjax.io.run.training_data`.

    Raises:
        InputError: the labels are of another method or in other bases, the split is empty, or it has elements that the
            model was not trained on.
    """
    require_target(model.config, "fock")
    _require_same_labels(dataset, trained_on, model.config.orbital_basis)
    small, large = model.config.orbital_basis, str(dataset.attribute("large_basis"))
    samples = _samples_of(dataset, split)
    _require_elements(samples, model.config.species, split)
    arrays = training_arrays(samples, model.config, large)
    arrays = normalised_arrays(arrays, model.statistics, model.config.precision)
    errors = {small: errors_of(arrays.small, arrays), "model": errors_of(predicted_observables(model, arrays), arrays)}
    return error_rows(errors, baseline=small)


def _split_arrays(parts: dict[str, list[Sample]], config: ModelConfig, large: str) -> dict[str, TrainingArrays]:
    """All splits from one program, on one padded batch."""
    joint = training_arrays([s for samples in parts.values() for s in samples], config, large)
    bounds = np.cumsum([0] + [len(samples) for samples in parts.values()])
    return {name: joint[bounds[i] : bounds[i + 1]] for i, name in enumerate(parts)}


def _samples_of(dataset: Dataset, split: str) -> list[Sample]:
    samples = dataset.split(split)
    if not samples:
        counts = ", ".join(f"{name} {len(dataset.split(name))}" for name in SPLITS)
        raise InputError(f"data set has no molecules in the split {split!r} (it has: {counts}); give one with more.")
    return samples


def _require_elements(samples: Sequence[Sample], species: Sequence[int], split: str) -> None:
    """Raise InputError unless the samples of a split have elements of training molecules only."""
    for sample in samples:
        foreign = sorted({int(z) for z in sample.molecule.numbers} - {0, *species})
        if foreign:
            raise InputError(
                f"sample {sample.name!r} of the split {split!r} has the elements {foreign}, the training molecules "
                f"have {list(species)}; train with molecules of all elements."
            )


def _require_same_labels(dataset: Dataset, trained_on: Mapping[str, Any], orbital_basis: str) -> None:
    """Raise InputError unless labels are of the method and the bases that the model was trained on."""
    own = {key: str(dataset.attribute(key)) for key in ("xc", "large_basis", "small_basis")}
    lacking = [key for key in own if key not in trained_on]
    if lacking:
        raise InputError(f"trained_on lacks {lacking[0]!r}; give the attributes of the data of the model's training.")
    wanted = {key: str(trained_on[key]) for key in own} | {"small_basis": orbital_basis}
    differing = [key for key in own if own[key].casefold() != wanted[key].casefold()]
    if differing:
        raise InputError(
            f"data set has labels of {_method(own)}, the model was trained on {_method(wanted)}: "
            f"{', '.join(differing)} differs; evaluate on labels of one method, or train a model on these."
        )


def _method(attributes: Mapping[str, str]) -> str:
    return "{xc}/{large_basis} with matrices in {small_basis}".format(**attributes)


def _write(folder: Path, trained: _Trained) -> list[Path]:
    write_metrics(folder, "training.csv", trained.history)
    write_metrics(folder, "test_errors.csv", trained.rows)
    parity_plots(folder, trained.test, trained.predicted)
    return sorted(folder.iterdir())
