"""Other programs; each is imported on first use, and only then needs that program."""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("ase", "e3nn", "pyscf", "pyscfad")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module 'vpotjax.interop' has no attribute {name!r}")
    return importlib.import_module(f"vpotjax.interop.{name}")


def __dir__() -> list[str]:
    return list(_MODULES)
