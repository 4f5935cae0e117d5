"""What trainings of both families share: what they are told and return, buckets by split, and how they end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vpotjax.io.sample import Sample
from vpotjax.losses import Loss
from vpotjax.models.domain import Domain
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.matrix_model import MatrixSettings
from vpotjax.models.property_model import PropertySettings
from vpotjax.train.config import Training
from vpotjax.train.evaluate import Evaluation, evaluated
from vpotjax.train.fit import Fitted, fit
from vpotjax.train.report import calibration_text, growth_text, idle_text
from vpotjax.train.samples import Bucket, Labels, prepared_buckets
from vpotjax.train.uncertainty import checked, fitted_calibration, with_calibration


class Reporter(Protocol):
    """What the pipeline tells whoever watches."""

    def say(self, text: str) -> None:
        """A line of text."""

    def progress(self, row: dict[str, Any], members: int) -> None:
        """A row of metrics of one of `members` networks, with its number and step."""


class Trained(NamedTuple):
    """Models, rows of metrics, evaluations of the test molecules by name of the model, of which the ensemble's is last,
    and that of the ensemble on the validation molecules.
    """

    model: Ensemble[Any]
    history: list[dict[str, Any]]
    evaluations: dict[str, Evaluation]
    validation: Evaluation


class Folders(NamedTuple):
    """Where a training may keep features, and its states, from which it goes on; None: in memory, not at all."""

    features: Path | None = None
    states: Path | None = None


IN_MEMORY = Folders()


def split_buckets(
    parts: Mapping[str, Sequence[Sample]],
    settings: MatrixSettings | PropertySettings,
    labels: Labels,
    count: int,
    folder: Path | None = None,
) -> dict[str, list[Bucket]]:
    """Buckets of each split, all from the same shapes, hence the same programs; see `prepared_buckets`."""
    samples = [s for own in parts.values() for s in own]
    split = np.repeat(np.arange(len(parts)), [len(own) for own in parts.values()])
    every = prepared_buckets(samples, settings, labels, count, folder)
    return {name: [b[np.flatnonzero(split[group] == i)] for group, b in every] for i, name in enumerate(parts)}


def trained_networks(
    start: Any,
    settings: MatrixSettings | PropertySettings,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    training: Training,
    reporter: Reporter,
    folders: Folders,
    before: Ensemble[Any] | None,
) -> Fitted:
    """`fit` as the configuration says; see there."""
    reporter.say(f"Training {training.members} networks: {training.descent.text()}")
    return fit(
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


def concluded(
    fitted: Fitted,
    buckets: Mapping[str, Sequence[Bucket]],
    names: Sequence[str],
    evaluations: Mapping[str, Evaluation],
    training: tuple[Mapping[str, Sequence[Sample]], Ensemble[Any] | None],
    reporter: Reporter,
) -> Trained:
    """The end of a training: the model on test and validation molecules, and what is to be said of it.

    Args:
        fitted: from `fit`.
        buckets: by split, with geometry for content.
        names: of the observables that are compared.
        evaluations: of the test molecules, of other models.
        training: its samples by split, and the model that it started from, if from one.
        reporter: is told.
    """
    for name, count in fitted.left_out.most_common(5):
        reporter.say(f"left out {count} times, its gradient was not finite: {name}")
    tested, held_out = (evaluated(fitted.model, buckets[part], names) for part in ("test", "validation"))
    parts, before = training
    molecules = {part: [s.molecule for s in samples] for part, samples in parts.items()}
    domain = Domain.of(molecules["train"], None if before is None else before.domain, molecules["validation"])
    calibration = fitted_calibration(held_out, domain)
    model = dataclasses.replace(fitted.model, calibration=calibration, domain=checked(domain, held_out))
    if text := calibration_text(calibration, len(held_out.names), fitted.model.members > 1):
        reporter.say(text)
    if text := growth_text(calibration, model.domain):
        reporter.say(text)
    if idle := idle_text(fitted.history):
        reporter.say(idle)
    tested, held_out = (with_calibration(own, calibration, domain) for own in (tested, held_out))
    return Trained(model, fitted.history, {**evaluations, "trained": tested}, held_out)
