"""The ridge fit recovers linear maps and shrinks what it knows little about."""

import numpy as np
import pytest

from vpotjax.train.ridge import REGULARISERS, Moments, fold_numbers, joint_ridge, ridge, solutions


def moments(x, y):
    return Moments.empty(x, y).add(x[:3], y[:3]).add(x[3:], y[3:])


def test_recovers_a_linear_map_with_constants():
    """Exact data: the smallest regulariser is chosen and leaves an error of its own size."""
    rng = np.random.default_rng(0)
    x, constants = rng.standard_normal((60, 4)), rng.integers(1, 5, (60, 2)).astype(float)
    truth, offsets = rng.standard_normal((4, 2)), rng.standard_normal((2, 2))
    fit = ridge(x, x @ truth + constants @ offsets, fold_numbers(np.arange(60)), constants)
    assert fit.regulariser == REGULARISERS[0]
    np.testing.assert_allclose(fit.weights, truth, atol=1e-9)
    np.testing.assert_allclose(fit.constants, offsets, atol=1e-9)
    np.testing.assert_allclose(fit.residuals, 0, atol=1e-9)


def test_moments_give_the_fit_of_the_rows():
    """One penalty for two fits, the best one on rows that fits do not see: folds, and others."""
    rng = np.random.default_rng(1)
    sets, rows = [], []
    for outputs, seen in ((1, 10), (3, 40)):
        x, w = rng.standard_normal((seen + 20, 5)), rng.standard_normal((5, outputs))
        y = x @ w + 0.5 * rng.standard_normal((len(x), outputs))
        folds = np.where(np.arange(len(x)) < seen, np.arange(len(x)) % 3, 3)
        rows.append((x, y, folds))
        sets.append([moments(x[folds == fold], y[folds == fold]) for fold in range(4)])
    weights, (error, count) = joint_ridge(sets)
    size = np.mean([np.sum(x[folds < 3] ** 2) for x, _, folds in rows])

    def solved(x, y, regulariser):
        return np.linalg.solve(x.T @ x + regulariser * size * np.eye(5), x.T @ y)

    errors = np.zeros(len(REGULARISERS))
    for x, y, folds in rows:
        for fold in range(4):
            kept, held = (folds != fold) & (folds < 3), folds == fold
            errors += [np.sum((y[held] - x[held] @ solved(x[kept], y[kept], r)) ** 2) for r in REGULARISERS]
    best = int(errors.argmin())
    for own, (x, y, folds) in zip(weights, rows, strict=True):
        expected = solved(x[folds < 3], y[folds < 3], REGULARISERS[best])
        np.testing.assert_allclose(own, expected, rtol=1e-8)
    np.testing.assert_allclose(error, errors[best], rtol=1e-10)
    assert count == 30 * 1 + 60 * 3


@pytest.mark.parametrize("shape", [(40, 90), (60, 50)])
def test_large_fits_are_those_of_small_ones(monkeypatch, shape):
    """By other decompositions, with singular values down to 1e-10 of the largest."""
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((shape[0], 40)) * 10.0 ** np.linspace(0, -10, 40)) @ rng.standard_normal((40, shape[1]))
    y, constants = x @ rng.standard_normal((shape[1], 2)) + 1e-3, np.ones((shape[0], 1))
    small = solutions(x, y, constants)
    monkeypatch.setattr("vpotjax.train.ridge.LARGE", 10)
    monkeypatch.setattr("numpy.linalg.svd", None)
    for (w, c), (other, offset) in zip(small, solutions(x, y, constants), strict=True):
        np.testing.assert_allclose(x @ other + offset, x @ w + c, rtol=0, atol=1e-6 * np.abs(y).max())
        assert np.linalg.norm(other) < 1.01 * np.linalg.norm(w)


def test_noise_raises_the_regulariser_and_more_channels_than_rows_are_no_problem():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((12, 30)), rng.standard_normal((12, 1))
    fit = ridge(x, y, np.where(np.arange(12) >= 8, 0, -1))
    assert fit.regulariser >= 1e-2
    assert np.linalg.norm(fit.weights) < 1


def test_folds_hold_back_what_few_rows_show_though_validation_does_not_see_it():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 4)) * [1.0, 1.0, 1.0, 1e-5]  # the fourth channel hardly moves in training,
    x[:10, 3] *= 100  # but in the first fold,
    x[50:, 3] = 0.0  # and is not there in validation
    y = x[:, :3] @ rng.standard_normal((3, 2)) + 0.01 * rng.standard_normal((60, 2))
    parts = [moments(x[i : i + 10], y[i : i + 10]) for i in range(0, 60, 10)]
    (weights,), (error, count) = joint_ridge([parts])
    plain = np.linalg.lstsq(x[10:50], y[10:50], rcond=None)[0]  # fits noise with it
    assert np.sqrt(np.mean((y[:10] - x[:10] @ plain) ** 2)) > 0.05
    assert count == 60 * 2  # of every row once, not of validation alone
    assert np.sqrt(error / count) < 0.02
    np.testing.assert_allclose(weights[:3], plain[:3], atol=0.05)
