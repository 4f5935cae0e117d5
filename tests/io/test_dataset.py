"""Data set files: round trip, refusals, and the embedded set against recomputed integrals."""

import dataclasses

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import pad_batch
from vpotjax.integrals.overlap import overlap
from vpotjax.io.dataset import SPLITS, Dataset, Sample, embedded_dataset_path, read_dataset, write_dataset
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


@pytest.fixture
def tiny():
    rng = np.random.default_rng(0)
    hydronium = Molecule(np.array([8, 1, 1, 1]), 2 * rng.standard_normal((4, 3)), charge=1)
    molecules = {"water": g2("H2O"), "H₃O⁺": hydronium, "H2": g2("H2")}
    samples = [random_sample(name, split, m, rng) for (name, m), split in zip(molecules.items(), SPLITS, strict=True)]
    return Dataset(samples, {"xc": "b3lyp", "seed": 3})


def test_round_trip_is_exact(tmp_path, tiny):
    write_dataset(tmp_path / "tiny.h5", tiny)
    back = read_dataset(tmp_path / "tiny.h5")
    assert (back.attributes["xc"], back.attributes["seed"]) == ("b3lyp", 3)
    for old, new in zip(tiny.samples, back.samples, strict=True):
        assert (old.name, old.split) == (new.name, new.split)
        assert (old.molecule.charge, old.molecule.nelec) == (new.molecule.charge, new.molecule.nelec)
        np.testing.assert_array_equal(old.molecule.numbers, new.molecule.numbers)
        np.testing.assert_array_equal(old.molecule.positions, new.molecule.positions)
        assert set(old.labels) == set(new.labels)
        for basis, labels in old.labels.items():
            assert set(labels) == set(new.labels[basis])
            for key, value in labels.items():
                np.testing.assert_array_equal(value, new.labels[basis][key])


def test_splits(tiny):
    assert [[s.name for s in tiny.split(split)] for split in SPLITS] == [["water"], ["H₃O⁺"], ["H2"]]
    with pytest.raises(InputError, match="split is 'val'; give one of train, validation, test"):
        tiny.split("val")


def test_existing_files_are_kept(tmp_path, tiny):
    (tmp_path / "tiny.h5").write_text("precious")
    with pytest.raises(InputError, match=r"tiny\.h5' exists; delete it or choose another name"):
        write_dataset(tmp_path / "tiny.h5", tiny)
    assert (tmp_path / "tiny.h5").read_text() == "precious"


@pytest.mark.parametrize(
    ("attribute", "value"), [("version", 2), ("version", 0), ("format", "another"), ("format", None)]
)
def test_other_versions_and_formats_are_refused(tmp_path, tiny, attribute, value):
    write_dataset(tmp_path / "tiny.h5", tiny)
    with h5py.File(tmp_path / "tiny.h5", "r+") as file:
        if value is None:
            del file.attrs[attribute]
        else:
            file.attrs[attribute] = value
    with pytest.raises(InputError, match=r"tiny\.h5' is .*, expected vpotjax-dataset version 1; make it again"):
        read_dataset(tmp_path / "tiny.h5")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match=r"data set '.*none\.h5' cannot be read: .*check the path"):
        read_dataset(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(InputError, match=r"data set '.*text\.h5' cannot be read"):
        read_dataset(tmp_path / "text.h5")


@pytest.fixture(scope="module")
def embedded():
    return read_dataset(embedded_dataset_path())


def test_embedded_set_is_large_enough_and_small(embedded):
    assert len({s.name for s in embedded.samples}) >= 60
    assert len(embedded.samples) >= 300
    assert embedded_dataset_path().stat().st_size < 10e6


def test_embedded_splits_are_disjoint(embedded):
    names = [{s.name for s in embedded.split(split)} for split in SPLITS]
    assert all(names)
    assert sum(map(len, names)) == len(set().union(*names))
    compositions = {}  # one name is one molecule
    for s in embedded.samples:
        assert compositions.setdefault(s.name, s.molecule.numbers.tolist()) == s.molecule.numbers.tolist()


def test_embedded_geometries_differ(embedded):
    by_name = {}
    for s in embedded.samples:
        by_name.setdefault(s.name, []).append(s.molecule.positions)
    for positions in by_name.values():
        for i in range(len(positions)):
            # Random draws; along the one mode of a diatomic two may come close.
            assert all(np.abs(positions[i] - other).max() > 1e-6 for other in positions[:i])


def test_embedded_labels_are_closed_shell_and_complete(embedded):
    attributes = embedded.attributes
    small, large = attributes["small_basis"], attributes["large_basis"]
    for s in embedded.samples:
        assert s.molecule.spin == 0
        assert s.molecule.nelec % 2 == 0
        for name in (small, large):
            labels = s.labels[name]
            occupied = s.molecule.nelec // 2
            assert np.all(np.diff(labels["mo_energies"]) >= 0)
            assert labels["mo_energies"][occupied] - labels["mo_energies"][occupied - 1] > 0.01
            # α is a sum of squares over states.
            assert np.linalg.eigvalsh(labels["polarizability"]).min() > -1e-10
        assert s.labels[large]["energy"] < s.labels[small]["energy"]  # the larger basis is lower by hartrees


def test_embedded_fock_matrices_have_the_stored_levels(embedded):
    name = embedded.attributes["small_basis"]
    for s in embedded.samples:
        labels = s.labels[name]
        values = scipy.linalg.eigh(labels["fock"], labels["overlap"], eigvals_only=True)
        # Rounding is 1e-12; labels are converged to 1e-10 in the energy.
        np.testing.assert_allclose(values, labels["mo_energies"], atol=1e-6, err_msg=s.name)
        trace = np.trace(np.linalg.solve(labels["overlap"], labels["fock"]))
        np.testing.assert_allclose(trace, labels["mo_energies"].sum(), atol=1e-5, err_msg=s.name)


def test_embedded_overlaps_are_reproduced(embedded):
    name = embedded.attributes["small_basis"]
    samples = embedded.samples[:: len(embedded.samples) // 8]
    batch = jax.tree.map(jnp.asarray, pad_batch([s.molecule for s in samples], name))
    ours = jax.jit(lambda b: jax.lax.map(lambda m: overlap(m.basis, m.positions), b))(batch)
    for s, matrix in zip(samples, ours, strict=True):
        nao = load_basis(name, s.molecule.numbers).nao
        # Float64 integrals of the same contraction coefficients.
        np.testing.assert_allclose(matrix[:nao, :nao], s.labels[name]["overlap"], atol=1e-9, err_msg=s.name)


def test_samples_are_frozen(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.samples[0].split = "test"
