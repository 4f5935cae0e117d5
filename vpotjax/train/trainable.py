"""What moves in a training: the parameters of a network, on a linear map that does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax.models.matrix_model import MatrixSettings, Prepared, corrected
from vpotjax.models.property_model import PropertyPrepared, PropertySettings, summed_correction


@dataclasses.dataclass(frozen=True)
class _Network:
    """Parameters of a network: those that are given, or random ones."""

    settings: Any
    scale: float
    params: Any = None

    def initial(self, key: Any, content: Any) -> Any:
        """See `Trainable`."""
        if self.params is not None:
            return jax.tree.map(jnp.asarray, self.params)
        module = self.settings.network.module(self.settings.outputs, len(self.settings.species))
        return module.init(key, content.inputs)


@dataclasses.dataclass(frozen=True)
class MatrixTraining(_Network):
    """`Trainable` of a matrix model."""

    def output(self, params: Any, content: Prepared) -> jax.Array:
        """F or P of one molecule."""
        return corrected(self.settings, jnp.asarray(self.scale), params, content)

    def predicted(self, output: Any, content: Prepared, max_occupied: int | None) -> Any:
        """Observables."""
        return self.settings.solution(output, content.space, max_occupied)


@dataclasses.dataclass(frozen=True)
class PropertyTraining(_Network):
    """`Trainable` of a property: what a network adds, by name of the irrep."""

    def output(self, params: Any, content: PropertyPrepared) -> dict[str, jax.Array]:
        """By name of the irrep, (2λ+1,)."""
        assert content.inputs is not None
        added = summed_correction(self.settings, jnp.asarray(self.scale), params, content.inputs)
        return {str(irrep): y for irrep, y in added.items()}

    def predicted(self, output: Any, content: PropertyPrepared, max_occupied: int | None) -> Any:
        """The same: the labels are what the linear map leaves."""
        return output


def trainable(settings: MatrixSettings | PropertySettings, scale: float, params: Any = None) -> Any:
    """`Trainable` of a model with these settings; `params` are those that it starts from."""
    kind = MatrixTraining if isinstance(settings, MatrixSettings) else PropertyTraining
    return kind(settings, scale, params)
