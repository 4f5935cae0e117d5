"""Arrays in files behave as those in memory, and only the rows in use are read."""

import dataclasses

import jax
import numpy as np

from tests.train.test_pipeline import TINY, Silent, dataset_of
from vpotjax.train.arrays import BatchBuffer, Rows, chunks, in_chunks, joined, selected
from vpotjax.train.matrix_training import trained_matrix
from vpotjax.train.pipeline import SPLITS
from vpotjax.train.stages import Folders


def parts():
    rng = np.random.default_rng(0)
    return [{"a": rng.normal(size=(n, 2, 3)), "b": (rng.integers(9, size=n), None)} for n in (4, 1, 3)]


def test_rows_in_files_are_those_in_memory(tmp_path):
    memory, files = joined(iter(parts())), joined(iter(parts()), tmp_path)
    assert all(isinstance(x, Rows) for x in jax.tree.leaves(files))
    assert jax.tree.structure(memory) == jax.tree.structure(files)
    chosen = np.array([6, 0, 3])
    for rows in (slice(2, 5), chosen, 7, np.arange(8) > 4):
        jax.tree.map(lambda x, y, r=rows: np.testing.assert_array_equal(x[r], y[r]), memory, files)
    one, other = selected(memory, chosen), selected(files, chosen)
    assert isinstance(other["a"], Rows)
    assert other["a"].shape == (3, 2, 3)
    jax.tree.map(np.testing.assert_array_equal, selected(one, np.array([1])), selected(other, np.array([1])))
    for x, y in zip(chunks(memory, 3), chunks(files, 3), strict=True):
        jax.tree.map(np.testing.assert_array_equal, x, y)
    doubled = in_chunks(lambda tree: jax.tree.map(lambda x: 2 * x, tree), files, 3, tmp_path)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, 2 * y), doubled, memory)


def test_a_buffer_holds_one_batch_after_the_other(tmp_path):
    memory, files = joined(iter(parts())), joined(iter(parts()), tmp_path)
    tree = {"memory": memory, "files": files, "empty": np.zeros((8, 0)), "flags": np.arange(8) > 3}
    buffer = BatchBuffer()
    for rows in (np.array([5, 0]), np.array([1, 7, 3, 2]), np.array([6])):
        batch = buffer.filled(tree, rows)
        jax.tree.map(lambda x, y, r=rows: np.testing.assert_array_equal(x, y[r]), batch, tree)
        assert all(x.ctypes.data % 64 == 0 for x in jax.tree.leaves(batch) if x.size)
        assert all(x.dtype == y.dtype for x, y in zip(jax.tree.leaves(batch), jax.tree.leaves(tree), strict=True))


def test_a_training_from_files_is_that_from_memory(tmp_path):
    dataset = dataset_of(train=("H2O", 3), validation=("H2O", 1), test=("H2O", 1))
    split = {name: dataset.split(name) for name in SPLITS}
    settings = TINY.settings((1, 8), "sto-3g")
    training = dataclasses.replace(TINY, weights={"dipole": 1.0})
    losses = []
    for folder in (None, tmp_path):
        trained = trained_matrix(split, training, settings, ("sto-3g", "def2-tzvp"), Silent(), Folders(folder))
        losses.append([row["validation_loss"] for row in trained.history])
    assert list(tmp_path.iterdir())
    assert losses[0] == losses[1]
