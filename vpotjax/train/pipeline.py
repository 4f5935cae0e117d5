"""The main job: labelled molecules in, run folder out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.config_file import toml_text
from vpotjax.io.dataset import Dataset
from vpotjax.io.method import fingerprints, method_differences
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import FEATURES, STATES, TOML_FILE, started_run, write_metrics
from vpotjax.io.sample import SPLITS, Sample
from vpotjax.io.settings import Settings, json_ready, settings_json
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.matrix_model import MatrixSettings
from vpotjax.models.property_model import PROPERTIES, PropertySettings
from vpotjax.train.config import Training
from vpotjax.train.devices import leads, require_same, told
from vpotjax.train.elements import with_species
from vpotjax.train.evaluate import comparable, evaluated, small_basis_errors
from vpotjax.train.fit import trains_together
from vpotjax.train.log import TrainingLog
from vpotjax.train.matrix_training import basis_of_matrices, trained_matrix
from vpotjax.train.page import write_report
from vpotjax.train.property_training import trained_property
from vpotjax.train.report import VALIDATION_ERRORS, error_rows, parity_plots
from vpotjax.train.samples import Bucket, Labels, prepared_buckets
from vpotjax.train.stages import Folders, Reporter

METHODS = "methods"  # among the attributes of the training data in a run


class Outcome(NamedTuple):
    """Model, error rows on the test molecules, and the files written."""

    model: Ensemble[Any]
    rows: list[dict[str, float | str]]
    files: list[Path]


def train_run(dataset: Dataset, folder: str | Path, training: Training, reporter: Reporter) -> Outcome:
    """Fit, train, evaluate on the test molecules, and write everything into a new folder.

    Args:
        dataset: with labels in the small and the large basis that its attributes name.
        folder: new or empty.
        training: what and how.
        reporter: is told about the progress.

    Raises:
        InputError: a split is empty or has elements that the training molecules lack, the data set does not say how it
            was made, the folder is not empty, or too many gradients are not finite. No folder is left then.
    """
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    parts = {name: samples_of(dataset, name) for name in SPLITS}
    before: Ensemble[Any] | None = None if training.start is None else load_model(training.start)
    species = tuple(sorted({int(z) for s in parts["train"] for z in s.molecule.numbers if z}))
    if before is not None:
        more = isinstance(before.settings, MatrixSettings)  # of a property the closed form knows its elements only
        species = tuple(sorted({*before.settings.species, *(species if more else ())}))
    for name, samples in parts.items():
        require_elements(samples, species, name)
    settings: MatrixSettings | PropertySettings
    if before is not None:
        settings = training.settings_from(before.settings)
        if species != settings.species and isinstance(settings, MatrixSettings):
            settings = with_species(settings, species)
    elif training.target in PROPERTIES:
        settings = training.property_settings(species)
    else:
        settings = training.settings(species, basis_of_matrices(parts["train"][0]) or small)
    if isinstance(settings, MatrixSettings):
        training.loss(1.0)  # raises where there is nothing to minimise
    asked, training = training, dataclasses.replace(training, together=trains_together(training.together))
    described = json_ready({key: v for key, v in dataclasses.asdict(training).items() if key != "network"})
    content = {"training": described, "data": json_ready(dict(dataset.attributes)) | _methods(dataset)}
    content["samples"] = samples_digest(parts)
    with _leading_run(folder, settings, content) as run:
        with contextlib.ExitStack() as stack:
            prefix = f"vpotjax-{FEATURES}" if run is None else FEATURES
            kept = TemporaryDirectory(prefix=prefix, dir=run, ignore_cleanup_errors=True)  # maps of files may be open
            features, states = Path(stack.enter_context(kept)), None
            own: Reporter = _Silent()
            if run is not None:
                (run / TOML_FILE).write_text(toml_text(asked), encoding="utf-8")
                own, states = _Logged(reporter, stack.enter_context(TrainingLog(run, training.wandb))), run / STATES
            folders = Folders(features, states)
            how = (small, large), own, folders, before
            if isinstance(settings, MatrixSettings):
                trained = trained_matrix(parts, training, settings, *how)
            else:
                trained = trained_property(parts, training, settings, *how)
        rows = error_rows(trained.evaluations)
        if run is None:
            return Outcome(trained.model, rows, [])
        write_metrics(run, "test_errors.csv", rows)
        write_metrics(run, VALIDATION_ERRORS, error_rows({"trained": trained.validation}))
        plots, text = parity_plots(run, trained.evaluations), toml_text(training, comments=False)
        write_report(run, trained.history, rows, trained.evaluations["trained"], parts["test"], plots, text)
        save_model(run, trained.model, content["data"])  # last: with it the training is finished
    return Outcome(trained.model, rows, sorted(run.iterdir()))


@contextlib.contextmanager
def _leading_run(folder: str | Path, settings: Settings, content: Mapping[str, Any]) -> Iterator[Path | None]:
    """The run folder in the process that writes, None in others, which share its errors."""
    require_same("data and settings", json.dumps([content, settings_json(settings)], sort_keys=True))
    with contextlib.ExitStack() as stack:
        run, error = None, None
        if leads():
            try:
                run = stack.enter_context(started_run(folder, settings, content))
            except (InputError, OSError) as own:
                error = str(own)
        error = told(error)
        if error is not None:
            raise InputError(error)
        yield run
    told(None)  # until the first process has written all


class _Silent:
    """Of processes that do not write."""

    def say(self, text: str) -> None:
        """See `Reporter`."""

    def progress(self, row: dict[str, Any], members: int) -> None:
        """See `Reporter`."""


class _Logged:
    """A reporter whose rows are written down too."""

    def __init__(self, reporter: Reporter, log: TrainingLog) -> None:
        self.say, self.reporter, self.log, self.lock = reporter.say, reporter, log, Lock()

    def progress(self, row: dict[str, Any], members: int) -> None:
        """See `Reporter`."""
        with self.lock:  # networks train in threads
            self.log.write(row)
            self.reporter.progress(row, members)


def samples_digest(parts: Mapping[str, Sequence[Sample]]) -> str:
    """Of names, geometries and labels in each part: a training does not go on with others."""
    digest = hashlib.sha256()
    for part, samples in parts.items():
        for sample in samples:
            molecule = sample.molecule
            digest.update(json.dumps([part, sample.name, molecule.charge, molecule.spin]).encode())
            digest.update(np.asarray(molecule.numbers, int).tobytes() + np.asarray(molecule.positions, float).tobytes())
            for basis, labels in sorted(sample.labels.items()):
                for key, value in sorted(labels.items()):
                    digest.update(f"{basis} {key}".encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _methods(dataset: Dataset) -> dict[str, Any]:
    return {METHODS: fingerprints(dataset.methods)} if dataset.methods else {}


def evaluate(
    model: Ensemble[Any], dataset: Dataset, split: str, trained_on: Mapping[str, Any], any_method: bool = False
) -> list[dict[str, float | str]]:
    """Error rows of the small basis and of a trained model on one split.

    Args:
        model: that was trained on observables, or of a property.
        dataset: with labels of the method and bases that the model was trained on.
        split: of `dataset`.
        trained_on: attributes of the data set that the model was trained on, see `vpotjax.io.run.training_data`.
        any_method: labels of another functional, or of a basis that is another one by the same name, will do.

    Raises:
        InputError: the labels are of another method or in other bases, the split is empty, or it has elements that the
            model was not trained on.
    """
    require_levels(model)
    require_same_labels(dataset, trained_on, any_method)
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    samples = samples_of(dataset, split)
    require_elements(samples, model.settings.species, split)
    buckets, names = labelled_buckets(model, samples, dataset)
    errors = {"model": evaluated(model, buckets, names)}
    if small != large and names != ("energy",) and all(b.small is not None for b in buckets):
        errors = {small: small_basis_errors(buckets, names), **errors}
    return error_rows(errors)


def labelled_buckets(
    model: Ensemble[Any], samples: Sequence[Sample], dataset: Dataset
) -> tuple[list[Bucket], tuple[str, ...]]:
    """Buckets of samples, and what of the table can be compared of all of them."""
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    having = [
        name for name in samples[0].labels.get(large, {}) if all(name in s.labels.get(large, {}) for s in samples)
    ]
    names = comparable(having, model.settings.target)
    return [b for _, b in prepared_buckets(samples, model.settings, Labels(large, small, names))], names


def require_levels(model: Ensemble[Any]) -> None:
    """Raise InputError where a model has a density, and no F."""
    if model.settings.target == "density":
        raise InputError(f"the model's target is {model.settings.target!r}, which has no orbital energies; train F.")


def samples_of(dataset: Dataset, split: str) -> list[Sample]:
    """The samples of a split; InputError where there are none."""
    samples = dataset.split(split)
    if not samples:
        counts = ", ".join(f"{name} {len(dataset.split(name))}" for name in SPLITS)
        raise InputError(f"data set has no molecules in the split {split!r} (it has: {counts}); give one with more.")
    return samples


def require_elements(samples: Sequence[Sample], species: Sequence[int], split: str) -> None:
    """Raise InputError unless the samples of a split have elements of training molecules only."""
    for sample in samples:
        foreign = sorted({int(z) for z in sample.molecule.numbers} - {0, *species})
        if foreign:
            raise InputError(
                f"sample {sample.name!r} of the split {split!r} has the elements {foreign}, the training molecules "
                f"have {list(species)}; train with molecules of all elements."
            )


def require_same_labels(dataset: Dataset, trained_on: Mapping[str, Any], any_method: bool = False) -> None:
    """Raise InputError unless labels are of the method and the bases that the model was trained on."""
    own = {key: str(dataset.attribute(key)) for key in ("xc", "large_basis", "small_basis")}
    lacking = [key for key in own if key not in trained_on]
    if lacking:
        raise InputError(f"trained_on lacks {lacking[0]!r}; give the attributes of the data of the model's training.")
    wanted = {key: str(trained_on[key]) for key in own}
    compared = [key for key in own if key != "xc" or not any_method]
    differing = [key for key in compared if own[key].casefold() != wanted[key].casefold()]
    if differing:
        raise InputError(
            f"data set has labels of {_method(own)}, the model was trained on {_method(wanted)}: "
            f"{', '.join(differing)} differs; evaluate on labels of one method, or train a model on these."
        )
    others = trained_on.get(METHODS, {})
    for basis in dict.fromkeys((own["small_basis"], own["large_basis"])):
        differences = method_differences(dataset.methods.get(basis, {}), others.get(basis, {}))
        if differences and not any_method:
            raise InputError(
                f"labels {basis!r} of the data set and of the model's training are of different methods: "
                f"{'; '.join(differences)}; evaluate on labels of one method, or with any_method."
            )


def _method(attributes: Mapping[str, str]) -> str:
    return "{xc}/{large_basis} with matrices in {small_basis}".format(**attributes)
