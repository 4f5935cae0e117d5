"""Training on matrices lowers the error of the ridge fit that it starts from."""

import dataclasses

import jax
import numpy as np
import pytest

import vpotjax as vp
from vpotjax.io.dataset import embedded_dataset_path, read_dataset
from vpotjax.model import Model, ModelConfig
from vpotjax.train.data import training_arrays
from vpotjax.train.fit import DirectFit, TrainConfig, direct_fit, matrix_ridge
from vpotjax.train.matrix_fit import MatrixTrainConfig, predicted_matrices, train_on_matrices

CONFIG = ModelConfig(
    species=(1, 6, 7, 8),
    potential_basis="sto-3g",
    power_order=1,
    power_kinds=("lowdin",),
    members=1,
    baseline="sap",
    hidden=(16,),
    gated=2,
    precision="float64",
)


def squared_error(matrices, arrays, target):
    """In the measure of the loss: of elements, and for P of misplaced electrons."""
    error = matrices - arrays.fock
    if target == "density":
        error = error @ arrays.prepared.overlap
        return np.einsum("bpq,bqp->", error, error)
    return np.sum(error**2)


@pytest.mark.parametrize("target", ["fock", "density"])
def test_training_lowers_the_error_of_the_ridge_fit(target):
    config = dataclasses.replace(CONFIG, target=target, frame="lowdin" if target == "density" else "ao")
    samples = [s for s in read_dataset(embedded_dataset_path()).samples if s.molecule.natm <= 4][:12]
    arrays = training_arrays(samples, config, "sto-3g")
    electrons = np.einsum("bpq,bpq->b", arrays.fock, arrays.prepared.overlap)
    assert np.allclose(electrons, arrays.prepared.nelec) == (target == "density")
    fit = matrix_ridge(arrays[:9], arrays[9:], config, TrainConfig())
    model = train_on_matrices(fit, MatrixTrainConfig(steps=400, batch_size=9, learning_rate=3e-3, alignment=0.0))
    before, after = (squared_error(predicted_matrices(m, fit.train), fit.train, target) for m in (fit.model, model))
    assert after < 0.8 * before
    if target == "density":
        with pytest.raises(vp.InputError, match="target is 'density'"):
            direct_fit(arrays[:9], arrays[9:], config, TrainConfig())


@pytest.mark.slow
def test_the_ridge_fit_in_the_lowdin_frame_is_better_in_orbital_energies():
    errors = []
    samples = [s for s in read_dataset(embedded_dataset_path()).samples if s.molecule.natm <= 4][:12]
    for frame in ("ao", "lowdin"):
        config = dataclasses.replace(CONFIG, network="linear", frame=frame)
        arrays = training_arrays(samples, config, "sto-3g")
        fit = matrix_ridge(arrays[:9], arrays[9:], config, TrainConfig())
        prepared = fit.train.prepared
        solve = jax.jit(jax.vmap(vp.eigh))
        energies = [
            solve(f, prepared.overlap, prepared.basis.ao_mask)[0]
            for f in (fit.train.fock, predicted_matrices(fit.model, fit.train))
        ]
        errors.append(np.mean((energies[0] - energies[1])[prepared.basis.ao_mask] ** 2))
    assert 0 < errors[1] < errors[0]


def test_a_linear_network_has_nothing_to_train():
    model = Model(dataclasses.replace(CONFIG, network="linear"), {}, {})
    fit = DirectFit(model, {}, train=None, validation=None, regularisers={})  # refused before the data are looked at
    with pytest.raises(vp.InputError, match="network is 'linear'"):
        train_on_matrices(fit, MatrixTrainConfig(steps=1))
