"""What is tabulated of a basis: shells and effective core potentials of elements, from basis-set-exchange or a dict."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vpotjax._checks import InputError

ShellList = Sequence[Sequence[Any]]
"""PySCF's format: [[l, [exponent, coefficient, ...], ...], ...]; coefficients of normalised primitives."""

BasisTable = str | Mapping[Any, str | ShellList]
"""A name of basis-set-exchange, or such names and shells by chemical symbol or atomic number."""

SHELL_FORM = "[l, [exponent, coefficient, ...], ...]"


def element_basis(name_or_dict: BasisTable, number: int) -> tuple[ShellList, int]:
    """Shells of one element in PySCF's format, sorted by l, and the number of core electrons of its ECP.

    Raises:
        InputError: as `load_basis`.
    """
    entry = basis_entry(name_or_dict, number)
    if isinstance(entry, str):
        return _exchange_basis(entry, number)
    return checked_shells(symbol_of(number), entry), 0


def basis_entry(name_or_dict: BasisTable, number: int) -> str | ShellList:
    """What a basis says of one element: a name of basis-set-exchange, or shells, unchecked."""
    symbol = symbol_of(number)
    if not isinstance(name_or_dict, str | Mapping):
        raise InputError(f"basis is {shown(name_or_dict)}; give a name, or a dict from chemical symbols.")
    if isinstance(name_or_dict, str):
        return name_or_dict if number else []
    unknown = [key for key in name_or_dict if isinstance(key, str) and key not in _symbols()]
    if unknown:
        raise InputError(
            f"basis has the key {unknown[0]!r}, which is no chemical symbol; atoms of one element share a basis here, "
            "for others take from_pyscf."
        )
    keys = [key for key in (symbol, number) if key in name_or_dict]
    if len(keys) > 1:
        raise InputError(f"basis has entries for both {symbol!r} and {number}; keep one.")
    if not keys and number:
        covered = ", ".join(map(str, name_or_dict))
        raise InputError(f"basis has no entry for {symbol}; it covers {covered}: add {symbol!r}.")
    return name_or_dict[keys[0]] if keys else []


@functools.cache
def _symbols() -> frozenset[str]:
    from ase.data import chemical_symbols

    return frozenset(chemical_symbols)


def symbol_of(number: int) -> str:
    """Chemical symbol; "X" of 0, a ghost."""
    from ase.data import chemical_symbols

    if not 0 <= number < len(chemical_symbols):
        raise InputError(
            f"numbers contains {number}, expected atomic numbers from 1 to {len(chemical_symbols) - 1}, 0 for ghosts."
        )
    return chemical_symbols[number]


def checked_shells(symbol: str, entry: Any) -> list[list[Any]]:
    """Shells of an element, as a dict gives them, in plain numbers and sorted by l.

    Raises:
        InputError: `entry` is not in PySCF's format.
    """
    if not isinstance(entry, Sequence) or (not entry and symbol != "X"):
        raise InputError(f"basis of {symbol} is {shown(entry)}; give a name, or at least one shell, {SHELL_FORM}.")
    return sorted((_checked_shell(symbol, shell) for shell in entry), key=lambda shell: shell[0])


def _checked_shell(symbol: str, shell: Any) -> list[Any]:
    if not isinstance(shell, Sequence) or isinstance(shell, str) or not _is_integer(shell[:1]):
        raise InputError(f"basis of {symbol} has the shell {shown(shell)}; its form is {SHELL_FORM}, l an integer ≥ 0.")
    l, entries = int(shell[0]), list(shell[1:])
    if _is_integer(entries[:1]) and entries.pop(0):
        raise InputError(f"basis of {symbol} has the shell {shown(shell)} of a spinor (kappa); leave kappa out.")
    try:
        rows = [[_number(value) for value in (() if isinstance(row, str) else row)] for row in entries]
    except (TypeError, ValueError):
        rows = []
    if not rows or len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        raise InputError(
            f"basis of {symbol} has the shell {shown(shell)}; its form is {SHELL_FORM}, with rows of numbers, of "
            "one length."
        )
    exponents, coefficients = np.array(rows)[:, 0], np.array(rows)[:, 1:]
    merged = [coefficients[exponents == exponent].sum(axis=0) for exponent in np.unique(exponents)]
    if l < 0 or not (np.isfinite(rows).all() and (exponents > 0).all() and np.any(merged, axis=0).all()):
        raise InputError(
            f"basis of {symbol}, l = {l}, has the shell {shown(shell)}; l must not be negative, exponents have to be "
            "positive, and contractions must not vanish."
        )
    return [l, *rows]


def _is_integer(values: Sequence[Any]) -> bool:
    """Of a list of one."""
    return len(values) == 1 and isinstance(values[0], int | np.integer) and not isinstance(values[0], bool)


def _number(value: Any) -> float:
    """A number, or its text; Fortran's D exponents are read."""
    if np.ndim(value):
        raise TypeError
    return float(value.replace("D", "e").replace("d", "e") if isinstance(value, str) else value)


def shown(value: Any) -> str:
    """A value in a message: short, and on one line."""
    return " ".join(reprlib.repr(value).split())


@functools.cache
def exchange_element(name: str, number: int) -> dict[str, Any]:
    """What basis-set-exchange holds of one element: electron_shells, and for an ECP ecp_potentials, ecp_electrons.

    Raises:
        InputError: the name is unknown, or the element is not covered.
    """
    import basis_set_exchange as bse

    if name.lower() not in (known.lower() for known in bse.get_all_basis_names()):
        import difflib

        known = {n.lower(): n for n in bse.get_all_basis_names()}
        near = [known[n] for n in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"basis {name!r} is not known to basis-set-exchange{hint}")
    try:
        return bse.get_basis(name, elements=[number])["elements"][str(number)]
    except KeyError:
        covered = [symbol_of(int(z)) for z in bse.get_basis(name)["elements"]]
        raise InputError(
            f"basis {name!r} does not cover {symbol_of(number)}; it covers {', '.join(covered)}: choose another."
        ) from None


@functools.cache
def _exchange_basis(name: str, number: int) -> tuple[ShellList, int]:
    element = exchange_element(name, number)
    if not element.get("electron_shells"):
        raise InputError(
            f"basis {name!r} has no functions for {symbol_of(number)}, only an effective core potential; choose a "
            "basis that comes with one."
        )
    shells: list[list[Any]] = []
    for shell in element["electron_shells"]:
        exponents = [float(x) for x in shell["exponents"]]
        columns = [[float(x) for x in column] for column in shell["coefficients"]]
        ls = shell["angular_momentum"]
        if len(ls) == 1:
            shells.append([ls[0], *([e, *c] for e, *c in zip(exponents, *columns, strict=True))])
        else:  # one column per l, as in Pople's SP shells
            shells += [
                [l, *([e, c] for e, c in zip(exponents, column, strict=True))]
                for l, column in zip(ls, columns, strict=True)
            ]
    return sorted(shells, key=lambda shell: shell[0]), int(element.get("ecp_electrons", 0))
