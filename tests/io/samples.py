"""A small data set of random labels, models with random weights, and comparisons, for the tests of files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.io.dataset import Dataset
from vpotjax.io.model import save_model
from vpotjax.io.run import write_config
from vpotjax.io.sample import SPLITS, Sample
from vpotjax.models import Calibration, Domain, Ensemble, MatrixModel, MatrixSettings, PropertyModel, PropertySettings
from vpotjax.models.linear_map import LinearMap, weight_masks
from vpotjax.molecule import Molecule
from vpotjax.nn import Gated
from vpotjax.operators.features import SCALAR
from vpotjax.operators.pairs import kind_count
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import Whitening


def random_sample(name, split, molecule, rng):
    """Labels of the right shapes in two bases, with matrices in the smaller one."""

    def symmetric(n):
        matrix = rng.standard_normal((n, n))
        return matrix + matrix.T

    def labels(n):
        return {
            "energy": np.asarray(rng.standard_normal()),
            "mo_energies": np.sort(rng.standard_normal(n)),
            "dipole": rng.standard_normal(3),
            "polarizability": symmetric(3),
        }

    n = int(molecule.numbers.sum())
    return Sample(
        name,
        split,
        molecule,
        {"small": labels(n) | {k: symmetric(n) for k in ("fock", "overlap")}, "large": labels(2 * n)},
    )


def tiny_dataset():
    """Three molecules, one of them charged, one in each split."""
    rng = np.random.default_rng(0)
    hydronium = Molecule(np.array([8, 1, 1, 1]), 2 * rng.standard_normal((4, 3)), charge=1)
    molecules = {"water": g2("H2O"), "H₃O⁺": hydronium, "H2": g2("H2")}
    samples = [random_sample(name, split, m, rng) for (name, m), split in zip(molecules.items(), SPLITS, strict=True)]
    return Dataset(samples, {"xc": "b3lyp", "seed": 3})


def assert_equal(one, other):
    """Samples that agree to the last bit."""
    for old, new in zip(one.samples, other.samples, strict=True):
        assert (old.name, old.split) == (new.name, new.split)
        assert (old.molecule.charge, old.molecule.spin) == (new.molecule.charge, new.molecule.spin)
        np.testing.assert_array_equal(old.molecule.numbers, new.molecule.numbers)
        np.testing.assert_array_equal(old.molecule.positions, new.molecule.positions)
        assert set(old.labels) == set(new.labels)
        for basis, labels in old.labels.items():
            assert set(labels) == set(new.labels[basis])
            for key, value in labels.items():
                np.testing.assert_array_equal(value, new.labels[basis][key])


def one_line(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


SMALL = Representation((1, 8), basis="sto-3g", inputs=("overlap", "sap"), power_order=1)
GATED = MatrixSettings(SMALL, Gated(gated=2, hidden=(4,)), precision="float64")
PROPERTY = PropertySettings(SMALL, "dipole", Gated(gated=2, hidden=(4,)), precision="float64")


def random_arrays(shapes, rng):
    return jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(x.dtype), shapes)


def random_model(settings, members=2):
    """An ensemble, or a model of a property, with random weights everywhere, so that no part is switched off.

    Sizes are those of the features of a molecule.
    """
    rng, species = np.random.default_rng(0), len(settings.species)
    numbers, charge = ([1, 1], 0) if isinstance(settings, PropertySettings) else ([settings.species[-1], 1], 1)
    molecule = settings.batch([Molecule(numbers, np.array([[0, 0, 0], [0, 0, 1.5]]), charge=charge)])[0]
    wanted, operators = [irrep for irrep, _ in settings.outputs], bool(getattr(settings.network, "operators", False))
    make = functools.partial(settings.representation.features, wanted=wanted, operators=operators)
    features = jax.eval_shape(make, molecule)
    sizes = {irrep: x.shape[1] for irrep, x in features.values.items()}
    even = dict(features.even)
    kinds = kind_count(species)
    whitening = Whitening(
        {irrep: 0.1 * rng.standard_normal((kinds, n)) for irrep, n in sizes.items()},
        {irrep: np.eye(n) + 0.1 * rng.standard_normal((kinds, n, n)) for irrep, n in sizes.items()},
        0.1 * rng.standard_normal((kinds, sizes[SCALAR], sizes[SCALAR])),
        np.linspace(-1.0, 5.0, kinds),
    )
    weights = {}
    for irrep, out in settings.outputs:
        mask = weight_masks(species, even[irrep], sizes[irrep], out)
        weights[irrep] = mask * 0.1 * rng.standard_normal(mask.shape)
    module, params = settings.network.module(settings.outputs, species), [None] * members
    if module is not None:
        inputs = jax.eval_shape(functools.partial(whitening, precision=settings.precision), features)
        shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
        params = [random_arrays(shapes, rng) for _ in range(members)]
    linear, scale = LinearMap(weights), np.asarray(0.1)
    if isinstance(settings, PropertySettings):
        per_atom = rng.standard_normal(species)
        models: Any = [PropertyModel(settings, whitening, linear, per_atom, scale, p) for p in params]
    else:
        models = [MatrixModel(settings, whitening, linear, scale, p) for p in params]
    calibration = {name: Calibration(*map(np.asarray, (2.0, 0.3, 0.5, 1.2))) for name in ("dipole", settings.target)}
    known = {name: own for name, own in calibration.items() if name in OBSERVABLES}
    return dataclasses.replace(Ensemble.of(models), calibration=known, domain=Domain((-1, 0), 1, 2, ("H(O)", "O(H,H)")))


DATA = {"xc": "b3lyp", "small_basis": "sto-3g", "large_basis": "def2-tzvp", "geometries": np.int64(5)}


def saved(folder, model, **entries):
    """A whole run folder, but for metrics."""
    write_config(folder, model.settings, {"data": DATA, **entries})
    save_model(folder, model, DATA)
    return folder


@contextlib.contextmanager
def refused(match):
    with pytest.raises(InputError, match=match) as error:
        yield
    assert "\n" not in str(error.value)
