"""Protein Data Bank files: one structure per MODEL, element from columns 77 to 78, charge from 79 to 80."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from vpotjax._structure_files.comment import parsed_titles
from vpotjax._structure_files.statements import PERIODIC, Claim, Place, Statement, Structure, integer, settle
from vpotjax._structure_files.symbols import atomic_number, coordinates
from vpotjax.units import ANGSTROM_TO_BOHR

_TITLE = re.compile(r"(?:TITLE |COMPND|REMARK(?!\s+\d+\b))(.*)")  # numbered remarks are forms, not free text


def pdb_structures(lines: Iterable[str], place: Place) -> Iterator[Structure]:
    """The structures of a file's lines one by one; `lines` are iterated twice.

    A file without any charge in its columns says nothing of it, unless its titles and free remarks do, which hold for
    every structure: the arguments of the reader apply.

    Raises:
        InputError: naming frame and line.
    """
    frame = 1
    atoms: list[tuple[int, list[float], int]] = []
    titles = [(found[1], place.at(line=i + 1)) for i, line in enumerate(lines) if (found := _TITLE.match(line))]
    said, claims = parsed_titles(titles)
    for i, line in enumerate(chain(lines, ["END"])):
        here = place.at(frame=frame, line=i + 1)
        record = line[:6].strip()
        if record == "CRYST1":
            _refuse_cell(line, here)
        elif record in {"ATOM", "HETATM"}:
            atoms.append(_atom(line, here))
        elif record in {"END", "ENDMDL", "MODEL"} and atoms:
            yield _structure(atoms, said, claims, place.at(frame=frame))
            frame, atoms = frame + 1, []


def _structure(
    atoms: list[tuple[int, list[float], int]], titles: list[Statement], claims: tuple[Claim, ...], place: Place
) -> Structure:
    numbers, positions, charges = zip(*atoms, strict=True)
    total = sum(charges)
    said = [Statement("charge", total, f"columns 79 to 80, in sum {total}")] if any(charges) else []
    charge, spin = settle([*titles, *said], place)
    return Structure(np.array(numbers), np.array(positions) * ANGSTROM_TO_BOHR, charge, spin, place, claims)


def _refuse_cell(line: str, place: Place) -> None:
    """Refuse a cell; edges of 0 or 1 Å are what programs write for none."""
    edges = coordinates([line[a : a + 9].strip() for a in (6, 15, 24)], place)
    if any(edge not in {0.0, 1.0} for edge in edges):
        raise place.error(f"CRYST1 states a cell of {edges} Å; {PERIODIC}")


def _atom(line: str, place: Place) -> tuple[int, list[float], int]:
    """Atomic number, position in Å and charge."""
    if line[16:17].strip():
        raise place.error(f"has the alternate location {line[16]!r}; keep one location, and leave column 17 blank.")
    symbol, text = line[76:78].strip(), line[78:80].strip()
    if not symbol:
        raise place.error("has no element in columns 77 to 78, and names such as CA have two meanings; write it there.")
    charge = integer(text) if text else 0
    if charge is None:
        raise place.error(f"the charge in columns 79 to 80 is {text!r}; write it as '1+' or '2-', or leave it blank.")
    fields = [line[a : a + 8] for a in (30, 38, 46)]
    if any(field[-1:].isspace() for field in fields):
        raise place.error(f"the coordinates {fields} do not end in columns 38, 46 and 54; align them.")
    position = coordinates([field.strip() for field in fields], place)
    return atomic_number(symbol, place, upper_case=True), position, charge
