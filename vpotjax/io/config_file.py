"""Nested dataclasses as TOML with comments, and back, every key and type checked."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpotjax._checks import InputError
from vpotjax.io.sample import one_line
from vpotjax.io.settings import has_type

NAME = "name"
"""Key by which one of several dataclasses is chosen."""
NONE = "none"
WIDTH = 100


def read_toml(path: str | Path) -> dict[str, Any]:
    """What a TOML file says; InputError where it cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of TOML with line and column
        raise InputError(f"{str(path)!r} cannot be read as TOML ({one_line(error)}).") from None


def with_assignments(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Nested values with changes such as "descent.steps=20"; text that is no TOML value is taken as it stands.

    Raises:
        InputError: an assignment has no "=" or goes through what is no table.
    """
    changed = copy.deepcopy(dict(values))
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key.strip():
            raise InputError(f"set is {assignment!r}; give key=value, as descent.steps=200.")
        *tables, last = key.strip().split(".")
        table = changed
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise InputError(f"set is {assignment!r}, but {name} is no table.")
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            table[last] = text.strip()
    return changed


def updated(item: Any, values: Any, where: str = "") -> Any:
    """A dataclass with other entries, those of nested ones too.

    Args:
        item: the defaults.
        values: by field. A field that may be one of several dataclasses has a table whose "name" chooses it; "none"
            is None.
        where: name of the item in messages.

    Raises:
        InputError: an unknown key (it names the nearest one), a wrong type, or a value that the dataclass refuses.
    """
    hints = typing.get_type_hints(type(item))
    names = [field.name for field in dataclasses.fields(item) if field.init]
    changes = {}
    for key, value in values.items():
        full = f"{where}.{key}" if where else key
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(names)}"
            raise InputError(f"{full} is no setting{' of ' + where if where else ''}; {hint}")
        changes[key] = _entry(getattr(item, key), hints[key], value, full)
    return dataclasses.replace(item, **changes)


def _entry(default: Any, hint: Any, value: Any, where: str) -> Any:
    kinds = [option for option in _options(hint) if dataclasses.is_dataclass(option)]
    if kinds:
        if not isinstance(value, Mapping):
            raise InputError(f"{where} is {value!r}; give a table of its settings.")
        return updated(
            _chosen(default, kinds, value.get(NAME), where), {k: v for k, v in value.items() if k != NAME}, where
        )
    if value == NONE and type(None) in _options(hint):
        return None
    fitting: Any = tuple(value) if isinstance(value, list) else value
    if isinstance(value, Mapping):
        if dict in [typing.get_origin(option) for option in _options(hint)]:
            kinds = next(typing.get_args(option)[1] for option in _options(hint) if typing.get_origin(option) is dict)
            return {key: _item(item, kinds, f"{where}.{key}") for key, item in value.items()}
    elif any(has_type(fitting, option) for option in _options(hint)):
        return float(fitting) if _options(hint) == [float] else fitting
    raise InputError(f"{where} is {value!r}; give {_expected(hint)}.")


def _item(value: Any, hint: Any, where: str) -> Any:
    fitting = tuple(value) if isinstance(value, list) else value
    if not any(has_type(fitting, option) for option in _options(hint)):
        raise InputError(f"{where} is {value!r}; give {_expected(hint)}.")
    return fitting


def _options(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) if isinstance(hint, types.UnionType) else [hint]


def _chosen(default: Any, kinds: Sequence[Any], name: Any, where: str) -> Any:
    if len(kinds) == 1 or name is None or name == type(default).__name__:
        if name is not None and name != type(default).__name__:
            raise InputError(f"{where}.{NAME} is {name!r}; it is always {type(default).__name__}, leave it out.")
        return default
    known = {kind.__name__: kind for kind in kinds}
    if name not in known:
        raise InputError(f"{where}.{NAME} is {name!r}; give one of {', '.join(known)}.")
    return known[name]()


def _expected(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "'none'"}
    words |= {tuple[float, ...]: "a list of numbers", tuple[str, ...]: "a list of texts"}
    return " or ".join(words.get(option, str(option).replace("tuple", "a list of ")) for option in _options(hint))


def toml_text(item: Any, comments: bool = True) -> str:
    """All entries of a dataclass as TOML, which `updated` reads; those that are None are commented out."""
    return "\n".join(_lines(item, "", comments)) + "\n"


def _lines(item: Any, where: str, comments: bool) -> Iterator[str]:
    said = _descriptions(type(item)) if comments else {}
    fields = [field for field in dataclasses.fields(item) if field.init]
    tables = [field.name for field in fields if dataclasses.is_dataclass(getattr(item, field.name))]
    hints = typing.get_type_hints(type(item))
    for field in fields:
        if field.name in tables:
            continue
        value = getattr(item, field.name)
        yield from _comment(said.get(field.name))
        yield f"# {field.name} = " if value is None else f"{field.name} = {_toml(value)}"
    for name in tables:
        value, full = getattr(item, name), f"{where}.{name}" if where else name
        yield ""
        yield from _comment(said.get(name))
        yield f"[{full}]"
        if len(_options(hints[name])) > 1:
            yield f"{NAME} = {json.dumps(type(value).__name__)}"
        yield from _lines(value, full, comments)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(own)}" for key, own in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _comment(text: str | None) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ") if text else []


def _descriptions(cls: type[Any]) -> dict[str, str]:
    """What the docstring says of each field."""
    import docstring_parser

    parsed = docstring_parser.parse(cls.__doc__ or "")
    return {
        name.strip(): " ".join((entry.description or "").split())
        for entry in parsed.params
        for name in entry.arg_name.split(",")
    }
