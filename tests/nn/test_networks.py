"""Symmetries of every network, of the package and of a user, with weights far from their initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.models.random_models import (
    NETWORKS,
    POWER,
    SETTINGS,
    SPECIES,
    distorted,
    evaluate,
    example,
    geometry_of,
    matrix_of,
    permuted_matrix,
    random_model,
    rotated_matrix,
)
from tests.molecules import central_difference, random_rotation
from vpotjax.models.linear_map import correction
from vpotjax.nn import Gated, MatrixPower
from vpotjax.operators.pairs import pair_kinds

CORRECTING = [name for name in NETWORKS if name != "linear"]
CASES = [
    *((name, "fock", "lowdin") for name in NETWORKS),
    *((name, "density", "ao") for name in NETWORKS if name != "coupling"),
    ("user", "fock", "ao"),
    ("user", "density", "lowdin"),
]
TOLERANCE = 1e-10  # rounding of float64, amplified by the whitening of nearly parallel features
ACID = functools.partial(distorted, "HCOOH", 9)  # three kinds of pairs of one element: O–O, H–H, and on site


def model_of(name, target="fock", frame="lowdin"):
    return random_model(dataclasses.replace(SETTINGS, network=NETWORKS[name], target=target, frame=frame))


@pytest.mark.parametrize(("name", "target", "frame"), CASES)
def test_rotation_translation_permutation(name, target, frame):
    model, molecule, rotation = model_of(name, target, frame), ACID(), random_rotation()
    plain = evaluate(model, molecule)
    linear = evaluate(dataclasses.replace(model, scale=np.asarray(0.0)), molecule)
    baseline = evaluate(dataclasses.replace(model_of("linear", target, frame), linear=model.linear), molecule)
    np.testing.assert_array_equal(linear, baseline)
    # Damped, for the acid is out of the range of three training molecules, but seven digits above the tolerance.
    assert name == "linear" or np.abs(plain - linear).max() > 1e-3
    moved = vp.Molecule(molecule.numbers, molecule.positions @ rotation.T + np.array([1.0, -2.0, 0.5]))
    rotated = evaluate(model, moved)
    assert np.linalg.det(rotation) < 0
    assert np.abs(rotated - plain).max() > 1e-2
    atol = TOLERANCE * np.abs(plain).max()
    np.testing.assert_allclose(rotated, rotated_matrix(plain, molecule, rotation), rtol=0, atol=atol)
    order = np.array([4, 3, 2, 1, 0])  # also of the two oxygen and the two hydrogen atoms
    permuted = evaluate(model, vp.Molecule(molecule.numbers[order], molecule.positions[order]))
    assert np.abs(permuted - plain).max() > 1e-2
    np.testing.assert_allclose(permuted, permuted_matrix(plain, molecule, order), rtol=0, atol=atol)


def swapped(batch, chosen):
    """The same molecule with the atoms of the chosen pairs in the other order."""
    first, second = batch.pairs.first, batch.pairs.second
    pairs = dataclasses.replace(
        batch.pairs, first=jnp.where(chosen, second, first), second=jnp.where(chosen, first, second)
    )
    return dataclasses.replace(batch, pairs=pairs)


@jax.jit
def outputs_of(model, geometry):
    """What the network adds, as it is used and as its module returns it."""
    settings, inputs = model.settings, model.prepared(geometry).inputs
    module = settings.network.module(settings.outputs, len(SPECIES))
    used = correction(settings.network, model.params, inputs, settings.outputs, len(SPECIES))
    return used, module.apply(model.params, inputs)


@pytest.mark.parametrize("name", CORRECTING)
def test_the_order_of_a_pair_of_one_element_is_the_sign_of_odd_channels(name):
    model, one = model_of(name), example(SETTINGS, ACID())
    elements = jnp.where(one.numbers > 0, jnp.searchsorted(jnp.array(SPECIES), one.numbers), -1)
    kinds = np.asarray(pair_kinds(elements, one.pairs, len(SPECIES)))
    oxygens = (kinds == kinds.max()) & np.asarray(one.pairs.first != one.pairs.second)
    assert oxygens.sum() == 1  # that of the hydrogens stays as it is
    plain, raw = outputs_of(model, geometry_of(SETTINGS, one))
    other, _ = outputs_of(model, geometry_of(SETTINGS, swapped(one, oxygens)))
    onsite, changed = np.asarray(one.pairs.first == one.pairs.second), 0.0
    for irrep, channels in model.settings.outputs:
        sign = np.where(oxygens[:, None] & (np.arange(channels.total) >= channels.even), -1.0, 1.0)[:, :, None]
        np.testing.assert_allclose(other[irrep], sign * plain[irrep], rtol=0, atol=TOLERANCE)
        assert not np.any(plain[irrep][onsite][:, channels.even :])
        assert not np.any(plain[irrep][kinds < 0])
        if channels.odd:
            assert np.abs(plain[irrep][oxygens][:, channels.even :]).max() > 1e-4, irrep
        changed = max(changed, np.abs(raw[irrep] - plain[irrep])[~onsite & (kinds >= 0)].max())
    assert (changed > 1e-2) == (name == "user")  # whose module knows nothing of this


@pytest.mark.parametrize("name", ["gated", "coupling", "user"])
def test_every_weight_matters(name):
    """The matrix depends on every array of weights, and its derivative is that of finite differences."""
    model, geometry = model_of(name), geometry_of(SETTINGS, ACID())
    weights = np.random.default_rng(0).standard_normal(geometry.baseline.shape)

    def value(params):
        return jnp.vdot(weights, matrix_of(dataclasses.replace(model, params=params), geometry))

    gradient = jax.jit(jax.grad(value))(model.params)
    dead = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if not np.any(leaf)]
    assert not dead
    change = jax.tree.map(lambda x: np.random.default_rng(1).standard_normal(x.shape), model.params)
    exact = sum(np.vdot(g, c) for g, c in zip(jax.tree.leaves(gradient), jax.tree.leaves(change), strict=True))
    assert abs(exact) > 1e-2

    def along(t):
        return value(jax.tree.map(lambda x, c: x + t * c, model.params, change))

    np.testing.assert_allclose(central_difference(along, 1e-4), exact, rtol=1e-6)


@pytest.mark.parametrize("name", ["gated", "matrix-power", "user"])
def test_padding_and_single_precision(name):
    model, molecule = model_of(name), distorted("H2", 4)  # alone it compiles fast, padding has p functions
    padded, alone = evaluate(model, molecule), geometry_of(SETTINGS, molecule, padded=False)
    np.testing.assert_allclose(matrix_of(model, alone), padded, rtol=0, atol=TOLERANCE * np.abs(padded).max())

    def lower(**changes):
        network = model.settings.network
        settings = dataclasses.replace(
            model.settings, network=dataclasses.replace(network, **changes), precision="float32"
        )
        params = jax.tree.map(lambda x: x.astype(jnp.float32), model.params)
        return matrix_of(dataclasses.replace(model, settings=settings, params=params), alone)

    products = isinstance(model.settings.network, MatrixPower)
    single = lower(product_precision="float32") if products else lower()
    assert single.dtype == jnp.float64
    # float32 rounding of features and weights of size ten
    np.testing.assert_allclose(single, padded, rtol=0, atol=1e-4 * np.abs(padded).max())
    if name == "matrix-power":
        difference = np.abs(lower(product_precision="bfloat16") - single).max()
        assert 1e-7 < difference < 0.01 * np.abs(padded).max()  # eight bits of mantissa in the products


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A network that leaves the odd channels out."""

    def module(self, outputs, species):
        class Module:
            def apply(self, params, inputs):
                return {i: jnp.zeros((len(inputs.kinds), n.even, 2 * i.lam + 1)) for i, n in outputs}

        return Module()


def test_outputs_of_another_shape_are_named():
    model = model_of("gated")
    wrong = dataclasses.replace(model, settings=dataclasses.replace(model.settings, network=Wrong()))
    with pytest.raises(
        vp.InputError, match=r"network Wrong\(\) returns shape \(36, 4, 1\) for 0\+; return \(36, 5, 1\)"
    ):
        matrix_of(wrong, geometry_of(SETTINGS, ACID()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gated(gated=0), "gated is 0"),
        (lambda: Gated(hidden=()), r"hidden is \(\)"),
        (lambda: Gated(hidden=(8, 0)), r"hidden is \(8, 0\)"),
        (lambda: dataclasses.replace(POWER, layers=0), "layers is 0"),
        (lambda: dataclasses.replace(POWER, product_precision="float16"), "product_precision is 'float16'"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(vp.InputError, match=message):
        make()
