"""What the weights of a model fit: its configuration and bases as a record, and the shapes of its arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import element_basis
from vpotjax.io.checkpoint import by_name
from vpotjax.model import FACTOR_LAST, ModelConfig, network
from vpotjax.operators.blocks import Irrep, irreps, shell_layout
from vpotjax.operators.features import SCALAR, matrix_count, pair_type_count
from vpotjax.property_model import PROPERTIES, PropertyConfig, property_network

SCREENING_BASIS = "sap_grasp_small"  # the fits of `screened_potential`
SHOWN = 4  # differences in a message


def fit_record(config: ModelConfig | PropertyConfig) -> dict[str, Any]:
    """The configuration, and a digest of the functions of each basis and element, in a form that JSON keeps."""
    import basis_set_exchange
    from ase.data import chemical_symbols

    model = json.loads(json.dumps(dataclasses.asdict(config)))
    bases = {key: value for key, value in model.items() if key.endswith("_basis")}
    if "sap" in (*config.inputs, model.get("baseline")):
        bases["sap"] = SCREENING_BASIS
    return {
        "model": model,
        "bases": {
            f"{key} {name!r} of {chemical_symbols[z]}": _digest(name, z)
            for key, name in bases.items()
            for z in config.species
        },
        "basis_set_exchange": basis_set_exchange.__version__,
    }


def _digest(basis: str, number: int) -> str:
    """Of l, exponents, coefficients and core electrons of an element."""
    shells, core = element_basis(basis, number)
    plain = [[int(l), [[float(x) for x in row] for row in rows]] for l, *rows in shells]
    return hashlib.sha256(json.dumps([plain, int(core)]).encode()).hexdigest()[:16]


def require_same_fit(folder: str, file: str, written: Mapping[str, Any], read: Mapping[str, Any]) -> None:
    """Raise InputError unless two records agree: `written` from the checkpoint, `read` from `file` in `folder`."""
    names = {**written["model"], **read["model"]}
    lacking = "absent"
    differing = [
        f"{name} is {read['model'].get(name, lacking)!r} in {file} and {written['model'].get(name, lacking)!r} in it"
        for name in names
        if read["model"].get(name, lacking) != written["model"].get(name, lacking)
    ]
    if differing:
        raise InputError(
            f"run={folder!r}: {file} contradicts the checkpoint: {_listed(differing)}; undo the change of {file}, or "
            "train with these settings."
        )
    changed = [name for name, digest in read["bases"].items() if written["bases"].get(name) != digest]
    if changed:
        raise InputError(
            f"run={folder!r}: {_listed(changed)} has other exponents or coefficients in basis-set-exchange "
            f"{read['basis_set_exchange']} than the model was fitted with in {written['basis_set_exchange']}; install "
            "that version, or train again."
        )


def require_fitting_arrays(owner: str, arrays: Mapping[str, Any], config: ModelConfig | PropertyConfig) -> None:
    """Raise InputError unless `arrays`, those of a checkpoint, have the names and shapes that `config` needs.

    Args:
        owner: whose arrays they are, for the message.
        arrays: of a model, see `vpotjax.io.run`.
        config: of the model.
    """
    wanted = _model_shapes(config) if isinstance(config, ModelConfig) else _property_shapes(config, "params" in arrays)
    have = {name: np.shape(leaf) for name, leaf in by_name(arrays).items()}
    need = {name: leaf.shape for name, leaf in by_name(wanted).items()}
    differing = [
        f"{name} has shape {have[name]} and not {need[name]}"
        if name in have and name in need
        else f"{name} is {'missing' if name in need else 'not part of it'}"
        for name in sorted(have.keys() | need.keys())
        if have.get(name) != need.get(name)
    ]
    if differing:
        raise InputError(
            f"{owner} has arrays that do not fit its configuration: {_listed(differing)}; give the configuration that "
            "the arrays were trained with, or train again."
        )


def _listed(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _model_shapes(config: ModelConfig) -> dict[str, Any]:
    target, potential = config.layouts()
    count = matrix_count(config.inputs, config.power_order)
    features = _feature_shapes(irreps(target), irreps(potential), count)
    operators = None
    if config.network == "matrix-power":
        width = potential.width
        operators = _zeros(sum(name in config.inputs for name in FACTOR_LAST), 1, 1, width, width)
    params = _initial(network(config), features, operators)
    return {
        "params": dict.fromkeys(config.networks(), params),
        "statistics": dict.fromkeys(config.power_kinds, _statistics_shapes(features, len(config.species))),
    }


def _property_shapes(config: PropertyConfig, corrected: bool) -> dict[str, Any]:
    own = irreps(shell_layout(config.potential_basis, config.species))
    species, count = len(config.species), matrix_count(config.inputs, config.power_order)
    kinds = species + species * (species + 1) // 2  # on site, and off site in one order
    shapes: dict[str, Any] = {
        "weights": {str(irrep): _zeros(kinds, count, own[irrep]) for irrep in PROPERTIES[config.target]},
        "regularisers": {str(irrep): _zeros() for irrep in PROPERTIES[config.target]},
        "per_atom": _zeros(species),
    }
    if corrected and config.gated:
        features = _feature_shapes({*PROPERTIES[config.target], SCALAR}, own, count)
        shapes["params"] = _initial(property_network(config), features)
        shapes["statistics"] = _statistics_shapes(features, species)
    return shapes


def _feature_shapes(wanted: Iterable[Irrep], own: Mapping[Irrep, int], count: int) -> dict[Irrep, Any]:
    """Of a molecule of one atom, as `operator_features` of `count` matrices makes them."""
    return {
        irrep: _zeros(1, 1, count * own[irrep] + (irrep == SCALAR), 2 * irrep.lam + 1)
        for irrep in sorted(wanted)
        if irrep in own
    }


def _statistics_shapes(features: Mapping[Irrep, Any], species: int) -> dict[str, Any]:
    kinds = pair_type_count(range(species))
    channels = {str(irrep): x.shape[-2] for irrep, x in features.items()}
    return {
        "mean": {irrep: _zeros(kinds, n) for irrep, n in channels.items()},
        "transform": {irrep: _zeros(kinds, n, n) for irrep, n in channels.items()},
    }


def _initial(module: Any, features: Mapping[Irrep, Any], *rest: Any) -> Any:
    """Shapes of the parameters of a Flax module."""
    return jax.eval_shape(module.init, jax.random.key(0), features, jax.ShapeDtypeStruct((1, 1), jnp.int32), *rest)


def _zeros(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
