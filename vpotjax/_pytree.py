"""Frozen dataclasses as JAX pytrees; static or traced is decided at the field."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static_field(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree structure: hashable, never traced."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static_field))
def pytree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree whose leaves are all fields not made by `static_field`.

    Unflattening does not call `__init__`, so `__post_init__` checks see user input only, never the tracers
    that `vmap` or `grad` put into the leaves.
    """
    frozen: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(frozen)
    leaves = [f.name for f in fields if not f.metadata.get("static")]
    static = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(node: Any) -> Any:
        children = [(jax.tree_util.GetAttrKey(name), getattr(node, name)) for name in leaves]
        return children, tuple(getattr(node, name) for name in static)

    def flatten(node: Any) -> Any:
        return [getattr(node, name) for name in leaves], tuple(getattr(node, name) for name in static)

    def unflatten(aux: Any, children: Any) -> Any:
        node = object.__new__(frozen)
        for name, value in (*zip(leaves, children, strict=True), *zip(static, aux, strict=True)):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(frozen, flatten_with_keys, unflatten, flatten)
    return frozen
