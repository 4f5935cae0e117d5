"""Structure files: which reader a file gets, and the text that it is given.

Own readers for xyz, extended xyz, mol, sdf, pdb and gen, since those of ASE drop charges, ignore units, stop at a blank
line or cut a molecule short without a word; ASE for its own stores (traj, db, json). Other formats are refused: ASE
reads many of them, but leaves out the charge and the spin that they state.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vpotjax._checks import InputError
from vpotjax._structure_files.atoms import stored_structures, structure_of_atoms
from vpotjax._structure_files.gen import gen_structures
from vpotjax._structure_files.molfile import molfile_structures
from vpotjax._structure_files.pdb import pdb_structures
from vpotjax._structure_files.statements import PERIODIC, Place, Structure, integer
from vpotjax._structure_files.xyz import xyz_structures

__all__ = ["Structure", "integer", "read_structures", "structure_of_atoms"]

_TEXT_READERS: dict[str, Callable[[list[str], Place], list[Structure]]] = {
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
_PACKED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_PERIODIC_SUFFIXES = (".cif", ".vasp", ".poscar", ".contcar", ".xdatcar", ".cell", ".res", ".pwi")
_PERIODIC_NAMES = ("POSCAR", "CONTCAR", "XDATCAR")
_LINE_END = re.compile("\r\n|\r|\n")


def read_structures(path: str | Path, suffix: str | None = None) -> list[Structure]:
    """Every structure of a file.

    Args:
        path: of the file; may end in .gz, .bz2 or .xz where the file is text.
        suffix: of the format to read, such as ".xyz"; by default the file's own.

    Raises:
        InputError: the file is absent, unreadable, empty, broken, periodic, or says something of charge, spin or units
            that has no single meaning; names file, frame and line.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is {path!r}; give the name of a structure file.")
    path, place = Path(path), Place(f"structure file {str(path)!r}")
    try:
        present, is_file = path.exists(), path.is_file()
    except OSError:  # a name that no file can have
        present = is_file = False
    if not present:
        raise place.error("does not exist; check the path.")
    if not is_file:
        raise place.error("is not a file; give the name of a structure file.")
    packing = path.suffix.lower() if path.suffix.lower() in _PACKED else ""
    own = Path(path.stem if packing else path.name)
    suffix = own.suffix.lower() if suffix is None else suffix
    if suffix in _STORES and not packing:
        structures = stored_structures(path, suffix, place)
    elif suffix in _STORES:
        raise place.error(f"is a packed {suffix} file, and only text is read packed; unpack it first.")
    elif suffix in _TEXT_READERS:
        structures = _TEXT_READERS[suffix](_lines(path, packing, place), place)
    elif suffix in _PERIODIC_SUFFIXES or own.name.upper().startswith(_PERIODIC_NAMES):
        raise place.error(f"is of a format for crystals; {PERIODIC}")
    else:
        known = " ".join([*_TEXT_READERS, *_STORES])
        raise place.error(
            f"has the ending {suffix!r}, of a format that is not read here; write it as extended xyz with charge= and "
            f"spin= in the comment line (read are {known})."
        )
    if not structures:
        raise place.error("holds no structure; write at least one with one atom.")
    return structures


def _lines(path: Path, packing: str, place: Place) -> list[str]:
    """The lines of a text file, in UTF-8 with or without a byte order mark, with any line ends."""
    try:
        with _PACKED[packing](path) if packing else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = " ".join(str(error).split())
        raise place.error(f"cannot be read ({type(error).__name__}: {reason}); check the file.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_LINE_END.split(content[: error.start].decode("utf-8", "replace")))
        byte = content[error.start]
        raise place.at(line=line).error(f"the byte {byte:#04x} is not UTF-8; save the file as UTF-8 text.") from None
    if "\0" in text:
        line = len(_LINE_END.split(text[: text.index("\0")]))
        raise place.at(line=line).error("holds a null byte; save the file as UTF-8 text.")
    return _LINE_END.split(text)
