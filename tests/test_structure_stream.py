"""Structures one by one: names, folders, errors after good frames, and memory that does not grow."""

import bz2
import gzip
import tracemalloc
from itertools import islice

import ase.io
import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.db import connect

from tests.structure_texts import ATOMS, COLUMNS, water
from tests.test_structure_files import mol, pdb_line
from vpotjax._checks import InputError
from vpotjax._structure_files.text import TextLines
from vpotjax.molecule import iterate_molecules, molecule_count, molecules_from_file

MEBIBYTE = 1 << 20
MODEL = "MODEL\n" + pdb_line("O", 0) + pdb_line("C", 2) + "ENDMDL\n"


def names(path, **arguments):
    return [name for name, _ in iterate_molecules(path, **arguments)]


def test_names_and_charges(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(
        water("name=first charge=2")
        + "\n"
        + water()
        + water('energy=-1.5 name="the third, \\\\ [one]" spin=2')
        + water("name=1,2-x;y energy=3")
        + water('name=""')
        + water('comment="name=inside" filename=x')
    )
    found = list(iterate_molecules(path, charge=-2))
    assert [name for name, _ in found] == ["first", "a.xyz#1", "the third, \\ [one]", "1,2-x;y", "a.xyz#4", "a.xyz#5"]
    assert [(m.charge, m.spin) for _, m in found] == [(2, 0), (-2, 0), (-2, 2), (-2, 0), (-2, 0), (-2, 0)]
    assert molecule_count(path) == len(found)


def test_a_name_states_nothing_but_an_ion_without_quotes(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text(water('name="charge=2 anion in a.u."'))
    assert names(path) == ["charge=2 anion in a.u."]
    path.write_text(water("name=H2O+"))  # as before names were read
    with pytest.raises(InputError, match=r"frame 1: the comment says 'H2O\+', but charge=0"):
        names(path)


def test_frames_before_an_error_are_given(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_bytes((water() + water("charge=2")).encode() + b"2\n\nH 0 0 0\nH 0 0 \xe9\n")
    stream = iterate_molecules(path)
    assert [name for name, _ in islice(stream, 2)] == ["a.xyz#0", "a.xyz#1"]
    with pytest.raises(InputError, match=r"a\.xyz', line 14: the byte 0xe9 is not UTF-8"):
        next(stream)
    for content, message in [
        (2 * water() + water("charge=one"), "frame 3, line 12: charge is 'one'"),
        (2 * water() + water("anion"), "frame 3: the comment says 'anion'"),
        (2 * water() + water().replace("H 0.0 0", "H 0.0 x", 1), "frame 3, line 14: coordinate 'x.7572'"),
        (2 * water() + water()[:-60], "frame 3, line 11: says 3 atoms, but 0"),
        (2 * water() + "\n\n2\n\nH 0 0 0\nH 0 0 0\n", "frame 3: .*0 Å apart"),
        (2 * water() + "\n3\n\0\n", "line 13: holds a null byte"),
    ]:
        path.write_text(content)
        stream = iterate_molecules(path)
        assert [m.natm for _, m in islice(stream, 2)] == [3, 3]
        with pytest.raises(InputError, match=message):
            next(stream)


def test_what_is_no_molecule_is_left_out_where_that_is_wanted(tmp_path):
    """A lone nitrogen atom has an odd number of electrons; a file that is broken ends, and the others follow."""
    (tmp_path / "a.xyz").write_text(water() + "1\nname=nitrogen\nN 0 0 0\n" + water())
    (tmp_path / "b.xyz").write_text(water() + water()[:-60])
    (tmp_path / "c.xyz").write_text(water())
    told = []
    found = [name for name, _ in iterate_molecules(tmp_path, left_out=told.append)]
    assert found == ["a.xyz#0", "a.xyz#2", "b.xyz#0", "c.xyz#0"]
    assert len(told) == 2
    assert "a.xyz', frame 2: charge=0 and spin=0 do not fit 7 electrons" in told[0]
    assert "b.xyz', frame 2, line 6: says 3 atoms" in told[1]
    assert "what follows in the file" in told[1]
    with pytest.raises(InputError, match=r"a\.xyz', frame 2: .*electrons"):
        names(tmp_path)
    for stop in (None, told.append):  # alone, a broken file is an error
        with pytest.raises(InputError, match="says 3 atoms"):
            list(iterate_molecules(tmp_path / "b.xyz", left_out=stop))


def test_errors_of_other_formats_after_good_frames(tmp_path):
    path = tmp_path / "a.sdf"
    path.write_text(mol() + "$$$$\n" + mol() + "> <name>\nx\n\n$$$$\n" + mol(9))
    stream = iterate_molecules(path)
    assert len(list(islice(stream, 2))) == 2
    with pytest.raises(InputError, match="frame 3, line 30: the charge code"):
        next(stream)
    for content in ("$$$$\n" + mol(), mol() + "$$$$\n\n$$$$\n"):  # a record without content is no end of file
        path.write_text(content)
        with pytest.raises(InputError, match="expected the counts of atoms and bonds, found ''"):
            names(path)
    path = tmp_path / "a.pdb"
    path.write_text(2 * MODEL + MODEL.replace("2.000", "x.000"))
    stream = iterate_molecules(path)
    assert len(list(islice(stream, 2))) == 2
    with pytest.raises(InputError, match=r"frame 3, line 11: coordinate 'x.000'"):
        next(stream)
    packed = tmp_path / "a.xyz.gz"
    packed.write_bytes(gzip.compress(20000 * water().encode())[:-1000])
    stream = iterate_molecules(packed)
    assert next(stream)[0] == "a.xyz.gz#0"
    with pytest.raises(InputError, match=r"a\.xyz\.gz' cannot be read \(EOFError"):
        list(stream)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_across_the_borders_of_chunks(tmp_path, end):
    rng = np.random.default_rng(0)
    lines = ["ä" * int(n) for n in rng.integers(0, 90, 4000)] + [100_000 * "ö", ""]
    for shift in range(3):  # so that line ends and letters fall on the borders
        path = tmp_path / "a.txt"
        path.write_bytes(("\ufeff" + shift * "x" + end.join(lines)).encode())
        stream = TextLines(path, "", None)  # type: ignore[arg-type]  # without an error it needs no place
        assert list(stream) == [shift * "x" + lines[0], *lines[1:]]
        assert list(stream)[-1] == ""  # once more
    path.write_bytes(b"")
    assert list(stream) == [""]


def test_folders(tmp_path):
    (tmp_path / "b.xyz").write_text(water() + water("name=second"))
    (tmp_path / "a.SDF").write_text(mol() + "$$$$\n")
    (tmp_path / "c.xyz.bz2").write_bytes(bz2.compress(water().encode()))
    (tmp_path / "d.pdb").write_text(2 * MODEL)
    for other in (".hidden.xyz", "notes.txt", "readme", "e.traj.gz"):
        (tmp_path / other).write_text("not a structure")
    (tmp_path / "f.xyz").mkdir()
    expected = ["a.SDF#0", "b.xyz#0", "second", "c.xyz.bz2#0", "d.pdb#0", "d.pdb#1"]
    assert names(tmp_path) == expected
    assert molecule_count(tmp_path) is None  # one is packed
    (tmp_path / "c.xyz.bz2").unlink()
    assert molecule_count(str(tmp_path)) == 5
    (tmp_path / "b.xyz").write_text(water() + "x")
    with pytest.raises(InputError, match=r"b\.xyz', frame 2, line 6: expected the number of atoms"):
        names(tmp_path)
    assert molecule_count(tmp_path) is None
    with pytest.raises(InputError, match="is not a file; give the name of a structure file"):
        molecules_from_file(tmp_path)


def test_paths_are_checked_before_the_first_molecule(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for call in (iterate_molecules, molecule_count):
        with pytest.raises(InputError, match=r"folder '.*' holds no structure file; .*\.xyz"):
            call(tmp_path)
        with pytest.raises(InputError, match="does not exist"):
            call(tmp_path / "absent.xyz")
        with pytest.raises(InputError, match="path is 3"):
            call(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="charge is 'x'"):
        iterate_molecules(tmp_path, charge="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"notes\.txt' has the ending '\.txt'"):
        names(tmp_path / "notes.txt")


def test_stores_and_counts(tmp_path):
    frames = [ase_molecule(name) for name in 120 * ("H2O", "CH4", "NH3", "CO", "N2")]
    ase.io.write(tmp_path / "a.traj", frames)
    for kind in ("db", "json"):
        with connect(str(tmp_path / f"a.{kind}")) as rows:  # several pages of rows
            for atoms in frames[:30] if kind == "json" else frames:
                rows.write(atoms)
            rows.delete([3, 4])
    (tmp_path / "a.gen").write_text("1 C\nO\n1 1 0 0 0\n")
    (tmp_path / "a.mol").write_text(mol())
    (tmp_path / "b.sdf").write_text(mol() + "$$$$\n" + mol())
    formulas = [atoms.get_chemical_formula() for atoms in frames]
    without = formulas[:2] + formulas[4:]
    for name, expected, count in [
        ("a.traj", formulas, 600),
        ("a.db", without, 598),
        ("a.json", without[:28], None),
        ("a.gen", ["O"], 1),
        ("a.mol", ["H2O"], 1),
        ("b.sdf", ["H2O", "H2O"], 2),
    ]:
        assert [m.formula for _, m in iterate_molecules(tmp_path / name)] == expected
        assert molecule_count(tmp_path / name) == count
    stream = iterate_molecules(tmp_path / "a.traj")
    assert next(stream)[0] == "a.traj#0"
    stream.close()  # type: ignore[attr-defined]  # closes the file, or Python would warn
    (tmp_path / "a.db").write_text("no data base")
    assert molecule_count(tmp_path / "a.db") is None


def peak(path, expected):
    tracemalloc.start()
    assert sum(1 for _ in iterate_molecules(path)) == expected
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


@pytest.mark.parametrize(
    ("name", "frame", "pack"),
    [
        ("a.xyz", water(), bytes),
        ("a.xyz.gz", f"3\nname=x {COLUMNS}\n{ATOMS}", gzip.compress),
        ("a.sdf", mol() + "$$$$\n", bytes),
        ("a.pdb", MODEL, bytes),
    ],
)
def test_memory_is_constant(tmp_path, name, frame, pack):
    used = {}
    for count in (20, 200, 2000):  # the first of them loads modules and tables
        (tmp_path / name).write_bytes(pack(count * frame.encode()))
        used[count] = peak(tmp_path / name, count)
    assert used[2000] < used[200] + MEBIBYTE / 2  # a frame that is kept takes 2 kB


def test_memory_is_constant_for_data_bases(tmp_path):
    used = {}
    for count in (20, 300, 900):
        path = tmp_path / f"{count}.db"
        with connect(str(path)) as rows:
            for _ in range(count):
                rows.write(ase_molecule("H2O"), data={"array": np.zeros(1000)})
        used[count] = peak(path, count)
    assert used[900] < used[300] + MEBIBYTE / 2
