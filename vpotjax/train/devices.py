"""Molecules of a batch shared among all devices, of one process or of several."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vpotjax._checks import InputError
from vpotjax._programs import quick_jit

AXIS = "molecules"


class Sharing:
    """All devices in a line, along which the molecules of a batch lie; everything else is the same on each of them.

    Attributes:
        count: of the devices.
    """

    def __init__(self) -> None:
        self.mesh = Mesh(np.array(jax.devices()), (AXIS,))
        self.count = self.mesh.size

    @classmethod
    def of_all(cls) -> Sharing | None:
        """None where there is but one device."""
        return cls() if jax.device_count() > 1 else None

    def filled(self, count: int) -> int:
        """So many molecules that every device has as many as the others."""
        return -(-count // self.count) * self.count

    def placed(self, tree: Any, axis: int = 0) -> Any:
        """NumPy arrays, of which every process has all, shared along `axis`."""
        return self._put(tree, self.spec(axis))

    def everywhere(self, tree: Any) -> Any:
        """Arrays on every device."""
        return self._put(tree, PartitionSpec())

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(self.mesh, spec)

        def one(leaf: Any) -> jax.Array:
            own = np.asarray(leaf)
            return jax.make_array_from_callback(own.shape, sharding, lambda index: own[index])

        return jax.tree.map(one, tree)

    @staticmethod
    def spec(axis: int = 0) -> PartitionSpec:
        """Of arrays with molecules along `axis`."""
        return PartitionSpec(*[None] * axis, AXIS)

    def shared(self, function: Callable[..., Any], specs: tuple[PartitionSpec, ...]) -> Callable[..., Any]:
        """`function` on each device with its molecules; its results are to be the same on all of them."""
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)

    def jitted(self, function: Callable[..., Any], static: int | tuple[int, ...]) -> Any:
        """`function` compiled, with results on every device."""
        return quick_jit(function, static, out_shardings=NamedSharding(self.mesh, PartitionSpec()))


def leads() -> bool:
    """Whether this process is the one that writes: the first."""
    return jax.process_index() == 0


def require_same(what: str, text: str) -> None:
    """Raise InputError, in all processes, where they have not the same text."""
    if jax.process_count() == 1:
        return
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if np.ptp(np.asarray(process_allgather(own)), axis=0).any():
        raise InputError(f"{what} are not the same in all processes of this training; give all of them the same.")


def told(value: Any) -> Any:
    """The value that the first process has, for all of them; whatever pickle takes."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    content = np.frombuffer(pickle.dumps(value), np.uint8) if leads() else np.zeros(0, np.uint8)
    size = int(broadcast_one_to_all(np.array(content.size)))
    content = content if leads() else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(broadcast_one_to_all(content)).tobytes())  # from a process of this training
