"""The training of a model of a property, from samples by split to a model and its errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.sample import Sample
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.property_model import PropertyModel, PropertySettings, composition, to_irreps
from vpotjax.operators.blocks import Irrep
from vpotjax.train.arrays import in_chunks, over_molecules
from vpotjax.train.config import Training
from vpotjax.train.devices import told
from vpotjax.train.evaluate import evaluated, small_basis_errors
from vpotjax.train.fit import prepared, whitened
from vpotjax.train.property_fit import Residual, linear_property, property_folds, residual_bucket, summed_features
from vpotjax.train.ridge import FOLDS
from vpotjax.train.samples import Bucket, Labels
from vpotjax.train.stages import IN_MEMORY, Folders, Reporter, Trained, concluded, split_buckets, trained_networks

Residuals = list[dict[Irrep, np.ndarray]]
"""What a linear map leaves of each bucket, by irrep (molecules, 2λ+1)."""


def trained_property(
    parts: Mapping[str, Sequence[Sample]],
    training: Training,
    settings: PropertySettings,
    bases: tuple[str, str],
    reporter: Reporter,
    folders: Folders = IN_MEMORY,
    before: Ensemble[PropertyModel] | None = None,
) -> Trained:
    """From samples by split to a model of a property and its errors on the split "test".

    The linear map is a ridge regression; networks learn what it leaves of molecules that it does not see, by
    cross-validation, and are judged by what it leaves of the validation molecules.

    Args:
        parts: samples of each of SPLITS.
        training: what and how.
        settings: of the model, with the elements of the training molecules.
        bases: small and large one of the labels.
        reporter: is told about the progress.
        folders: what may be kept, and where.
        before: that the training starts from, with these settings; default: the closed-form fit.
    """
    for name, samples in parts.items():
        reporter.say(f"{name:>10}: {len({s.name for s in samples}):3d} molecules, {len(samples):4d} geometries")
    target, names = settings.target, (settings.target,)
    buckets = split_buckets(parts, settings, Labels(bases[1], bases[0], names), training.buckets, folders.features)
    train, validation = ([b for b in buckets[part] if len(b)] for part in ("train", "validation"))
    evaluations = {}
    if target != "energy" and bases[0] != bases[1] and all(b.small is not None for b in buckets["test"] if len(b)):
        evaluations[bases[0]] = small_basis_errors(buckets["test"], names)
    if before is None:
        start, left = told(_linear(train, settings))  # of several processes, which may differ by rounding
        evaluations["closed-form start"] = evaluated(Ensemble.of([start]), buckets["test"], names)
    else:
        start = dataclasses.replace(before.member(0), params=None)
        left = _left(train, start)
        evaluations["before"] = evaluated(before, buckets["test"], names)
    reporter.say(f"Linear map: root mean square of what it leaves of molecules unseen {float(start.scale):.3g} (a.u.)")
    train = [residual_bucket(b, own) for b, own in zip(prepared(train, start, folders.features), left, strict=True)]
    held = zip(prepared(validation, start, folders.features), _left(validation, start), strict=True)
    validation, loss = [residual_bucket(b, own) for b, own in held], Residual(target, float(start.scale))
    fitted = trained_networks(start, settings, train, validation, loss, training, reporter, folders, before)
    return concluded(fitted, buckets, names, evaluations, (parts, before), reporter)


def _linear(train: Sequence[Bucket], settings: PropertySettings) -> tuple[PropertyModel, Residuals]:
    """The closed form with the whitening of the training molecules, and what it leaves in the cross-validation.

    Geometries of one molecule stay together in it, unless there is no other molecule.
    """
    sums = [in_chunks(functools.partial(_sums, settings), b.content.features) for b in train]
    features = {irrep: np.concatenate([own[irrep] for own in sums]) for irrep, _ in settings.outputs}
    atoms = np.concatenate([np.asarray(composition(b.content.numbers, settings.species), float) for b in train])
    labels = np.concatenate([np.asarray(b.reference.values[settings.target]) for b in train])
    molecules, groups = np.unique(np.concatenate([np.array(b.names) for b in train]), return_inverse=True)
    if 1 < len(molecules) < FOLDS:
        raise InputError(
            f"training geometries are of {len(molecules)} different molecules ({', '.join(molecules)}); give those of "
            f"one alone, or of at least {FOLDS} different ones."
        )
    folds = property_folds(len(labels), labels, groups if len(molecules) > 1 else None)
    model, residuals = linear_property(features, atoms, to_irreps(labels, settings.target), settings, folds)
    model = dataclasses.replace(model, whitening=whitened(train, settings))
    ends = np.cumsum([len(b) for b in train])
    return model, [{i: y[end - len(b) : end] for i, y in residuals.items()} for b, end in zip(train, ends, strict=True)]


def _left(buckets: Sequence[Bucket], model: PropertyModel) -> Residuals:
    """Labels minus the linear map."""
    left = []
    for bucket in buckets:
        linear = in_chunks(functools.partial(_linear_parts, model), bucket.content)
        wanted = to_irreps(np.asarray(bucket.reference.values[model.settings.target]), model.settings.target)
        left.append({irrep: y - linear[irrep] for irrep, y in wanted.items()})
    return left


@functools.partial(jax.jit, static_argnums=0)
def _sums(settings: PropertySettings, features: Any) -> Any:
    return over_molecules(functools.partial(summed_features, settings), features)


@jax.jit
def _linear_parts(model: PropertyModel, geometry: Any) -> Any:
    return over_molecules(lambda one: model.linear_part(one.features, one.numbers), geometry)
