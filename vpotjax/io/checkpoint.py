"""Arrays and a record of what they belong to in one Orbax checkpoint, readable without the devices of its writer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
        InputError: the path exists, or an array is not finite or lies on devices of other processes.
    """
    import orbax.checkpoint as ocp

    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another folder.")
    content = jax.tree_util.tree_map_with_path(_host_array, dict(arrays))
    require_finite(content, "the model")
    signed = {**record, DIGEST: _digest(content)}
    content[RECORD] = np.frombuffer(json.dumps(signed, sort_keys=True).encode(), np.uint8)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), content)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arrays, as NumPy arrays, and the record; None for a checkpoint without one.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    import orbax.checkpoint as ocp

    try:
        _read_all(path)
        with ocp.PyTreeCheckpointer() as checkpointer:
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
