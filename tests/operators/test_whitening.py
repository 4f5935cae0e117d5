"""Whitened features: second moments near one, nothing mixed that symmetry keeps apart, and what is out of range."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import distorted, g2
from vpotjax.batching import batch_shape, pad_batch
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import irreps
from vpotjax.operators.features import SCALAR
from vpotjax.operators.pairs import kind_elements, mixing
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import FARTHEST, MARGIN, PENALTY, Whitening, fitted_whitening

SPECIES = (1, 6, 8)
REPRESENTATION = Representation(SPECIES, "6-31g", power_order=3)
NOISE = 1e-2


TRAINING = [distorted(name, seed) for name in ("H2O", "CH4", "H2O2") for seed in range(8)]


@functools.cache
def shape():
    return batch_shape(pad_batch([*TRAINING[::8], g2("CH3OH")], {"potential": "6-31g"}))


@jax.jit
def jitted(batch):
    return jax.lax.map(lambda one: REPRESENTATION.features(one, irreps(REPRESENTATION.layout)), batch)


@functools.cache
def training_features():
    batch = pad_batch(TRAINING, {"potential": "6-31g"}, shape())
    return jax.tree.map(np.asarray, jitted(jax.tree.map(jnp.asarray, batch)))


@functools.cache
def fitted():
    return fitted_whitening([training_features()], len(SPECIES), REPRESENTATION.matrix_count, NOISE)


@functools.partial(jax.jit, static_argnums=2)
def whitened(whitening, features, precision="float64"):
    return jax.vmap(lambda one: whitening(one, precision))(features)


@jax.jit
def excess(whitening, inputs):
    return jax.vmap(whitening.excess)(inputs)


def of_molecules(*molecules):
    """As many as the training molecules, the last one repeated, so that one program serves all."""
    repeated = [*molecules, *[molecules[-1]] * (len(TRAINING) - len(molecules))]
    batch = pad_batch(repeated, {"potential": "6-31g"}, shape())
    inputs = whitened(fitted(), jitted(jax.tree.map(jnp.asarray, batch)))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(molecules)], (inputs, excess(fitted(), inputs)))


def rows(values, kinds, kind):
    x = values[kinds == kind]
    return np.swapaxes(x, 1, 2).reshape(-1, x.shape[1])


def test_second_moments_are_near_one():
    """(C + noise)^{−1/2} makes λ/(λ + noise) of an eigenvalue λ of C, 0.5 and more where that is above the noise."""
    features, inputs = training_features(), whitened(fitted(), training_features())
    large = total = 0
    for irrep, even in features.even:
        for kind in np.unique(features.kinds[features.kinds >= 0]):
            x, raw = (rows(np.asarray(f.values[irrep]), features.kinds, kind) for f in (inputs, features))
            second = x.T @ x / len(x)
            parts = [slice(None)] if mixing(len(SPECIES))[kind] else [slice(even), slice(even, None)]
            for part in parts:
                values = np.linalg.eigvalsh(second[part, part]) if second[part, part].size else np.zeros(1)
                assert values.max() < 1 + 1e-6
                assert values.max() > 0.9 or np.abs(raw[:, part]).max(initial=0) < 1e-7, (irrep, kind)
                large, total = large + np.sum(values > 0.5), total + np.sum(values > 1e-10)
            if irrep == SCALAR:
                mean = x.mean(axis=0)
                mean[even - 1] = 0  # the constant stays what it is
                assert kind >= len(SPECIES) or np.abs(mean).max() < 1e-6  # whitened rounding of means up to 1e3
    assert 0.2 < large / total < 1  # the rest is noise


def test_raw_features_are_of_very_different_size():
    """Without whitening the first test would fail: sizes of channels of one kind differ by more than 1e3."""
    features = training_features()
    x = rows(features.values[SCALAR], features.kinds, 2)[:, : dict(features.even)[SCALAR]]
    sizes = np.sqrt(np.mean(x**2, axis=0))
    assert sizes.max() > 1e3 * sizes.min()


def test_nothing_is_mixed_that_symmetry_keeps_apart():
    whitening, even = fitted(), dict(training_features().even)
    forbidden = ~mixing(len(SPECIES))
    for irrep, transform in whitening.transform.items():
        assert not np.any(transform[forbidden, : even[irrep], even[irrep] :])
        assert not np.any(transform[forbidden, even[irrep] :, : even[irrep]])
        onsite = slice(len(SPECIES))
        assert not np.any(transform[onsite, even[irrep] :])  # what is zero there but for rounding stays zero
        assert not np.any(whitening.mean[irrep][len(SPECIES) :])
        assert np.any(whitening.mean[irrep]) == (irrep == SCALAR)
    assert not np.any(whitening.mean[SCALAR][:, even[SCALAR] - 1])  # the constant
    assert np.abs(whitening.mean[SCALAR][:, even[SCALAR] :]).max() < 1e-12  # rounding
    assert np.any(whitening.transform[SCALAR][~forbidden, : even[SCALAR], even[SCALAR] :])


def test_far_pairs_stay_zero():
    """There is no mean off site, so that a pair whose features vanish has no inputs."""
    one = jax.tree.map(lambda leaf: leaf[:1], training_features())
    offsite = (one.pairs.first != one.pairs.second)[0]
    far = {irrep: np.where(offsite[:, None, None], 0.0, x) for irrep, x in one.values.items()}
    inputs = whitened(fitted(), dataclasses.replace(one, values=far))
    assert all(not np.any(x[0][offsite]) for x in inputs.values.values())
    assert all(not np.any(np.asarray(x)[one.kinds < 0]) for x in inputs.values.values())


def test_range_is_the_leverage_of_a_ridge_fit_or_the_norm():
    """No training molecule is out of range: a row of the fit has a leverage below one, even and odd channels each."""
    features = training_features()
    within = np.asarray(excess(fitted(), whitened(fitted(), features)))
    real = features.kinds >= 0
    assert not np.any(within[~real])
    found = {
        kind: fitted().rows(features, SCALAR, kind, features.kinds == kind) for kind in np.unique(features.kinds[real])
    }
    even = dict(features.even)[SCALAR]
    penalty = PENALTY * np.mean([np.sum(x**2) for x in found.values()])
    for kind, x in found.items():
        gram = x.T @ x
        if kind_elements(len(SPECIES))[kind][0] == kind_elements(len(SPECIES))[kind][1]:
            gram[:even, even:] = gram[even:, :even] = 0.0  # which atom is the first is chance
        leverage = np.sum(x * np.linalg.solve(gram + penalty * np.eye(len(gram)), x.T).T, axis=1)
        assert np.all(leverage < 2)
        ours = within[features.kinds == kind]
        norms = np.sqrt(np.sum(x**2, axis=1))
        expected = np.maximum(np.sqrt(leverage) / FARTHEST, norms / norms.max() / MARGIN)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)  # of a nearly singular matrix
    size = dataclasses.replace(fitted(), support=0 * fitted().support)
    span = dataclasses.replace(fitted(), reach=1e9 * fitted().reach)
    alone = [np.asarray(excess(own, whitened(own, features)))[real] for own in (size, span)]
    np.testing.assert_allclose(within[real], np.maximum(*alone), rtol=1e-12)
    assert np.any(alone[0] > alone[1])


def test_new_kinds_and_outliers_are_out_of_range():
    """C–O is in no training molecule; a compressed bond is, but not so short."""
    table = kind_elements(len(SPECIES)).tolist()
    carbon_oxygen = len(SPECIES) + table[len(SPECIES) :].index([1, 2])
    water = g2("H2O")
    near = distorted("H2O", 99, 0.05)
    compressed = Molecule(water.numbers, water.positions * 0.4)
    inputs, values = of_molecules(near, compressed, g2("CH3OH"))
    assert np.all(values[0] < 1)
    assert np.all(values[1][:6][inputs.kinds[1][:6] == 2] > 1)
    assert np.sum(np.isinf(values[2])) == np.sum(inputs.kinds[2] == carbon_oxygen) == 1
    assert np.all(np.isfinite(values[:2]))


def test_single_precision_and_one_channel():
    features = training_features()
    single = whitened(fitted(), features, "float32")
    double = whitened(fitted(), features)
    for irrep, x in single.values.items():
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, double.values[irrep], rtol=1e-6, atol=1e-6)  # rounded last
    # Features in single precision: rounding, 1e-7 of V³, is not whitened up to size one.
    rough = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, features)
    inputs = whitened(fitted_whitening([rough], len(SPECIES), REPRESENTATION.matrix_count, NOISE), rough, "float32")
    largest = {
        i: (np.abs(np.asarray(x)).max(), np.abs(np.asarray(double.values[i])).max()) for i, x in inputs.values.items()
    }
    for ours, exact in largest.values():
        assert ours == pytest.approx(exact, rel=0.2)


def test_one_matrix():
    """Hydrogen with s functions alone: no odd channel, and a constant that divides by the number of matrices."""
    representation = Representation((1,), "sto-3g", ("sap",), 1)
    batch = jax.tree.map(jnp.asarray, pad_batch([g2("H2")], {"potential": "sto-3g"}))
    features = jax.jit(jax.vmap(lambda one: representation.features(one, [])))(batch)
    whitening = fitted_whitening([features], 1, 1)
    assert isinstance(whitening, Whitening)
    assert whitening.transform[SCALAR].shape == (2, 2, 2)
    assert np.all(np.isfinite(whitening.transform[SCALAR]))
    assert whitening.transform[SCALAR][0, 1, 1] == pytest.approx(1 / np.sqrt(1 + NOISE))  # a constant of size one


def test_derivatives_at_the_zeros_of_far_pairs_are_finite():
    """The norm has a kink there; what a model does with the range must not turn the forces of long molecules to NaN."""
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), training_features())
    offsite = np.asarray(one.pairs.first) != np.asarray(one.pairs.second)

    def total(factor):
        scaled = {i: jnp.where(offsite[:, None, None], factor * x, x) for i, x in one.values.items()}
        inputs = fitted()(dataclasses.replace(one, values=scaled), "float32")
        return jnp.sum(1 / jnp.maximum(fitted().excess(inputs), 1))

    assert jax.grad(total)(0.0) == 0.0
