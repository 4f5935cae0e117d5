"""How many structures a file holds, where a look at its lines tells, without reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any


def structure_count(path: Path) -> int | None:
    """Number of structures; None where it is not cheap (packed files, json) or the file is broken.

    Args:
        path: of the file; the name's ending tells the format.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in _COUNTERS:
            with path.open("rb") as lines:
                return _COUNTERS[suffix](lines)
        return _COUNTERS_OF_STORES[suffix](path) if suffix in _COUNTERS_OF_STORES else None
    except Exception:  # ASE raises many types; the reader, not this, says what is wrong with the file
        return None


def _xyz_count(lines: Iterator[bytes]) -> int:
    count = 0
    for line in lines:
        if not line.isspace():
            natm = int(line)
            next(islice(lines, natm, None), None)  # the comment line and the atoms
            count += 1
    return count


def _molfile_count(lines: Iterator[bytes]) -> int:
    count, rest = 0, False
    for line in lines:
        end = line.startswith(b"$$$$")
        count += end
        rest = not end and (rest or not line.isspace())
    return count + rest


def _pdb_count(lines: Iterator[bytes]) -> int:
    count, atoms = 0, False
    for line in lines:
        record = line[:6].strip()
        if record in {b"ATOM", b"HETATM"}:
            atoms = True
        elif record in {b"END", b"ENDMDL", b"MODEL"}:
            count, atoms = count + atoms, False
    return count + atoms


def _trajectory_count(path: Path) -> int:
    from ase.io.trajectory import TrajectoryReader

    with TrajectoryReader(path) as frames:
        return len(frames)


def _row_count(path: Path) -> int:
    from ase.db import connect

    database: Any = connect(str(path), type="db", use_lock_file=False)
    with database as rows:
        return rows.count()


_COUNTERS: dict[str, Callable[[Iterator[bytes]], int]] = {
    **dict.fromkeys([".xyz", ".extxyz", ".exyz"], _xyz_count),
    **dict.fromkeys([".mol", ".sdf", ".sd"], _molfile_count),
    **dict.fromkeys([".pdb", ".ent"], _pdb_count),
    ".gen": lambda _: 1,
}
_COUNTERS_OF_STORES: dict[str, Callable[[Path], int]] = {".traj": _trajectory_count, ".db": _row_count}
