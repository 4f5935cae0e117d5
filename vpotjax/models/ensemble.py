"""Several networks on one linear map: their mean, and how uncertain it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.batching import Batch
from vpotjax.models.calibration import Calibration
from vpotjax.models.domain import Domain
from vpotjax.models.matrix_model import MatrixModel
from vpotjax.models.property_model import PropertyModel

Model = TypeVar("Model", MatrixModel, PropertyModel)


@pytree
class Prediction:
    """Of one molecule; arrays of a batch have a leading axis.

    Attributes:
        values: observables by name, in atomic units, of the mean output (matrix, or property) of the networks.
        uncertainties: one standard deviation of the error to expect, see `Calibration`, of observables with one; of an
            ensemble without any, of each that over the networks, and nothing where there is one network.
        excess: (npair,) see `Whitening.excess`.
    """

    values: Mapping[str, Array]
    uncertainties: Mapping[str, Array]
    excess: Array


@pytree
class Ensemble(Generic[Model]):
    """Models that differ in the parameters of their networks alone.

    Attributes:
        members: how many.
        model: of a matrix, or of a property, whose `params` have a leading axis of members.
        calibration: by observable, from molecules that gave the networks no gradients; of some or none.
        domain: charges, sizes and bonds of the training molecules.
    """

    members: int = static_field()
    model: Model
    calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)
    domain: Domain = static_field(default=Domain())

    @staticmethod
    def of(models: Sequence[Model]) -> Ensemble[Model]:
        """From models that share whitening and linear map, the first one's.

        Raises:
            InputError: there are none.
        """
        if not models:
            raise InputError("models is empty; give at least one.")
        params = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]), *(m.params for m in models))
        return Ensemble(len(models), dataclasses.replace(models[0], params=params))

    @property
    def settings(self) -> Any:
        """What each model is: `MatrixSettings`, or `PropertySettings`."""
        return self.model.settings

    def member(self, number: int) -> Model:
        """One of the models; they are counted by turns."""
        params = jax.tree.map(lambda leaf: leaf[number % self.members], self.model.params)
        return dataclasses.replace(self.model, params=params)

    def outputs(self, prepared: Any) -> Any:
        """What each member predicts: F (or P), (members, nao, nao), or a property by irrep, (members, 2λ+1)."""
        if not jax.tree.leaves(self.model.params):
            output: Any = self.model.output(prepared)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.members, *jnp.shape(x))), output)

        def one(params: Any) -> Any:
            return dataclasses.replace(self.model, params=params).output(prepared)

        return jax.vmap(one)(jax.tree.map(jnp.asarray, self.model.params))

    def __call__(self, molecule: Batch, potentials: Mapping[str, Array] | None = None) -> Any:
        """The whole chain for one molecule of a batch that `settings.batch` made, with the mean of the outputs: a
        `Solution` of the mean matrix, or the property. For `potentials` see `geometry` of the settings.
        """
        prepared: Any = self.model.prepared(self.settings.geometry(molecule, potentials))
        mean: Any = jax.tree.map(lambda x: jnp.mean(x, axis=0), self.outputs(prepared))
        return self.model.solution(mean, prepared)

    def prediction(self, prepared: Any, names: Sequence[str]) -> Prediction:
        """Observables with their uncertainty.

        Args:
            prepared: from `prepared` of the model.
            names: of `vpotjax.electronic.observables.OBSERVABLES`; of a property its own.
        """
        outputs = self.outputs(prepared)

        def observed(output: Any) -> dict[str, jax.Array]:
            return self.model.observables(output, prepared, names)

        rows = jax.tree.map(lambda x: jnp.mean(x, axis=0, keepdims=True), outputs)
        several = self.members > 1 and bool(jax.tree.leaves(self.model.params))
        if several:
            rows = jax.tree.map(lambda mean, own: jnp.concatenate([mean, own]), rows, outputs)
        every = jax.lax.map(observed, rows)
        values = {name: x[0] for name, x in every.items()}
        spreads = {name: _spread(x[1:]) if several else jnp.zeros_like(x[0]) for name, x in every.items()}
        natm, ratio = self.model.natm(prepared), self.domain.ratio(self.model.heavy_atoms(prepared))
        uncertainties = {
            name: own.uncertainty(name, spreads[name], natm, ratio)
            for name, own in self.calibration.items()
            if name in spreads
        }
        if not self.calibration and several:
            uncertainties = spreads
        return Prediction(values, uncertainties, self.model.excess(prepared))


def _spread(values: Array) -> jax.Array:
    """Standard deviation over the first axis; 0 where all are infinite, as levels of padding are."""
    finite = jnp.where(jnp.isposinf(values), 0.0, values)
    return jnp.std(finite, axis=0, ddof=1)
