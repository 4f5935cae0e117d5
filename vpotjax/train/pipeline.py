"""The main job: labelled molecules in, run folder out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.config_file import toml_text
from vpotjax.io.dataset import Dataset
from vpotjax.io.method import fingerprints, method_differences
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import CHECKPOINT, FEATURES, STATES, TOML_FILE, started_run, write_config, write_metrics
from vpotjax.io.sample import SPLITS, Sample
from vpotjax.io.settings import json_ready, settings_json
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings
from vpotjax.train.config import CORRECTION, Training
from vpotjax.train.devices import leads, require_same, told
from vpotjax.train.evaluate import Evaluation, comparable, evaluated, small_basis_errors
from vpotjax.train.fit import aligned_matrices, fit, linear_fit, prepared, trains_together, whitened
from vpotjax.train.log import TrainingLog
from vpotjax.train.page import write_report
from vpotjax.train.report import VALIDATION_ERRORS, error_rows, idle_text, parity_plots, spread_text
from vpotjax.train.samples import Bucket, Labels, prepared_buckets

METHODS = "methods"  # among the attributes of the training data in a run


class Reporter(Protocol):
    """What the pipeline tells whoever watches."""

    def say(self, text: str) -> None:
        """A line of text."""

    def progress(self, row: dict[str, Any], members: int) -> None:
        """A row of metrics of one of `members` networks, with its number and step."""


class Outcome(NamedTuple):
    """Model, error rows on the test molecules, and the files written."""

    model: Ensemble
    rows: list[dict[str, float | str]]
    files: list[Path]


class Trained(NamedTuple):
    """Models, rows of metrics, evaluations of the test molecules by name of the model, of which the ensemble's is last,
    and that of the ensemble on the validation molecules.
    """

    model: Ensemble
    history: list[dict[str, Any]]
    evaluations: dict[str, Evaluation]
    validation: Evaluation


class Folders(NamedTuple):
    """Where a training may keep features, and its states, from which it goes on; None: in memory, not at all."""

    features: Path | None = None
    states: Path | None = None


IN_MEMORY = Folders()


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
    before = None if training.start is None else load_model(training.start)
    species = tuple(sorted({int(z) for s in parts["train"] for z in s.molecule.numbers if z}))
    species = species if before is None else before.settings.species
    for name, samples in parts.items():
        require_elements(samples, species, name)
    if before is None:
        settings = training.settings(species, basis_of_matrices(parts["train"][0]) or small)
    else:
        settings = training.settings_from(before.settings)
    training.loss(1.0)  # raises where there is nothing to minimise
    asked, training = training, dataclasses.replace(training, together=trains_together(training.together))
    described = json_ready({key: v for key, v in dataclasses.asdict(training).items() if key != "network"})
    content = {"training": described, "data": json_ready(dict(dataset.attributes)) | _methods(dataset)}
    content["samples"] = samples_digest(parts)
    with _leading_run(folder, settings, content) as run:
        with contextlib.ExitStack() as stack:
            prefix = f"vpotjax-{FEATURES}" if run is None else FEATURES
            features, states = Path(stack.enter_context(TemporaryDirectory(prefix=prefix, dir=run))), None
            own: Reporter = _Silent()
            if run is not None:
                (run / TOML_FILE).write_text(toml_text(asked), encoding="utf-8")
                own, states = _Logged(reporter, stack.enter_context(TrainingLog(run, training.wandb))), run / STATES
            folders = Folders(features, states)
            trained = trained_model(parts, training, settings, (small, large), own, folders, before)
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
def _leading_run(folder: str | Path, settings: MatrixSettings, content: Mapping[str, Any]) -> Iterator[Path | None]:
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


def trained_model(
    parts: Mapping[str, Sequence[Sample]],
    training: Training,
    settings: MatrixSettings,
    bases: tuple[str, str],
    reporter: Reporter,
    folders: Folders = IN_MEMORY,
    before: Ensemble | None = None,
) -> Trained:
    """From samples by split to a model and its errors on the split "test".

    Args:
        parts: samples of each of SPLITS.
        training: what and how.
        settings: of the model, with the elements of the training molecules.
        bases: small and large one of the labels.
        reporter: is told about the progress.
        folders: what may be kept, and where.
        before: that the training starts from, with these settings; default: the closed-form fit.
    """
    small, large = bases
    for name, samples in parts.items():
        reporter.say(f"{name:>10}: {len({s.name for s in samples}):3d} molecules, {len(samples):4d} geometries")
    order, kinds = " and ".join(training.power_kinds), ", ".join(training.inputs)
    reporter.say(f"Features: {kinds} in {training.basis}, {order} powers up to {training.power_order}")
    labels = labels_for(training, settings, small, large, parts["train"][0])
    buckets = split_buckets(parts, settings, labels, training.buckets, folders.features)
    train, validation = buckets["train"], buckets["validation"]
    whitening = whitened(train, settings) if before is None else before.model.whitening
    evaluations, names = {}, comparable(labels.names, settings.target)
    basis_set = small != large and all(b.small is not None for b in buckets["test"] if len(b))
    if basis_set and not training.on_matrices:
        evaluations[small] = small_basis_errors(buckets["test"], names)
    if labels.matrices and not training.on_matrices and before is None:
        reporter.say(f"Direct fit: ridge regression of the {labels.matrices} Fock matrix")
        direct = linear_fit(train, validation, settings, whitening, lambda b: b.reference.values[training.target])
        evaluations["direct fit"] = evaluated(Ensemble.of([direct]), buckets["test"], names)
    matrices = (lambda b: b.reference.values[training.target]) if training.on_matrices else aligned_matrices
    if before is None:
        start = _kept_start(folders.states, lambda: linear_fit(train, validation, settings, whitening, matrices))
        start = told(start)  # of several processes, which may differ by rounding
        residual, scale = float(start.scale), CORRECTION if training.scale is None else training.scale
        if training.scale is not None or not training.on_matrices:
            start = dataclasses.replace(start, scale=np.asarray(scale))
        evaluations["closed-form start"] = evaluated(Ensemble.of([start]), buckets["test"], names)
    else:
        start = dataclasses.replace(before.model, params=None)
        residual = float(start.scale)
        evaluations["before"] = evaluated(before, buckets["test"], names)
    if not training.on_matrices:  # those have done their part
        train, validation = ([b.with_labels(labels.names) for b in own] for own in (train, validation))
    train, validation = prepared(train, start, folders.features), prepared(validation, start, folders.features)
    reporter.say(f"Training {training.members} networks: {training.descent.text()}")
    loss = training.loss(residual)
    fitted = fit(
        start,
        settings,
        train,
        validation,
        loss,
        training.descent,
        members=training.members,
        together=training.together,
        report=lambda row: reporter.progress(row, training.members),
        states=folders.states,
        before=before,
        say=reporter.say,
    )
    for name, count in fitted.left_out.most_common(5):
        reporter.say(f"left out {count} times, its gradient was not finite: {name}")
    evaluations["trained"] = evaluated(fitted.model, buckets["test"], names)
    held_out = evaluated(fitted.model, buckets["validation"], names)
    if held_out.spreads:
        reporter.say(spread_text(held_out))
    if idle := idle_text(fitted.history):
        reporter.say(idle)
    return Trained(fitted.model, fitted.history, evaluations, held_out)


def _kept_start(states: Path | None, make: Callable[[], MatrixModel]) -> MatrixModel:
    """The closed-form start, which a training that goes on does not make again: it would differ by rounding."""
    if states is None:
        return make()
    folder = states / "start"
    if not (folder / CHECKPOINT).exists():
        start = make()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_config(folder, start.settings, {})
        save_model(folder, start)
    return load_model(folder).model


def basis_of_matrices(sample: Sample) -> str | None:
    """The largest basis in which a sample has F."""
    sizes = {basis: len(labels["fock"]) for basis, labels in sample.labels.items() if "fock" in labels}
    return max(sizes, key=lambda basis: sizes[basis], default=None)


def labels_for(training: Training, settings: MatrixSettings, small: str, large: str, first: Sample) -> Labels:
    """Labels that a training needs, and all to compare with that its `first` sample has in the basis of its targets."""
    orbital = settings.orbital_basis.casefold()
    matrices = next((b for b, own in first.labels.items() if b.casefold() == orbital and "fock" in own), None)
    if training.on_matrices and matrices is None:
        having = ", ".join(basis for basis, own in first.labels.items() if "fock" in own) or "none"
        raise InputError(
            f"orbital_basis is {settings.orbital_basis!r}, but the data set has matrices in {having}; learn those, or "
            "observables."
        )
    target, counted = (matrices, matrices) if training.on_matrices and matrices else (large, small)
    known = list(first.labels.get(target, ()))
    levels = ["mo_energies"] if "mo_energies" in known or not training.observables else []
    names = dict.fromkeys([*levels, *training.observables, *comparable(known)])
    made = training.loss(1.0).needs if training.on_matrices else frozenset()
    return Labels(target, counted, tuple(names), matrices, made)


def split_buckets(
    parts: Mapping[str, Sequence[Sample]],
    settings: MatrixSettings,
    labels: Labels,
    count: int,
    folder: Path | None = None,
) -> dict[str, list[Bucket]]:
    """Buckets of each split, all from the same shapes, hence the same programs; see `prepared_buckets`."""
    samples = [s for own in parts.values() for s in own]
    split = np.repeat(np.arange(len(parts)), [len(own) for own in parts.values()])
    every = prepared_buckets(samples, settings, labels, count, folder)
    return {name: [b[np.flatnonzero(split[group] == i)] for group, b in every] for i, name in enumerate(parts)}


def evaluate(
    model: Ensemble, dataset: Dataset, split: str, trained_on: Mapping[str, Any], any_method: bool = False
) -> list[dict[str, float | str]]:
    """Error rows of the small basis and of a trained model on one split.

    Args:
        model: that was trained on observables.
        dataset: with labels of the method and bases that the model was trained on.
        split: of `dataset`.
        trained_on: attributes of the data set that the model was trained on, see `vpotjax.io.run.training_data`.
        any_method: labels of another functional, or of a basis that is another one by the same name, will do.

    Raises:
        InputError: the labels are of another method or in other bases, the split is empty, or it has elements that the
            model was not trained on.
    """
    if model.settings.target != "fock":
        raise InputError(f"the model's target is {model.settings.target!r}, which has no orbital energies; train F.")
    require_same_labels(dataset, trained_on, any_method)
    small, large = (str(dataset.attribute(key)) for key in ("small_basis", "large_basis"))
    samples = samples_of(dataset, split)
    require_elements(samples, model.settings.species, split)
    names = comparable(list(samples[0].labels.get(large, {})))
    labels = Labels(large, small, names)
    buckets = [b for _, b in prepared_buckets(samples, model.settings, labels)]
    errors = {"model": evaluated(model, buckets, names)}
    if small != large and all(b.small is not None for b in buckets):
        errors = {small: small_basis_errors(buckets, names), **errors}
    return error_rows(errors)


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
