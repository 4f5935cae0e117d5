"""Programs over the molecules of a bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

CHUNK = 32  # molecules of one call


def over_molecules(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` over the leading axis: one after the other on CPUs, where that is faster, batched on other devices."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: function(*one), trees)
    return jax.vmap(function)(*trees)


def in_chunks(function: Callable[[Any], Any], tree: Any, size: int = CHUNK) -> Any:
    """NumPy results of a program of `size` molecules on all along the leading axis of `tree`, which has at least one.

    The last call is filled up with copies of the last molecule, so that one program serves any number of them.
    """
    count = len(jax.tree.leaves(tree)[0])
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = function(jax.tree.map(lambda x, r=rows: x[r], tree))
        parts.append(jax.tree.map(lambda x, n=count - start: np.asarray(x)[:n], part))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
