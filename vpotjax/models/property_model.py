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
from vpotjax._guards import flag
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
            self.require(molecule)
        return pad_batch(molecules, self.bases, shape, pair_cutoff=self.representation.cutoff)

    def require(self, molecule: Molecule) -> None:
        """Raise InputError where the model does not know an element, or the molecule is charged or an open shell: what
        the operators of the nuclei say is the same for all charges and spins.
        """
        require_known_elements(molecule.numbers, self.species)
        if molecule.charge or molecule.spin:
            raise InputError(
                f"{molecule.formula} has charge {molecule.charge} and spin {molecule.spin}, which a model of a "
                "property does not see; give neutral closed shells, or train a model of F."
            )

    def potentials(self, molecule: Batch) -> dict[str, jax.Array]:
        """Those of the representation, (nao, nao), hartree."""
        return self.representation.potentials(molecule)

    def geometry(self, molecule: Batch, potentials: Mapping[str, Array] | None = None) -> PropertyGeometry:
        """What follows from one molecule of `batch` without any weight; of charges and open shells NaN.

        Args:
            molecule: of a batch.
            potentials: from `potentials` of the molecule; default: made here, as derivatives in positions need it.
        """
        valid = flag(jnp.asarray(molecule.charge) == 0, jnp.asarray(molecule.spin) == 0)
        features = self.features(molecule, potentials)
        values = {irrep: x * valid.astype(x.dtype) for irrep, x in features.values.items()}
        return PropertyGeometry(dataclasses.replace(features, values=values), jnp.asarray(molecule.numbers))

    def features(self, molecule: Batch, potentials: Mapping[str, Array] | None = None) -> PairFeatures:
        """Of one molecule; arguments as `geometry`."""
        operators = bool(getattr(self.network, "operators", False))
        return self.representation.features(molecule, PROPERTIES[self.target], potentials, operators=operators)


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
class PropertyGeometry:
    """What a model needs of one molecule, before its weights.

    Attributes:
        features: of pairs of atoms.
        numbers: (natm,) atomic numbers, 0 for padding.
    """

    features: PairFeatures
    numbers: Array


@pytree
class PropertyPrepared:
    """What the network corrects, and its inputs.

    Attributes:
        inputs: of the network; None where a linear model has no whitening.
        linear: the property without the network, by irrep (2λ+1,).
        numbers: (natm,) atomic numbers, 0 for padding.
    """

    inputs: NetworkInputs | None
    linear: Mapping[Irrep, Array]
    numbers: Array


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

    def prepared(self, geometry: PropertyGeometry) -> PropertyPrepared:
        """Linear map and network inputs of one molecule."""
        inputs = None if self.whitening is None else self.whitening(geometry.features, self.settings.precision)
        return PropertyPrepared(inputs, self.linear_part(geometry.features, geometry.numbers), geometry.numbers)

    def output(self, prepared: PropertyPrepared) -> dict[Irrep, jax.Array]:
        """By irrep (2λ+1,), with the network."""
        values = {irrep: jnp.asarray(y) for irrep, y in prepared.linear.items()}
        if prepared.inputs is None or self.params is None:
            return values
        params = jax.tree.map(jnp.asarray, self.params)
        added = summed_correction(self.settings, self.scale, params, prepared.inputs)
        return {irrep: y + added.get(irrep, 0.0) for irrep, y in values.items()}

    def observables(
        self, output: Mapping[Irrep, Array], prepared: PropertyPrepared, names: Sequence[str]
    ) -> dict[str, jax.Array]:
        """The property, by its name.

        Raises:
            InputError: another one is asked for.
        """
        if others := sorted(set(names) - {self.settings.target}):
            raise InputError(f"the model is one of {self.settings.target!r}, and does not know {', '.join(others)}.")
        return {name: self.solution(output, prepared) for name in names}

    def solution(self, output: Mapping[Irrep, Array], prepared: PropertyPrepared) -> jax.Array:
        """The property."""
        return from_irreps(output, self.settings.target)

    def excess(self, prepared: PropertyPrepared) -> jax.Array:
        """(npair,) see `Whitening.excess`; one NaN where there is no whitening."""
        if self.whitening is None or prepared.inputs is None:
            return jnp.full(1, jnp.nan)
        return self.whitening.excess(prepared.inputs)

    def natm(self, prepared: PropertyPrepared) -> jax.Array:
        """() number of atoms."""
        return jnp.sum(jnp.asarray(prepared.numbers) > 0)

    def heavy_atoms(self, prepared: PropertyPrepared) -> jax.Array:
        """() number of atoms other than hydrogen."""
        return jnp.sum(jnp.asarray(prepared.numbers) > 1)

    def __call__(self, molecule: Batch) -> jax.Array:
        """The property of one molecule of a batch that `settings.batch` made."""
        prepared = self.prepared(self.settings.geometry(molecule))
        return self.solution(self.output(prepared), prepared)

    def predict(self, molecules: Sequence[Molecule]) -> jax.Array:
        """The property of molecules, with a leading axis.

        Raises:
            InputError: an element that the model was not trained on, a charge, or an open shell.
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
