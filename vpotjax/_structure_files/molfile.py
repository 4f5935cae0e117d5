"""MDL molfiles and SD files, V2000: coordinates in Å, formal charges and radicals.

A file without any charge says nothing of it: the arguments of the reader apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from vpotjax._structure_files.comment import parsed_titles
from vpotjax._structure_files.statements import KEYS, Place, Statement, Structure, keyed, normalised, settle
from vpotjax._structure_files.symbols import atomic_number, coordinates
from vpotjax.units import ANGSTROM_TO_BOHR

_CHARGE_CODES = {0: 0, 1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}
_DOUBLET_CODE = 4
_FIELD = re.compile(r">.*<([^>]*)>.*")
_OTHER_RECORD = re.compile(r"M  END|.*\bV[23]000\s*$")
_ISOTOPE = "it is an isotope, and masses are not kept; set it to 0, which stands for the natural mix of isotopes."
_COLUMNS = ((0, 10), (10, 20), (20, 30), (31, 34))


def molfile_structures(lines: Iterable[str], place: Place) -> Iterator[Structure]:
    """The molecules of a file's lines one by one; records end with $$$$.

    Raises:
        InputError: naming frame and line.
    """
    record: list[str] = []
    frame, number = 1, 0
    for number, line in enumerate(lines, start=1):
        if not line.startswith("$$$$"):
            record.append(line)
            continue
        yield _record(record, place.at(frame=frame), number - len(record))
        frame, record = frame + 1, []
    if any(line.strip() for line in record):
        yield _record(record, place.at(frame=frame), number - len(record) + 1)


def _record(lines: list[str], place: Place, first: int) -> Structure:
    """One molecule; `first` is the line of its title."""
    natm, nbonds = _counts(lines, place, first)
    end = next((i for i, line in enumerate(lines) if line.startswith("M  END")), None)
    if end is None or end < 4 + natm + nbonds:
        raise place.at(line=first + 3).error(
            f"says {natm} atoms and {nbonds} bonds, but the block before 'M  END' is shorter; correct the numbers."
        )
    if lines[1][20:22].upper() == "2D":
        raise place.at(line=first + 1).error("is a drawing (2D), not a geometry; make 3D coordinates first.")
    for i, line in enumerate(lines[4 + natm : 4 + natm + nbonds]):
        _check_bond(line, natm, place.at(line=first + 4 + natm + i))
    numbers, positions, codes = [], [], []
    for i, line in enumerate(lines[4 : 4 + natm]):
        number, position, code = _atom(line, place.at(line=first + 4 + i))
        numbers.append(number)
        positions.append(position)
        codes.append(code)
    said, claims = parsed_titles([(lines[i], place.at(line=first + i)) for i in (0, 2)])
    said += _data(lines[end + 1 :], place, first + end + 1)
    said += _formal(codes, lines[4 + natm + nbonds : end], place, first + 4 + natm + nbonds, _any_spin(said))
    charge, spin = settle(said, place)
    return Structure(np.array(numbers), np.array(positions) * ANGSTROM_TO_BOHR, charge, spin, place, claims)


def _any_spin(statements: list[Statement]) -> bool:
    """True where the spin or the multiplicity is stated."""
    return any(s.kind != "charge" for s in statements)


def _counts(lines: list[str], place: Place, first: int) -> tuple[int, int]:
    line = lines[3] if len(lines) > 3 else ""
    here = place.at(line=first + 3)
    if "V3000" in line:
        raise here.error("is a V3000 molfile, V2000 is read; convert it.")
    try:
        natm, nbonds = int(line[:3]), int(line[3:6])
    except ValueError:
        raise here.error(f"expected the counts of atoms and bonds, found {line[:40]!r}; check the file.") from None
    if natm < 1 or nbonds < 0:
        raise here.error(f"says {natm} atoms and {nbonds} bonds; write at least one atom.")
    return natm, nbonds


def _atom(line: str, place: Place) -> tuple[int, list[float], int]:
    """Atomic number, position in Å and code of the charge column."""
    fields = [line[a:b].strip() for a, b in _COLUMNS]
    if fields != line.split()[:4]:
        raise place.error(f"{line[:40]!r} is not an atom line 'x y z symbol' in the columns of V2000; correct it.")
    if line[34:36].strip() not in {"", "0"}:
        raise place.error(f"the mass difference (columns 35 to 36) is {line[34:36].strip()!r}: {_ISOTOPE}")
    text = line[36:39].strip() or "0"
    if not text.isdigit() or int(text) not in _CHARGE_CODES:
        raise place.error(f"the charge code {text!r} (columns 37 to 39) is not one of 0 to 7; correct it.")
    return atomic_number(fields[3], place), coordinates(fields[:3], place), int(text)


def _check_bond(line: str, natm: int, place: Place) -> None:
    """Refuse what is not a bond, so that a wrong number of atoms cannot cut the molecule short."""
    atoms = [line[a : a + 3].strip() for a in (0, 3)]
    if not all(text.isdigit() and 1 <= int(text) <= natm for text in atoms):
        raise place.error(f"{line[:40]!r} is not a bond between two of {natm} atoms; check the counts in line 4.")


def _formal(codes: list[int], lines: list[str], place: Place, first: int, spin_known: bool) -> list[Statement]:
    """What the charge column and the lines M  CHG and M  RAD say."""
    said: list[Statement] = []
    charges = [_CHARGE_CODES[code] for code in codes]
    radicals = [2] * codes.count(_DOUBLET_CODE)
    if any(charges):
        said.append(Statement("charge", sum(charges), f"the charge column, in sum {sum(charges)}"))
    listed: dict[str, list[int]] = {"CHG": [], "RAD": [], "ISO": []}
    for i, line in enumerate(lines):
        if not re.match(r"[MAVGS]  |\s*$", line) and not (i and re.match(r"[AG]  ", lines[i - 1])):
            raise place.at(line=first + i).error(f"{line[:40]!r} is not a property line; check the counts in line 4.")
        if line[:3] == "M  " and line[3:6] in listed:
            listed[line[3:6]] += _listed(line, len(codes), place.at(line=first + i))
        if any(listed["ISO"]):
            raise place.at(line=first + i).error(f"{line.strip()!r}: {_ISOTOPE}")
    if listed["CHG"]:
        said.append(Statement("charge", sum(listed["CHG"]), f"M  CHG, in sum {sum(listed['CHG'])}"))
    radicals = [r for r in listed["RAD"] if r] or radicals
    if len(radicals) == 1:
        said.append(Statement("spin", radicals[0] - 1, f"one radical of multiplicity {radicals[0]}"))
    elif radicals and not spin_known:
        raise place.error(f"has {len(radicals)} radicals, whose total spin is not said; add a field '> <spin>'.")
    return said


def _listed(line: str, natm: int, place: Place) -> list[int]:
    """The values of a line `M  CHG  n atom value ...`."""
    try:
        count, *numbers = (int(text) for text in line[6:].split())
    except ValueError:
        count, numbers = -1, []
    atoms, values = numbers[::2], numbers[1::2]
    fits = len(numbers) == 2 * count and all(1 <= atom <= natm for atom in atoms)
    if not fits or len(set(atoms)) < len(atoms) or (line[3:6] == "RAD" and not set(values) <= {0, 1, 2, 3}):
        raise place.error(f"{line.strip()!r} is not read; write the count, then an atom and a value for each.")
    return values


def _data(lines: list[str], place: Place, first: int) -> list[Statement]:
    """What the data items of an SD file say; of other names those with one line only, since others are per atom.

    An item is a header `> <name>`, and lines up to a blank one or the next header. Nothing else may follow M  END.
    """
    said: list[Statement] = []
    i = 0
    while i < len(lines):
        here, i = place.at(line=first + i), i + 1
        if not lines[i - 1].strip():
            continue
        if not lines[i - 1].startswith(">"):
            raise here.error(
                f"{lines[i - 1][:40]!r} follows 'M  END', but is no data item '> <name>'; end each molecule with a "
                "line '$$$$', each item with a blank line."
            )
        found, start = _FIELD.fullmatch(lines[i - 1].strip()), i
        while i < len(lines) and lines[i].strip() and not _FIELD.fullmatch(lines[i].strip()):
            if _OTHER_RECORD.match(lines[i]):
                raise place.at(line=first + i).error(
                    f"{lines[i].strip()[:40]!r} belongs to another molecule; end each molecule with a line '$$$$'."
                )
            i += 1
        name = found[1] if found else ""
        if (i == start + 1 or normalised(name) in KEYS) and not name.startswith("atom."):  # of RDKit: one per atom
            said += keyed(name, " ".join(line.strip() for line in lines[start:i]), place.at(line=first + start))
    return said
