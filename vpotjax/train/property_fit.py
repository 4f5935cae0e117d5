"""Fit of a property: ridge regression, its regulariser by cross-validation, and where wanted a network's correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.batching import Batch, buckets
from vpotjax.electronic.observables import Reference
from vpotjax.losses import Loss
from vpotjax.models.linear_map import LinearMap, weight_masks
from vpotjax.models.property_model import PropertyModel, PropertySettings, composition, to_irreps
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR, PairFeatures, rounding
from vpotjax.operators.pairs import kind_count
from vpotjax.operators.representation import Representation
from vpotjax.train.descent import Descent
from vpotjax.train.fit import fit, prepared, whitened
from vpotjax.train.ridge import FOLDS, RidgeFit, fold_numbers, ridge
from vpotjax.train.samples import Bucket

BUCKETS = 3  # sizes of molecules for which programs are made
Report = Callable[[dict[str, Any]], None]


def property_features(molecules: Sequence[Molecule], settings: PropertySettings) -> dict[Irrep, np.ndarray]:
    """`summed_features` with a leading axis of molecules. Pair features of one at a time are in memory.

    Raises:
        InputError: as of `PropertySettings.require`.
    """
    result: dict[Irrep, np.ndarray] = {}
    for rows, values in _over_buckets(molecules, settings, lambda m: summed_features(settings, settings.features(m))):
        for irrep, x in values.items():
            result.setdefault(irrep, np.zeros((len(molecules), *x.shape[1:]), x.dtype))[rows] = x
    return result


def summed_features(settings: PropertySettings, features: PairFeatures) -> dict[Irrep, jax.Array]:
    """Features of one molecule, summed over the pairs of each kind, by irrep of the target (kinds, channels, 2λ+1).

    Zero where no weight may be: odd channels of kinds of one element, and the constant, for which the composition
    stands.
    """
    species = len(settings.species)
    member = jax.nn.one_hot(features.kinds, kind_count(species), dtype=features.values[SCALAR].dtype)
    every = settings.representation.channels(irrep for irrep, _ in settings.outputs)
    masks = {i: weight_masks(species, every[i][0], sum(every[i]), (1, 0)) for i, _ in settings.outputs}
    if SCALAR in masks:
        masks[SCALAR][:, every[SCALAR][0] - 1] = False

    return {i: jnp.einsum("pk,pcm->kcm", member, features.values[i]) * mask for i, mask in masks.items()}


def _over_buckets(
    molecules: Sequence[Molecule], settings: PropertySettings, function: Callable[[Batch], Any]
) -> Iterator[tuple[np.ndarray, Any]]:
    """Places of molecules of similar size, and `function` of each of them as NumPy arrays."""
    compute = jax.jit(lambda batch: jax.lax.map(function, batch))
    for rows, shape in buckets(molecules, settings.bases, BUCKETS):
        batch = settings.batch([molecules[i] for i in rows], shape)
        yield rows, jax.tree.map(np.asarray, compute(jax.tree.map(jnp.asarray, batch)))


def fit_property(
    molecules: Sequence[Molecule],
    labels: np.ndarray,
    settings: PropertySettings,
    *,
    features: dict[Irrep, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
    descent: Descent | None = None,
    report: Report = lambda row: None,
) -> PropertyModel:
    """Ridge regression of a property, and a network's correction of what it leaves where `settings` have a network.

    Scalars first lose the part that is linear in the composition, as do their features: the only constants that
    symmetry allows. See `fit_sums`.

    The correction is trained on the residuals of the cross-validation, for those of the fit itself are smaller than
    the ones of new molecules. One fold is held out, and the weights where its error is least are kept; where none are
    better than no correction, the model stays linear. (Residuals of that fold and of the others know of each other
    through the ridge fits, which makes the choice more cautious than one on new molecules.)

    Args:
        molecules: of the training set.
        labels: energies (n,), dipoles (n, 3) or polarizabilities (n, 3, 3), see `PROPERTIES`.
        settings: of the model.
        features: from `property_features` of the same molecules, to save time; default: made here.
        groups: (n,) molecules with the same number stay in one fold of the cross-validation; default: all apart.
        descent: how the correction is trained; default: `Descent()`.
        report: is told a row of metrics after every evaluation of it; losses are relative to the mean square of all
            residuals, and the validation loss is that of the fold that is held out.

    Returns:
        A model whose `scale` is the root mean square of those residuals, the error to expect of a linear model.

    Raises:
        InputError: labels of the wrong shape or number, groups of another number or too few, `descent` for a linear
            model, or more gradients that are not finite than it tolerates.
    """
    targets = to_irreps(labels, settings.target)
    folds = property_folds(len(molecules), labels, groups)
    without = settings.network.module(settings.outputs, len(settings.species)) is None
    if descent is not None and without:
        raise InputError("descent is given, but settings.network is linear and has nothing to train; leave it out.")
    features = property_features(molecules, settings) if features is None else features
    atoms = np.stack([np.asarray(composition(m.numbers, settings.species), float) for m in molecules])
    model, residuals = linear_property(features, atoms, targets, settings, folds)
    if without or not model.scale:
        return model
    return _with_correction(model, molecules, residuals, folds == 0, descent or Descent(), report)


def linear_property(
    features: Mapping[Irrep, np.ndarray],
    atoms: np.ndarray,
    targets: Mapping[Irrep, np.ndarray],
    settings: PropertySettings,
    folds: np.ndarray,
) -> tuple[PropertyModel, dict[Irrep, np.ndarray]]:
    """The closed form of `fit_property`.

    Args:
        features: see `property_features`.
        atoms: of each element, (molecules, species).
        targets: by irrep (molecules, 2λ+1).
        settings: of the model.
        folds: (molecules,) of the cross-validation.

    Returns:
        A model without whitening and network, and the residuals of the cross-validation, by irrep.
    """
    constants, species, fits = {SCALAR: atoms}, settings.species, {}
    for irrep, y in targets.items():
        matrices = channel_matrices(settings.representation, irrep)
        fits[irrep] = fit_sums(features[irrep], y, matrices, folds, constants.get(irrep))
    per_atom = fits[SCALAR].constants[:, 0] if SCALAR in fits else np.zeros(len(species))
    residuals = {irrep: fit.residuals for irrep, fit in fits.items()}
    size = np.sqrt(np.mean([np.mean(y**2) for y in residuals.values()]))
    weights = LinearMap({irrep: fit.weights[..., None] for irrep, fit in fits.items()})
    return PropertyModel(settings, None, weights, per_atom, np.asarray(size), None), residuals


def property_folds(count: int, labels: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Folds of the cross-validation over `count` molecules, see `fit_property`; InputError where there are too few."""
    if len(labels) != count or count < FOLDS:
        raise InputError(f"there are {len(labels)} labels for {count} molecules; give one each, at least {FOLDS}.")
    groups = np.arange(count) if groups is None else np.asarray(groups)
    if groups.shape != (count,) or len(np.unique(groups)) < FOLDS:
        raise InputError(
            f"groups have shape {groups.shape} and {len(np.unique(groups))} different numbers; give one for each of "
            f"the {count} molecules, and at least {FOLDS} different ones."
        )
    return fold_numbers(groups)


def channel_matrices(representation: Representation, irrep: Irrep) -> np.ndarray:
    """(channels,) number of the matrix that each channel of an irrep comes from; the constant has one of its own."""
    count, constant = representation.matrix_count, irrep == SCALAR
    even, odd = representation.channels([irrep])[irrep]
    blocks = [np.repeat(np.arange(count), n // count) for n in (even - constant, odd)]
    return np.concatenate([blocks[0], np.full(int(constant), count), blocks[1]])


def fit_sums(
    x: np.ndarray, y: np.ndarray, matrices: np.ndarray, folds: np.ndarray, constants: np.ndarray | None = None
) -> RidgeFit:
    """Ridge regression of y_m = Σ_kc w_kc x_kcm + constants.

    Features are divided by the root mean square of their kind and matrix over the molecules, so that one regulariser
    serves all powers; where symmetry leaves rounding only, such as for the quadrupole of an overlap on one atom, the
    weight is zero. The normalisation is in the weights.

    Args:
        x: sums over pairs, (n, kinds, channels, 2λ+1).
        y: targets, (n, 2λ+1).
        matrices: see `channel_matrices`.
        folds: (n,) of the cross-validation.
        constants: columns that are fitted without penalty, (n, columns); scalars only.

    Returns:
        Weights (kinds, channels), constants (columns, 1), and residuals (n, 2λ+1).
    """
    squares = np.einsum("nkcm,nkcm->kc", x, x, dtype=float) / (x.shape[0] * x.shape[3])
    member = (matrices[:, None] == np.unique(matrices)).astype(float)
    size = np.sqrt(squares @ member / member.sum(axis=0)) @ member.T  # of the channels' matrices
    inverse = np.where(size > rounding(x.dtype) * size.max(axis=0), 1 / np.maximum(size, 1e-300), 0.0)
    used = np.flatnonzero((inverse > 0) & (squares > 0))
    rows = x.reshape(len(x), -1, x.shape[3])[:, used].astype(float) * inverse.ravel()[used, None]
    rows = np.swapaxes(rows, 1, 2).reshape(y.size, len(used))
    fit = ridge(rows, y.reshape(-1, 1), np.repeat(folds, x.shape[3]), constants)
    weights = np.zeros(inverse.size)
    weights[used] = inverse.ravel()[used] * fit.weights[:, 0]
    return fit._replace(weights=weights.reshape(inverse.shape), residuals=fit.residuals.reshape(y.shape))


@dataclasses.dataclass(frozen=True)
class Residual(Loss):
    """Mean over irreps and their components of Δ², in units of `scale`², of what a linear map leaves of a property.

    Attributes:
        target: of PROPERTIES.
        scale: of the residuals, atomic units.
    """

    target: str
    scale: float

    def __call__(self, predicted: Any, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """() for one molecule, from irreps by name."""
        errors = [jnp.mean((predicted[name] - y) ** 2) for name, y in reference.values.items()]
        return jnp.mean(jnp.stack(errors)) / self.scale**2

    def squared_errors(self, predicted: Any, reference: Reference) -> dict[str, jax.Array]:
        """Of the property."""
        errors = [jnp.sum((predicted[name] - y) ** 2) for name, y in reference.values.items()]
        return {self.target: jnp.sum(jnp.stack(errors)) / reference.natm**2}


def residual_bucket(bucket: Bucket, residuals: Mapping[Irrep, np.ndarray]) -> Bucket:
    """The bucket with what a linear map leaves, (molecules, 2λ+1) by irrep, for labels."""
    values: dict[str, Array] = {str(irrep): y for irrep, y in residuals.items()}
    return dataclasses.replace(bucket, reference=dataclasses.replace(bucket.reference, values=values))


def _with_correction(
    model: PropertyModel,
    molecules: Sequence[Molecule],
    residuals: dict[Irrep, np.ndarray],
    held_out: np.ndarray,
    descent: Descent,
    report: Report,
) -> PropertyModel:
    """The model with a network where the molecules that are held out are better with it, else the same."""
    parts: list[list[Bucket]] = [[], []]
    for rows, geometry in _over_buckets(molecules, model.settings, model.settings.geometry):
        natm = np.array([molecules[i].natm for i in rows])
        labels = Reference({}, np.zeros((len(rows), 0), bool), natm, np.zeros_like(natm))
        bucket = Bucket(tuple(molecules[i].formula for i in rows), geometry, labels, None, 0)
        bucket = residual_bucket(bucket, {irrep: y[rows] for irrep, y in residuals.items()})
        for part, chosen in zip(parts, (~held_out[rows], held_out[rows]), strict=True):
            part += [bucket[np.flatnonzero(chosen)]] if chosen.any() else []
    start = dataclasses.replace(model, whitening=whitened(parts[0], model.settings))
    train, check = (prepared(part, start) for part in parts)
    loss = Residual(model.settings.target, float(model.scale))
    fitted = fit(start, model.settings, train, check, loss, descent, report=report)
    before = np.mean([np.mean(y[held_out] ** 2) for y in residuals.values()]) / float(model.scale) ** 2
    if not min(row["validation_loss"] for row in fitted.history) < before:
        return model
    return fitted.model.member(0)
