"""Arrays in files behave as those in memory, and only the rows in use are read."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_pipeline import TINY, Silent, dataset_of
from vpotjax.train import held
from vpotjax.train.arrays import Rows, chunks, in_chunks, joined, selected
from vpotjax.train.held import Molecules, over_rows
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


def test_programs_read_molecules_where_they_are(tmp_path):
    memory, files = joined(iter(parts())), joined(iter(parts()), tmp_path)
    some = np.array([7, 2, 3, 0, 5])
    tree = {"memory": memory, "files": files, "empty": np.zeros((8, 0)), "flags": np.arange(8) > 3}
    tree |= {"some": selected({"files": files, "memory": memory}, some)}
    tree = {key: selected(x, np.arange(5)) for key, x in tree.items()}
    molecules = Molecules((tree, np.arange(5.0)), None)
    read = jax.jit(lambda held, rows: over_rows(lambda own, number: (own, number), held, rows))
    for rows in (np.array([4, 0]), np.array([1, 3, 3, 2]), np.array([0])):
        own, numbers = read(*molecules.batch(rows))
        np.testing.assert_array_equal(numbers, rows)
        jax.tree.map(lambda x, y, r=rows: np.testing.assert_array_equal(x, y[r]), own, tree)
    whole = molecules.held[0]["memory"]["a"].whole
    assert whole.unsafe_buffer_pointer() == tree["memory"]["a"].ctypes.data


def test_pages_of_files_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(held, "MAPPED", 1 << 22)
    size = 1 << 19
    array = joined(iter([np.full((1, size), float(i)) for i in range(32)]), tmp_path)  # 128 MiB
    read = jax.jit(lambda held, rows: over_rows(jnp.sum, held, rows))
    read(*Molecules((array,), None).batch(np.array([0])))
    before = file_pages()
    molecules = Molecules((array,), None)
    assert len(molecules.maps) == 1
    pages = np.frombuffer(molecules.maps[0], np.uint8)
    assert molecules.held[0].whole.unsafe_buffer_pointer() == pages.ctypes.data
    for i in range(32):
        np.testing.assert_array_equal(read(*molecules.batch(np.array([i]))), [i * size])
        assert file_pages() - before < 24


def test_an_accelerator_without_room_is_given_batches(monkeypatch):
    tree = {"a": np.arange(12.0).reshape(6, 2), "b": np.arange(6)}
    monkeypatch.setattr(held, "_fits", lambda size: False)
    molecules = Molecules((tree,), None)
    read = jax.jit(lambda held, rows: over_rows(lambda own: own, held, rows))
    several = jax.jit(jax.vmap(lambda held, rows: over_rows(lambda own: own, held, rows), in_axes=(None, 0)))
    for program, rows in ((read, np.array([5, 0, 3])), (several, np.array([[1, 4, 2], [2, 0, 5]]))):
        batch = molecules.batch(rows)
        assert len(batch[0][0]["b"].whole) == rows.size
        jax.tree.map(lambda x, y, r=rows: np.testing.assert_array_equal(x, y[r]), program(*batch), tree)


def file_pages():
    """MiB of files that count as memory of this process."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc/self/status here")
    (line,) = [x for x in status.read_text().splitlines() if x.startswith("RssFile")]
    return int(line.split()[1]) / 1024


@pytest.mark.slow
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
