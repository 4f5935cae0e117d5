"""Plain and extended xyz: for each frame the number of atoms, a comment line, one line per atom.

Blank lines between frames are skipped. A plain frame has four columns; further ones need `Properties=`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import NamedTuple

import numpy as np

from vpotjax._structure_files.comment import Comment, parsed_comment
from vpotjax._structure_files.statements import Place, Structure, settle, summed
from vpotjax._structure_files.symbols import atomic_number, check_masses, coordinates

_MAX_COLUMNS_SHOWN = 80


class Column(NamedTuple):
    """One entry of Properties: its name, its type (S, R, I, L) and the fields that it takes."""

    name: str
    type: str
    fields: slice


_PLAIN = (Column("species", "S", slice(0, 1)), Column("pos", "R", slice(1, 4)))


def xyz_structures(lines: Iterable[str], place: Place) -> Iterator[Structure]:
    """The structures of a file's lines one by one, positions in Å unless the comment says bohr.

    Raises:
        InputError: naming frame and line.
    """
    numbered, count = enumerate(lines, start=1), 0
    for number, line in numbered:
        if not line.strip():
            continue
        count += 1
        frame = place.at(frame=count)
        natm = _natm(line, frame.at(line=number))
        _, comment = next(numbered, (0, ""))
        rows = list(takewhile(bool, (text.split() for _, text in islice(numbered, natm))))
        if len(rows) < natm:
            raise frame.at(line=number).error(
                f"says {natm} atoms, but {len(rows)} atom lines follow the comment line; correct the number or the "
                "lines."
            )
        yield _structure(rows, parsed_comment(comment, frame.at(line=number + 1)), frame, number + 2)


def _natm(line: str, place: Place) -> int:
    text = line.strip()
    if not text.isascii() or not text.isdigit():
        raise place.error(
            f"expected the number of atoms, found {text[:_MAX_COLUMNS_SHOWN]!r}; write the number of atoms, a comment "
            "line, then one 'symbol x y z' line per atom, and check the number of the frame before."
        )
    if int(text) == 0:
        raise place.error("says 0 atoms; write at least one 'symbol x y z' line, or remove the frame.")
    return int(text)


def _structure(rows: list[list[str]], comment: Comment, place: Place, first_line: int) -> Structure:
    columns = _columns(comment.properties, place.at(line=first_line - 1)) if comment.properties else _PLAIN
    width = columns[-1].fields.stop
    by_name = {column.name.lower(): column for column in columns}
    numbers, positions = [], []
    for i, row in enumerate(rows):
        line = place.at(line=first_line + i)
        rows[i] = row = _fields(row, width, line)
        numbers.append(_number(row, by_name, line))
        positions.append(coordinates(row[by_name["pos"].fields], line))
    charge, spin = settle([*comment.statements, *_sums(rows, columns, place)], place)
    for column in columns:
        if column.name.lower() in {"mass", "masses"}:
            masses = np.array([coordinates(row[column.fields], place) for row in rows])
            check_masses(np.array(numbers), masses.squeeze(1) if masses.shape[1] == 1 else masses, place)
    scaled = np.array(positions) * comment.bohr_per_unit
    return Structure(np.array(numbers), scaled, charge, spin, place, comment.claims, comment.name)


def _fields(row: list[str], width: int, place: Place) -> list[str]:
    shown = " ".join(row)[:_MAX_COLUMNS_SHOWN]
    if row[0].startswith(("#", "!")):
        raise place.error(f"{shown!r} is a remark, but an atom is expected; remove the line, or its first sign.")
    if len(row) > width:
        stop = next((i for i, field in enumerate(row) if field.startswith(("#", "!"))), len(row))
        row = row[:stop]
    if len(row) != width:
        fix = "remove the others, or name them with Properties=" if len(row) > width else "complete the line"
        raise place.error(f"{shown!r} has {len(row)} columns, expected {width}; {fix}.")
    return row


def _number(row: list[str], columns: dict[str, Column], place: Place) -> int:
    found = [atomic_number(row[columns[k].fields][0], place) for k in ("species", "z", "numbers") if k in columns]
    if len(set(found)) > 1:
        raise place.error(f"the columns for the element say {found}; keep one, or correct them.")
    return found[0]


def _columns(properties: str, place: Place) -> tuple[Column, ...]:
    parts = properties.split(":")
    columns, at = [], 0
    for name, kind, size in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if kind not in {"S", "R", "I", "L"} or not re.fullmatch("[1-9][0-9]*", size):
            break
        columns.append(Column(name, kind, slice(at, at := at + int(size))))
    sizes = {c.name.lower(): c.fields.stop - c.fields.start for c in columns}
    element = sizes.keys() & {"species", "z", "numbers"}
    fits = 3 * len(columns) == len(parts) and len(sizes) == len(columns)
    if not fits or sizes.get("pos") != 3 or not element or any(sizes[k] != 1 for k in element):
        raise place.error(
            f"Properties={properties} is not read; write name:type:columns for each, among them species:S:1:pos:R:3."
        )
    return tuple(columns)


def _sums(rows: list[list[str]], columns: tuple[Column, ...], place: Place) -> list:
    said = []
    for column in columns:
        if column.type in {"R", "I"} and column.name != "pos":
            values = np.array([row[column.fields] for row in rows])
            said += summed(column.name, values[:, 0] if values.shape[1] == 1 else values, place)
    return said
