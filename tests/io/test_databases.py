"""Published data bases, written here in their formats from PySCF's results: nothing of theirs was at hand."""

import pickle
import sqlite3

import lmdb
import numpy as np
import pytest
from ase.db import connect

from tests.molecules import distorted
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.cli import main
from vpotjax.conventions import reorder_ao
from vpotjax.interop.pyscf_labels import reference_labels
from vpotjax.io.databases import open_database
from vpotjax.io.dataset import read_dataset
from vpotjax.reference.imports import import_file
from vpotjax.units import BOHR_TO_ANGSTROM

MOLECULES = [distorted("H2O", 1), distorted("NH3", 2), distorted("H2O", 3)]
PARTS = {"validation": 0, "test": 0.4}
KEYS = ["fock", "overlap", "energy", "mo_energies", "dipole", "polarizability"]


@pytest.fixture(scope="module")
def labels():
    return [reference_labels(m, "def2-svp", "hf", quantities=KEYS) for m in MOLECULES]


def matrix(labels, row, key, order):
    shells = load_basis("def2-svp", MOLECULES[row].numbers).shell_angular_momenta()
    return np.ascontiguousarray(reorder_ao(labels[row][key], shells, "pyscf", order))


def qh9_rows(labels, dynamic=False):
    for i, molecule in enumerate(MOLECULES):
        places = molecule.positions * (1 if dynamic else BOHR_TO_ANGSTROM)
        blobs = molecule.numbers.astype(np.int32).tobytes(), places.tobytes(), labels[i]["fock"].tobytes()
        yield i, molecule.natm, *blobs


def qh9_stable(path, labels):
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        file.executemany("INSERT INTO data VALUES (?,?,?,?,?)", qh9_rows(labels))
    return path


def qh9_dynamic(path, labels):
    """Geometries of molecule 7, one of which has not converged."""
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE data (id INTEGER NOT NULL, geo_id INTEGER NOT NULL, N INTEGER, Z BLOB, pos BLOB, ekin FLOAT, "
            "epot FLOAT, etot FLOAT, time FLOAT, Ham BLOB, converged INT)"
        )
        for i, natm, z, places, fock in [*qh9_rows(labels, True), next(qh9_rows(labels, True))]:
            row = (np.int64(7).tobytes(), i, natm, z, places, 0.0, 0.0, 0.0, 0.0, fock)
            already = file.execute("SELECT count(*) FROM data").fetchone()[0]
            file.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*row, int(already < len(MOLECULES))))
    return path


def qh9_lmdb(path, labels):
    with lmdb.open(str(path), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        for i, natm, z, places, fock in qh9_rows(labels):
            record = {"id": i, "num_nodes": natm, "atoms": z, "pos": places, "Ham": fock}
            transaction.put(i.to_bytes(length=4, byteorder="big"), pickle.dumps(record))
    return path


def nabladft(path, labels):
    """In single precision, in Psi4's order; two conformers of one molecule."""
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE dataset_ids (id INTEGER NOT NULL PRIMARY KEY, MOSES_ID INT, CONFORMER_ID INT)")
        file.execute(
            "CREATE TABLE data "
            "(id INTEGER NOT NULL PRIMARY KEY, Z BLOB, R BLOB, E FLOAT, F BLOB, H BLOB, S BLOB, C BLOB)"
        )
        file.execute("CREATE TABLE metadata (id INTEGER PRIMARY KEY, N INTEGER)")
        for i, molecule in enumerate(MOLECULES):
            matrices = [matrix(labels, i, key, "psi4").astype(np.float32).tobytes() for key in ("fock", "overlap")]
            places = molecule.positions.astype(np.float32).tobytes()
            numbers = molecule.numbers.astype(np.int32).tobytes()
            energy = float(labels[i]["energy"])
            file.execute("INSERT INTO dataset_ids VALUES (?,?,?)", (i, 5 + i % 2, i))
            file.execute(
                "INSERT INTO data VALUES (?,?,?,?,?,?,?,?)", (i, numbers, places, energy, None, *matrices, None)
            )
    return path


def phisnet(path, labels):
    """One molecule, in the order m = −l … l."""
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, R BLOB, E FLOAT, F BLOB, H BLOB, S BLOB, C BLOB)"
        )
        file.execute("CREATE TABLE nuclear_charges (id INTEGER NOT NULL PRIMARY KEY, N INTEGER, Z BLOB)")
        file.execute("INSERT INTO nuclear_charges VALUES (0,3,?)", (MOLECULES[0].numbers.astype(np.int32).tobytes(),))
        for i in (0, 2):
            matrices = [matrix(labels, i, key, "cp2k").tobytes() for key in ("fock", "overlap")]
            row = (i, MOLECULES[i].positions.tobytes(), None, None, *matrices, None)
            file.execute("INSERT INTO data VALUES (?,?,?,?,?,?,?)", row)
    return path


def schnorb(path, labels):
    with connect(str(path), type="db") as file:
        for i in (0, 2):
            data = {key: matrix(labels, i, name, "orca") for key, name in (("hamiltonian", "fock"), ("overlap",) * 2)}
            energy = np.array([labels[i]["energy"]])
            file.write(MOLECULES[i].to_ase(), data=data | {"energy": energy, "forces": np.zeros((3, 3))})
    return path


FORMATS = {
    "QH9Stable.db": (qh9_stable, [0, 1, 2], ["qm9_0", "qm9_1", "qm9_2"], "pyscf", []),
    "QH9Dynamic.db": (qh9_dynamic, [0, 1, 2], ["qm9_7"] * 3, "pyscf", ["1 geometries whose SCF has not converged"]),
    "QH9Stable.lmdb": (qh9_lmdb, [0, 1, 2], ["qm9_0", "qm9_1", "qm9_2"], "pyscf", []),
    "nabla.db": (nabladft, [0, 1, 2], ["moses_5", "moses_6", "moses_5"], "orca or psi4", ["C", "F"]),
    "water.db": (phisnet, [0, 2], ["water"] * 2, "cp2k", ["C", "F"]),
    "schnorb.db": (schnorb, [0, 2], ["schnorb"] * 2, "orca or psi4", ["forces"]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_matrix_comes_back_in_own_order_with_what_follows_from_it(tmp_path, labels, name):
    write, rows, names, order, left_out = FORMATS[name]
    source = write(tmp_path / name, labels)
    found = import_file(source, tmp_path / "out.h5", {}, "hf", check=1, **PARTS)
    assert (found.order, list(found.left_out)) == (order, left_out)
    assert max(found.errors.values()) < 1e-5
    samples = read_dataset(tmp_path / "out.h5").samples
    assert [s.name for s in samples] == names
    precision = 2e-5 if name == "nabla.db" else 1e-9
    for row, sample in zip(rows, samples, strict=True):
        np.testing.assert_allclose(sample.molecule.positions, MOLECULES[row].positions, atol=1e-6)
        assert set(KEYS) - {"energy"} <= set(sample.labels["def2-svp"])
        for key, value in sample.labels["def2-svp"].items():
            allowed = precision if key in ("fock", "overlap", "mo_energies", "energy") else 1e3 * precision
            np.testing.assert_allclose(value, labels[row][key], atol=allowed, err_msg=key)


def test_a_functional_that_is_not_that_of_the_file_is_refused(tmp_path, labels):
    path = qh9_stable(tmp_path / "a.db", labels)  # its own functional is B3LYP with VWN5, these are of Hartree–Fock
    with pytest.raises(
        InputError, match=r"'qm9_0', 'def2-svp': fock differs by .* hartree from PySCF's with xc='b3lyp5'"
    ):
        import_file(path, tmp_path / "out.h5", {}, check=1, **PARTS)
    assert not (tmp_path / "out.h5").exists()
    water = phisnet(tmp_path / "water.db", labels)
    with pytest.raises(InputError, match="does not say its functional; give xc"):
        import_file(water, tmp_path / "out.h5", {}, **PARTS)
    with pytest.raises(InputError, match="count is 9; give 1 to 2"):
        import_file(water, tmp_path / "out.h5", {}, "hf", count=9)
    with pytest.raises(InputError, match=r"bases is .*; .* has one, give its name alone"):
        import_file(water, tmp_path / "out.h5", {"a": "def2-svp"}, "hf")
    with pytest.raises(InputError, match=r"bytes for 169 numbers|in '6-31g' with 13 functions"):
        import_file(water, tmp_path / "out.h5", {"": "6-31g"}, "hf", **PARTS)


def test_commands(tmp_path, labels, capsys):
    path = phisnet(tmp_path / "water.db", labels)
    options = ["--xc", "hf", "--check", "1", "--validation", "0", "--test", "0.5"]
    assert main(["import", str(path), "--out", str(tmp_path / "a.h5"), *options]) == 0
    text = capsys.readouterr().out
    assert "a.h5, train 1, validation 0, test 1; hf, matrices in the order of cp2k" in text
    assert "PySCF's F or levels of water in def2-svp differ by" in text
    assert "not taken: C, F" in text
    assert main(["export", str(tmp_path / "a.h5"), "--out", str(tmp_path / "a.npz"), "--order", "e3nn"]) == 0
    assert "2 molecules are in" in capsys.readouterr().out
    source = ["import", str(tmp_path / "a.npz"), "--out", str(tmp_path / "b.h5"), "--bases", "def2svp=def2-svp"]
    assert main([*source, *options]) == 0
    assert "hf, matrices in the order of e3nn" in capsys.readouterr().out
    one, two = (read_dataset(tmp_path / name).samples for name in ("a.h5", "b.h5"))
    for first, second in zip(one, two, strict=True):
        for key, value in first.labels["def2-svp"].items():
            np.testing.assert_allclose(second.labels["def2-svp"][key], value, atol=1e-10, err_msg=key)


class Evil:
    def __reduce__(self):
        return print, ("this code of a file ran",)


def changed(path, statement, *values):
    with sqlite3.connect(path) as file:
        file.execute(statement, values)
    return path


def bad_pickle(path, record):
    with lmdb.open(str(path), map_size=1 << 20) as file, file.begin(write=True) as transaction:
        transaction.put(b"\0\0\0\1", record)
    return path


BAD = {
    "code in a pickle": (lambda p, _: bad_pickle(p, pickle.dumps({"id": Evil()})), "only numbers and bytes are read"),
    "a cut pickle": (lambda p, _: bad_pickle(p, b"\x80\x04"), "record 1 cannot be read"),
    "another dict": (lambda p, _: bad_pickle(p, pickle.dumps({"id": 1})), "record 1 is not of QH9"),
    "no SQLite": (lambda p, _: [p.write_bytes(b"SQLite format 3\0 and no more"), p][1], "cannot be read as SQLite"),
    "other tables": (
        lambda p, _: changed(p, "CREATE TABLE trips (a)"),
        "of no known data set .its tables: trips with a",
    ),
    "cut matrix": (
        lambda p, own: changed(qh9_stable(p, own), "UPDATE data SET Ham = ? WHERE id = 1", b"1234"),
        "id 1: Ham, in 'def2-svp' with 29 functions has 4 bytes for 841 numbers",
    ),
    "no matrix": (
        lambda p, own: changed(qh9_stable(p, own), "UPDATE data SET Ham = NULL WHERE id = 1"),
        "id 1: Ham, in .* has 0 bytes",
    ),
    "lopsided": (
        lambda p, own: changed(qh9_stable(p, own), "UPDATE data SET Ham = ?", np.arange(576.0).tobytes()),
        "id 0: Ham differs from its transpose by",
    ),
    "atoms without places": (
        lambda p, own: changed(qh9_stable(p, own), "UPDATE data SET pos = NULL WHERE id = 2"),
        "id 2: positions has 0 bytes for 9 numbers",
    ),
    "atoms in one place": (
        lambda p, own: changed(qh9_stable(p, own), "UPDATE data SET pos = ? WHERE id = 2", np.zeros(9).tobytes()),
        "id 2: positions of atoms",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line_and_run_no_code(tmp_path, labels, case, capfd):
    make, expected = BAD[case]
    path = make(tmp_path / ("a.lmdb" if "dict" in case or "pickle" in case else "a.db"), labels)
    with pytest.raises(InputError, match=expected) as error:
        import_file(path, tmp_path / "out.h5", {}, "hf", check=0, **PARTS)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "out.h5").exists()


def test_a_fault_in_one_matrix_is_found_where_there_is_no_overlap(tmp_path, labels):
    """F of QH9 is compared with T + SAP."""
    wrong = [dict(own) for own in labels]
    wrong[1]["fock"] = matrix(labels, 1, "fock", "orca")
    with open_database(qh9_stable(tmp_path / "a.db", wrong)) as source:
        assert len(source.molecules) == 3
    with pytest.raises(
        InputError, match="'qm9_1', 'def2-svp': order is stated to be 'pyscf', but the fock, by its dist"
    ):
        import_file(tmp_path / "a.db", tmp_path / "out.h5", {}, "hf", check=0, **PARTS)
