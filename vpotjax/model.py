"""The chain in one file: molecule → V → features → F → ε, P, μ, α.

Every function takes one molecule (an element of a `Batch`); `jax.vmap` and `jax.lax.map` give batches. `prepare`
holds what depends on the geometry alone and is computed once per training set; inside `jax.grad` with respect to
positions, call it inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._guards import flag
from vpotjax._numerics import inverse_square_root, square_root, unit_padding
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.batching import Batch
from vpotjax.electronic.density import density_matrix
from vpotjax.electronic.multipoles import dipole
from vpotjax.electronic.orbitals import orbitals
from vpotjax.electronic.polarizability import polarizability_of
from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.integrals.kinetic import kinetic
from vpotjax.integrals.multipole import position_integrals
from vpotjax.integrals.nuclear_attraction import external_potential, screened_potential
from vpotjax.integrals.overlap import overlap
from vpotjax.model_config import ModelConfig, require_target
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import (
    Irrep,
    ao_matrix,
    atom_pair_blocks,
    irreps,
)
from vpotjax.operators.external_potential import operator_matrices, pair_cutoff
from vpotjax.operators.features import (
    FeatureStatistics,
    known_elements,
    normalised,
    operator_features,
    pair_type_count,
    pair_types,
)
from vpotjax.operators.matrix_power import lowdin

FACTOR_LAST = ("kinetic", "own_nuclei", "sap", "external")
"""Order of the operators of `MatrixPower`: the last one that is there is the factor of its products."""


@pytree
class Prepared:
    """What the model needs of one molecule.

    Attributes:
        features: by kind of power and irrep, (natm, natm, channels, 2λ+1), not normalised.
        operators: of `MatrixPower`, (count, natm, natm, width, width); None for the other networks.
        kinds: (natm, natm), see `pair_types`.
        baseline: F (or P) before the network's correction, (nao, nao), hartree.
        overlap: S, (nao, nao).
        frame: R, (nao, nao), with R X R the correction in AOs, X in the network's frame; None where that is of AOs.
        position: r about the origin, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nelec: () electrons that the orbital basis holds.
        basis: orbital basis.
    """

    features: dict[str, dict[Irrep, jax.Array]]
    operators: Array | None
    kinds: Array
    baseline: Array
    overlap: Array
    frame: Array | None
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
    """Integrals and features of one molecule of a batch that `config.batch` made.

    The baseline, and with it all that is predicted, is NaN for an open shell and for elements that the model lacks.
    """
    orbital, potential = molecule.bases["orbital"], molecule.bases["potential"]
    positions = jnp.asarray(molecule.positions)
    target_layout, layout = config.layouts()
    matrices = operator_matrices(potential, positions, config.inputs, config.cutoff)
    metric = matrices["overlap"] if "overlap" in matrices else overlap(potential, positions)
    near = pair_cutoff(positions, config.cutoff)
    features = {
        kind: operator_features(
            potential, matrices, metric, layout, config.power_order, kind, irreps(target_layout), near
        )
        for kind in config.power_kinds
    }
    operators = None
    if config.network == "matrix-power":
        chosen = [matrices[name] for name in FACTOR_LAST if name in matrices]
        orthogonal = lowdin(jnp.stack(chosen), metric, jnp.asarray(potential.ao_mask))
        operators = atom_pair_blocks(orthogonal, potential, layout) * near[:, :, None, None]
    own = overlap(orbital, positions)
    valid = flag(known_elements(molecule.numbers, config.species), jnp.asarray(molecule.spin) == 0)
    baseline = baseline_fock(orbital, positions, config.baseline) * valid.astype(positions.dtype)
    if config.target == "density" and config.baseline != "zero":
        baseline = density_matrix(baseline, own, molecule.nelec, jnp.asarray(orbital.ao_mask))
    return Prepared(
        features=features,
        operators=operators,
        kinds=pair_types(molecule.numbers, config.species),
        baseline=baseline,
        overlap=own,
        frame=network_frame(own, jnp.asarray(orbital.ao_mask), config),
        position=position_integrals(orbital, positions, jnp.zeros(3, positions.dtype)),
        positions=positions,
        nelec=jnp.asarray(molecule.nelec),
        basis=jax.tree.map(jnp.asarray, orbital),
    )


def network_frame(overlap: Array, ao_mask: Array, config: ModelConfig) -> jax.Array | None:
    """R of `Prepared.frame`: S^{1/2} for F, S^{−1/2} for P."""
    if config.frame == "ao":
        return None
    root = square_root if config.target == "fock" else inverse_square_root
    return root(unit_padding(overlap, ao_mask))


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
        self._require("fock")
        return self._matrix(prepared)

    def density(self, prepared: Prepared, *, idempotent: bool = False) -> jax.Array:
        """Predicted P, (nao, nao), symmetric; zero on padding.

        Args:
            prepared: from `prepare`.
            idempotent: return the density of the most occupied natural orbitals instead: N-representable, with
                tr PS = nelec and PSP = 2P. It is differentiable like `density_matrix`.
        """
        self._require("density")
        density = self._matrix(prepared)
        if not idempotent:
            return density
        occupation = prepared.overlap @ density @ prepared.overlap
        return density_matrix(-occupation, prepared.overlap, prepared.nelec, prepared.basis.ao_mask)

    def _matrix(self, prepared: Prepared) -> jax.Array:
        normalised_inputs = normalise(prepared, self.statistics, self.config.precision)
        return matrix_from_features(self.config, self.params, normalised_inputs)

    def _require(self, target: str) -> None:
        require_target(self.config, target)

    def __call__(self, molecule: Batch) -> Observables:
        """The whole chain for one molecule of a batch that `config.batch` made; the target must be "fock"."""
        prepared = prepare(molecule, self.config)
        return observables(self.fock(prepared), prepared)

    def predict(self, molecules: Sequence[Molecule]) -> Observables:
        """Observables of molecules, padded, with a leading batch axis.

        Raises:
            InputError: an element that the model was not trained on, an open shell, or a model of P.
        """
        self._require("fock")
        return _predict(self, jax.tree.map(jnp.asarray, self.config.batch(molecules)))


@jax.jit
def _predict(model: Model, batch: Batch) -> Observables:
    return jax.lax.map(model, batch)


def network(config: ModelConfig) -> Any:
    """The Flax module of `config`: FockMap on normalised features."""
    from vpotjax.nn.fock_map import FockMap
    from vpotjax.nn.matrix_power import MatrixPower

    layout, potential_layout = config.layouts()
    species = len(config.species)
    power = None
    if config.network == "matrix-power":
        power = MatrixPower(
            potential_layout,
            species,
            config.layers,
            config.channels,
            config.shells,
            precision=config.product_precision,
            coupling=config.coupling,
            checkpoint=config.checkpoint,
        )
    gated = 0 if config.network == "linear" else config.gated
    return FockMap(layout, species, pair_type_count(config.species), config.hidden, gated, power)


def normalise(prepared: Prepared, statistics: dict[str, FeatureStatistics], precision: str) -> Prepared:
    """`prepared` with normalised features in the precision of the network: what `matrix_from_features` takes."""
    features = {kind: normalised(x, prepared.kinds, statistics[kind]) for kind, x in prepared.features.items()}
    cast = jax.tree.map(lambda x: x.astype(precision), (features, prepared.operators))
    return dataclasses.replace(prepared, features=cast[0], operators=cast[1])


def matrix_from_features(config: ModelConfig, params: Any, inputs: Prepared) -> jax.Array:
    """F in hartree, or P, (nao, nao), from normalised features; for training loops, which normalise once.

    Args:
        config: of the model.
        params: of the networks by name; the result is the mean of those that are there.
        inputs: from `normalise`.
    """
    flax_module = network(config)
    kinds = config.networks()
    params = jax.tree.map(jnp.asarray, params)  # loaded ones are NumPy arrays, which tracers cannot index
    blocks = [
        flax_module.apply(params[name], inputs.features[kinds[name]], inputs.kinds, inputs.operators) for name in params
    ]
    return matrix_from_blocks(jnp.mean(jnp.stack(blocks), axis=0), inputs, config)


def matrix_from_blocks(blocks: Array, inputs: Prepared, config: ModelConfig) -> jax.Array:
    """F or P, (nao, nao), from the blocks (natm, natm, width, width) of a network's correction."""
    correction = ao_matrix(blocks, inputs.basis, config.layouts()[0]).astype(inputs.baseline.dtype)
    if inputs.frame is not None:
        correction = inputs.frame @ correction @ inputs.frame
    total = jnp.asarray(inputs.baseline) + correction
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


def initial_parameters(config: ModelConfig, prepared: Prepared, seed: int) -> dict[str, Any]:
    """Random parameters of every network; `prepared` is of any one molecule, for the sizes."""
    features, operators = jax.tree.map(
        lambda value: jnp.zeros(value.shape, config.precision), (prepared.features, prepared.operators)
    )
    initial, pairs, names = jax.jit(network(config).init), jnp.asarray(prepared.kinds), config.networks()
    keys = jax.random.split(jax.random.key(seed), len(names))
    return {
        name: initial(key, features[kind], pairs, operators)
        for key, (name, kind) in zip(keys, names.items(), strict=True)
    }
