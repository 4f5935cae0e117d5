"""Errors of models on labelled molecules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._programs import quick_jit
from vpotjax._typing import Array
from vpotjax.electronic.observables import OBSERVABLES, Reference
from vpotjax.metrics import ErrorSummary, MoleculeErrors, error_summary, molecule_errors
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.property_model import PROPERTIES
from vpotjax.train.arrays import in_chunks, over_molecules
from vpotjax.train.samples import Bucket, with_model


class Evaluation(NamedTuple):
    """Of labelled molecules.

    Attributes:
        names: of the molecules.
        summary: errors by observable.
        norms: ‖Δ‖/natm of each molecule by observable, in the unit of the table.
        uncertainties: ‖uncertainty‖/natm, likewise, of what is compared; empty for a model without.
        pairs: predicted and reference values of all that is compared, by observable, atomic units.
        errors: of each molecule by observable.
        natm: atoms of each molecule.
        excess: how far each molecule is from the training molecules, see `Whitening.excess`; 0 without a model.
        heavy_atoms: of each molecule, all but hydrogen; 0 without a model.
    """

    names: tuple[str, ...]
    summary: dict[str, ErrorSummary]
    norms: dict[str, np.ndarray]
    uncertainties: dict[str, np.ndarray]
    pairs: dict[str, tuple[np.ndarray, np.ndarray]]
    errors: dict[str, MoleculeErrors]
    natm: np.ndarray
    excess: np.ndarray
    heavy_atoms: np.ndarray


class _Observed(NamedTuple):
    """Values and uncertainties by observable, excess and heavy atoms, of the molecules of a bucket."""

    values: Mapping[str, Any]
    uncertainties: Mapping[str, Any]
    excess: np.ndarray
    heavy_atoms: np.ndarray


def comparable(labels: Sequence[str], target: str = "fock") -> tuple[str, ...]:
    """Of the table, what a model of F, P ("density") or a property can be compared in where there are these labels."""
    if target in PROPERTIES:
        return (target,)
    of_target = {name for name, o in OBSERVABLES.items() if o.of_density or (o.compute and target == "fock")}
    return tuple(name for name, o in OBSERVABLES.items() if o.label in labels and name in of_target)


def evaluated(ensemble: Ensemble[Any], buckets: Sequence[Bucket], names: Sequence[str]) -> Evaluation:
    """Errors of an ensemble.

    Args:
        ensemble: see `Ensemble`.
        buckets: with geometry for content.
        names: of the table.
    """

    def observed(bucket: Bucket) -> _Observed:
        content = with_model(bucket, ensemble.model).content
        prediction, heavy = in_chunks(lambda own: _predictions(ensemble, own, tuple(names)), content)
        return _Observed(prediction.values, prediction.uncertainties, np.max(prediction.excess, axis=1), heavy)

    return _evaluation(observed, buckets, names)


@functools.partial(quick_jit, static_argnums=2)
def _predictions(ensemble: Ensemble[Any], content: Any, names: tuple[str, ...]) -> Any:
    return over_molecules(lambda one: (ensemble.prediction(one, names), ensemble.model.heavy_atoms(one)), content)


def small_basis_errors(buckets: Sequence[Bucket], names: Sequence[str]) -> Evaluation:
    """Errors of the labels in the small basis against those in the large one: the basis-set error."""

    def observed(bucket: Bucket) -> _Observed:
        values: Mapping[str, Any] = {} if bucket.small is None else bucket.small.values
        own = {n: values[OBSERVABLES[n].label] for n in names if n != "homo_lumo_gap"}
        if "homo_lumo_gap" in names and bucket.small is not None:
            own["homo_lumo_gap"] = _gaps(own.get("mo_energies", values["mo_energies"]), bucket.small)
        return _Observed(own, {}, np.zeros(len(bucket)), np.zeros(len(bucket), int))

    return _evaluation(observed, buckets, names)


def _gaps(energies: Array, small: Reference) -> jax.Array:
    from vpotjax.electronic.spectrum import homo_lumo_gap

    return jax.vmap(homo_lumo_gap)(jnp.asarray(energies), jnp.asarray(small.nelec), jnp.asarray(small.level_mask))


def _evaluation(
    observed: Callable[[Bucket], _Observed],
    buckets: Sequence[Bucket],
    names: Sequence[str],
) -> Evaluation:
    errors: dict[str, list[MoleculeErrors]] = {name: [] for name in names}
    uncertainties: dict[str, list[np.ndarray]] = {}
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    seen: list[_Observed] = []
    labels = {OBSERVABLES[name].label for name in names}
    buckets = [b.with_labels(labels) for b in buckets if len(b)]
    for bucket in buckets:
        found = observed(bucket)
        seen.append(found)
        for name in names:
            wanted = jax.vmap(lambda v, r, n=name: molecule_errors(n, v, r))(
                jnp.asarray(found.values[name]), bucket.reference
            )
            errors[name].append(jax.tree.map(np.asarray, wanted))
            pairs[name].append(_compared(name, found.values[name], bucket.reference))
        for name, x in found.uncertainties.items():
            own = jax.vmap(functools.partial(_uncertainty_norm, name))(found.values[name], x, bucket.reference)
            uncertainties.setdefault(name, []).append(np.asarray(own))
    joint = {n: MoleculeErrors(*map(np.concatenate, zip(*parts, strict=True))) for n, parts in errors.items()}
    return Evaluation(
        names=tuple(name for b in buckets for name in b.names),
        summary={name: error_summary(e) for name, e in errors.items()},
        norms={name: np.asarray(own.norm) for name, own in joint.items()},
        uncertainties={name: np.concatenate(parts) for name, parts in uncertainties.items()},
        pairs={n: (np.concatenate([a for a, _ in p]), np.concatenate([b for _, b in p])) for n, p in pairs.items()},
        errors=joint,
        natm=np.concatenate([np.asarray(b.reference.natm) for b in buckets]),
        excess=np.concatenate([own.excess for own in seen]),
        heavy_atoms=np.concatenate([own.heavy_atoms for own in seen]),
    )


def _uncertainty_norm(name: str, value: Array, uncertainty: Array, reference: Reference) -> jax.Array:
    """‖uncertainty‖/natm over the elements that are compared, as of the error."""
    observable = OBSERVABLES[name]
    here, there = (
        observable.difference(v, reference.values[observable.label], reference) for v in (value, value + uncertainty)
    )
    return observable.factor * jnp.linalg.norm(jnp.ravel(there - here)) / reference.natm


def _compared(name: str, values: Any, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and reference values, flat, of the elements that are compared."""
    observable = OBSERVABLES[name]

    def one(value: Any, own: Reference) -> tuple[jax.Array, jax.Array]:
        wanted = own.values[observable.label]
        compared = observable.difference(jnp.inf, wanted, own) == jnp.inf
        return jnp.where(compared, observable.difference(value, wanted, own), jnp.nan), jnp.where(
            compared, value, jnp.nan
        )

    error, predicted = (np.ravel(x) for x in jax.vmap(one)(jnp.asarray(values), reference))
    real = ~np.isnan(error)
    return predicted[real], predicted[real] - error[real]
