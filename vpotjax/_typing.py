"""Types of arguments."""

from __future__ import annotations

from typing import TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray
"""What the package takes as an array; it returns `jax.Array` from JAX functions."""
