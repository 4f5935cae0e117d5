"""Fit of a property model: ridge regression, its regulariser by cross-validation, and optionally a gated correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.batching import buckets, map_arrays
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import feature_statistics, matrix_count, rounding
from vpotjax.property_model import (
    PropertyConfig,
    PropertyModel,
    composition,
    molecule_features,
    network_inputs,
    pair_features,
    property_network,
    to_irreps,
)
from vpotjax.train.descent import DescentConfig, descent, with_scale

REGULARISERS = tuple(10.0**k for k in np.arange(-14, 0.5, 1.0))
FOLDS = 5


def property_features(molecules: Sequence[Molecule], config: PropertyConfig) -> dict[Irrep, np.ndarray]:
    """`molecule_features` of many molecules, by irrep (nbatch, kinds, matrices, channels, 2λ+1)."""
    shaped: dict[Irrep, Any] = {}
    compute = jax.jit(lambda batch: jax.lax.map(lambda one: molecule_features(one, config), batch))
    for group, shape in buckets(molecules, {"potential": config.potential_basis}, count=3):
        batch = config.batch([molecules[i] for i in group], shape)
        for irrep, x in compute(jax.tree.map(jnp.asarray, batch)).items():
            shaped.setdefault(irrep, np.zeros((len(molecules), *x.shape[1:]), x.dtype))[group] = x
    return shaped


def fit_property(
    molecules: Sequence[Molecule],
    labels: np.ndarray,
    config: PropertyConfig,
    *,
    features: dict[Irrep, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
    settings: DescentConfig | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> PropertyModel:
    """Ridge regression of a property, and where `config.gated` a gated correction of what it leaves.

    Features are divided by the root mean square of their kind of pair and matrix over the molecules, so that one
    regulariser serves all powers. Scalars first lose the part that is linear in the composition, as do their features:
    the only constants that symmetry allows.

    The correction is trained on the residuals of the cross-validation, for those of the fit itself are smaller than
    the ones of new molecules. One fold is held out, and the weights where its error is least are kept; where none are
    better than no correction, the model stays linear. (Residuals of that fold and of the others know of each other
    through the ridge fits, which makes the choice more cautious than one on new molecules.)

    Args:
        molecules: of the training set.
        labels: energies (n,), dipoles (n, 3) or polarizabilities (n, 3, 3), see `PROPERTIES`.
        config: of the model.
        features: from `property_features` of the same molecules, to save time; default: made here.
        groups: (n,) molecules with the same number stay in one fold of the cross-validation; default: all apart.
        settings: of the training of the correction; default: those of `DescentConfig`.
        report: called after every chunk of it with the step, the mean training loss and the validation loss, of the
            fold that is held out; each is relative to the mean square without a correction.

    Raises:
        InputError: labels of the wrong shape, or as many as there are no molecules for; groups of another number, or
            too few; settings for a linear model.
        FloatingPointError: the loss of the correction is not finite.
    """
    targets = to_irreps(labels, config.target)
    if len(labels) != len(molecules) or len(molecules) < FOLDS:
        raise InputError(f"there are {len(labels)} labels for {len(molecules)} molecules; give one each, at least 5.")
    if settings is not None and not config.gated:
        raise InputError("settings are given, but config.gated is 0: there is no correction to train; leave them out.")
    groups = np.arange(len(molecules)) if groups is None else np.asarray(groups)
    if groups.shape != (len(molecules),) or len(np.unique(groups)) < FOLDS:
        raise InputError(
            f"groups have shape {groups.shape} and {len(np.unique(groups))} different numbers; give one for each of "
            f"the {len(molecules)} molecules, and at least {FOLDS} different ones."
        )
    features = property_features(molecules, config) if features is None else features
    folds = fold_numbers(groups)
    per_atom = np.zeros(len(config.species))
    atoms = np.stack([composition(m.numbers, config.species) for m in molecules])
    weights, regularisers, residuals = {}, {}, {}
    for irrep, y in targets.items():
        constant = atoms if irrep == Irrep(0, 1) else None
        x = features[irrep]
        inverse = inverse_scale(x)[:, :, None]
        flat = (x * inverse[None, ..., None]).reshape(len(x), -1, x.shape[-1]).astype(float)
        fit = ridge(flat, y, folds, constant)
        weights[irrep] = fit.weights.reshape(x.shape[1:4]) * inverse
        regularisers[irrep], residuals[irrep] = fit.regulariser, fit.residuals
        if constant is not None:
            per_atom = fit.constants
    model = PropertyModel(config, weights, per_atom, regularisers)
    if not config.gated:
        return model
    return _with_correction(model, molecules, residuals, folds == 0, settings or DescentConfig(), report)


def _with_correction(
    model: PropertyModel,
    molecules: Sequence[Molecule],
    residuals: dict[Irrep, np.ndarray],
    held_out: np.ndarray,
    settings: DescentConfig,
    report: Callable[[dict[str, Any]], None],
) -> PropertyModel:
    config = model.config
    size = float(np.sqrt(np.mean([np.mean(y**2) for y in residuals.values()])))
    if size == 0.0:
        return model  # nothing is left to correct
    batch = config.batch(molecules)
    features, kinds = map_arrays(lambda one: pair_features(one, config), batch)
    count = matrix_count(config.inputs, config.power_order)
    statistics = feature_statistics(
        {i: x[~held_out] for i, x in features.items()}, kinds[~held_out], config.species, count
    )
    features = map_arrays(lambda one, s: network_inputs(one[0], one[1], s, config), (features, kinds), statistics)
    targets = {irrep: np.asarray(y / size, config.precision) for irrep, y in residuals.items()}
    network = property_network(config)

    def loss(params: Any, batch: Any) -> jax.Array:
        def one(x: Any, pairs: Array, y: Any) -> jax.Array:
            correction = network.apply(params, x, pairs)
            return sum((jnp.mean((correction[i] - y[i]) ** 2) for i in y), start=jnp.zeros(())) / len(y)

        return jnp.mean(jax.vmap(one)(*batch))

    samples = (features, kinds, targets)
    inputs, check = (jax.tree.map(lambda x, c=c: jnp.asarray(x[c]), samples) for c in (~held_out, held_out))
    params = jax.jit(network.init)(jax.random.key(settings.seed), jax.tree.map(lambda x: x[0], inputs[0]), kinds[0])
    error = jax.jit(loss)
    without, training_without = float(error(params, check)), float(error(params, inputs))  # gates are zero at first
    best: tuple[float, Any] = (without, None)

    def tell(step: int, value: float, now: Any) -> None:
        nonlocal best
        held = float(error(now, check))
        best = min(best, (held, now), key=lambda pair: pair[0])
        report({"step": step, "training_loss": value / training_without, "validation_loss": held / without})

    descent(loss, settings)(params, inputs, tell, "the gated correction")
    if best[1] is None:
        return model
    return dataclasses.replace(model, params=with_scale(best[1], size), statistics=statistics)


def inverse_scale(x: np.ndarray) -> np.ndarray:
    """One over the root mean square of features (n, kinds, matrices, channels, 2λ+1), (kinds, matrices).

    Zero where symmetry leaves rounding only, such as for the quadrupole of an overlap on one atom.
    """
    scale = np.sqrt(np.mean(x**2, axis=(0, 3, 4)))
    real = scale > rounding(x.dtype) * scale.max(axis=0)
    return np.where(real, 1 / np.where(real, scale, 1.0), 0.0)


def fold_numbers(groups: np.ndarray) -> np.ndarray:
    """(n,) the fold of each sample; groups are dealt out in the order of a fixed random permutation."""
    _, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(index.max() + 1)
    return order[index] % FOLDS


class RidgeFit(NamedTuple):
    """Of y_m = Σ_k w_k x_km + constants.

    Attributes:
        weights: w, (channels,).
        constants: the coefficients of the constants, (columns,).
        regulariser: the chosen λ, ().
        residuals: what the fits of the cross-validation leave of the samples that they do not see, (n, 2λ+1).
    """

    weights: np.ndarray
    constants: np.ndarray
    regulariser: np.ndarray
    residuals: np.ndarray


def ridge(x: np.ndarray, y: np.ndarray, folds: np.ndarray, constants: np.ndarray | None = None) -> RidgeFit:
    """w of y_m = Σ_k w_k x_km + constants, the penalty λ‖w‖² relative to the mean of ‖x‖², λ by cross-validation.

    Args:
        x: features, (n, channels, 2λ+1).
        y: targets, (n, 2λ+1).
        folds: (n,) see `fold_numbers`.
        constants: columns that are fitted without penalty, (n, columns); scalars only.
    """
    channels, rows = x.shape[1], x.shape[0] * x.shape[2]
    if channels > rows:  # the solution lies in the space of the rows: rotate into it
        basis, _ = np.linalg.qr(np.swapaxes(x, 1, 2).reshape(rows, channels).T)
        fit = ridge(np.einsum("nkm,kr->nrm", x, basis, optimize=True), y, folds, constants)
        return fit._replace(weights=basis @ fit.weights)
    residuals = np.zeros((len(REGULARISERS), *y.shape))
    for fold in range(FOLDS):
        kept, held = folds != fold, folds == fold
        solutions = _solutions(x[kept], y[kept], None if constants is None else constants[kept])
        for i, (w, c) in enumerate(solutions):
            predicted = np.einsum("nkm,k->nm", x[held], w)
            if constants is not None:
                predicted += (constants[held] @ c)[:, None]
            residuals[i, held] = y[held] - predicted
    best = int(np.sum(residuals**2, axis=(1, 2)).argmin())
    w, c = _solutions(x, y, constants)[best]
    return RidgeFit(w, c, np.asarray(REGULARISERS[best]), residuals[best])


def _solutions(x: np.ndarray, y: np.ndarray, constants: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(w, c) for every regulariser, from one singular value decomposition."""
    rows = np.swapaxes(x, 1, 2).reshape(-1, x.shape[1])
    right = y.reshape(-1)
    constants = np.zeros((len(rows), 0)) if constants is None else constants
    inverse = np.linalg.pinv(constants, rcond=1e-10)  # columns may be proportional, as with one composition
    in_rows, in_right = inverse @ rows, inverse @ right
    rows, right = rows - constants @ in_rows, right - constants @ in_right
    u, s, vt = np.linalg.svd(rows, full_matrices=False)
    projected, size = u.T @ right, float(np.sum(s**2))
    results = []
    for regulariser in REGULARISERS:
        w = vt.T @ (s / (s**2 + regulariser * size) * projected)
        results.append((w, in_right - in_rows @ w))
    return results
