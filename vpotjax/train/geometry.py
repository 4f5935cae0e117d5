"""Compiled programs of what a model needs of molecules before its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from vpotjax._programs import quick_jit
from vpotjax.models.matrix_model import MatrixSettings
from vpotjax.models.property_model import PropertySettings
from vpotjax.train.arrays import over_molecules


def geometry_program(settings: MatrixSettings | PropertySettings) -> Callable[[Any], Any]:
    """`settings.geometry` of a batch, compiled for each shape; freed with the function, for programs are large.

    Potentials have a program of their own, which XLA compiles for speed; the other is compiled quickly.
    """

    @jax.jit
    def potentials(batch: Any) -> Any:
        return over_molecules(settings.potentials, batch)

    @quick_jit
    def geometry(batch: Any, own: Any) -> Any:
        return over_molecules(settings.geometry, batch, own)

    return lambda batch: geometry(batch, potentials(batch))
