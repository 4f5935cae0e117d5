"""Several networks on one linear map: their mean, and how far they are apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.batching import Batch
from vpotjax.electronic.observables import Solution
from vpotjax.models.matrix_model import MatrixModel, MatrixSettings, Prepared


@pytree
class Prediction:
    """Of one molecule; arrays of a batch have a leading axis.

    Attributes:
        values: observables by name, in atomic units, of the mean matrix of the networks.
        spreads: standard deviation of each over the networks; empty where there is one.
        excess: (npair,) see `Whitening.excess`.
    """

    values: Mapping[str, Array]
    spreads: Mapping[str, Array]
    excess: Array


@pytree
class Ensemble:
    """Models that differ in the parameters of their networks alone.

    Attributes:
        members: how many.
        model: whose `params` have a leading axis of members.
    """

    members: int = static_field()
    model: MatrixModel

    @staticmethod
    def of(models: Sequence[MatrixModel]) -> Ensemble:
        """From models that share whitening and linear map, the first one's.

        Raises:
            InputError: there are none.
        """
        if not models:
            raise InputError("models is empty; give at least one.")
        params = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *(m.params for m in models))
        return Ensemble(len(models), dataclasses.replace(models[0], params=params))

    @property
    def settings(self) -> MatrixSettings:
        """What each model is."""
        return self.model.settings

    def matrices(self, prepared: Prepared) -> jax.Array:
        """Predicted F (or P) of each member, (members, nao, nao)."""
        if not jax.tree.leaves(self.model.params):
            return jnp.broadcast_to(self.model.matrix(prepared), (self.members, *jnp.shape(prepared.linear)))

        def one(params: Any) -> jax.Array:
            return dataclasses.replace(self.model, params=params).matrix(prepared)

        return jax.vmap(one)(jax.tree.map(jnp.asarray, self.model.params))

    def __call__(self, molecule: Batch) -> Solution:
        """The whole chain for one molecule of a batch that `settings.batch` made, with the mean matrix."""
        prepared = self.model.prepared(self.settings.geometry(molecule))
        return self.settings.solution(jnp.mean(self.matrices(prepared), axis=0), prepared.space)

    def prediction(self, prepared: Prepared, names: Sequence[str]) -> Prediction:
        """Observables with their spread.

        Args:
            prepared: from `MatrixModel.prepared`.
            names: of `vpotjax.electronic.observables.OBSERVABLES`.
        """
        matrices = self.matrices(prepared)

        def observed(matrix: Array) -> dict[str, jax.Array]:
            solution = self.settings.solution(matrix, prepared.space)
            return {name: solution.observable(name) for name in names}

        mean, spreads = jnp.mean(matrices, axis=0, keepdims=True), {}
        several = self.members > 1 and bool(jax.tree.leaves(self.model.params))
        every = jax.lax.map(observed, jnp.concatenate([mean, matrices]) if several else mean)
        if several:
            spreads = {name: _spread(x[1:]) for name, x in every.items()}
        excess = self.model.whitening.excess(prepared.inputs)
        return Prediction({name: x[0] for name, x in every.items()}, spreads, excess)


def _spread(values: Array) -> jax.Array:
    """Standard deviation over the first axis; 0 where all are infinite, as levels of padding are."""
    finite = jnp.where(jnp.isposinf(values), 0.0, values)
    return jnp.std(finite, axis=0, ddof=1)
