"""Closed-form fit of a property model: ridge regression, its regulariser by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax.batching import buckets
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import ROUNDING
from vpotjax.property_model import (
    PropertyConfig,
    PropertyModel,
    composition,
    molecule_features,
    to_irreps,
)

REGULARISERS = tuple(10.0**k for k in np.arange(-14, 0.5, 1.0))
FOLDS = 5


def property_features(molecules: Sequence[Molecule], config: PropertyConfig) -> dict[Irrep, np.ndarray]:
    """`molecule_features` of many molecules, by irrep (nbatch, kinds, matrices, channels, 2λ+1)."""
    shaped: dict[Irrep, Any] = {}
    compute = jax.jit(lambda batch: jax.lax.map(lambda one: molecule_features(one, config), batch))
    for group, shape in buckets(molecules, {"potential": config.potential_basis}, count=3):
        batch = config.batch([molecules[i] for i in group], shape)
        for irrep, x in compute(jax.tree.map(jnp.asarray, batch)).items():
            shaped.setdefault(irrep, np.zeros((len(molecules), *x.shape[1:])))[group] = x
    return shaped


def fit_property(
    molecules: Sequence[Molecule],
    labels: np.ndarray,
    config: PropertyConfig,
    *,
    features: dict[Irrep, np.ndarray] | None = None,
    groups: np.ndarray | None = None,
) -> PropertyModel:
    """Ridge regression of a property.

    Features are divided by the root mean square of their kind of pair and matrix over the molecules, so that one
    regulariser serves all powers. Scalars first lose the part that is linear in the composition, as do their features:
    the only constants that symmetry allows.

    Args:
        molecules: of the training set.
        labels: energies (n,), dipoles (n, 3) or polarizabilities (n, 3, 3), see `PROPERTIES`.
        config: of the model.
        features: from `property_features` of the same molecules, to save time; default: made here.
        groups: (n,) molecules with the same number stay in one fold of the cross-validation; default: all apart.

    Raises:
        InputError: labels of the wrong shape, or as many as there are no molecules for.
    """
    targets = to_irreps(labels, config.target)
    if len(labels) != len(molecules) or len(molecules) < FOLDS:
        raise InputError(f"there are {len(labels)} labels for {len(molecules)} molecules; give one each, at least 5.")
    features = property_features(molecules, config) if features is None else features
    folds = fold_numbers(np.arange(len(molecules)) if groups is None else groups)
    per_atom = np.zeros(len(config.species))
    atoms = np.stack([composition(m.numbers, config.species) for m in molecules])
    weights, regularisers = {}, {}
    for irrep, y in targets.items():
        constant = atoms if irrep == Irrep(0, 1) else None
        x = features[irrep]
        inverse = inverse_scale(x)[:, :, None]
        flat = (x * inverse[None, ..., None]).reshape(len(x), -1, x.shape[-1])
        solution, constants, regularisers[irrep] = ridge(flat, y, folds, constant)
        weights[irrep] = solution.reshape(x.shape[1:4]) * inverse
        if constant is not None:
            per_atom = constants
    return PropertyModel(config, weights, per_atom, regularisers)


def inverse_scale(x: np.ndarray) -> np.ndarray:
    """One over the root mean square of features (n, kinds, matrices, channels, 2λ+1), (kinds, matrices).

    Zero where symmetry leaves rounding only, such as for the quadrupole of an overlap on one atom.
    """
    scale = np.sqrt(np.mean(x**2, axis=(0, 3, 4)))
    real = scale > ROUNDING * scale.max(axis=0)
    return np.where(real, 1 / np.where(real, scale, 1.0), 0.0)


def fold_numbers(groups: np.ndarray) -> np.ndarray:
    """(n,) the fold of each sample; groups are dealt out in the order of a fixed random permutation."""
    _, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(index.max() + 1)
    return order[index] % FOLDS


def ridge(
    x: np.ndarray, y: np.ndarray, folds: np.ndarray, constants: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """w of y_m = Σ_k w_k x_km + constants, the penalty λ‖w‖² relative to the mean of ‖x‖², λ by cross-validation.

    Args:
        x: features, (n, channels, 2λ+1).
        y: targets, (n, 2λ+1).
        folds: (n,) see `fold_numbers`.
        constants: columns that are fitted without penalty, (n, columns); scalars only.

    Returns:
        w (channels,), the coefficients of the constants (columns,), and the chosen λ ().
    """
    channels, rows = x.shape[1], x.shape[0] * x.shape[2]
    if channels > rows:  # the solution lies in the space of the rows: rotate into it
        basis, _ = np.linalg.qr(np.swapaxes(x, 1, 2).reshape(rows, channels).T)
        w, c, chosen = ridge(np.einsum("nkm,kr->nrm", x, basis, optimize=True), y, folds, constants)
        return basis @ w, c, chosen
    errors = np.zeros(len(REGULARISERS))
    for fold in range(FOLDS):
        kept, held = folds != fold, folds == fold
        solutions = _solutions(x[kept], y[kept], None if constants is None else constants[kept])
        for i, (w, c) in enumerate(solutions):
            predicted = np.einsum("nkm,k->nm", x[held], w)
            if constants is not None:
                predicted += (constants[held] @ c)[:, None]
            errors[i] += np.sum((predicted - y[held]) ** 2)
    best = int(errors.argmin())
    w, c = _solutions(x, y, constants)[best]
    return w, c, np.asarray(REGULARISERS[best])


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
