"""Ridge regression in closed form; the regulariser is chosen by molecules that a fit does not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REGULARISERS = tuple(10.0**k for k in range(-14, 1))
"""λ of the penalty λ ‖X‖² ‖W‖²."""
FOLDS = 5
LARGE = 1000
"""Rows and channels from which on a fit is by the eigenvectors of XᵀX or XXᵀ, in a fifth of the time; for the least λ
predictions are then right to 4e-9, in place of rounding.
"""


class RidgeFit(NamedTuple):
    """Of y = x W + constants · C.

    Attributes:
        weights: W, (channels, outputs).
        constants: C, (columns, outputs).
        regulariser: the chosen λ.
        residuals: what fits leave of the rows that they do not see, (rows, outputs); 0 for rows that all of them see.
    """

    weights: np.ndarray
    constants: np.ndarray
    regulariser: float
    residuals: np.ndarray


def solutions(x: np.ndarray, y: np.ndarray, constants: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    """(W, C) for every regulariser, from one decomposition.

    Args:
        x: (rows, channels).
        y: (rows, outputs).
        constants: columns that are fitted without a penalty, (rows, columns).
    """
    columns = np.zeros((len(x), 0)) if constants is None else constants
    inverse = np.linalg.pinv(columns, rcond=1e-10)  # columns may be proportional, as with one composition
    in_x, in_y = inverse @ x, inverse @ y
    x, y = x - columns @ in_x, y - columns @ in_y
    size = float(np.sum(x**2)) or 1.0
    if len(x) > 4 * x.shape[1] or min(x.shape) > LARGE:
        wide = x.shape[1] > len(x)  # then W = Xᵀ V with (X Xᵀ + λ) V = Y
        squares, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
        squares, projected = np.maximum(squares, 0.0), vectors.T @ (y if wide else x.T @ y)
        vectors = x.T @ vectors if wide else vectors
    else:
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        squares, vectors, projected = s**2, vt.T, s[:, None] * (u.T @ y)
    weights = [vectors @ (projected / (squares + r * size)[:, None]) for r in REGULARISERS]
    return [(w, in_y - in_x @ w) for w in weights]


def held_out_residuals(
    x: np.ndarray, y: np.ndarray, folds: np.ndarray, constants: np.ndarray | None = None
) -> np.ndarray:
    """(regularisers, rows, outputs) y − prediction of rows by the fit without their fold.

    Args:
        x, y, constants: see `solutions`.
        folds: (rows,) numbers; rows of fold −1 are in every fit and not predicted, so that one held-out set is the
            fold 0 beside −1.
    """
    residuals = np.zeros((len(REGULARISERS), *y.shape))
    for fold in np.unique(folds[folds >= 0]):
        kept, held = folds != fold, folds == fold
        fits = solutions(x[kept], y[kept], None if constants is None else constants[kept])
        for i, (weights, coefficients) in enumerate(fits):
            residuals[i, held] = y[held] - x[held] @ weights
            if constants is not None:
                residuals[i, held] -= constants[held] @ coefficients
    return residuals


def ridge(x: np.ndarray, y: np.ndarray, folds: np.ndarray, constants: np.ndarray | None = None) -> RidgeFit:
    """The fit with the regulariser whose held-out residuals are least.

    Args:
        x, y, folds, constants: as in `held_out_residuals`.
    """
    residuals = held_out_residuals(x, y, folds, constants)
    best = int(np.sum(residuals**2, axis=(1, 2)).argmin())
    weights, coefficients = solutions(x, y, constants)[best]
    return RidgeFit(weights, coefficients, REGULARISERS[best], residuals[best])


class Moments(NamedTuple):
    """What a fit needs of its rows: XᵀX, XᵀY, Σ Y², and their number times that of the outputs."""

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    rows: int

    @staticmethod
    def empty(x: np.ndarray, y: np.ndarray) -> Moments:
        """Of no rows, for channels like these."""
        return Moments(np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1]), 0)

    def add(self, x: np.ndarray, y: np.ndarray) -> Moments:
        """With more rows."""
        return Moments.of_all([self, Moments(x.T @ x, x.T @ y, np.sum(y**2, axis=0), len(x))])

    @staticmethod
    def of_all(parts: Sequence[Moments]) -> Moments:
        """Of the rows of all parts."""
        gram, cross, square = (np.sum(arrays, axis=0) for arrays in list(zip(*parts, strict=True))[:3])
        return Moments(gram, cross, square, sum(own.rows for own in parts))

    def part(self, channels: np.ndarray, outputs: np.ndarray) -> Moments:
        """Of some channels and outputs."""
        return Moments(
            self.gram[np.ix_(channels, channels)],
            self.cross[np.ix_(channels, outputs)],
            self.square[outputs],
            self.rows,
        )

    def solutions(self, size: float) -> list[np.ndarray]:
        """Weights for every regulariser times `size`, from one decomposition."""
        values, vectors = np.linalg.eigh(self.gram)
        values, projected = np.maximum(values, 0.0), vectors.T @ self.cross
        return [vectors @ (projected / (values + r * size)[:, None]) for r in REGULARISERS]

    def error(self, weights: np.ndarray) -> float:
        """‖Y − X W‖²."""
        linear, quadratic = np.sum(self.cross * weights), np.sum(weights * (self.gram @ weights))
        return max(float(self.square.sum() - 2 * linear + quadratic), 0.0)


def joint_ridge(sets: Sequence[Sequence[Moments]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights of several fits that share one regulariser, the best one on rows that they do not see.

    These are the folds of the rows, each predicted by a fit to the others, and rows that no fit sees. A few validation
    molecules alone would choose by chance among fits that extrapolate, since theirs is a curve that is flat over ten
    decades. The regulariser is the same number for all, as for one prior of all weights, so that fits of few rows are
    held back more. In proportion to the rows of each, rare pairs of elements would be fitted as closely as common ones,
    and extrapolate.

    Args:
        sets: of each fit the moments of its rows by fold, and those of the rows that it does not see as the last.

    Returns:
        weights of each, and Σ error² of what was not seen with the number of its elements.
    """
    wholes = [Moments.of_all(folds) for *folds, _ in sets]
    size = float(np.mean([np.trace(whole.gram) for whole in wholes])) or 1.0
    candidates, errors, count = [], np.zeros(len(REGULARISERS)), 0
    for (*folds, unseen), whole in zip(sets, wholes, strict=True):
        candidates.append(whole.solutions(size))
        pairs = [(unseen, candidates[-1])]
        for i, fold in enumerate(folds):
            others = [other for j, other in enumerate(folds) if j != i and other.rows]
            if fold.rows and others:
                pairs.append((fold, Moments.of_all(others).solutions(size)))
        for held_out, weights in pairs:
            errors += [held_out.error(w) for w in weights]
            count += held_out.rows * len(held_out.square)
    best = int(errors.argmin())
    return [weights[best] for weights in candidates], np.array([errors[best], count])


def fold_numbers(groups: np.ndarray) -> np.ndarray:
    """(n,) the fold of each sample; groups are dealt out in the order of a fixed random permutation."""
    _, index = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(index.max() + 1)
    return order[index] % FOLDS
