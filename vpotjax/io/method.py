"""Whether labels of two files are of one level of theory: functional and basis by definition, not by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DECISIVE = ("functional", "exact_exchange", "range_separation", "dispersion", "ao_order", "units")
"""Entries of a method that have to be equal; versions, grids, density fitting change little."""


def fingerprints(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Methods with a digest in place of the functions of each element, to be kept with a model."""
    return {name: dict(method) | _functions(method) for name, method in methods.items()}


def _functions(method: Mapping[str, Any]) -> dict[str, Any]:
    functions = method.get("basis_functions")
    return {"basis_functions": {z: _digest(own) for z, own in functions.items()}} if functions else {}


def _digest(functions: Any) -> str:
    """Of what is no digest yet."""
    if isinstance(functions, str):
        return functions
    return hashlib.sha256(json.dumps(functions, sort_keys=True).encode()).hexdigest()[:16]


def method_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """How two methods differ in what decides the labels, where both say it.

    Args:
        one, other: as `vpotjax.interop.pyscf_labels.method_description` or `fingerprints` gives them.
    """
    keys = [key for key in DECISIVE if key in one and key in other and one[key] != other[key]]
    found = [f"{key} {one[key]!r} and {other[key]!r}" for key in keys]
    defined = "functional" in one and "functional" in other
    names = [str(method["xc"]) for method in (one, other) if "xc" in method]
    if not defined and len({name.lower() for name in names}) > 1:
        found.append(f"xc {names[0]!r} and {names[1]!r}")
    own, others = (_functions(method).get("basis_functions", {}) for method in (one, other))
    changed = sorted((z for z in own.keys() & others.keys() if own[z] != others[z]), key=int)
    if changed:
        found.append(f"basis functions of the elements {', '.join(changed)}")
    return found
