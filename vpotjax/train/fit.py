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
from vpotjax.electronic.alignment import fock_with_levels
from vpotjax.losses import LossWeights, Targets, observable_loss, variance_weights
from vpotjax.metrics import ObservableErrors, observable_errors
from vpotjax.model import (
    Model,
    ModelConfig,
    Observables,
    Prepared,
    fock_from_features,
    initial_parameters,
    map_batch,
    normalise,
    observables,
)
from vpotjax.operators.blocks import atom_pair_blocks, couple
from vpotjax.operators.features import FeatureStatistics, feature_statistics, pair_type_count
from vpotjax.train.data import TrainingArrays
from vpotjax.train.ridge import ridge_weights


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        members: networks with different initial weights, trained at the same time; the model is the mean of their F.
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to 1 % of it.
        mo_energies, gap, dipole, polarizability: weights of the loss, see `variance_weights`.
        noise: see `feature_statistics`.
        evaluations: how often the validation loss is computed; the best parameters are kept.
        seed: of initial parameters and batches.
    """

    members: int = 3
    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 5e-4
    mo_energies: float = 3e5
    gap: float = 9e5
    dipole: float = 1e3
    polarizability: float = 3e2
    noise: float = 1e-2
    evaluations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("members", "steps", "batch_size", "learning_rate", "noise", "evaluations"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; give a positive number.")


@dataclasses.dataclass(frozen=True)
class DirectFit:
    """Ridge models and the data in the form that training needs.

    Attributes:
        model: fitted to F of the small basis.
        start: parameters fitted to the same F with the levels of the large basis, where training starts.
        train, validation: with normalised features.
        regularisers: that the fit of F chose, by irrep.
    """

    model: Model
    start: Any
    train: TrainingArrays
    validation: TrainingArrays
    regularisers: dict[str, float]


def direct_fit(
    train: TrainingArrays, validation: TrainingArrays, config: ModelConfig, settings: TrainConfig
) -> DirectFit:
    """Ridge fits on the training molecules; the regularisers are chosen on the others."""
    kinds = np.asarray(train.prepared.kinds)
    statistics = feature_statistics(
        train.prepared.features, kinds, config.species, config.power_order + 1, settings.noise
    )
    train, validation = (normalised_arrays(a, statistics, config.precision) for a in (train, validation))
    both = jax.tree.map(lambda *leaves: np.concatenate(leaves), train, validation)
    held_out = np.arange(len(both)) >= len(train)
    first = jax.tree.map(lambda leaf: leaf[0], train.prepared)
    params = initial_parameters(config, first, settings.seed, settings.members)
    basis = both.prepared.basis
    aligned = jax.jit(jax.vmap(fock_with_levels))(
        both.fock, both.prepared.overlap, both.targets.mo_energies, basis.ao_mask
    )
    fitted, regularisers = _ridge_parameters(params, both, both.fock, held_out, config)
    fitted = jax.tree.map(lambda leaf: leaf[:1], fitted)  # the gates are still closed, all members are the same
    start, _ = _ridge_parameters(params, both, aligned, held_out, config)
    return DirectFit(Model(config, fitted, statistics), start, train, validation, regularisers)


def _ridge_parameters(
    params: Any, arrays: TrainingArrays, focks: Array, held_out: np.ndarray, config: ModelConfig
) -> tuple[Any, dict[str, float]]:
    """`params` with the linear part fitted to `focks`, and the chosen regularisers."""
    layout = config.layouts()[0]
    blocks = jax.vmap(lambda fock, basis: couple(atom_pair_blocks(fock, basis, layout), layout))
    weights, regularisers = ridge_weights(
        arrays.prepared.features,
        blocks(focks - arrays.prepared.baseline, arrays.prepared.basis),
        np.asarray(arrays.prepared.kinds),
        pair_type_count(config.species),
        held_out,
    )
    like = params["params"]
    fitted = {name: jnp.broadcast_to(jnp.asarray(w, config.precision), like[name].shape) for name, w in weights.items()}
    return {"params": {**like, **fitted}}, regularisers


def normalised_arrays(arrays: TrainingArrays, statistics: FeatureStatistics, precision: str) -> TrainingArrays:
    """Arrays with normalised features."""
    prepared = map_arrays(lambda molecule, s: normalise(molecule, s, precision), arrays.prepared, statistics)
    return dataclasses.replace(arrays, prepared=prepared)


def map_arrays(function: Callable[..., Any], batch: Any, *rest: Any) -> Any:
    """Jitted `map_batch` with NumPy arrays as result."""
    return jax.tree.map(np.asarray, jax.jit(map_batch, static_argnums=0)(function, batch, *rest))


def train_on_observables(
    fit: DirectFit, settings: TrainConfig, report: Callable[[dict[str, float]], None] = lambda row: None
) -> tuple[Model, list[dict[str, float]]]:
    """Train all weights on ε, μ and α of the large basis; keep those of the lowest validation loss.

    Args:
        fit: the start, and the data.
        settings: see `TrainConfig`.
        report: called after every evaluation with step, training and validation loss.

    Returns:
        the model and one row of metrics per evaluation.
    """
    config, params = fit.model.config, fit.start
    weights = variance_weights(
        fit.train.targets, settings.mo_energies, settings.gap, settings.dipole, settings.polarizability
    )
    optimiser = _optimiser(settings)
    state = optimiser.init(params)
    inputs = jax.tree.map(jnp.asarray, (fit.train.prepared, fit.train.targets))
    held_out = jax.tree.map(jnp.asarray, (fit.validation.prepared, fit.validation.targets))

    @jax.jit
    def step(params: Any, state: Any, index: Array) -> tuple[Any, Any, jax.Array]:
        batch = jax.tree.map(lambda leaf: leaf[index], inputs)
        loss, gradient = jax.value_and_grad(members_loss)(params, config, batch, weights)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    @jax.jit
    def validate(params: Any) -> jax.Array:
        return mean_loss(params, config, held_out, weights)

    rng = np.random.default_rng(settings.seed)
    count, size = len(fit.train), min(settings.batch_size, len(fit.train))
    best, best_loss, rows, losses = params, np.inf, [], []
    interval = max(1, settings.steps // settings.evaluations)
    for i in range(1, settings.steps + 1):
        params, state, loss = step(params, state, rng.choice(count, size, replace=False))
        losses.append(loss)
        if i % interval and i != settings.steps:
            continue
        row = {"step": i, "training_loss": float(np.mean(losses)), "validation_loss": float(validate(params))}
        if not np.isfinite(row["training_loss"]):
            raise FloatingPointError(f"training loss is {row['training_loss']} at step {i}; lower learning_rate.")
        if row["validation_loss"] < best_loss:
            best, best_loss = params, row["validation_loss"]
        rows.append(row)
        losses = []
        report(row)
    return dataclasses.replace(fit.model, params=best), rows


def members_loss(params: Any, config: ModelConfig, batch: tuple[Prepared, Targets], weights: LossWeights) -> jax.Array:
    """Mean over the members of the loss of each alone, ()."""
    alone = jax.tree.map(lambda leaf: leaf[:, None], params)
    return jnp.mean(jax.vmap(lambda member: mean_loss(member, config, batch, weights))(alone))


def mean_loss(params: Any, config: ModelConfig, batch: tuple[Prepared, Targets], weights: LossWeights) -> jax.Array:
    """Mean of `observable_loss` over a batch of normalised inputs and their targets, ()."""

    def one(molecule: Prepared, target: Targets) -> jax.Array:
        o = observables(fock_from_features(config, params, molecule), molecule)
        return observable_loss(o.mo_energies, o.dipole, o.polarizability, target, weights)

    return jnp.mean(jax.vmap(one)(*batch))


def _optimiser(settings: TrainConfig) -> optax.GradientTransformation:
    peak, steps = settings.learning_rate, settings.steps
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, max(1, steps // 20), max(steps, 2), 0.01 * peak)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def predicted_observables(model: Model, arrays: TrainingArrays) -> Observables:
    """Observables of a batch whose features are normalised."""

    def one(inputs: Prepared, params: Any) -> Observables:
        return observables(fock_from_features(model.config, params, inputs), inputs)

    return map_arrays(one, arrays.prepared, model.params)


def errors_of(values: Observables | Targets, arrays: TrainingArrays) -> ObservableErrors:
    """Errors of predicted observables, or of another basis, against the targets."""
    return observable_errors(
        np.asarray(values.mo_energies),
        np.asarray(values.dipole),
        np.asarray(values.polarizability),
        arrays.targets,
    )
