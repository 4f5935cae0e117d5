"""A closed-form model of small molecules on long ones: gaps of alkanes converge with length, they do not collapse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.train.test_pipeline import dataset_of
from vpotjax.models import Ensemble, MatrixModel
from vpotjax.nn import Linear
from vpotjax.train.config import Training
from vpotjax.train.fit import aligned_matrices, linear_fit, whitened
from vpotjax.train.matrix_training import labels_for
from vpotjax.train.predict import predictions
from vpotjax.train.samples import Bucket, prepared_buckets, with_model
from vpotjax.units import ANGSTROM_TO_BOHR

LENGTHS = (2, 4, 6, 8)


def alkane(count: int) -> vp.Molecule:
    """CnH2n+2, all-trans, with standard bonds (1.53 and 1.09 Å) and tetrahedral angles, in bohr."""
    half = np.arccos(-1 / 3) / 2
    step, rise = 1.53 * np.sin(half), 1.53 * np.cos(half)
    carbons = np.array([[i * step, (-1) ** i * rise / 2, 0.0] for i in range(count)])
    numbers, positions = [6] * count, list(carbons)
    for i, place in enumerate(carbons):
        up = np.array([0.0, (-1.0) ** i, 0.0])
        for side in (1, -1):
            positions.append(place + 1.09 * (up * np.cos(half) + np.array([0.0, 0.0, side * np.sin(half)])))
    for i, outward in ((0, -1.0), (count - 1, 1.0)):
        positions.append(carbons[i] + 1.09 * np.array([outward * np.sin(half), -((-1.0) ** i) * np.cos(half), 0.0]))
    return vp.Molecule(np.array(numbers + [1] * (2 * count + 2)), np.array(positions) * ANGSTROM_TO_BOHR)


def fitted() -> tuple[MatrixModel, list[Bucket]]:
    """On methane, ethane and propane, with butane to choose the regulariser; and the first three."""
    training = Training(Linear(), members=1, orbital_basis="sto-3g", basis="6-31g", power_order=2)
    settings = training.settings((1, 6), "sto-3g")
    parts = []
    for names in (("CH4", "C2H6", "C3H8"), ("trans-butane",)):
        samples = [s for name in names for s in dataset_of(train=(name, 5)).samples]
        labels = labels_for(training, settings, "sto-3g", "def2-tzvp", samples[0])
        parts.append([b for _, b in prepared_buckets(samples, settings, labels, 1)])
    whitening = whitened(parts[0], settings)
    return linear_fit(parts[0], parts[1], settings, whitening, aligned_matrices), parts[0]


@pytest.mark.slow
def test_a_network_corrects_the_linear_map_that_predicts():
    """Large weights cancel, so that features rounded to single precision would move F by 1e-5 hartree."""
    model, (bucket,) = fitted()
    molecule = dataset_of(train=(bucket.names[0], 1)).samples[0].molecule
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), model.settings.batch([molecule]))
    predicted = jax.jit(lambda own: model(own).matrix)(one)
    trained = with_model(bucket, model).content.linear[0][: len(predicted), : len(predicted)]
    np.testing.assert_allclose(trained, predicted, atol=1e-9)


@pytest.mark.slow
def test_gaps_of_alkanes_converge_with_length():
    chains = [(str(n), alkane(n)) for n in LENGTHS]
    found = predictions(Ensemble.of([fitted()[0]]), chains, ["homo_lumo_gap", "polarizability"])
    values = {int(p.name): p.values for p in found}
    gaps = np.array([float(values[n]["homo_lumo_gap"]) for n in LENGTHS])
    changes = -np.diff(gaps)
    assert gaps[-1] > 0.6 * gaps[0]
    assert (changes > 0).all()
    assert (np.diff(changes) < 0).all()
    alpha = np.array([np.trace(values[n]["polarizability"]) / 3 for n in LENGTHS])
    increments = np.diff(alpha)  # of two CH2 each
    assert (increments > 0).all()
    assert increments[-1] < 1.2 * increments[0]
