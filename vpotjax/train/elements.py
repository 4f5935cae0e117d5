"""A trained model that learns more elements: what it knows stays, the rest begins in closed form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.io.model import initial_shapes
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.linear_map import LinearMap
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings
from vpotjax.operators.pairs import kind_count, kind_elements
from vpotjax.operators.whitening import Whitening
from vpotjax.train.fit import linear_fit, whitened
from vpotjax.train.samples import Bucket


def with_species(settings: MatrixSettings, species: tuple[int, ...]) -> MatrixSettings:
    """Settings of a model that knows more elements.

    Raises:
        InputError: one of them has shells that the others lack, so that blocks of pairs would be larger ones.
    """
    changed = dataclasses.replace(
        settings, representation=dataclasses.replace(settings.representation, species=species)
    )
    for basis, old, new in (
        (settings.orbital_basis, settings.layout, changed.layout),
        (settings.representation.basis, settings.representation.layout, changed.representation.layout),
    ):
        if old != new:
            added = sorted(set(species) - set(settings.species))
            raise InputError(
                f"elements {added} have more shells in {basis!r} than those of the model of start, {settings.species}, "
                "so that its networks do not fit; train without start."
            )
    return changed


def with_elements(
    before: Ensemble[MatrixModel],
    settings: MatrixSettings,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    matrices: Callable[[Bucket], Array] | None,
) -> Ensemble[MatrixModel]:
    """The model with the elements of `settings`.

    Whitening and linear map of pairs of known elements stay; those of other pairs are fitted to the training molecules.
    Networks start with what they know of the elements that are nearest in the periodic table.

    Args:
        before: the model.
        settings: from `with_species`.
        train, validation: with geometry for content.
        matrices: F of a bucket to fit; None where labels do not say: other pairs begin with the baseline.
    """
    old, new = before.settings.species, settings.species
    nearest = np.array([min(range(len(old)), key=lambda i, z=z: (abs(old[i] - z), old[i])) for z in new])
    kinds, known = _kinds(old, new, nearest)

    def merged(fresh: Any, kept: Any) -> Any:
        return jax.tree.map(lambda x, y: _rows(np.asarray(x), np.asarray(y)[kinds], known), fresh, kept)

    model = before.model
    whitening: Whitening = merged(whitened(train, settings), model.whitening)
    if matrices is None:
        weights = {irrep: np.zeros((len(kinds), *np.shape(w)[1:])) for irrep, w in model.linear.weights.items()}
    else:
        weights = linear_fit(train, validation, settings, whitening, matrices).linear.weights
    linear = LinearMap({irrep: merged(weights[irrep], w) for irrep, w in model.linear.weights.items()})
    sizes = {len(old): nearest, kind_count(len(old)): kinds}
    params = jax.tree.map(lambda own, shape: _grown(own, shape.shape, sizes), model.params, initial_shapes(settings))
    grown = MatrixModel(settings, whitening, linear, model.scale, params)
    return Ensemble(before.members, grown, domain=before.domain)


def _kinds(old: Sequence[int], new: Sequence[int], nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each kind of pair the old kind of the nearest elements, and whether it is that kind itself."""
    before, after = kind_elements(len(old)), kind_elements(len(new))
    place = {(k < len(old), *sorted(pair)): k for k, pair in enumerate(before.tolist())}
    kinds = [place[k < len(new), *sorted(nearest[list(pair)].tolist())] for k, pair in enumerate(after.tolist())]
    return np.array(kinds), np.all(np.isin(new, old)[after], axis=1)


def _rows(fresh: np.ndarray, kept: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known.reshape(-1, *[1] * (fresh.ndim - 1)), kept, fresh)


def _grown(own: Array, shape: tuple[int, ...], sizes: dict[int, np.ndarray]) -> np.ndarray:
    """An array of parameters, (members, ...), with rows for more elements or kinds of pairs where it has such."""
    grown = np.asarray(own)
    for axis, wanted in enumerate(shape, start=1):
        if grown.shape[axis] == wanted:
            continue
        source = sizes.get(grown.shape[axis])
        if source is None or len(source) != wanted:
            raise InputError(f"parameters of shape {np.shape(own)[1:]} cannot become {shape}; train without start.")
        grown = np.take(grown, source, axis=axis)
    return grown
