"""Structure files: which reader a file gets, and the text that it is given.

Own readers for xyz, extended xyz, mol, sdf, pdb and gen, since those of ASE drop charges, ignore units, stop at a blank
line or cut a molecule short without a word; ASE for its own stores (traj, db, json). Other formats are refused: ASE
reads many of them, but leaves out the charge and the spin that they state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from vpotjax._checks import InputError
from vpotjax._structure_files.atoms import stored_structures, structure_of_atoms
from vpotjax._structure_files.count import structure_count
from vpotjax._structure_files.gen import gen_structures
from vpotjax._structure_files.molfile import molfile_structures
from vpotjax._structure_files.pdb import pdb_structures
from vpotjax._structure_files.statements import PERIODIC, Place, Structure, integer
from vpotjax._structure_files.text import PACKED, TextLines
from vpotjax._structure_files.xyz import xyz_structures

__all__ = [
    "Structure",
    "integer",
    "iterate_structures",
    "read_structures",
    "structure_count",
    "structure_files",
    "structure_of_atoms",
]

_TEXT_READERS: dict[str, Callable[[Iterable[str], Place], Iterator[Structure]]] = {
    ".xyz": xyz_structures,
    ".extxyz": xyz_structures,
    ".exyz": xyz_structures,
    ".mol": molfile_structures,
    ".sdf": molfile_structures,
    ".sd": molfile_structures,
    ".pdb": pdb_structures,
    ".ent": pdb_structures,
    ".gen": gen_structures,
}
_STORES = (".traj", ".db", ".json")
_PERIODIC_SUFFIXES = (".cif", ".vasp", ".poscar", ".contcar", ".xdatcar", ".cell", ".res", ".pwi")
_PERIODIC_NAMES = ("POSCAR", "CONTCAR", "XDATCAR")


def read_structures(path: str | Path, suffix: str | None = None) -> list[Structure]:
    """Every structure of a file.

    Args and errors: as for `iterate_structures`.
    """
    return list(iterate_structures(path, suffix))


def iterate_structures(path: str | Path, suffix: str | None = None) -> Iterator[Structure]:
    """The structures of a file one by one, in memory that does not grow with their number (json is read whole).

    Args:
        path: of the file; may end in .gz, .bz2 or .xz where the file is text.
        suffix: of the format to read, such as ".xyz"; by default the file's own.

    Raises:
        InputError: the file is absent or of another format. While iterating: it is unreadable, empty, broken, periodic,
            or says something of charge, spin or units that has no single meaning; names file, frame and line.
    """
    path, place = _present(path)
    if not path.is_file():
        raise place.error("is not a file; give the name of a structure file.")
    own, packing = _format(path)
    suffix = own if suffix is None else suffix
    if suffix in _STORES and not packing:
        return _at_least_one(stored_structures(path, suffix, place), place)
    if suffix in _TEXT_READERS:
        return _at_least_one(_TEXT_READERS[suffix](TextLines(path, packing, place), place), place)
    if suffix in _STORES:
        raise place.error(f"is a packed {suffix} file, and only text is read packed; unpack it first.")
    if suffix in _PERIODIC_SUFFIXES or path.name.upper().startswith(_PERIODIC_NAMES):
        raise place.error(f"is of a format for crystals; {PERIODIC}")
    raise place.error(
        f"has the ending {suffix!r}, of a format that is not read here; write it as extended xyz with charge= and "
        f"spin= in the comment line (read are {_known()})."
    )


def structure_files(path: str | Path) -> list[Path]:
    """The file itself; of a folder the files in it whose ending is read, by name, without hidden files and folders.

    Raises:
        InputError: `path` is absent, or a folder without such a file.
    """
    path, _ = _present(path)
    if not path.is_dir():
        return [path]
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if _is_read(entry.name) and not entry.is_dir())
    except OSError as error:
        raise InputError(f"folder {str(path)!r} cannot be read ({error.strerror}); check its permissions.") from None
    if not names:
        raise InputError(f"folder {str(path)!r} holds no structure file; put some there (read are {_known()}).")
    return [path / name for name in names]


def _present(path: str | Path) -> tuple[Path, Place]:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is {path!r}; give the name of a structure file.")
    path, place = Path(path), Place(f"structure file {str(path)!r}")
    try:
        present = path.exists()
    except OSError:  # a name that no file can have
        present = False
    if not present:
        raise place.error("does not exist; check the path.")
    return path, place


def _format(path: Path) -> tuple[str, str]:
    """The endings that tell the format and the packing, "" where there is none."""
    packing = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    return Path(path.stem if packing else path.name).suffix.lower(), packing


def _is_read(name: str) -> bool:
    suffix, packing = _format(Path(name))
    return not name.startswith(".") and (suffix in _TEXT_READERS or (suffix in _STORES and not packing))


def _known() -> str:
    return " ".join([*_TEXT_READERS, *_STORES])


def _at_least_one(structures: Iterator[Structure], place: Place) -> Iterator[Structure]:
    found = False
    for structure in structures:
        found = True
        yield structure
    if not found:
        raise place.error("holds no structure; write at least one with one atom.")
