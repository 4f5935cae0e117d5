"""The training of a model of F or P, on observables or on matrices."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import CHECKPOINT, write_config
from vpotjax.io.sample import Sample
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings
from vpotjax.train.config import CORRECTION, Training
from vpotjax.train.devices import told
from vpotjax.train.elements import with_elements
from vpotjax.train.evaluate import comparable, evaluated, small_basis_errors
from vpotjax.train.fit import aligned_matrices, linear_fit, prepared, whitened
from vpotjax.train.samples import Labels
from vpotjax.train.stages import IN_MEMORY, Folders, Reporter, Trained, concluded, split_buckets, trained_networks


def trained_matrix(
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
    matrices = (lambda b: b.reference.values[training.target]) if training.on_matrices else aligned_matrices
    if before is not None and before.settings != settings:
        told_levels = labels.matrices is not None or "mo_energies" in labels.names
        before = told(with_elements(before, settings, train, validation, matrices if told_levels else None))
    whitening = whitened(train, settings) if before is None else before.model.whitening
    evaluations, names = {}, comparable(labels.names, settings.target)
    basis_set = small != large and all(b.small is not None for b in buckets["test"] if len(b))
    if basis_set and not training.on_matrices:
        evaluations[small] = small_basis_errors(buckets["test"], names)
    if labels.matrices and not training.on_matrices and before is None:
        reporter.say(f"Direct fit: ridge regression of the {labels.matrices} Fock matrix")
        direct = linear_fit(train, validation, settings, whitening, lambda b: b.reference.values[training.target])
        evaluations["direct fit"] = evaluated(Ensemble.of([direct]), buckets["test"], names)
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
    fitted = trained_networks(
        start, settings, train, validation, training.loss(residual), training, reporter, folders, before
    )
    return concluded(fitted, buckets, names, evaluations, (parts, before), reporter)


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
