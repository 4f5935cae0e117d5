"""A small data set of random labels, and comparisons, for the tests of data sets and of their files."""

from __future__ import annotations

import numpy as np

from tests.molecules import g2
from vpotjax.io.dataset import SPLITS, Dataset, Sample
from vpotjax.molecule import Molecule


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
