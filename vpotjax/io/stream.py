"""Batches of samples of a file in random order, read as they are needed, for training loops of one's own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpotjax._checks import InputError
from vpotjax.io.dataset import DatasetFile
from vpotjax.io.sample import Sample

if TYPE_CHECKING:
    import grain


def sample_batches(
    path: str | Path,
    size: int,
    *,
    split: str | None = None,
    by: str | None = None,
    seed: int = 0,
    epochs: int | None = None,
    shard: tuple[int, int] | None = None,
) -> grain.MapDataset[list[Sample]]:
    """Lists of `size` samples as a dataset of grain, shuffled anew in every epoch; what fills no list is left out.

        iterator = iter(sample_batches("qm7.h5", 32, split="train"))
        samples = next(iterator)
        state = iterator.get_state()  # to be kept with a checkpoint; set_state goes on there

    Args:
        path: of a data set file; it is opened by every process that reads.
        size: of a batch.
        split: only samples of this part, "train", "validation" or "test".
        by: name of a split of the file; default: that of the samples.
        seed: of the order.
        epochs: how often; default: for ever.
        shard: number of this process and of all; each reads its own part. Default: those of `jax.distributed`.

    Raises:
        InputError: grain is not installed; there are fewer samples than fill a batch; an argument is out of range; as
            of `DatasetFile`.
    """
    try:
        import grain
    except ImportError:
        raise InputError("sample_batches needs grain; pip install 'vpotjax[stream]'.") from None
    if shard is None:
        import jax

        shard = jax.process_index(), jax.process_count()
    number, count = shard
    if not 0 <= number < count:
        raise InputError(f"shard is {shard}; give the number of this process, from 0, and that of all.")
    file = DatasetFile(path)  # stays open for the samples
    rows = file.rows(split, by)[number::count]
    if not 1 <= size <= len(rows):
        raise InputError(
            f"size is {size}, and {len(rows)} samples of {str(path)!r} are for this process; give 1 to {len(rows)}."
        )
    numbers = grain.MapDataset.source(rows).seed(seed).shuffle().repeat(epochs)
    return numbers.batch(size, drop_remainder=True).map(_Reader(Path(path), file))


class _Reader:
    """Reads samples; the file is opened once in each process, however many threads of grain ask for samples."""

    def __init__(self, path: Path, file: DatasetFile | None = None) -> None:
        self.path, self._file = path, file
        self._lock = threading.Lock()

    def __call__(self, rows: Sequence[int]) -> list[Sample]:
        with self._lock:
            if self._file is None:
                self._file = DatasetFile(self.path)
        return self._file[[int(row) for row in rows]]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])
