"""Matrix models all of whose weights are random, and the compiled programs that tests of them share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import vpotjax as vp
from tests.molecules import g2
from vpotjax.batching import BatchShape, batch_shape
from vpotjax.conventions import block_diagonal, rotation_matrices
from vpotjax.models import MatrixModel, MatrixSettings
from vpotjax.models.linear_map import LinearMap, weight_masks
from vpotjax.nn import Gated, Linear, MatrixPower
from vpotjax.nn.network import Network, Outputs
from vpotjax.operators.features import SCALAR, NetworkInputs
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import Whitening, fitted_whitening

SPECIES = (1, 6, 8)
REPRESENTATION = Representation(SPECIES, "6-31g", power_order=2)
SETTINGS = MatrixSettings(REPRESENTATION, Linear(), precision="float64")


@dataclasses.dataclass(frozen=True)
class Local:
    """A user's network, without Flax and without regard to the order of the atoms of a pair: even and odd channels are
    mixed, with gates from the pair's channels, from the first atom, and from an element of an operator's block.
    """

    operators: ClassVar[bool] = True

    def module(self, outputs: Outputs, species: int) -> LocalModule:
        return LocalModule(outputs)


@dataclasses.dataclass(frozen=True)
class LocalModule:
    outputs: Outputs

    def init(self, key: Any, inputs: NetworkInputs) -> Any:
        sizes = {i: (inputs.values[i].shape[1], channels.total) for i, channels in self.outputs}
        scalars = 2 * inputs.values[SCALAR].shape[1] + len(inputs.operators)
        shapes = {"gate": (scalars, 1)} | {str(i): size for i, size in sizes.items()}
        return {name: jnp.zeros(shape, inputs.values[SCALAR].dtype) for name, shape in shapes.items()}

    def apply(self, params: Any, inputs: NetworkInputs) -> Mapping[Any, jax.Array]:
        scalars = inputs.values[SCALAR][..., 0]
        first, element = scalars[inputs.pairs.first], inputs.operators[:, :, 0, 1].T  # of shells 1 and 2: not symmetric
        gate = jnp.tanh(jnp.concatenate([scalars, first, element], axis=1) @ params["gate"])[:, :, None]
        return {i: gate * jnp.einsum("pkm,kc->pcm", inputs.values[i], params[str(i)]) for i, _ in self.outputs}


POWER = MatrixPower(2, (8, 8), layers=2, channels=2, shells=2, product_precision="float64")
NETWORKS: dict[str, Network] = {
    "linear": Linear(),
    "gated": Gated(2, (8, 8)),
    "matrix-power": POWER,
    "coupling": dataclasses.replace(POWER, coupling=True, layers=1),
    "user": Local(),
}


@dataclasses.dataclass(frozen=True)
class _Shared:
    """No network, but operators: one program for the geometry serves all networks."""

    operators: ClassVar[bool] = True

    def module(self, outputs: Outputs, species: int) -> None:
        """None."""


def distorted(name: str, seed: int = 6) -> vp.Molecule:
    """Without any symmetry."""
    molecule = g2(name)
    noise = np.random.default_rng(seed).normal(0, 0.15, molecule.positions.shape)
    return vp.Molecule(molecule.numbers, molecule.positions + noise)


def together(first: vp.Molecule, second: vp.Molecule, distance: float) -> vp.Molecule:
    """Two molecules, the second one shifted."""
    far = second.positions + np.array([0.0, 0.6, 0.8]) * distance
    return vp.Molecule(np.append(first.numbers, second.numbers), np.concatenate([first.positions, far]))


def training() -> list[vp.Molecule]:
    """Without C–C and C–O and O–O pairs in one of them, without C–C in any."""
    return [distorted("HCOOH", 1), distorted("H2O", 2), distorted("CH4", 3)]


@functools.cache
def shape(settings: MatrixSettings) -> BatchShape:
    """Padded beyond every molecule of the tests, so that one program serves all."""
    every_pair = dataclasses.replace(settings, representation=dataclasses.replace(settings.representation, cutoff=None))
    return batch_shape(every_pair.batch([together(g2("H2O"), g2("CH4"), 6.0), g2("HCOOH")]))


_geometry = jax.jit(lambda settings, molecule: settings.geometry(molecule), static_argnums=0)


def example(settings: MatrixSettings, molecule: vp.Molecule, padded: bool = True) -> vp.Batch:
    """One molecule."""
    return jax.tree.map(jnp.asarray, settings.batch([molecule], shape(settings) if padded else None)[0])


def geometry_of(settings: MatrixSettings, molecule: vp.Molecule | vp.Batch, padded: bool = True) -> Any:
    """`MatrixSettings.geometry`, always with operators; one program for both frames."""
    shared = dataclasses.replace(settings, network=_Shared(), precision="float64", frame="lowdin")
    one = molecule if isinstance(molecule, vp.Batch) else example(shared, molecule, padded)
    geometry = _geometry(shared, one)
    return geometry if settings.frame == "lowdin" else dataclasses.replace(geometry, frame=None)


@functools.cache
def whitening_of(representation: Representation) -> Whitening:
    """Of the training molecules."""
    settings = dataclasses.replace(SETTINGS, representation=representation)
    features = [geometry_of(settings, m).features for m in training()]
    batches = [jax.tree.map(lambda leaf: np.asarray(leaf)[None], x) for x in features]
    return fitted_whitening(batches, len(SPECIES), representation.matrix_count)


@jax.jit
def jitted_inputs(whitening: Any, features: Any) -> NetworkInputs:
    """In float64."""
    return whitening(features, "float64")


@functools.cache
def random_parameters(network: Network, settings: MatrixSettings, size: float, seed: int) -> Any:
    """Of a network for the outputs of `settings`, far from those that it starts with."""
    module = network.module(settings.outputs, len(SPECIES))
    if module is None:
        return None
    inputs = jitted_inputs(whitening_of(settings.representation), geometry_of(settings, training()[0]).features)
    params, rng = jax.jit(module.init)(jax.random.key(seed), inputs), np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + size * rng.standard_normal(x.shape), params)


@functools.cache
def random_model(settings: MatrixSettings, size: float = 0.1, seed: int = 0) -> MatrixModel:
    """Every weight is random, so that no part of the model is switched off."""
    whitening, rng = whitening_of(settings.representation), np.random.default_rng(seed)
    even, weights = dict(geometry_of(settings, training()[0]).features.even), {}
    for irrep, channels in settings.outputs:
        transform = whitening.transform[irrep]
        masks = weight_masks(len(SPECIES), even[irrep], transform.shape[-1], channels)
        raw = transform @ np.where(masks, 0.3 * size * rng.standard_normal(masks.shape), 0.0)
        # To the constant channel, so that the map is one of whitened features, which are of size one.
        raw[:, even[irrep] - 1] -= np.einsum("kc,kco->ko", whitening.mean[irrep], raw)
        assert not np.any(raw[~masks])
        weights[irrep] = raw
    params = random_parameters(
        settings.network, dataclasses.replace(SETTINGS, representation=settings.representation), size, seed
    )
    return MatrixModel(settings, whitening, LinearMap(weights), np.asarray(0.5), params)


@jax.jit
def matrix_of(model: MatrixModel, geometry: Any) -> jax.Array:
    """F (or P)."""
    return model.matrix(model.prepared(geometry))


def evaluate(model: MatrixModel, molecule: vp.Molecule, padded: bool = True) -> np.ndarray:
    """F (or P) without padding, after a check that it is symmetric and zero there."""
    matrix = np.asarray(matrix_of(model, geometry_of(model.settings, molecule, padded)))
    n = vp.load_basis(model.settings.orbital_basis, molecule.numbers).nao
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not np.any(matrix[n:])
    return matrix[:n, :n]


def rotated_matrix(matrix: np.ndarray, molecule: vp.Molecule, rotation: np.ndarray) -> np.ndarray:
    """A matrix in STO-3G as it is after a rotation."""
    wigner = rotation_matrices(1, tuple(map(tuple, rotation.tolist())))
    big = block_diagonal([wigner[l] for l in vp.load_basis("sto-3g", molecule.numbers).shell_angular_momenta()])
    return big @ matrix @ big.T


def permuted_matrix(matrix: np.ndarray, molecule: vp.Molecule, order: np.ndarray) -> np.ndarray:
    """A matrix in STO-3G as it is with the atoms in another order."""
    slices = vp.load_basis("sto-3g", molecule.numbers).atom_ao_slices()
    index = np.concatenate([np.arange(*slices[atom]) for atom in order])
    return matrix[np.ix_(index, index)]
