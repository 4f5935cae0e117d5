"""Training on matrices: F or P element by element, optionally with the orbital energies of F."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.batching import map_arrays
from vpotjax.electronic.eigensolver import eigh
from vpotjax.losses import density_loss, matrix_loss, wavefunction_alignment_loss
from vpotjax.model import Model, Prepared, matrix_from_blocks, matrix_from_features, network
from vpotjax.train.data import TrainingArrays
from vpotjax.train.descent import DescentConfig, descent, with_scale
from vpotjax.train.fit import DirectFit


@dataclasses.dataclass(frozen=True)
class MatrixTrainConfig(DescentConfig):
    """How a network is trained on matrices: see `DescentConfig`.

    Attributes:
        alignment: weight of `wavefunction_alignment_loss` beside the mean square of the elements; F only.
    """

    alignment: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alignment < float("inf"):
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
    flax_module = network(config).clone(linear=False)
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

    trained, descend = {}, descent(loss, settings)
    for number, (name, kind) in enumerate(config.networks().items()):
        alone = dataclasses.replace(fit.model, params={name: fit.start[name]})
        fixed = predicted_matrices(alone, fit.train)  # at first the network is its linear part
        prepared = dataclasses.replace(fit.train.prepared, features=fit.train.prepared.features[kind], baseline=fixed)
        inputs = jax.tree.map(jnp.asarray, (prepared, fit.train.fock, frames))
        params = with_scale(fit.start[name], _residual(fixed, fit.train))

        def tell(step: int, value: float, _: Any, name: str = name) -> None:
            report({"network": name, "step": step, "training_loss": value})

        trained[name] = descend(params, inputs, tell, name, number)
    return dataclasses.replace(fit.model, params=trained)


def _residual(fixed: np.ndarray, arrays: TrainingArrays) -> float:
    """Root mean square of the elements that the ridge fit leaves, at least 1e-9."""
    mask = np.asarray(arrays.prepared.basis.ao_mask)
    real = mask[:, :, None] & mask[:, None, :]
    error = (fixed - arrays.fock)[real]
    return max(float(np.sqrt(np.mean(error**2))), 1e-9)


def _frames(arrays: TrainingArrays) -> tuple[jax.Array, jax.Array]:
    """C and ε of the reference matrices."""
    solve = jax.jit(jax.vmap(eigh))
    energies, coefficients = solve(arrays.fock, arrays.prepared.overlap, arrays.prepared.basis.ao_mask)
    return coefficients, energies


def predicted_matrices(model: Model, arrays: TrainingArrays) -> np.ndarray:
    """F or P, (nbatch, nao, nao), of a batch whose features are normalised."""

    def one(inputs: Prepared, params: Any) -> jax.Array:
        return matrix_from_features(model.config, params, inputs)

    return map_arrays(one, arrays.prepared, model.params)
