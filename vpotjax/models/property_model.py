"""Operators → properties: coupled blocks of pairs of atoms, summed.

A sum over all pairs of one kind is a feature of the molecule that rotates as its irrep: λ = 0 gives energies, λ = 1
dipoles, λ = 0 and 2 polarizabilities (Nigam, Smidt, Dusson 2026, arXiv:2602.15345). A network may correct each pair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.batching import Batch, BatchShape, pad_batch
from vpotjax.models.linear_map import LinearMap, correction, output_mask
from vpotjax.molecule import Molecule
from vpotjax.nn.linear import Linear
from vpotjax.nn.network import Channels, Network, Outputs
from vpotjax.operators.blocks import Irrep, require_irreps
from vpotjax.operators.clebsch_gordan import clebsch_gordan
from vpotjax.operators.features import SCALAR, NetworkInputs, PairFeatures
from vpotjax.operators.pairs import require_known_elements
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import Whitening

PROPERTIES = {
    "energy": (Irrep(0, 1),),
    "dipole": (Irrep(1, -1),),
    "polarizability": (Irrep(0, 1), Irrep(2, 1)),
}
"""Irreps of each property. Energies are hartree, dipoles e·bohr about the centre that the labels have (neutral
molecules have the same about any), polarizabilities bohr³, symmetric."""


@dataclasses.dataclass(frozen=True)
class PropertySettings:
    """What a model of a property is; hashable.

    Attributes:
        representation: of a molecule.
        target: of PROPERTIES.
        network: that corrects the linear map.
        precision: of the network, "float32" or "float64".
    """

    representation: Representation
    target: str
    network: Network = dataclasses.field(default_factory=Linear)
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.target not in PROPERTIES:
            raise InputError(f"target is {self.target!r}; give one of {', '.join(PROPERTIES)}.")
        if self.precision not in ("float32", "float64"):
            raise InputError(f"precision is {self.precision!r}; give float32 or float64.")
        require_irreps(PROPERTIES[self.target], self.representation.layout, self.representation.basis)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return self.representation.species

    @property
    def outputs(self) -> Outputs:
        """One channel of each irrep, even: a sum over pairs does not know their order."""
        return tuple((irrep, Channels(1, 0)) for irrep in PROPERTIES[self.target])

    @property
    def bases(self) -> dict[str, str]:
        """By role."""
        return {"potential": self.representation.basis}

    def batch(self, molecules: Sequence[Molecule], shape: BatchShape | None = None) -> Batch:
        """Molecules with the basis of the representation."""
        for molecule in molecules:
            require_known_elements(molecule.numbers, self.species)
        return pad_batch(molecules, self.bases, shape, pair_cutoff=self.representation.cutoff)

    def features(self, molecule: Batch) -> PairFeatures:
        """Of one molecule."""
        operators = bool(getattr(self.network, "operators", False))
        return self.representation.features(molecule, PROPERTIES[self.target], operators=operators)


def composition(numbers: Array, species: Sequence[int]) -> jax.Array:
    """Atoms of each element, (..., species)."""
    return jnp.sum(jnp.asarray(numbers)[..., None] == jnp.array(species), axis=-2)


def to_irreps(values: np.ndarray, target: str) -> dict[Irrep, np.ndarray]:
    """Labels of a property, (nbatch, …), by irrep (nbatch, 2λ+1).

    Raises:
        InputError: the wrong shape.
    """
    shape = {"energy": (), "dipole": (3,), "polarizability": (3, 3)}[target]
    values = np.asarray(values, float)
    if values.shape[1:] != shape:
        raise InputError(f"labels have shape {values.shape}; a {target} needs (molecules, *{shape}).")
    if target == "polarizability":
        return {
            irrep: np.einsum("bxy,xym->bm", values, clebsch_gordan(1, 1, irrep.lam)) for irrep in PROPERTIES[target]
        }
    return {PROPERTIES[target][0]: values.reshape(len(values), -1)}


def from_irreps(values: Mapping[Irrep, Array], target: str) -> jax.Array:
    """The inverse of `to_irreps`."""
    if target == "polarizability":
        parts = [jnp.einsum("...m,xym->...xy", v, clebsch_gordan(1, 1, i.lam)) for i, v in values.items()]
        return jnp.sum(jnp.stack(parts), axis=0)
    value = jnp.asarray(next(iter(values.values())))
    return value[..., 0] if target == "energy" else value


@pytree
class PropertyModel:
    """A linear model in closed form, with a network's correction where there is one; a pytree.

    Attributes:
        settings: what the model is.
        whitening: of the network's inputs; None for a linear model.
        linear: in closed form.
        per_atom: coefficient of each element, (species,); zero where symmetry forbids a constant.
        scale: () size of the correction.
        params: of the network; None for a linear model.
    """

    settings: PropertySettings = static_field()
    whitening: Whitening | None
    linear: LinearMap
    per_atom: Array
    scale: Array
    params: Any

    def linear_part(self, features: PairFeatures, numbers: Array) -> dict[Irrep, jax.Array]:
        """By irrep (2λ+1,), without the network."""
        masks = output_mask(features, self.settings.outputs)
        values = {
            irrep: jnp.sum(jnp.where(masks[irrep], y, 0.0), axis=(0, 1)) for irrep, y in self.linear(features).items()
        }
        if SCALAR in values:
            values[SCALAR] += composition(numbers, self.settings.species) @ jnp.asarray(self.per_atom)
        return values

    def __call__(self, molecule: Batch) -> jax.Array:
        """The property of one molecule of a batch that `settings.batch` made."""
        features = self.settings.features(molecule)
        values = self.linear_part(features, molecule.numbers)
        if self.whitening is not None:
            inputs = self.whitening(features, self.settings.precision)
            params = jax.tree.map(jnp.asarray, self.params)
            for irrep, y in summed_correction(self.settings, self.scale, params, inputs).items():
                values[irrep] += y
        return from_irreps(values, self.settings.target)

    def predict(self, molecules: Sequence[Molecule]) -> jax.Array:
        """The property of molecules, with a leading axis.

        Raises:
            InputError: an element that the model was not trained on.
        """
        return _predict(self, jax.tree.map(jnp.asarray, self.settings.batch(molecules)))


def summed_correction(
    settings: PropertySettings, scale: Array, params: Any, inputs: NetworkInputs
) -> dict[Irrep, jax.Array]:
    """What the network adds, by irrep (2λ+1,)."""
    pairs = correction(settings.network, params, inputs, settings.outputs, len(settings.species))
    return {irrep: jnp.asarray(scale) * jnp.sum(y, axis=(0, 1)) for irrep, y in pairs.items()}


@jax.jit
def _predict(model: PropertyModel, batch: Batch) -> jax.Array:
    return jax.lax.map(model, batch)
