"""Training on matrices: F or P element by element, optionally with the orbital energies of F."""

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
from vpotjax.electronic.eigensolver import eigh
from vpotjax.losses import density_loss, matrix_loss, wavefunction_alignment_loss
from vpotjax.model import Model, Prepared, matrix_from_blocks, matrix_from_features, network
from vpotjax.train.data import TrainingArrays
from vpotjax.train.fit import DirectFit, clipped_adam, map_arrays, require_positive_settings


@dataclasses.dataclass(frozen=True)
class MatrixTrainConfig:
    """How a network is trained on matrices.

    Attributes:
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to 1e-4 of it.
        alignment: weight of `wavefunction_alignment_loss` beside the mean square of the elements; F only.
        chunk: steps per call of the compiled program.
        seed: of the batches.
    """

    steps: int = 5000
    batch_size: int = 25
    learning_rate: float = 2e-3
    alignment: float = 1.0
    chunk: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive_settings(self, ("steps", "batch_size", "learning_rate", "chunk"))
        if self.alignment < 0:
            raise InputError(f"alignment is {self.alignment}; give 0 or a positive number.")


def train_on_matrices(
    fit: DirectFit, settings: MatrixTrainConfig, report: Callable[[dict[str, Any]], None] = lambda row: None
) -> Model:
    """Train every network alone on the matrices of `fit.train`, from `fit.start`, whose linear part stays as it is.

    That part is the exact least-squares solution; steps in its ill-conditioned weights would only do harm. What the
    network adds is scaled by the root mean square of the residual, and the loss divided by its square.

    The loss is the mean square of the elements, for P `density_loss`; for F the wavefunction-alignment loss is added:
    with the eigenvectors of the reference it is an error of the orbital energies and needs no eigenproblem of F.

    Args:
        fit: from `matrix_ridge`; its arrays hold the matrices and normalised features.
        settings: see `MatrixTrainConfig`.
        report: called after every chunk with the network, the step and the mean training loss.

    Raises:
        InputError: the network is linear, so there is nothing to train.
        FloatingPointError: the loss is not finite.
    """
    config = fit.model.config
    if config.network == "linear":
        raise InputError("network is 'linear'; its ridge fit is exact, so use fit.model, or another network.")
    flax_module, optimiser = network(config).clone(linear=False), _optimiser(settings)
    count, size = len(fit.train), min(settings.batch_size, len(fit.train))
    frames = _frames(fit.train) if config.target == "fock" else None

    def loss(params: Any, batch: tuple[Prepared, Array, Any]) -> jax.Array:
        def one(molecule: Prepared, matrix: Array, frame: Any) -> jax.Array:
            blocks = flax_module.apply(params, molecule.features, molecule.kinds, molecule.operators)
            predicted = matrix_from_blocks(blocks, molecule, config)
            if config.target == "density":
                return density_loss(predicted, matrix, molecule.overlap)
            mask = molecule.basis.ao_mask
            aligned = wavefunction_alignment_loss(predicted, frame[0], frame[1], mask)
            return matrix_loss(predicted, matrix, mask) + settings.alignment * aligned

        return jnp.mean(jax.vmap(one)(*batch)) / params["params"]["scale"] ** 2

    @jax.jit
    def advance(carry: Any, inputs: Any, indices: jax.Array) -> tuple[Any, jax.Array]:
        def step(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[index], inputs))
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, carry, indices)

    trained = {}
    for number, (name, kind) in enumerate(config.networks().items()):
        rng = np.random.default_rng([settings.seed, number])
        alone = dataclasses.replace(fit.model, params={name: fit.start[name]})
        fixed = predicted_matrices(alone, fit.train)  # at first the network is its linear part
        prepared = dataclasses.replace(fit.train.prepared, features=fit.train.prepared.features[kind], baseline=fixed)
        inputs = jax.tree.map(jnp.asarray, (prepared, fit.train.fock, frames))
        params = with_scale(fit.start[name], _residual(fixed, fit.train))
        carry = (params, optimiser.init(params))
        for start in range(0, settings.steps, settings.chunk):
            now = min(settings.chunk, settings.steps - start)
            indices = jnp.asarray(np.stack([rng.choice(count, size, replace=False) for _ in range(now)]))
            carry, values = advance(carry, inputs, indices)
            mean = float(jnp.mean(values))
            if not np.isfinite(mean):
                raise FloatingPointError(f"loss of {name} is {mean} at step {start + now}; lower learning_rate.")
            report({"network": name, "step": start + now, "training_loss": mean})
        trained[name] = carry[0]
    return dataclasses.replace(fit.model, params=trained)


def _residual(fixed: np.ndarray, arrays: TrainingArrays) -> float:
    """Root mean square of the elements that the ridge fit leaves, at least 1e-9."""
    mask = np.asarray(arrays.prepared.basis.ao_mask)
    real = mask[:, :, None] & mask[:, None, :]
    error = (fixed - arrays.fock)[real]
    return max(float(np.sqrt(np.mean(error**2))), 1e-9)


def with_scale(params: Any, scale: float) -> Any:
    """`params` with the size of the network's correction."""
    own = params["params"]
    return {"params": {**own, "scale": jnp.full_like(own["scale"], scale)}}


def _frames(arrays: TrainingArrays) -> tuple[jax.Array, jax.Array]:
    """C and ε of the reference matrices."""
    solve = jax.jit(jax.vmap(eigh))
    energies, coefficients = solve(arrays.fock, arrays.prepared.overlap, arrays.prepared.basis.ao_mask)
    return coefficients, energies


def _optimiser(settings: MatrixTrainConfig) -> optax.GradientTransformation:
    moving = clipped_adam(settings.learning_rate, settings.steps, 1e-4)
    return optax.multi_transform({"moving": moving, "fixed": optax.set_to_zero()}, _labels)


def _labels(params: Any) -> Any:
    """Mark as "fixed" the weights that the ridge regression found."""

    def label(path: tuple[Any, ...], _: Any) -> str:
        keys = [str(getattr(key, "key", key)) for key in path]
        return "fixed" if "map" in keys or keys[-1] == "scale" else "moving"

    return jax.tree_util.tree_map_with_path(label, params)


def predicted_matrices(model: Model, arrays: TrainingArrays) -> np.ndarray:
    """F or P, (nbatch, nao, nao), of a batch whose features are normalised."""

    def one(inputs: Prepared, params: Any) -> jax.Array:
        return matrix_from_features(model.config, params, inputs)

    return map_arrays(one, arrays.prepared, model.params)
