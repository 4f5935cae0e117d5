"""DFTB+ gen files of clusters: number and kind, the elements, then `index element x y z` in Å."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vpotjax._structure_files.comment import parsed_titles
from vpotjax._structure_files.statements import PERIODIC, Place, Structure, settle
from vpotjax._structure_files.symbols import atomic_number, coordinates
from vpotjax.units import ANGSTROM_TO_BOHR


def gen_structures(lines: Iterable[str], place: Place) -> Iterator[Structure]:
    """The one structure of a file's lines; the format has no charge, but a remark after # may state it.

    Raises:
        InputError: naming the line.
    """
    lines = list(lines)
    rows = [(i + 1, line.split("#")[0].split()) for i, line in enumerate(lines) if line.split("#")[0].strip()]
    if not rows:
        return
    line, head = rows[0]
    place = place.at(frame=1)
    kind = head[1].upper() if len(head) == 2 else ""
    if not head[0].isdigit() or kind not in {"C", "S", "F", "H"}:
        raise place.at(line=line).error(f"expected the number of atoms and 'C', found {' '.join(head)[:40]!r}.")
    if kind != "C":
        raise place.at(line=line).error(f"the kind {kind!r} is periodic; {PERIODIC}")
    natm = int(head[0])
    if len(rows) != natm + 2 or natm == 0:
        raise place.at(line=line).error(f"says {natm} atoms, but {len(rows) - 2} atom lines follow; correct it.")
    elements = [atomic_number(symbol, place.at(line=rows[1][0])) for symbol in rows[1][1]]
    numbers, positions = [], []
    for line, row in rows[2:]:
        here = place.at(line=line)
        if len(row) != 5 or not row[1].isdigit() or not 1 <= int(row[1]) <= len(elements):
            raise here.error(f"expected 'index element x y z', found {' '.join(row)[:40]!r}; correct it.")
        numbers.append(elements[int(row[1]) - 1])
        positions.append(coordinates(row[2:], here))
    remarks = [(line.partition("#")[2], place.at(line=i + 1)) for i, line in enumerate(lines)]
    said, claims = parsed_titles(remarks)
    charge, spin = settle(said, place)
    yield Structure(np.array(numbers), np.array(positions) * ANGSTROM_TO_BOHR, charge, spin, place, claims)
