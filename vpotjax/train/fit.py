"""From labelled molecules to a trained model: ridge fit of the Fock matrix, then the loss on observables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.batching import map_arrays
from vpotjax.electronic.comparison import fock_with_levels
from vpotjax.losses import LossWeights, Targets, observable_loss, variance_weights
from vpotjax.metrics import ObservableErrors, observable_errors
from vpotjax.model import (
    Model,
    ModelConfig,
    Observables,
    Prepared,
    initial_parameters,
    matrix_from_blocks,
    matrix_from_features,
    network,
    normalise,
    observables,
    require_target,
)
from vpotjax.operators.blocks import atom_pair_blocks, couple
from vpotjax.operators.features import FeatureStatistics, feature_statistics, matrix_count, pair_type_count
from vpotjax.train.data import TrainingArrays
from vpotjax.train.descent import clipped_adam, require_positive_settings
from vpotjax.train.ridge import ridge_weights


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to 1 % of it.
        mo_energies, gap, dipole, polarizability: weights of the loss, see `variance_weights`.
        noise: see `feature_statistics`.
        evaluations: how often the validation loss is computed.
        seed: of initial parameters and batches.
    """

    steps: int = 450
    batch_size: int = 32
    learning_rate: float = 4e-4
    mo_energies: float = 3e5
    gap: float = 9e5
    dipole: float = 1e3
    polarizability: float = 4e2
    noise: float = 1e-2
    evaluations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive_settings(self, ("steps", "batch_size", "learning_rate", "noise", "evaluations"))
        for name in ("mo_energies", "gap", "dipole", "polarizability", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; give 0 or a positive number.")


@dataclasses.dataclass(frozen=True)
class DirectFit:
    """Ridge models and the data in the form that training needs.

    Attributes:
        model: fitted to F of the small basis.
        start: where training starts; of `direct_fit`, fitted to the same F with the levels of the large basis.
        train, validation: with normalised features.
        regularisers: that the fit of F chose, by kind of power and irrep.
    """

    model: Model
    start: Any
    train: TrainingArrays
    validation: TrainingArrays
    regularisers: dict[str, dict[str, float]]


def direct_fit(
    train: TrainingArrays, validation: TrainingArrays, config: ModelConfig, settings: TrainConfig
) -> DirectFit:
    """Ridge fits to F and to F with the levels of the large basis, where training on observables starts."""
    require_target(config, "fock")
    fit = matrix_ridge(train, validation, config, settings)
    both, held_out = _joined(fit.train, fit.validation)
    aligned = jax.jit(jax.vmap(fock_with_levels))(
        both.fock,
        both.prepared.overlap,
        both.targets.mo_energies,
        both.prepared.basis.ao_mask,
        both.targets.level_mask,
    )
    start, _ = _ridge_parameters(fit.model.params, both, aligned, held_out, config)
    return dataclasses.replace(fit, start=start)


def matrix_ridge(
    train: TrainingArrays, validation: TrainingArrays, config: ModelConfig, settings: TrainConfig
) -> DirectFit:
    """Ridge fit to the matrices of the training molecules; the regularisers are chosen on the others.

    Args:
        train, validation: with features as they are; `fock` holds what `config.target` names, F or P.
        config: of the model.
        settings: of which the noise and the seed are used.
    """
    kinds = np.asarray(train.prepared.kinds)
    statistics = {
        kind: feature_statistics(
            features, kinds, config.species, matrix_count(config.inputs, config.power_order), settings.noise
        )
        for kind, features in train.prepared.features.items()
    }
    train, validation = (normalised_arrays(a, statistics, config.precision) for a in (train, validation))
    both, held_out = _joined(train, validation)
    first = jax.tree.map(lambda leaf: leaf[0], train.prepared)
    params = initial_parameters(config, first, settings.seed)
    fitted, regularisers = _ridge_parameters(params, both, both.fock, held_out, config)
    return DirectFit(Model(config, fitted, statistics), fitted, train, validation, regularisers)


def _joined(train: TrainingArrays, validation: TrainingArrays) -> tuple[TrainingArrays, np.ndarray]:
    both = jax.tree.map(lambda *leaves: np.concatenate(leaves), train, validation)
    return both, np.arange(len(both)) >= len(train)


def _ridge_parameters(
    params: dict[str, Any], arrays: TrainingArrays, focks: Array, held_out: np.ndarray, config: ModelConfig
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """`params` with the linear parts fitted to `focks`, and the chosen regularisers."""
    layout = config.layouts()[0]
    blocks = jax.vmap(lambda fock, basis: couple(atom_pair_blocks(fock, basis, layout), layout))
    corrections = focks - arrays.prepared.baseline
    if arrays.prepared.frame is not None:
        inverse = np.linalg.inv(arrays.prepared.frame)
        corrections = inverse @ corrections @ inverse
    targets = blocks(corrections, arrays.prepared.basis)
    kinds, count = np.asarray(arrays.prepared.kinds), pair_type_count(config.species)
    linear: dict[str, dict[str, jax.Array]] = {}
    regularisers: dict[str, dict[str, float]] = {}
    for kind, features in arrays.prepared.features.items():
        weights, regularisers[kind] = ridge_weights(features, targets, kinds, count, held_out)
        linear[kind] = {name: jnp.asarray(w, config.precision) for name, w in weights.items()}
    fitted = {}
    for name, kind in config.networks().items():
        own = params[name]["params"]
        fitted[name] = {"params": {**own, "map": {**own["map"], **linear[kind]}}}
    return fitted, regularisers


def normalised_arrays(
    arrays: TrainingArrays, statistics: dict[str, FeatureStatistics], precision: str
) -> TrainingArrays:
    """Arrays with normalised features."""
    prepared = map_arrays(lambda molecule, s: normalise(molecule, s, precision), arrays.prepared, statistics)
    return dataclasses.replace(arrays, prepared=prepared)


def train_on_observables(
    fit: DirectFit, settings: TrainConfig, report: Callable[[dict[str, Any]], None] = lambda row: None
) -> tuple[Model, list[dict[str, Any]]]:
    """Train every network alone on ε, the gap, μ and α of the large basis; the validation loss is watched, not used.

    Together the networks would learn to cancel each other's errors; alone, their mean is better than each of them.

    Args:
        fit: the start, and the data.
        settings: see `TrainConfig`.
        report: called after every evaluation with the network, its step, training and validation loss.

    Returns:
        the model and one row of metrics per evaluation.
    """
    config = fit.model.config
    require_target(config, "fock")
    weights = variance_weights(
        fit.train.targets, settings.mo_energies, settings.gap, settings.dipole, settings.polarizability
    )
    optimiser = clipped_adam(settings.learning_rate, settings.steps, 0.01)
    flax_module = network(config)

    def batch_loss(params: Any, batch: tuple[Prepared, Targets]) -> jax.Array:
        return mean_loss(flax_module, params, config, batch, weights)

    @jax.jit
    def step(params: Any, state: Any, inputs: Any, index: jax.Array) -> tuple[Any, Any, jax.Array]:
        batch = jax.tree.map(lambda leaf: leaf[index], inputs)
        loss, gradient = jax.value_and_grad(batch_loss)(params, batch)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    validate = jax.jit(batch_loss)
    count, size = len(fit.train), min(settings.batch_size, len(fit.train))
    interval = max(1, settings.steps // settings.evaluations)
    trained: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for number, (name, kind) in enumerate(config.networks().items()):
        inputs, held_out = (_network_inputs(arrays, kind) for arrays in (fit.train, fit.validation))
        rng = np.random.default_rng([settings.seed, number])
        params, losses = fit.start[name], []
        state = optimiser.init(params)
        for i in range(1, settings.steps + 1):
            params, state, loss = step(params, state, inputs, rng.choice(count, size, replace=False))
            losses.append(loss)
            if i % interval and i != settings.steps:
                continue
            training, validation = float(np.mean(losses)), float(validate(params, held_out))
            if not np.isfinite(training):
                raise FloatingPointError(f"training loss of {name} is {training} at step {i}; lower learning_rate.")
            rows.append({"network": name, "step": i, "training_loss": training, "validation_loss": validation})
            losses = []
            report(rows[-1])
        trained[name] = params
    return dataclasses.replace(fit.model, params=trained), rows


def _network_inputs(arrays: TrainingArrays, kind: str) -> tuple[Prepared, Targets]:
    """What one network sees; the same tree for every kind, so that one compiled step serves all networks."""
    prepared = dataclasses.replace(arrays.prepared, features=arrays.prepared.features[kind])
    return jax.tree.map(jnp.asarray, (prepared, arrays.targets))


def mean_loss(
    flax_module: Any, params: Any, config: ModelConfig, batch: tuple[Prepared, Targets], weights: LossWeights
) -> jax.Array:
    """Mean of `observable_loss` of one network over a batch of normalised inputs and their targets, ()."""

    def one(molecule: Prepared, target: Targets) -> jax.Array:
        blocks = flax_module.apply(params, molecule.features, molecule.kinds, molecule.operators)
        o = observables(matrix_from_blocks(blocks, molecule, config), molecule)
        return observable_loss(o.mo_energies, o.dipole, o.polarizability, target, weights)

    return jnp.mean(jax.vmap(one)(*batch))


def predicted_observables(model: Model, arrays: TrainingArrays) -> Observables:
    """Observables of a batch whose features are normalised; the model's target must be "fock"."""
    require_target(model.config, "fock")

    def one(inputs: Prepared, params: Any) -> Observables:
        return observables(matrix_from_features(model.config, params, inputs), inputs)

    return map_arrays(one, arrays.prepared, model.params)


def errors_of(values: Observables | Targets, arrays: TrainingArrays) -> ObservableErrors:
    """Errors of predicted observables, or of another basis, against the targets."""
    return observable_errors(
        np.asarray(values.mo_energies),
        np.asarray(values.dipole),
        np.asarray(values.polarizability),
        arrays.targets,
    )
