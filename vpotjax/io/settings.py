"""Settings of models as nested JSON, and back, with types checked.

A network from outside the package is stored by name and fields and never imported: whoever loads gives an equal one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.models import MatrixSettings, PropertySettings
from vpotjax.nn import Gated, Linear, MatrixPower, Network

NETWORKS = {network.__name__: network for network in (Linear, Gated, MatrixPower)}

Settings = MatrixSettings | PropertySettings
KINDS: dict[type[Settings], str] = {MatrixSettings: "matrix", PropertySettings: "property"}


def json_ready(value: Any) -> Any:
    """`value` as what JSON holds: dataclasses as objects, NumPy's numbers and arrays plain.

    Raises:
        InputError: something that JSON cannot hold.
    """
    if isinstance(value, np.ndarray | np.generic):
        return json_ready(value.tolist())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    raise InputError(f"entries hold {value!r} of type {type(value).__name__}; give what JSON can hold.")


def settings_json(settings: Settings) -> dict[str, Any]:
    """Settings as nested JSON, see `settings_from_json`."""
    return json_ready(_fields(settings) | {"network": network_json(settings.network)})


def network_json(network: Network) -> dict[str, Any]:
    """Name and fields; the name is "module:QualName" for networks from outside the package.

    Functions and classes among fields are stored by name; what JSON cannot hold, or equality ignores, is left out.

    Raises:
        InputError: a field is called "name".
    """
    kind = type(network)
    fields = _fields(network) if dataclasses.is_dataclass(kind) else {}
    if kind in NETWORKS.values():
        return {"name": kind.__name__, **json_ready(fields)}
    values: dict[str, Any] = {"name": f"{kind.__module__}:{kind.__qualname__}"}
    if "name" in fields:
        raise InputError(f"network {values['name']} has a field 'name', which is that of the network; rename it.")
    for name, value in fields.items():
        with contextlib.suppress(InputError):
            values[name] = getattr(value, "__qualname__", None) or json_ready(value)
    return values


def settings_from_json(kind: str, values: Any, network: Network | None = None) -> Settings:
    """The inverse of `settings_json`.

    Args:
        kind: "matrix" or "property".
        values: from JSON; types are checked.
        network: equal to the stored one; needed where that is not of the package.

    Raises:
        InputError: entries that are unknown, missing or of the wrong type or value, or another network.
    """
    return _object({name: cls for cls, name in KINDS.items()}[kind], values, "model", network)


def _object(cls: type[Any], values: Any, name: str, network: Network | None = None) -> Any:
    """A dataclass from JSON."""
    if not isinstance(values, dict):
        raise InputError(f"{name} is {values!r}, expected an object with its entries; restore the file.")
    hints, names = typing.get_type_hints(cls), [field.name for field in dataclasses.fields(cls)]
    differing = sorted(set(values) ^ set(names))
    if differing:
        raise InputError(
            f"{name} has entries {differing} that do not fit; train again, or install the version that wrote it."
        )
    return cls(**{entry: _value(hints[entry], values[entry], f"{name}.{entry}", network) for entry in names})


def _value(hint: Any, value: Any, name: str, network: Network | None) -> Any:
    if hint is Network:
        return _network(value, name, network)
    if dataclasses.is_dataclass(hint):
        return _object(typing.cast("type[Any]", hint), value, name)
    fitting = tuple(value) if isinstance(value, list) else value
    if not has_type(fitting, hint):
        expected = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint)
        raise InputError(f"{name} is {value!r}, expected {expected}; restore the file.")
    return fitting


def _network(values: Any, name: str, given: Network | None) -> Network:
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise InputError(f"{name} is {values!r}, expected an object with its name; restore the file.")
    if given is not None:
        own = network_json(given)
        if own != values:
            raise InputError(f"network is {own}, but {name} is {values}; give an equal one.")
        return given
    own_name = values["name"]
    if own_name in NETWORKS:
        return _object(NETWORKS[own_name], {k: v for k, v in values.items() if k != "name"}, name)
    if ":" in own_name:
        raise InputError(f"{name} is {own_name!r}, which is not of vpotjax; give an equal object as network.")
    raise InputError(f"{name}.name is {own_name!r}, expected one of {', '.join(NETWORKS)}; restore the file.")


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a field: bool, int, float, str, None, a tuple of one type, or a union."""
    if isinstance(hint, types.UnionType):
        return any(has_type(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(has_type(item, typing.get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _fields(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item) if field.compare}
