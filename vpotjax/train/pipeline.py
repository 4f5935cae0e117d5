"""The main job: labelled molecules in, run folder out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.dataset import SPLITS, Dataset, Sample
from vpotjax.io.run import new_run_folder, save_model, write_config, write_metrics
from vpotjax.model import Model, ModelConfig, Observables
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
    """
    small, large = (str(dataset.attributes[key]) for key in ("small_basis", "large_basis"))
    parts = {name: dataset.split(name) for name in SPLITS}
    empty = [name for name, samples in parts.items() if not samples]
    if empty:
        raise InputError(f"data set has no molecules in the split {empty[0]!r}; make it with more molecules.")
    species = tuple(sorted({int(z) for s in dataset.samples for z in s.molecule.numbers}))
    config = ModelConfig(species=species, orbital_basis=small, **options)
    folder = new_run_folder(folder)
    write_config(folder, config, {"training": dataclasses.asdict(settings), "data": _json_ready(dataset.attributes)})
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
    rows = error_rows(errors, baseline=small)
    return Outcome(model, rows, _write(folder, model, history, rows, test, predicted))


def evaluate(model: Model, dataset: Dataset, split: str) -> list[dict[str, float | str]]:
    """Error rows of the small basis and of a trained model on one split."""
    small, large = (str(dataset.attributes[key]) for key in ("small_basis", "large_basis"))
    if small != model.config.orbital_basis:
        raise InputError(
            f"data set has matrices in {small!r}, the model in {model.config.orbital_basis!r}; use others."
        )
    arrays = training_arrays(dataset.split(split), model.config, large)
    arrays = normalised_arrays(arrays, model.statistics, model.config.precision)
    errors = {small: errors_of(arrays.small, arrays), "model": errors_of(predicted_observables(model, arrays), arrays)}
    return error_rows(errors, baseline=small)


def _split_arrays(parts: dict[str, list[Sample]], config: ModelConfig, large: str) -> dict[str, TrainingArrays]:
    """All splits from one program, on one padded batch."""
    joint = training_arrays([s for samples in parts.values() for s in samples], config, large)
    bounds = np.cumsum([0] + [len(samples) for samples in parts.values()])
    return {name: joint[bounds[i] : bounds[i + 1]] for i, name in enumerate(parts)}


def _write(
    folder: Path,
    model: Model,
    history: list[dict[str, Any]],
    rows: list[dict[str, float | str]],
    test: TrainingArrays,
    predicted: Observables,
) -> list[Path]:
    write_metrics(folder, "training.csv", history)
    write_metrics(folder, "test_errors.csv", rows)
    save_model(folder, jax.tree.map(np.asarray, model))
    parity_plots(folder, test, predicted)
    return sorted(folder.iterdir())


def _json_ready(attributes: Any) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in attributes.items()}
