"""A network of e3nn-jax between the representation and F: the model stays equivariant, whatever its weights mix."""

import dataclasses
import functools
import warnings
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2, random_rotation
from vpotjax.interop.e3nn import from_irreps_array, output_irreps, to_irreps_array
from vpotjax.models.linear_map import LinearMap
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings
from vpotjax.nn import Channels
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import Whitening

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # e3nn_jax's own use of deprecated JAX names
    import e3nn_jax


class Layer(nn.Module):
    """Features, their products with the scalars, then one linear layer to the outputs."""

    outputs: Any

    @nn.compact
    def __call__(self, inputs):
        x = to_irreps_array(inputs.values)
        scalars = jnp.tanh(inputs.values[SCALAR][..., 0])
        gate = nn.Dense(1, param_dtype=x.array.dtype, name="gate")(scalars)
        x = e3nn_jax.IrrepsArray(x.irreps, x.array * (1 + gate))
        linear = e3nn_jax.flax.Linear(output_irreps(self.outputs), force_irreps_out=True, name="linear")
        return from_irreps_array(linear(x), self.outputs)


@dataclasses.dataclass(frozen=True)
class OfE3nn:
    def module(self, outputs, species):
        return Layer(outputs)


def test_there_and_back():
    rng = np.random.default_rng(0)
    values = {Irrep(0, 1): rng.standard_normal((4, 3, 1)), Irrep(1, -1): rng.standard_normal((4, 2, 3))}
    values[Irrep(2, 1)] = rng.standard_normal((4, 1, 5))
    outputs = tuple((i, Channels(x.shape[1], 0)) for i, x in values.items())
    array = to_irreps_array(values)
    assert str(array.irreps) == "3x0e+2x1o+1x2e"
    np.testing.assert_allclose(array.array[:, 3:6], values[Irrep(1, -1)][:, 0])  # x, y, z with y as the polar axis
    for irrep, x in from_irreps_array(array, outputs).items():
        np.testing.assert_allclose(x, values[irrep], atol=1e-15)
    with pytest.raises(vp.InputError, match="the outputs are"):
        from_irreps_array(array, outputs[:2])


def test_rotation_of_features_is_that_of_e3nn():
    """Features of the rotated molecule are e3nn's rotation of those of the molecule."""
    representation = Representation((1, 6, 7), "6-31g", ("overlap", "sap"), 1)
    molecule, rotation = g2("HCN"), random_rotation()
    rotation = rotation * np.linalg.det(rotation)  # e3nn wants a proper one
    features_of = jax.jit(functools.partial(representation.features, wanted=(Irrep(1, -1), Irrep(2, 1))))
    arrays = []
    for turn in (np.eye(3), rotation):
        moved = vp.Molecule(molecule.numbers, molecule.positions @ turn.T)
        batch = vp.pad_batch([moved], {"potential": "6-31g"})
        arrays.append(to_irreps_array(features_of(batch[0]).values))
    assert np.abs(arrays[0].array - arrays[1].array).max() > 1e-2
    turned = arrays[0].transform_by_matrix(jnp.asarray(rotation))
    np.testing.assert_allclose(arrays[1].array, turned.array, atol=1e-6)  # e3nn's matrices are partly single precision


@pytest.mark.slow
def test_a_model_with_a_network_of_e3nn_is_equivariant():
    settings = MatrixSettings(Representation((1, 6, 7), "6-31g", ("overlap", "sap"), 1), OfE3nn(), precision="float64")
    molecule, rotation = g2("HCN"), random_rotation()
    order = np.array([2, 0, 1])
    places = molecule.positions + 0.1 * np.sin(np.arange(9)).reshape(3, 3)
    molecules = [
        vp.Molecule(molecule.numbers, places),
        vp.Molecule(molecule.numbers[order], (places @ rotation.T)[order]),
    ]
    batch = jax.tree.map(jnp.asarray, settings.batch(molecules))
    geometry = jax.jit(jax.vmap(settings.geometry))(batch)
    shapes = {i: x.shape[-2] for i, x in geometry.features.values.items()}
    kinds = 9
    whitening = Whitening(
        {i: np.zeros((kinds, n)) for i, n in shapes.items()},
        {i: np.tile(np.eye(n), (kinds, 1, 1)) for i, n in shapes.items()},
        np.tile(0.1 * np.eye(shapes[SCALAR]), (kinds, 1, 1)),
        np.ones(kinds),
    )
    none = LinearMap({i: np.zeros((kinds, shapes[i], c.total)) for i, c in settings.outputs})
    first = whitening(jax.tree.map(lambda x: x[0], geometry.features), "float64")
    params = settings.network.module(settings.outputs, 3).init(jax.random.key(0), first)
    model = MatrixModel(settings, whitening, none, np.asarray(1.0), params)
    levels = jax.jit(jax.vmap(lambda m: model(m).mo_energies))(batch)
    without = jax.jit(jax.vmap(lambda m: dataclasses.replace(model, scale=np.asarray(0.0))(m).mo_energies))(batch)
    assert np.abs(levels - without).max() > 1e-3
    np.testing.assert_allclose(levels[0], levels[1], rtol=0, atol=1e-10)
