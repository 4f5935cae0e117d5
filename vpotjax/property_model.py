"""Operators → properties: coupled blocks summed over pairs of atoms, then a linear or a gated map.

A sum over all pairs of one kind is a feature of the molecule that rotates as its irrep: λ = 0 gives energies, λ = 1
dipoles, λ = 0 and 2 polarizabilities (Nigam, Smidt, Dusson 2026, arXiv:2602.15345).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._guards import flag
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.batching import Batch, BatchShape, pad_batch
from vpotjax.integrals.overlap import overlap
from vpotjax.molecule import Molecule
from vpotjax.operators.angular import clebsch_gordan
from vpotjax.operators.blocks import Coupled, Irrep, require_irreps, shell_layout
from vpotjax.operators.external_potential import (
    check_cutoff,
    check_operators,
    operator_matrices,
    pair_cutoff,
    require_all_electrons,
)
from vpotjax.operators.features import (
    SCALAR,
    FeatureStatistics,
    known_elements,
    matrix_count,
    normalised,
    operator_features,
    pair_type_count,
    pair_types,
)
from vpotjax.operators.matrix_power import check_power

PRECISIONS = ("float32", "float64")
PROPERTIES = {
    "energy": (Irrep(0, 1),),
    "dipole": (Irrep(1, -1),),
    "polarizability": (Irrep(0, 1), Irrep(2, 1)),
}
"""Irreps of each property. Energies are hartree, dipoles e·bohr about the centre that the labels have (neutral
molecules have the same about any), polarizabilities bohr³, symmetric."""


@dataclasses.dataclass(frozen=True)
class PropertyConfig:
    """What a property model is; hashable.

    Attributes:
        species: atomic numbers that the model knows, ascending.
        target: of PROPERTIES.
        potential_basis: in which the operators are represented.
        inputs: see `operator_matrices`.
        power_order, power_kind: see `potential_powers`.
        cutoff: in bohr, of nuclei and pairs; None for none.
        gated: channels per irrep of a correction that an MLP of each pair's invariants gates; 0 for a linear model.
        hidden: widths of that MLP.
        precision: of the correction, "float32" or "float64".
    """

    species: tuple[int, ...]
    target: str
    potential_basis: str = "def2-svp"
    inputs: tuple[str, ...] = ("overlap", "external")
    power_order: int = 4
    power_kind: str = "raw"
    cutoff: float | None = None
    gated: int = 0
    hidden: tuple[int, ...] = (64, 64)
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.target not in PROPERTIES:
            raise InputError(f"target is {self.target!r}; give one of {', '.join(PROPERTIES)}.")
        check_power(self.power_order, self.power_kind)
        check_cutoff(self.cutoff)
        check_operators(self.inputs)
        require_all_electrons("inputs", self.inputs, self.potential_basis, self.species)
        if self.gated < 0:
            raise InputError(f"gated is {self.gated}; give 0 for a linear model, or the channels of each irrep.")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}; give the width of at least one layer.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}.")
        layout = shell_layout(self.potential_basis, self.species)
        require_irreps(PROPERTIES[self.target], layout, self.potential_basis)

    def batch(self, molecules: Sequence[Molecule], shape: BatchShape | None = None) -> Batch:
        """Molecules with the basis of the model."""
        for molecule in molecules:
            pair_types(molecule.numbers, self.species)
        return pad_batch(molecules, {"potential": self.potential_basis}, shape)


def pair_features(molecule: Batch, config: PropertyConfig) -> tuple[dict[Irrep, jax.Array], jax.Array]:
    """Of one molecule of a batch: features by irrep (natm, natm, channels, 2λ+1), and kinds of pairs (natm, natm)."""
    basis, positions = molecule.bases["potential"], jnp.asarray(molecule.positions)
    matrices = operator_matrices(basis, positions, config.inputs, config.cutoff)
    metric = matrices["overlap"] if "overlap" in matrices else overlap(basis, positions)
    layout = shell_layout(config.potential_basis, config.species)
    wanted = {*PROPERTIES[config.target], SCALAR}
    near = pair_cutoff(positions, config.cutoff)
    features = operator_features(basis, matrices, metric, layout, config.power_order, config.power_kind, wanted, near)
    known = flag(known_elements(molecule.numbers, config.species)).astype(positions.dtype)
    return {i: x * known for i, x in features.items()}, pair_types(molecule.numbers, config.species)


def molecule_features(molecule: Batch, config: PropertyConfig) -> dict[Irrep, jax.Array]:
    """Sums over the pairs of each kind, by irrep of the target (kinds, matrices, channels, 2λ+1).

    Of two kinds that differ in the order of the elements one is kept: V is symmetric.
    """
    return _pair_sums(*pair_features(molecule, config), config)


def _pair_sums(features: Coupled, kinds: Array, config: PropertyConfig) -> dict[Irrep, jax.Array]:
    member = jax.nn.one_hot(kinds, pair_type_count(config.species), dtype=features[SCALAR].dtype)
    member = member[..., _one_order(len(config.species))]
    count = matrix_count(config.inputs, config.power_order)
    result = {}
    for irrep in PROPERTIES[config.target]:
        x = features[irrep]
        x = x[:, :, :-1] if irrep == SCALAR else x  # not the constant: composition has its own coefficients
        sums = jnp.einsum("ijk,ijcm->kcm", member, x)
        result[irrep] = sums.reshape(sums.shape[0], count, -1, sums.shape[-1])
    return result


def _one_order(species: int) -> np.ndarray:
    """Kinds on site, and off site with the elements in ascending order."""
    offsite = [species * (1 + a) + b for a in range(species) for b in range(a, species)]
    return np.array([*range(species), *offsite])


def composition(numbers: Array, species: Sequence[int]) -> np.ndarray:
    """Atoms of each element, (nbatch, species)."""
    return np.stack([(np.asarray(numbers) == z).sum(axis=-1) for z in species], axis=-1).astype(float)


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


def from_irreps(values: dict[Irrep, Any], target: str) -> jax.Array:
    """The inverse of `to_irreps`."""
    if target == "polarizability":
        parts = [jnp.einsum("...m,xym->...xy", v, clebsch_gordan(1, 1, i.lam)) for i, v in values.items()]
        return jnp.sum(jnp.stack(parts), axis=0)
    value = next(iter(values.values()))
    return value[..., 0] if target == "energy" else value


@pytree
class PropertyModel:
    """A linear model in closed form, optionally with a gated correction, and all that prediction needs; a pytree.

    Attributes:
        config: what the model is.
        weights: by irrep, (kinds, matrices, channels), of the features as they are (the normalisation is in them).
        per_atom: coefficient of each element, (species,); zero where symmetry forbids a constant.
        regularisers: that cross-validation chose, by irrep.
        params: of the correction, see `property_network`; None for a linear model.
        statistics: normalisation of the features of the correction, from the training set; None for a linear model.
    """

    config: PropertyConfig = static_field()
    weights: dict[Irrep, Array]
    per_atom: Array
    regularisers: dict[Irrep, Array]
    params: Any = None
    statistics: FeatureStatistics | None = None

    def __call__(self, molecule: Batch) -> jax.Array:
        """The property of one molecule of a batch that `config.batch` made."""
        features, kinds = pair_features(molecule, self.config)
        sums = _pair_sums(features, kinds, self.config)
        values = {i: jnp.einsum("kocm,koc->m", x, self.weights[i]) for i, x in sums.items()}
        if SCALAR in values:
            atoms = jnp.sum(jnp.asarray(molecule.numbers)[:, None] == jnp.array(self.config.species), axis=0)
            values[SCALAR] += atoms @ self.per_atom
        if self.statistics is not None:
            inputs = network_inputs(features, kinds, self.statistics, self.config)
            params = jax.tree.map(jnp.asarray, self.params)  # loaded ones are NumPy arrays, which tracers cannot index
            for irrep, correction in property_network(self.config).apply(params, inputs, kinds).items():
                values[irrep] += correction
        return from_irreps(values, self.config.target)

    def predict(self, molecules: Sequence[Molecule]) -> jax.Array:
        """The property of molecules, with a leading axis.

        Raises:
            InputError: an element that the model was not trained on.
        """
        return _predict(self, jax.tree.map(jnp.asarray, self.config.batch(molecules)))


def property_network(config: PropertyConfig) -> Any:
    """The Flax module of the gated correction: PropertyMap on normalised features."""
    from vpotjax.nn.property_map import PropertyMap

    species = config.species
    return PropertyMap(PROPERTIES[config.target], len(species), pair_type_count(species), config.hidden, config.gated)


def network_inputs(
    features: Coupled, kinds: Array, statistics: FeatureStatistics, config: PropertyConfig
) -> dict[Irrep, jax.Array]:
    """Normalised features in the precision of the network."""
    return {irrep: x.astype(config.precision) for irrep, x in normalised(features, kinds, statistics).items()}


@jax.jit
def _predict(model: PropertyModel, batch: Batch) -> jax.Array:
    return jax.lax.map(model, batch)
