"""Batches by grain: every sample once in an epoch, in an order of its own, and from where it was left."""

import pickle

import numpy as np
import pytest

from tests.io.samples import assert_equal, random_sample, tiny_dataset
from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, write_dataset
from vpotjax.io.stream import sample_batches

grain = pytest.importorskip("grain")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng, tiny = np.random.default_rng(0), tiny_dataset()
    parts = ["train"] * 24 + ["validation"] * 4 + ["test"] * 4
    samples = [random_sample(f"{i}", part, tiny.samples[i % 3].molecule, rng) for i, part in enumerate(parts)]
    path = tmp_path_factory.mktemp("stream") / "a.h5"
    write_dataset(path, Dataset(samples, {}, {"half": ["train", ""] * 16}))
    return path, samples


def names(batches):
    return [[sample.name for sample in batch] for batch in batches]


def joined(batches):
    return [name for batch in names(batches) for name in batch]


def test_an_epoch_has_every_sample_once(file):
    path, samples = file
    batches = list(sample_batches(path, 8, split="train", epochs=2))
    assert [len(batch) for batch in batches] == [8] * 6
    by = {s.name: s for s in samples}
    first, second = names(batches[:3]), names(batches[3:])
    for epoch in (batches[:3], batches[3:]):
        assert sorted(joined(epoch), key=int) == [str(i) for i in range(24)]
    assert first != second
    assert_equal(Dataset([by[name] for name in first[0]]), Dataset(batches[0]))
    assert names(sample_batches(path, 8, split="train", epochs=1, seed=1)) != first
    assert names(sample_batches(path, 8, split="train", epochs=1)) == first
    half = sample_batches(path, 4, split="train", by="half", epochs=1)
    assert sorted(map(int, joined(half))) == list(range(0, 32, 2))


def test_a_position_can_be_kept(file):
    """Also that of an iterator of another process."""
    iterator = iter(sample_batches(file[0], 8))
    for _ in range(5):
        next(iterator)
    state = pickle.loads(pickle.dumps(iterator.get_state()))
    rest = names([next(iterator) for _ in range(4)])
    other = iter(pickle.loads(pickle.dumps(sample_batches(file[0], 8))))
    other.set_state(state)
    assert names([next(other) for _ in range(4)]) == rest


def test_processes_share_the_samples(file):
    shards = [joined(sample_batches(file[0], 4, epochs=1, shard=(i, 2))) for i in range(2)]
    assert not set(shards[0]) & set(shards[1])
    assert len(shards[0] + shards[1]) == 32


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"size": 0}, "size is 0, and 32 samples of .* give 1 to 32"),
        ({"size": 5, "split": "test"}, "size is 5, and 4 samples"),
        ({"size": 1, "split": "tests"}, "split is 'tests'; give one of train"),
        ({"size": 1, "by": "age"}, "no splits 'age' .it has: 'half'"),
        ({"size": 1, "shard": (2, 2)}, r"shard is \(2, 2\); give the number"),
    ],
)
def test_batches_that_cannot_be(file, options, expected):
    with pytest.raises(InputError, match=expected):
        sample_batches(file[0], **options)
