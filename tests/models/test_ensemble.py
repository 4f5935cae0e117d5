"""Several networks on one linear map: mean, spread, and what is out of range. Hydrogen alone compiles fast."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from vpotjax.batching import batch_shape
from vpotjax.models import Calibration, Ensemble, MatrixModel, MatrixSettings
from vpotjax.models.linear_map import LinearMap
from vpotjax.nn import Gated, Linear
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import fitted_whitening

SETTINGS = MatrixSettings(Representation((1,), "6-31g", power_order=2), Gated(2, (4,)), precision="float64")
NAMES = ("mo_energies", "homo_lumo_gap", "dipole", "polarizability", "lowdin_charges")
geometry_of = jax.jit(SETTINGS.geometry)


def square(side):
    """H4 without symmetry, about a square."""
    corners = side * np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    return vp.Molecule(np.ones(4, int), corners + np.random.default_rng(0).normal(0, 0.2, (4, 3)))


@functools.cache
def geometry(side):
    """Padded by one atom."""
    five = vp.Molecule(np.ones(5, int), np.random.default_rng(1).normal(0, 3, (5, 3)), charge=1)
    batch = SETTINGS.batch([square(side)], batch_shape(SETTINGS.batch([five])))
    return geometry_of(jax.tree.map(jnp.asarray, batch[0]))


@functools.cache
def models(count=3):
    features = jax.tree.map(lambda *leaves: np.stack(leaves), *(geometry(side).features for side in (2.0, 2.2, 2.5)))
    whitening = fitted_whitening([features], 1, SETTINGS.representation.matrix_count)
    rng, module = np.random.default_rng(1), SETTINGS.network.module(SETTINGS.outputs, 1)
    linear = LinearMap(
        {i: np.zeros((*whitening.transform[i].shape[:2], channels.total)) for i, channels in SETTINGS.outputs}
    )
    inputs = jax.jit(lambda f: whitening(f, "float64"))(geometry(2.2).features)
    results = []
    for seed in range(count):
        params = jax.jit(module.init)(jax.random.key(seed), inputs)
        params = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape), params)
        results.append(MatrixModel(SETTINGS, whitening, linear, np.asarray(0.3), params))
    return results


@functools.partial(jax.jit, static_argnums=2)
def predicted(ensemble, own, names=NAMES):
    prepared = ensemble.model.prepared(own)
    return ensemble.outputs(prepared), ensemble.prediction(prepared, names), prepared.space


@jax.jit
def matrix_of(model, own):
    return model.matrix(model.prepared(own))


def test_values_are_those_of_the_mean_matrix_and_spreads_those_of_the_members():
    own = geometry(2.2)
    matrices, prediction, space = predicted(Ensemble.of(models()), own)
    for matrix, model in zip(matrices, models(), strict=True):
        np.testing.assert_allclose(matrix, matrix_of(model, own), rtol=0, atol=1e-13)  # under vmap: order of summation
    assert np.std(matrices, axis=0).max() > 1e-2
    calibration = {name: Calibration(np.asarray(2.0), np.asarray(1e-3)) for name in NAMES}
    _, wide, _ = predicted(dataclasses.replace(Ensemble.of(models()), calibration=calibration), own)

    def floor(name, size):
        return 1e-3 * (4 / np.sqrt(size) if name in ("dipole", "polarizability") else 1.0)  # per atom, and shared

    observed = jax.jit(lambda m: {n: SETTINGS.solution(m, space).observable(n) for n in NAMES})
    mean, each = observed(jnp.mean(matrices, axis=0)), [observed(m) for m in matrices]
    for name in NAMES:
        np.testing.assert_allclose(prediction.values[name], mean[name], rtol=1e-10, atol=1e-12)
        values = np.stack([np.asarray(x[name]) for x in each])
        real, spread = np.isfinite(values).all(axis=0), np.asarray(prediction.uncertainties[name])
        values = values[:, real]
        deviation = np.sqrt(np.sum((values - values.mean(axis=0)) ** 2, axis=0) / (3 - 1))
        np.testing.assert_allclose(spread[real], deviation, rtol=1e-8, atol=1e-12)  # of differences of levels
        assert not np.any(spread[~real])
        assert deviation.max() > 1e-4
        widened = np.asarray(wide.uncertainties[name])[real]
        np.testing.assert_allclose(widened, np.hypot(2 * deviation, floor(name, deviation.size)), rtol=1e-7)
    assert np.isposinf(prediction.values["mo_energies"][4:]).all()


def test_the_whole_chain_of_an_ensemble_is_that_of_its_parts():
    ensemble = Ensemble.of(models())
    batch = jax.tree.map(jnp.asarray, SETTINGS.batch([square(2.2)])[0])

    @jax.jit
    def whole(ensemble, one):
        solution = ensemble(one)
        return solution.matrix, solution.mo_energies

    solution = whole(ensemble, batch)
    matrices, prediction, _ = predicted(ensemble, geometry(2.2))
    np.testing.assert_allclose(solution[0], jnp.mean(matrices, axis=0)[:4, :4], rtol=0, atol=1e-12)
    np.testing.assert_allclose(solution[1], prediction.values["mo_energies"][:4], rtol=0, atol=1e-12)


def test_molecules_out_of_range_are_marked():
    ensemble = Ensemble.of(models())
    far, near = (predicted(ensemble, geometry(side))[1].excess for side in (0.9, 2.2))
    real = np.asarray(geometry(2.2).features.kinds) >= 0
    assert real.sum() == 10
    assert near.shape == real.shape
    assert near.max() < 1 < far.max()
    assert not np.any(near[~real])
    assert not np.any(far[~real])


def test_one_network_and_none_have_no_spread_and_the_floor_of_a_calibration():
    own = geometry(2.2)
    one = Ensemble.of(models()[:1])
    matrices, prediction, _ = predicted(one, own)
    assert (one.members, len(matrices), prediction.uncertainties) == (1, 1, {})
    floor = {"dipole": Calibration(np.asarray(1.0), np.asarray(0.1))}
    _, prediction, _ = predicted(dataclasses.replace(one, calibration=floor), own)
    assert prediction.uncertainties.keys() == {"dipole"}
    np.testing.assert_allclose(
        np.linalg.norm(prediction.uncertainties["dipole"]), 4 * 0.1
    )  # of four atoms, not of five
    linear = dataclasses.replace(models()[0], settings=dataclasses.replace(SETTINGS, network=Linear()), params=None)
    both = Ensemble.of([linear, linear])
    matrices, prediction, _ = predicted(both, own)
    assert prediction.uncertainties == {}
    np.testing.assert_array_equal(matrices, np.stack([matrix_of(linear, own)] * 2))
    with pytest.raises(vp.InputError, match="models is empty"):
        Ensemble.of([])
