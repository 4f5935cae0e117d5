"""Arrays and a record of what they belong to in one Orbax checkpoint, readable without the devices of its writer."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError

RECORD = "record"
"""The record is an array, too, the bytes of its JSON: it cannot be parted from the arrays or edited."""


DIGEST = "sha256"


def write_checkpoint(path: Path, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write a new checkpoint.

    Args:
        path: that does not exist.
        arrays: dicts of arrays, on whatever devices; written as NumPy arrays.
        record: that JSON can hold.

    Raises:
        InputError: the path exists, this is not the first of several processes, or an array is not finite or lies on
            devices of other processes.
    """
    if jax.process_index():
        raise InputError(f"{str(path)!r} is to be written by process {jax.process_index()}; let process 0 do it.")
    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another folder.")
    content = _signed(arrays, record)
    require_finite(content, "the model")
    with _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), content)


def _checkpointer() -> Any:
    """Orbax's, of this process alone: by itself it would wait for all that there are."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    active = {own} if jax.process_count() > 1 else None
    options = ocp.options.MultiprocessingOptions(primary_host=own, active_processes=active)
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options
    )


def _signed(arrays: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays on the host, and the record with their digest."""
    content = jax.tree_util.tree_map_with_path(_host_array, dict(arrays))
    signed = {**record, DIGEST: _digest(content)}
    content[RECORD] = np.frombuffer(json.dumps(signed, sort_keys=True).encode(), np.uint8)
    return content


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arrays, as NumPy arrays, and the record; None for a checkpoint without one.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    import orbax.checkpoint as ocp

    try:
        _read_all(path)
        with _checkpointer() as checkpointer:
            metadata = checkpointer.metadata(path.absolute()).item_metadata
            if metadata is None:
                raise ValueError("its list of arrays is damaged")
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata.tree)
            content = dict(checkpointer.restore(path.absolute(), restore_args=as_numpy))
        record = json.loads(content.pop(RECORD).tobytes()) if RECORD in content else None
        if record is not None and record.pop(DIGEST, None) != _digest(content):
            raise ValueError("its numbers are not those that were written")
    except (KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"checkpoint {str(path)!r} cannot be read ({reason}); run the training again.") from None
    return content, record


def _read_all(path: Path) -> None:
    """Raise ValueError where the storage is damaged: Orbax, which reads concurrently, would also print tracebacks."""
    import tensorstore

    stored = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{path.absolute()}/"}).result()
    keys = stored.list().result()
    if not keys:
        raise ValueError("it holds no arrays")
    for key in keys:
        stored.read(key).result()


def require_finite(arrays: Any, owner: str) -> None:
    """Raise InputError unless all numbers of a tree are finite; `owner` is for the message."""
    for name, leaf in by_name(arrays).items():
        values = np.asarray(leaf)
        if not np.isfinite(values).all():
            count = int(values.size - np.isfinite(values).sum())
            raise InputError(
                f"{owner} has {count} of {values.size} numbers in {name} that are not finite; train again, with a "
                "lower learning_rate."
            )


def by_name(arrays: Any) -> dict[str, Any]:
    """Leaves of nested dicts by their keys, joined by "/"."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}


def _digest(arrays: Any) -> str:
    """Of names, types, shapes and numbers."""
    digest = hashlib.sha256()
    for name, leaf in sorted(by_name(arrays).items()):
        values = np.ascontiguousarray(leaf)
        digest.update(f"{name} {values.dtype.str} {values.shape} ".encode() + values.tobytes())
    return digest.hexdigest()


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(key, "key", key)) for key in path)


def _host_array(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        raise InputError(
            f"{_name(path)} lies on devices of other processes; gather it first, with "
            "jax.experimental.multihost_utils.process_allgather."
        )
    return np.asarray(leaf)


@functools.cache
def _writer() -> ThreadPoolExecutor:
    """One thread for all states: Orbax mixes up what is written at a time in one process."""
    return ThreadPoolExecutor(1, "states")


class NotKeptError(InputError):
    """A state of a training could not be written; those before are as they were."""


class Checkpoints:
    """The last states of a training in a folder, each there whole or not at all, written while the training goes on.

    Attributes:
        folder: of the states, each in a folder by its number.
        say: is told what was found damaged.
    """

    KEPT = 2

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.say = folder, say
        self._writing: Future[None] | None = None

    def latest(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Arrays and record of the last state that can be read; None where there is none.

        Raises:
            InputError: none of several can be read.
        """
        damage = None
        for step in reversed(self._steps()):
            try:
                arrays, record = read_checkpoint(self.folder / str(step))
                if record is None:
                    raise InputError(f"state {str(self.folder / str(step))!r} has no record.")
            except InputError as error:
                damage = error
                self.say(f"{error} The training goes on from the state before, if there is one.")
                continue
            return arrays, record
        if damage is not None:
            raise damage
        return None

    def _steps(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def save(self, step: int, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Begin to write a state; the one before is finished then.

        Raises:
            NotKeptError: the one before cannot be written.
        """
        self._finish()
        self._writing = _writer().submit(self._write, step, _signed(arrays, record))

    def _write(self, step: int, content: dict[str, Any]) -> None:
        """A state, whole or not at all; then older ones go."""
        path = self.folder / str(step)
        if path.exists():  # a damaged one
            shutil.rmtree(path)
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), content)
        for old in self._steps()[: -self.KEPT]:
            shutil.rmtree(self.folder / str(old))

    def _finish(self) -> None:
        """Wait for what is being written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with self._named():
                writing.result()

    def close(self) -> None:
        """Finish what is being written."""
        self._finish()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise NotKeptError(
                f"state of the training in {str(self.folder)!r} cannot be written ({reason}); look at folder and disk, "
                "and start the same command again: it goes on from the state before."
            ) from None
