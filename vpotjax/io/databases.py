"""Published data sets of Hamiltonians: QH9, nablaDFT, and the MD17 molecules of PhiSNet and of SchNOrb.

Written from the formats as their authors' programs write and read them:

- QH9 (https://arxiv.org/abs/2306.09549): SQLite, table `data` with id, N, Z, pos, Ham (float64 and int32), PySCF's AO
  order; `pos` in Å, in the dynamic sets, which have a `geo_id`, in bohr. Its program turns it into LMDB, with a pickled
  dict of numbers and bytes for each geometry; they are read by an unpickler that knows no class or function.
- nablaDFT (https://doi.org/10.1039/D2CP03966D) and PhiSNet (https://arxiv.org/abs/2106.02347): SQLite, table `data`
  with R (bohr), E, F, H, S (float32, or float64), and Z, or one Z for all in `nuclear_charges`.
- SchNOrb (https://doi.org/10.1038/s41467-019-12875-2): a database of ASE, with energy, hamiltonian and overlap.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.io.foreign import Foreign
from vpotjax.io.sample import one_line
from vpotjax.molecule import Molecule
from vpotjax.units import ANGSTROM_TO_BOHR

BASIS = "def2-svp"
"""Of all of them."""
PUBLISHED_XC = {"QH9": "b3lyp5", "nablaDFT": "hyb_gga_xc_wb97x_d", "PhiSNet": None, "SchNOrb": "pbe"}
"""Functionals. QH9 is of PySCF 2.2, whose B3LYP has VWN5; the dynamic set of 100k is of 2.3, with VWN-RPA."""
SQLITE = b"SQLite format 3\0"
SINGLE = 1e-5
"""Of overlaps and coordinates in single precision."""


@contextlib.contextmanager
def open_database(path: Path, basis: str | None = None) -> Iterator[Foreign]:
    """One of these data sets, known by its tables, while the context lasts.

    Args:
        path: of an SQLite file, or of a folder or a file of LMDB.
        basis: default: that which they are published with.

    Raises:
        InputError: the file is absent, damaged or none of these; names the molecule that cannot be read.
    """
    basis = basis or BASIS
    if is_sqlite(path):
        with _sqlite(path) as (connection, tables):
            if {"systems", "number_key_values"} <= tables.keys():
                yield _schnorb(path, basis)
            elif {"id", "Z", "pos", "Ham"} <= tables.get("data", set()):
                yield _qh9(path, basis, connection, tables["data"])
            elif {"id", "R", "H", "S"} <= tables.get("data", set()):
                yield _hamiltonians(path, basis, connection, tables)
            else:
                known = "; ".join(f"{table} with {', '.join(sorted(own))}" for table, own in sorted(tables.items()))
                raise InputError(
                    f"{str(path)!r} is an SQLite file of no known data set (its tables: {one_line(known) or 'none'}); "
                    "QH9, nablaDFT, PhiSNet and SchNOrb are."
                )
    else:
        with _lmdb(path) as records:
            yield _qh9_records(path, basis, records)


def is_sqlite(path: Path) -> bool:
    """Whether a file begins as SQLite's do."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError:
        return False


def is_lmdb(path: Path) -> bool:
    """Whether a path is a folder of LMDB, or its file."""
    return (path / "data.mdb").is_file() or path.suffix == ".mdb"


@contextlib.contextmanager
def _sqlite(path: Path) -> Iterator[tuple[sqlite3.Connection, dict[str, set[str]]]]:
    """A connection that only reads, and the columns of each table."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
            columns = "select name from pragma_table_info(?)"
            yield connection, {name: {row[0] for row in connection.execute(columns, (name,))} for name in names}
    except sqlite3.Error as error:
        raise InputError(f"{str(path)!r} cannot be read as SQLite ({one_line(error)}).") from None


def _array(where: str, blob: Any, size: int, types: Mapping[int, type]) -> np.ndarray:
    """Numbers of a blob, whose type follows from its length."""
    length = len(blob) if isinstance(blob, bytes) else 0
    if not size or length % size or length // size not in types:
        raise InputError(f"{where} has {length} bytes for {size} numbers; the file is damaged.")
    return np.frombuffer(blob, np.dtype(types[length // size]).newbyteorder("<"))


FLOATS, INTEGERS = {4: np.float32, 8: np.float64}, {4: np.int32, 8: np.int64}


def _require_some(path: Path, rows: Sequence[Any]) -> None:
    if not rows:
        raise InputError(f"{str(path)!r} has no molecules; give a file with some.")


def _molecule(where: str, natm: Any, numbers: Any, places: Any, unit: float) -> Molecule:
    if not isinstance(natm, int) or natm < 1:
        raise InputError(f"{where}: the number of atoms is {natm!r}; the file is damaged.")
    z = _array(f"{where}: Z", numbers, natm, INTEGERS).astype(int)
    try:
        return Molecule(z, _array(f"{where}: positions", places, 3 * natm, FLOATS).reshape(-1, 3).astype(float) * unit)
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None


def _square(where: str, blob: Any, molecule: Molecule, basis: str) -> np.ndarray:
    nao = load_basis(basis, molecule.numbers).nao
    matrix = _array(f"{where}, in {basis!r} with {nao} functions", blob, nao * nao, FLOATS).reshape(nao, nao)
    return _symmetric(where, matrix.astype(float))


def _symmetric(where: str, matrix: np.ndarray) -> np.ndarray:
    """Without its rounding."""
    error = np.abs(matrix - matrix.T).max()
    if not error <= SINGLE * np.abs(matrix).max():
        raise InputError(f"{where} differs from its transpose by {error:.2g}; the file is damaged.")
    return (matrix + matrix.T) / 2


def _qh9(path: Path, basis: str, connection: sqlite3.Connection, columns: set[str]) -> Foreign:
    whole = "where converged <> 0" if "converged" in columns else ""
    rows = list(connection.execute(f"select rowid, id, N, Z, pos from data {whole} order by rowid"))
    ((total,),) = connection.execute("select count(*) from data")
    left_out = [f"{total - len(rows)} geometries whose SCF has not converged"] if total > len(rows) else []
    _require_some(path, rows)
    numbers = [_qh9_number(path, number) for _, number, *_ in rows]
    unit = 1.0 if "geo_id" in columns else ANGSTROM_TO_BOHR
    molecules = [
        _molecule(f"{str(path)!r}, id {number}", natm, z, places, unit)
        for number, (_, _, natm, z, places) in zip(numbers, rows, strict=True)
    ]

    def labels(row: int) -> dict[str, dict[str, Any]]:
        (blob,) = connection.execute("select Ham from data where rowid = ?", (rows[row][0],)).fetchone()
        return {basis: {"fock": _square(f"{str(path)!r}, id {numbers[row]}: Ham", blob, molecules[row], basis)}}

    names = [f"qm9_{number}" for number in numbers]
    return Foreign(path, names, molecules, [basis], labels, left_out, PUBLISHED_XC["QH9"], "pyscf")


def _qh9_number(path: Path, number: Any) -> int:
    """Of a molecule in QM9; the dynamic sets hold it as bytes."""
    if isinstance(number, bytes):
        return int(_array(f"{str(path)!r}: id", number, 1, INTEGERS)[0])
    if not isinstance(number, int):
        raise InputError(f"{str(path)!r}: an id is {number!r}; the file is damaged.")
    return number


Records = tuple[list[bytes], Callable[[bytes], dict[str, Any]]]


@contextlib.contextmanager
def _lmdb(path: Path) -> Iterator[Records]:
    """Keys, and what reads the record of one."""
    try:
        import lmdb
    except ImportError:
        raise InputError(f"{str(path)!r}: LMDB needs its package; pip install 'vpotjax[import]'.") from None
    try:
        with (
            lmdb.open(str(path), readonly=True, lock=False, subdir=path.is_dir(), create=False) as environment,
            environment.begin() as transaction,
            transaction.cursor() as cursor,
        ):
            keys = list(cursor.iternext(keys=True, values=False))
            yield keys, lambda key: _record(path, key, transaction.get(key) or b"")
    except lmdb.Error as error:
        raise InputError(f"{str(path)!r} cannot be read as LMDB ({one_line(error)}).") from None


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers, text and bytes: no class or function is looked up, so that nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only numbers and bytes are read")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def _record(path: Path, key: bytes, value: bytes) -> dict[str, Any]:
    where = f"{str(path)!r}, record {int.from_bytes(key, 'big')}"
    try:
        record = _PlainUnpickler(io.BytesIO(value)).load()
    except Exception as error:  # damaged pickles raise many types
        raise InputError(f"{where} cannot be read ({type(error).__name__}: {one_line(error)}).") from None
    if not isinstance(record, dict) or not {"id", "num_nodes", "atoms", "pos", "Ham"} <= record.keys():
        raise InputError(f"{where} is not of QH9; its dicts have id, num_nodes, atoms, pos and Ham.")
    return record


def _qh9_records(path: Path, basis: str, records: Records) -> Foreign:
    keys, read = records
    names, molecules = [], []
    for key in keys:
        record = read(key)
        unit = 1.0 if "geo_id" in record else ANGSTROM_TO_BOHR
        where = f"{str(path)!r}, id {record['id']}"
        names.append(f"qm9_{record['id']}")
        molecules.append(_molecule(where, record["num_nodes"], record["atoms"], record["pos"], unit))
    _require_some(path, keys)

    def labels(row: int) -> dict[str, dict[str, Any]]:
        where = f"{str(path)!r}, {names[row]}: Ham"
        return {basis: {"fock": _square(where, read(keys[row])["Ham"], molecules[row], basis)}}

    return Foreign(path, names, molecules, [basis], labels, [], PUBLISHED_XC["QH9"], "pyscf")


def _hamiltonians(path: Path, basis: str, connection: sqlite3.Connection, tables: Mapping[str, set[str]]) -> Foreign:
    """NablaDFT and PhiSNet, whose table is the same but for Z."""
    own_numbers = "Z" in tables["data"]
    common = None
    if not own_numbers:
        common = connection.execute("select Z from nuclear_charges where id = 0").fetchone()
    rows = list(connection.execute(f"select id, {'Z' if own_numbers else 'NULL'}, R from data order by id"))
    _require_some(path, rows)
    conformers = "MOSES_ID" in tables.get("dataset_ids", set())
    moses = dict(connection.execute("select id, MOSES_ID from dataset_ids")) if conformers else {}
    names = [f"moses_{moses[number]}" if number in moses else path.stem for number, *_ in rows]
    molecules, single = [], False
    for number, z, places in rows:
        numbers = z if own_numbers else common and common[0]
        single |= len(places or b"") == 3 * len(numbers or b"")  # four bytes each
        molecules.append(_molecule(f"{str(path)!r}, id {number}", len(numbers or b"") // 4, numbers, places, 1.0))

    def labels(row: int) -> dict[str, dict[str, Any]]:
        number, where = rows[row][0], f"{str(path)!r}, id {rows[row][0]}:"
        energy, fock, own = connection.execute("select E, H, S from data where id = ?", (number,)).fetchone()
        values: dict[str, Any] = {
            "fock": _square(f"{where} H", fock, molecules[row], basis),
            "overlap": _square(f"{where} S", own, molecules[row], basis),
        }
        return {basis: values | ({} if energy is None else {"energy": np.array(float(energy))})}

    left_out = sorted(tables["data"] & {"F", "C"})
    xc = PUBLISHED_XC["nablaDFT" if conformers else "PhiSNet"]
    return Foreign(path, names, molecules, [basis], labels, left_out, xc, None, SINGLE if single else 1e-6)


def _schnorb(path: Path, basis: str) -> Foreign:
    from ase.db import connect

    rows: Any = connect(str(path), type="db", use_lock_file=False)
    known = [row.id for row in rows.select(include_data=False)]
    _require_some(path, known)
    molecules = []
    for row in rows.select(include_data=False):
        try:
            molecules.append(Molecule(np.array(row.numbers), row.positions * ANGSTROM_TO_BOHR))
        except InputError as error:
            raise InputError(f"{str(path)!r}, id {row.id}: {error}") from None
    first = rows.get(id=known[0]).data
    if not {"hamiltonian", "overlap"} <= first.keys():
        raise InputError(
            f"{str(path)!r} has {', '.join(sorted(first)) or 'no data'}, but neither hamiltonian nor overlap."
        )

    def labels(row: int) -> dict[str, dict[str, Any]]:
        data, where = rows.get(id=known[row]).data, f"{str(path)!r}, id {known[row]}:"
        values = {key: _symmetric(f"{where} {name}", _matrix(where, data, name)) for key, name in MATRIX_NAMES.items()}
        energy = {"energy": np.asarray(data["energy"], float).reshape(())} if "energy" in data else {}
        return {basis: values | energy}

    left_out = sorted(first.keys() - {"hamiltonian", "overlap", "energy"})
    return Foreign(path, [path.stem] * len(known), molecules, [basis], labels, left_out, PUBLISHED_XC["SchNOrb"])


MATRIX_NAMES = {"fock": "hamiltonian", "overlap": "overlap"}


def _matrix(where: str, data: Mapping[str, Any], name: str) -> np.ndarray:
    matrix = np.asarray(data.get(name), float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{where} {name} has shape {matrix.shape}; the file is damaged.")
    return matrix
