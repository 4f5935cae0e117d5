"""`ase.Atoms`, and the files that hold them: charge and spin from info, initial charges and moments, and results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpotjax._structure_files.statements import PERIODIC, Place, Statement, Structure, keyed, settle, summed
from vpotjax._structure_files.symbols import check_masses
from vpotjax.units import ANGSTROM_TO_BOHR

if TYPE_CHECKING:
    from ase import Atoms

_RESULTS = ("charges", "magmoms")  # of a calculator, per atom
_PARAMETERS = ("charge", "total_charge", "mult", "multiplicity")
_PAGE = 100  # rows of a data base in memory
_DATA = (*_PARAMETERS, "spin")  # of a row in a data base


def structure_of_atoms(atoms: Atoms, place: Place | None = None) -> Structure:
    """What `atoms` states; positions are converted from Å.

    Charge and spin are those of `info`, of the sums of initial charges and magnetic moments, and of the calculator's
    charges, moments and parameters.

    Raises:
        InputError: these contradict each other or have no single meaning, or `atoms` is periodic or holds isotopes.
    """
    place = Place("atoms:") if place is None else place
    if np.any(atoms.pbc):
        raise place.error(f"pbc is {np.asarray(atoms.pbc).tolist()}; {PERIODIC}")
    if atoms.has("masses"):
        check_masses(np.asarray(atoms.numbers), np.asarray(atoms.get_masses()), place)
    charge, spin = settle([*_of_info(atoms, place), *_of_arrays(atoms, place), *_of_calculator(atoms, place)], place)
    return Structure(np.asarray(atoms.numbers), np.asarray(atoms.positions) * ANGSTROM_TO_BOHR, charge, spin, place)


def _of_info(atoms: Atoms, place: Place) -> list[Statement]:
    of_row = atoms.info.get("key_value_pairs", {})
    if "charge" in of_row:
        raise place.error(
            "info['key_value_pairs'] holds a charge, which ASE replaces by the sum of initial charges; remove it and "
            "set info['charge']."
        )
    pairs = {**{key: value for key, value in atoms.info.items() if key != "key_value_pairs"}, **of_row}
    return [said for key, value in pairs.items() if isinstance(key, str) for said in keyed(key, value, place)]


def _of_arrays(atoms: Atoms, place: Place) -> list[Statement]:
    return [said for name, values in atoms.arrays.items() for said in summed(name, values, place)]


def _of_calculator(atoms: Atoms, place: Place) -> list[Statement]:
    results = getattr(atoms.calc, "results", None) or {}
    parameters = getattr(atoms.calc, "parameters", None) or {}
    said = [s for name in _RESULTS if name in results for s in summed(name, results[name], place)]
    said += keyed("magmom", results["magmom"], place) if "magmom" in results else []
    return said + [s for key in _PARAMETERS if key in parameters for s in keyed(key, parameters[key], place)]


def stored_structures(path: Path, suffix: str, place: Place) -> Iterator[Structure]:
    """The structures of an ASE trajectory or data base, one by one.

    Raises:
        InputError: naming the frame.
    """
    for i, atoms in enumerate(_frames(path, suffix, place)):
        here = place.at(frame=i + 1)
        if len(atoms) == 0:
            raise here.error("holds no atoms; remove the frame.")
        yield structure_of_atoms(atoms, here)


def _frames(path: Path, suffix: str, place: Place) -> Iterator[Atoms]:
    import ase.io

    try:
        if suffix == ".traj":
            yield from ase.io.iread(path, index=":", format="traj", do_not_split_by_at_sign=True)
        else:
            yield from _rows(path, suffix.removeprefix("."))
    except Exception as error:  # ASE raises many types on a broken file; all mean the same here
        reason = " ".join(str(error).split())
        raise place.error(f"cannot be read ({type(error).__name__}: {reason}); check the file.") from None


def _rows(path: Path, kind: str) -> Iterator[Atoms]:
    """The rows with their key-value pairs, which `ase.io.read` drops, and charge and spin of their data, in info."""
    from ase.db import connect

    database: Any = connect(str(path), type=kind, use_lock_file=False)
    with database as rows:
        for row in _pages(rows) if kind == "db" else rows.select():
            atoms = row.toatoms()
            stored = vars(row)  # not row.charge, which is the sum of initial charges whatever is stored
            atoms.info.update({f"data {key}": row.data[key] for key in _DATA if key in row.data})
            atoms.info.update({key: stored[key] for key in row.key_value_pairs})
            yield atoms


def _pages(rows: Any) -> Iterator[Any]:
    """All rows by their ids; `select` alone would fetch all of them at once."""
    last = 0
    while page := list(rows.select([("id", ">", last)], sort="id", limit=_PAGE)):
        yield from page
        last = page[-1].id
