"""The chain in one file: molecule → V → features → F → ε, P, μ, α.

Every function takes one molecule (an element of a `Batch`); `jax.vmap` and `jax.lax.map` give batches. `prepare`
holds what depends on the geometry alone and is computed once per training set; inside `jax.grad` with respect to
positions, call it inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.batching import Batch, BatchShape, pad_batch
from vpotjax.electronic.multipoles import dipole
from vpotjax.electronic.orbitals import orbitals
from vpotjax.electronic.polarizability import polarizability_of
from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.integrals.kinetic import kinetic
from vpotjax.integrals.multipole import position_integrals
from vpotjax.integrals.nuclear_attraction import external_potential, screened_potential
from vpotjax.integrals.overlap import overlap
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep, ShellLayout, ao_matrix, irreps, shell_layout
from vpotjax.operators.features import FeatureStatistics, normalised, pair_type_count, pair_types, potential_features
from vpotjax.operators.matrix_power import check_power

BASELINES = ("sap", "core", "zero")
PRECISIONS = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What a model is; hashable and written to the run folder.

    Attributes:
        species: atomic numbers that the model knows, ascending.
        orbital_basis: in which F lives.
        potential_basis: in which V and its powers are represented.
        power_order: highest power of V.
        power_kinds: products of V, see `potential_powers`.
        members: networks for each kind of product; F is the mean of the matrices of all networks.
        baseline: what the network corrects: "sap" (T + superposition of atomic potentials), "core" (T + V) or "zero".
        hidden: widths of the MLP of the pair's invariants.
        gated: channels per irrep that the MLP gates.
        precision: of the network, "float32" or "float64"; integrals and eigenproblem keep that of the positions.
    """

    species: tuple[int, ...]
    orbital_basis: str = "sto-3g"
    potential_basis: str = "def2-svp"
    power_order: int = 3
    power_kinds: tuple[str, ...] = ("raw", "metric")
    members: int = 3
    baseline: str = "zero"
    hidden: tuple[int, ...] = (64, 64)
    gated: int = 8
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise InputError(f"baseline is {self.baseline!r}; give one of {', '.join(BASELINES)}.")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; give one of {', '.join(PRECISIONS)}.")
        if not self.power_kinds:
            raise InputError("power_kinds is empty; give at least one kind of product of V.")
        for kind in self.power_kinds:
            check_power(self.power_order, kind)
        if self.members < 1:
            raise InputError(f"members is {self.members}; give at least 1.")
        for name in (self.orbital_basis, self.potential_basis):
            shell_layout(name, self.species)

    def networks(self) -> dict[str, str]:
        """Names of the networks, each with its kind of power."""
        return {f"{kind}-{i}": kind for kind in self.power_kinds for i in range(self.members)}

    def layouts(self) -> tuple[ShellLayout, ShellLayout]:
        """Shell layouts of the orbital and of the potential basis."""
        return shell_layout(self.orbital_basis, self.species), shell_layout(self.potential_basis, self.species)

    def batch(self, molecules: Sequence[Molecule], shape: BatchShape | None = None) -> Batch:
        """Molecules with the two bases of the model."""
        return pad_batch(molecules, {"orbital": self.orbital_basis, "potential": self.potential_basis}, shape)


@pytree
class Prepared:
    """What the model needs of one molecule.

    Attributes:
        features: by kind of power and irrep, (natm, natm, channels, 2λ+1), not normalised.
        kinds: (natm, natm), see `pair_types`.
        baseline: F before the network's correction, (nao, nao), hartree.
        overlap: S, (nao, nao).
        position: r about the origin, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nelec: ().
        basis: orbital basis.
    """

    features: dict[str, dict[Irrep, jax.Array]]
    kinds: Array
    baseline: Array
    overlap: Array
    position: Array
    positions: Array
    nelec: Array
    basis: Basis


@pytree
class Observables:
    """Of one Fock matrix; see the functions of the same names for units.

    Attributes:
        mo_energies: (nao,), padding last.
        density: (nao, nao).
        homo_lumo_gap: ().
        dipole: (3,).
        polarizability: (3, 3), uncoupled.
    """

    mo_energies: Array
    density: Array
    homo_lumo_gap: Array
    dipole: Array
    polarizability: Array


def prepare(molecule: Batch, config: ModelConfig) -> Prepared:
    """Integrals and features of one molecule of a batch that `config.batch` made."""
    orbital, potential = molecule.bases["orbital"], molecule.bases["potential"]
    positions = jnp.asarray(molecule.positions)
    target_layout, layout = config.layouts()
    matrices = external_potential(potential, positions), overlap(potential, positions)
    order, wanted = config.power_order, irreps(target_layout)
    return Prepared(
        features={
            kind: potential_features(potential, *matrices, layout, order, kind, wanted) for kind in config.power_kinds
        },
        kinds=pair_types(molecule.numbers, config.species),
        baseline=baseline_fock(orbital, positions, config.baseline),
        overlap=overlap(orbital, positions),
        position=position_integrals(orbital, positions, jnp.zeros(3, positions.dtype)),
        positions=positions,
        nelec=jnp.asarray(molecule.nelec),
        basis=jax.tree.map(jnp.asarray, orbital),
    )


def baseline_fock(basis: Basis, positions: Array, kind: str) -> jax.Array:
    """A Fock matrix without any density, (nao, nao), hartree; `kind` as `ModelConfig.baseline`."""
    if kind == "zero":
        return jnp.zeros((basis.nao, basis.nao), positions.dtype)
    potential = screened_potential if kind == "sap" else external_potential
    return kinetic(basis, positions) + potential(basis, positions)


@pytree
class Model:
    """Trained weights with all that prediction needs; a pytree, so it goes through jit and grad.

    Attributes:
        config: what the model is.
        params: of the Flax networks, by name, see `ModelConfig.networks`.
        statistics: normalisation of the features by kind of power, from the training set.
    """

    config: ModelConfig = static_field()
    params: Any
    statistics: dict[str, FeatureStatistics]

    def fock(self, prepared: Prepared) -> jax.Array:
        """Predicted F, (nao, nao), hartree, symmetric; zero on padding."""
        return fock_from_features(self.config, self.params, normalise(prepared, self.statistics, self.config.precision))

    def __call__(self, molecule: Batch) -> Observables:
        """The whole chain for one molecule of a batch that `config.batch` made."""
        prepared = prepare(molecule, self.config)
        return observables(self.fock(prepared), prepared)

    def predict(self, molecules: Sequence[Molecule]) -> Observables:
        """Observables of molecules, padded, with a leading batch axis.

        Raises:
            InputError: an element that the model was not trained on, or an open shell.
        """
        for molecule in molecules:
            if molecule.spin or molecule.nelec % 2:
                raise InputError(f"{molecule.formula} has spin {molecule.spin}; the model is for closed shells.")
            pair_types(molecule.numbers, self.config.species)
        return _predict(self, jax.tree.map(jnp.asarray, self.config.batch(molecules)))


@jax.jit
def _predict(model: Model, batch: Batch) -> Observables:
    return jax.lax.map(model, batch)


def network(config: ModelConfig) -> Any:
    """The Flax module of `config`: FockMap on normalised features."""
    from vpotjax.nn.fock_map import FockMap

    return FockMap(config.layouts()[0], pair_type_count(config.species), config.hidden, config.gated)


def normalise(prepared: Prepared, statistics: dict[str, FeatureStatistics], precision: str) -> Prepared:
    """`prepared` with normalised features in the precision of the network: what `fock_from_features` takes."""
    features = {kind: normalised(x, prepared.kinds, statistics[kind]) for kind, x in prepared.features.items()}
    return dataclasses.replace(prepared, features=jax.tree.map(lambda x: x.astype(precision), features))


def fock_from_features(config: ModelConfig, params: Any, inputs: Prepared) -> jax.Array:
    """F, (nao, nao), hartree, from normalised features; for training loops, which normalise once.

    Args:
        config: of the model.
        params: of the networks by name; F is the mean of those that are there.
        inputs: from `normalise`.
    """
    flax_module = network(config)
    kinds = config.networks()
    blocks = [flax_module.apply(params[name], inputs.features[kinds[name]], inputs.kinds) for name in params]
    return fock_from_blocks(jnp.mean(jnp.stack(blocks), axis=0), inputs, config)


def fock_from_blocks(blocks: Array, inputs: Prepared, config: ModelConfig) -> jax.Array:
    """F, (nao, nao), hartree, from the blocks (natm, natm, width, width) of a network's correction."""
    correction = ao_matrix(blocks, inputs.basis, config.layouts()[0])
    total = jnp.asarray(inputs.baseline) + correction.astype(inputs.baseline.dtype)
    return (total + total.T) / 2


def observables(fock: Array, prepared: Prepared) -> Observables:
    """ε, P, gap, μ and α of a Fock matrix, from one eigenproblem."""
    mask, nelec = prepared.basis.ao_mask, prepared.nelec
    solved = orbitals(fock, prepared.overlap, nelec, mask)
    energies, density = jnp.asarray(solved.mo_energies)[0], solved.density
    return Observables(
        mo_energies=energies,
        density=density,
        homo_lumo_gap=homo_lumo_gap(energies, nelec),
        dipole=dipole(density, prepared.position, prepared.positions, prepared.basis.nuclear_charges),
        polarizability=polarizability_of(solved, prepared.position),
    )


T = TypeVar("T")


def map_batch(function: Callable[..., T], batch: Any, *rest: Any) -> T:
    """`function` over a batch, one molecule after the other in one program: less memory than vmap, faster on CPU."""
    return jax.lax.map(lambda molecule: function(molecule, *rest), jax.tree.map(jnp.asarray, batch))


def initial_parameters(config: ModelConfig, prepared: Prepared, seed: int) -> dict[str, Any]:
    """Random parameters of every network; `prepared` is of any one molecule, for the sizes."""
    features = jax.tree.map(lambda value: jnp.zeros(value.shape, config.precision), prepared.features)
    flax_module, pairs, names = network(config), jnp.asarray(prepared.kinds), config.networks()
    keys = jax.random.split(jax.random.key(seed), len(names))
    return {
        name: flax_module.init(key, features[kind], pairs)
        for key, (name, kind) in zip(keys, names.items(), strict=True)
    }
