"""The ridge fit recovers linear maps and shrinks what it knows little about."""

import numpy as np

from vpotjax.train.ridge import AS_GOOD, REGULARISERS, Moments, fold_numbers, joint_ridge, ridge


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
    """One penalty for two fits: the largest of those that are as good on rows that they do not see."""
    rng = np.random.default_rng(1)
    sets, rows = [], []
    for outputs, seen in ((1, 10), (3, 40)):
        x, other = rng.standard_normal((seen, 5)), rng.standard_normal((20, 5))
        w = rng.standard_normal((5, outputs))
        pairs = [(a, a @ w + 0.5 * rng.standard_normal((len(a), outputs))) for a in (x, other)]
        rows.append(pairs)
        sets.append([moments(*pair) for pair in pairs])
    weights, (error, count) = joint_ridge(sets)
    size = np.mean([np.sum(x**2) for (x, _), _ in rows])

    def solved(x, y, regulariser):
        return np.linalg.solve(x.T @ x + regulariser * size * np.eye(5), x.T @ y)

    errors = np.zeros(len(REGULARISERS))
    for (x, y), (other, wanted) in rows:
        errors += [np.sum((wanted - other @ solved(x, y, r)) ** 2) for r in REGULARISERS]
    best = int(np.flatnonzero(errors <= (1 + AS_GOOD) * errors.min())[-1])
    for own, ((x, y), _) in zip(weights, rows, strict=True):
        np.testing.assert_allclose(own, solved(x, y, REGULARISERS[best]), rtol=1e-8)
    np.testing.assert_allclose(error, errors[best], rtol=1e-10)
    assert count == 20 * 4


def test_noise_raises_the_regulariser_and_more_channels_than_rows_are_no_problem():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((12, 30)), rng.standard_normal((12, 1))
    fit = ridge(x, y, np.where(np.arange(12) >= 8, 0, -1))
    assert fit.regulariser >= 1e-2
    assert np.linalg.norm(fit.weights) < 1


def test_directions_that_held_out_rows_do_not_show_are_held_back():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 4)) * [1.0, 1.0, 1.0, 1e-5]  # the fourth channel hardly moves in training,
    x[30:, 3] = 0.0  # not at all beside it, and not with the others
    x[:30, 3] -= x[:30, :3] @ np.linalg.lstsq(x[:30, :3], x[:30, 3], rcond=None)[0]
    y = x[:, :3] @ rng.standard_normal((3, 2)) + 0.01 * rng.standard_normal((40, 2))
    moments = [Moments.empty(x, y).add(x[part], y[part]) for part in (slice(30), slice(30, 40))]
    (weights,), _ = joint_ridge([moments])
    plain = np.linalg.lstsq(x[:30], y[:30], rcond=None)[0]
    np.testing.assert_allclose(weights[:3], plain[:3], atol=0.05)
    assert np.abs(weights[3]).max() < 0.1 * np.abs(plain[3]).max()  # plain least squares fits noise with it
