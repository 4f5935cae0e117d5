"""One molecule never ends a training: gradients that are not finite, and outliers."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from vpotjax.electronic.observables import Reference
from vpotjax.losses import Custom, from_to
from vpotjax.train.descent import Descent
from vpotjax.train.loop import descend, metrics_row
from vpotjax.train.samples import Bucket
from vpotjax.train.steps import Counts, limited_gradient


class Slope:
    """y = a x with a trained number; a molecule's content is x, its reference value y."""

    def initial(self, key, content):
        return {"a": jnp.zeros(())}

    def output(self, params, content):
        return params["a"] * content

    def predicted(self, output, content, max_occupied):
        return output


def bucket(x, y):
    n = len(x)
    reference = Reference({"y": y}, np.ones((n, 1), bool), np.ones(n), np.zeros(n, int))
    return Bucket(tuple(f"m{i}" for i in range(n)), x, reference, None, 1)


SQUARE = Custom(lambda predicted, reference: (predicted - reference.values["y"]) ** 2)


def test_a_molecule_without_a_finite_gradient_is_left_out_and_counted():
    x, rows = np.linspace(0.5, 1.5, 12), []
    y = 2.0 * x
    y[3] = np.nan
    settings = Descent(steps=200, batch_size=12, learning_rate=0.1, evaluations=2)
    done = descend(Slope(), [bucket(x, y)], [bucket(x[4:], y[4:])], SQUARE, settings, rows.append)
    np.testing.assert_allclose(done.params["a"], 2.0, atol=1e-2)
    assert done.left_out == Counter({"m3": 200})
    assert rows[-1]["left_out"] == 100
    assert rows[-1]["first_left_out"] == "m3"


def test_too_many_end_it_with_advice():
    x = np.ones(4)
    y = np.array([np.nan, np.nan, 1.0, 1.0])
    with pytest.raises(vp.InputError, match=r"4 of 8 molecules .*first of them m.*lower learning_rate"):
        descend(Slope(), [bucket(x, y)], [bucket(x[2:], y[2:])], SQUARE, Descent(steps=2, batch_size=4, evaluations=1))


def test_outliers_are_limited_to_a_multiple_of_the_median():
    gradients = jnp.array([[1.0, 0.0], [0.0, 2.0], [100.0, 0.0], [jnp.nan, 0.0], [3.0, 0.0]])
    gradient, counts = limited_gradient(jnp.ones(5), jnp.sum(gradients**2, axis=1), 7 * gradients, 2.0)
    wanted = 7 * np.array([1 + 5 + 3, 2]) / 4  # the median of 1, 2, 100, 3 is 2.5; mean over four
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6)
    np.testing.assert_array_equal(counts.finite, [True, True, True, False, True])
    np.testing.assert_array_equal(counts.limited, [False, False, True, False, False])


def test_what_overflows_in_the_network_alone_is_left_out_too():
    gradients = jnp.array([[1.0, 3.0], [jnp.inf, 0.0], [0.0, 1.0]])
    gradient, counts = limited_gradient(jnp.ones(3), jnp.ones(3), gradients, 2.0)
    np.testing.assert_allclose(gradient, [0.5, 2.0])
    np.testing.assert_array_equal(counts.finite, [True, False, True])


def test_the_best_weights_on_validation_are_kept():
    """The validation molecule wants a = 1, the training molecules a = 3: the best is passed on the way."""
    x = np.ones(4)
    settings = Descent(steps=400, batch_size=4, learning_rate=0.05, evaluations=100)
    rows = []
    done = descend(Slope(), [bucket(x, 3 * x)], [bucket(x[:1], x[:1])], SQUARE, settings, rows.append)
    losses = [row["validation_loss"] for row in rows]
    assert losses[-1] > 2
    best = (float(done.params["a"]) - 1) ** 2
    np.testing.assert_allclose(best, min(losses), atol=1e-6)
    assert best < 0.1


def test_seeds_repeat_and_progress_reaches_the_weights():
    x = np.linspace(0.5, 1.5, 8)
    seen = from_to(1.0, 0.5) * SQUARE
    results = [
        descend(
            Slope(), [bucket(x, 2 * x)], [bucket(x, 2 * x)], seen, Descent(steps=20, batch_size=4, seed=seed)
        ).params
        for seed in (0, 0, 1)
    ]
    assert results[0]["a"] == results[1]["a"] != results[2]["a"]
    reference = jax.tree.map(lambda v: v[0], bucket(x, x).reference)
    np.testing.assert_allclose([seen(1.5, reference, p) for p in (0.0, 0.5, 1.0)], [1.0, 0.75, 0.5])


def test_bad_settings_are_refused():
    for change in ({"steps": 0}, {"learning_rate": float("inf")}, {"tolerated": 1.0}, {"seed": -1}, {"limit": 0.0}):
        with pytest.raises(vp.InputError, match=next(iter(change))):
            dataclasses.replace(Descent(), **change)


def test_rows_name_the_first():
    counts = Counts(np.array([1.0, 2.0, 3.0]), np.array([True, True, True]), np.array([False, True, True]))
    row = metrics_row(5, [(("a", "b", "c"), counts)], Counter(), Descent())
    assert row["first_limited"] == "b, c"
    assert row["first_left_out"] == ""
    assert row["training_loss"] == 2.0
