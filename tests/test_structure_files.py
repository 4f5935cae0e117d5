"""Structure files: what is read from each format, against ASE and hand-made values, and what is refused."""

import bz2
import gzip
import lzma

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_masses_common
from ase.db import connect

from tests.structure_texts import ATOMS, COLUMNS, angstrom, read, refused, water
from vpotjax._checks import InputError
from vpotjax.molecule import Molecule, molecules_from_file


@pytest.mark.parametrize(
    ("label", "number"),
    [
        *((label, 17) for label in ("cl", "CL", "Cl1", "CL2", "17")),
        *((label, 1) for label in ("H12", "h")),
        *[("8", 8), ("C@2", 6), ("X", 0), ("ca", 20), ("he", 2), ("CO", 27), ("FE", 26), ("118", 118)],
    ],
)
def test_labels_with_one_meaning(tmp_path, label, number):
    content = f"2\n\n{label} 0 0 0\nBe 0 0 3\n"
    (found,) = read(tmp_path, content, spin=number % 2)
    assert found.numbers.tolist() == [number, 4]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        *((label, "ghost atom") for label in ("GH", "Gh(O)", "O:", "@O", "ghost-O", "X-H", "Bq", "gh1")),
        *((label, "dummy atom; remove its line") for label in ("Q", "Du", "*", "DA", "XX", "Lp")),
        *((label, "is not an element; write") for label in ("Zz", "OH2", "119", "0", "-1", "8.0", "1H", "Ö", "HA1")),
        ("CA", "is Ca, or the name of an atom of C; write 'Ca' or 'C'"),
        ("HG1", "is Hg, or the name"),
        ("NP1", "is Np, or the name"),
        ("Tv", "translation vector"),
        *((label, "is an isotope, and masses are not kept; write 'H'") for label in ("D", "T", "D1", "d", "H-2")),
    ],
)
def test_labels_that_are_refused(tmp_path, label, message):
    refused(tmp_path, f"2\n\nHe 0 0 3\n{label} 0 0 0\n", f"frame 1, line 4: .*{message}")


def test_numbers_of_other_languages(tmp_path):
    (found,) = read(tmp_path, "2\n\nH 1.0D0 -.5d-1 +1.\nH 1*^-6 2.E0 3  # a remark\n")
    np.testing.assert_allclose(angstrom(found), [[1, -0.05, 1], [1e-6, 2, 3]], rtol=1e-15)  # one division, one product


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no structure"),
        ("\n \n", "holds no structure"),
        ("0\n\n", "frame 1, line 1: says 0 atoms"),
        (water() + "0\n\n", "frame 2, line 6: says 0 atoms"),
        ("3 atoms\n\nH 0 0 0", "line 1: expected the number of atoms, found '3 atoms'"),
        ("-1\n\n", "expected the number of atoms"),
        ("4\n\n" + ATOMS, "line 1: says 4 atoms, but 3 atom lines follow"),
        ("2\n\n" + ATOMS, "frame 2, line 5: expected the number of atoms, found 'H 0.0"),
        ("3\n" + ATOMS, "says 3 atoms, but 2"),
        ("2\n\nH 0 0 0\n\nH 0 0 1\n", "says 2 atoms, but 1"),
        (water() + "\n" + water() + water()[:-30], "frame 3, line 12: says 3"),
        ("2\n\nH 0 0 0\nH 0 0\n", "line 4: 'H 0 0' has 3 columns, expected 4; complete"),
        ("2\n\nH 0 0 0\nH 0 0 1 0.1\n", "line 4: .* has 5 columns.*Properties="),
        ("2\n\nO 8.0 0 0 0\nBe 4.0 0 0 1\n", "line 3: .* has 5 columns"),  # GAMESS: the charge comes first
        ("2\n\nH 0 0 0\n# H 0 0 1\n", "line 4: '# H 0 0 1' is a remark, but an atom is expected"),
        ("2\n\nH 0 0 0\nH 0 0 one\n", "line 4: coordinate 'one' is not a finite number"),
        ("2\n\nH 0 0 0\nH 0 0 1,5\n", "coordinate '1,5'.*decimal point"),
        ("2\n\nH 0 0 0\nH 0 0 1_0\n", "coordinate '1_0'"),
        ("2\n\nH 0 0 0\nH 0 0 nan\n", "coordinate 'nan'"),
        ("2\n\nH 0 0 0\nH 0 0 -inf\n", "coordinate '-inf'"),
        ("2\n\nH 0 0 0\nH 0 0 1e999\n", "are not finite"),
        ("2\n\nH 0 0 0\nH 0 0 ********\n", "coordinate"),
        ("2\n\nO 0 0 0\nH 0 0 1\n", "frame 1: .*do not fit 9 electrons.*set spin or change the charge"),
        ("2\n\nH 0 0 0\nH 0 0 0\n", "frame 1: .*atoms 0 and 1 are 0 Å apart"),
        (water("x").replace("x", "\xe9").encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8"),
        (water().encode("utf-16"), "is not UTF-8"),
        ("1\n\nHe 0 0 0\0\n", "line 3: holds a null byte"),
    ],
)
def test_broken_xyz_files_are_refused(tmp_path, content, message):
    refused(tmp_path, content, message)


def test_every_frame_is_read(tmp_path):
    content = "\ufeff\n" + water("charge=2") + "\n\n \n" + water() + water("multiplicity=3") + "\n\n"
    found = read(tmp_path, content, charge=-2)
    assert [(m.charge, m.spin) for m in found] == [(2, 0), (-2, 0), (-2, 2)]  # a frame's own charge wins
    assert Molecule.from_file(tmp_path / "file.xyz").charge == 2
    assert Molecule.from_xyz(tmp_path / "file.xyz").charge == 2


def test_names_with_at_signs_upper_case_and_packed(tmp_path):
    content = water("charge=2").encode()
    for name, packed in [
        ("md@300K.xyz", content),
        ("md@0.XYZ", content),
        ("md@1.xyz.gz", gzip.compress(content)),
        ("md.extxyz.bz2", bz2.compress(content)),
        ("md.xyz.xz", lzma.compress(content)),
    ]:
        assert read(tmp_path, packed, name)[0].charge == 2
    (tmp_path / "geometry.dat").write_bytes(content)
    assert Molecule.from_xyz(tmp_path / "geometry.dat").charge == 2
    refused(tmp_path, content, "is a packed .traj file.*unpack it", "a.traj.gz")
    refused(tmp_path, content, "cannot be read", "plain.xyz.gz")
    refused(tmp_path, gzip.compress(content)[:40], "cannot be read", "cut.xyz.gz")


def test_other_files_are_refused_by_name(tmp_path):
    refused(tmp_path, "", "has the ending '.log'.*write it as extended xyz", "job.log")
    refused(tmp_path, "", "has the ending ''", "coord")
    for name in ("POSCAR", "CONTCAR_1", "ice.cif", "ice.vasp"):
        refused(tmp_path, "", "format for crystals; this is a molecule code", name)
    for path, message in [
        ("absent.xyz", "does not exist; check the path"),
        ("", "is not a file"),
        (3 * "x" * 200, "exist"),
    ]:
        with pytest.raises(InputError, match=f"structure file .*{message}"):
            molecules_from_file(tmp_path / path)
    with pytest.raises(InputError, match="path is 3; give the name"):
        molecules_from_file(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"charge is 0\.5; give an integer"):
        read(tmp_path, water(), charge=0.5)


def columns(*values):
    lines = ATOMS.splitlines()
    return "".join(f"{line} {value}\n" for line, value in zip(lines, values, strict=True))


def test_columns_of_charges_and_moments(tmp_path):
    for name in ("initial_charges", "charges", "mulliken_charges"):
        content = f"3\n{COLUMNS}:{name}:R:1\n{columns(-0.2, 0.601, 0.6)}"
        assert read(tmp_path, content, spin=1)[0].charge == 1  # 1.001 to the rounding of such charges
    for name in ("initial_magmoms", "magmoms"):
        assert read(tmp_path, f"3\n{COLUMNS}:{name}:R:1\n{columns(2, 0, 0)}")[0].spin == 2
    assert read(tmp_path, f"3\n{COLUMNS}:magmoms:R:1\n{columns(0, 0, 0)}", spin=2)[0].spin == 2  # zeros say nothing
    assert read(tmp_path, f"3\n{COLUMNS}:forces:R:1:Z:I:1\n{columns('0.5 8', '1 1', '1 1')}")[0].natm == 3
    assert read(tmp_path, f"3\n{COLUMNS}:masses:R:1\n{columns(15.999, 1.008, 1.008)}")[0].natm == 3
    for name, values, message in [
        ("masses", (15.999, 2.014, 1.008), "mass of atom 1 is 2.014 u.*isotope"),
        ("charges", (0.5, 0, 0), "charges adds up to 0.5, not to an integer charge"),
        ("charges", ("nan", 0, 0), "finite"),
        ("charges", ("x", 0, 0), "give numbers"),
        ("Z", (7, 1, 1), r"line 3: the columns for the element say \[8, 7\]"),
    ]:
        refused(tmp_path, f"3\n{COLUMNS}:{name}:R:1\n{columns(*values)}", message)
    refused(
        tmp_path, f"3\ncharge=0 {COLUMNS}:charges:R:1\n{columns(1, 0, 0)}", "charge=0 contradicts charges, in sum 1"
    )
    refused(tmp_path, f"3\n{COLUMNS}:magmoms:R:3\n{columns('0 0 2', '0 0 0', '0 0 0')}", r"shape \(3, 3\)")


@pytest.mark.parametrize("suffix", ["xyz", "extxyz", "traj", "db", "json"])
def test_files_of_ase(tmp_path, suffix):
    oxygen, ion = ase_molecule("O2"), ase_molecule("CH3")
    ion.info.update(charge=-1, spin=0)
    ion.set_initial_magnetic_moments(None)
    ion.set_initial_charges([-1, 0, 0, 0])
    path = tmp_path / f"a@1.{suffix}"
    if suffix in ("db", "json"):  # ASE's data bases keep no info
        with connect(str(path)) as rows:
            rows.write(oxygen, multiplicity=3)
            rows.write(ion, charge=-1)  # row.charge is the sum of initial charges, whatever is stored
    else:
        with path.open("wb") if suffix == "traj" else path.open("w") as file:
            ase.io.write(file, [oxygen, ion], format="traj" if suffix == "traj" else "extxyz")
    first, second = molecules_from_file(path)
    assert (first.charge, first.spin, second.charge, second.spin) == (0, 2, -1, 0)
    # The xyz file has 8 decimals.
    np.testing.assert_allclose(angstrom(second), ion.positions, atol=1e-7 if "xyz" in suffix else 1e-14)


def test_stored_files_that_are_refused(tmp_path):
    for name in ("a.traj", "a.db", "a.json"):
        refused(tmp_path, b"not a store", "cannot be read", name)
    water_in_cell = Atoms(ase_molecule("H2O"), cell=[9, 9, 9], pbc=True)
    ase.io.write(tmp_path / "b.traj", [ase_molecule("H2O"), water_in_cell])
    with pytest.raises(InputError, match=r"b\.traj', frame 2: pbc is \[True, True, True\]; this is a molecule code"):
        molecules_from_file(tmp_path / "b.traj")
    with connect(str(tmp_path / "c.db")) as rows:
        rows.write(ase_molecule("H2O"), charge=2, data={"total_charge": 1})
    with pytest.raises(InputError, match="data total_charge=1 contradicts charge=2"):
        molecules_from_file(tmp_path / "c.db")
    ase.io.write(tmp_path / "d.traj", [Atoms()])
    with pytest.raises(InputError, match="frame 1: holds no atoms"):
        molecules_from_file(tmp_path / "d.traj")


MOL = """{title}
     RDKit          {dim}

{counts}  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1173 O   0  {code}  0  0  0
    0.0000    0.7572   -0.4692 H   0  0
    0.0000   -0.7572   -0.4692 H   0  0  0  0  0  0
  1  2  1  0
  1  3  1  0
{properties}M  END
"""


def mol(code=0, properties="", title="", dim="3D", counts="  3  2"):
    return MOL.format(code=code, properties=properties, title=title, dim=dim, counts=counts)


@pytest.mark.parametrize(
    ("record", "charge", "spin"),
    [
        (mol(), 0, 0),
        (mol(2), 2, 0),
        (mol(6), -2, 0),
        (mol(0, "M  CHG  1   1  -2\n"), -2, 0),
        (mol(2, "M  CHG  1   1   2\n"), 2, 0),
        (mol(0, "M  CHG  2   1   1   2   1\n"), 2, 0),
        (mol(0, "M  CHG  2   1   1   2  -1\n"), 0, 0),
        (mol(3, "M  RAD  1   1   2\n"), 1, 1),
        (mol(0, "M  RAD  1   1   3\nM  ISO  1   2   0\n"), 0, 2),
        (mol(title="charge=2"), 2, 0),
        (mol() + "> <PUBCHEM_TOTAL_CHARGE>\n2\n\n> <atom.dprop.PartialCharge>\n0.1 -0.2 0.1\n", 2, 0),
        (mol() + "> <multiplicity>\n3\n\n> <PUBCHEM_MMFF94_PARTIAL_CHARGES>\n2\n1 -0.8\n2 0.4\n", 0, 2),
    ],
)
def test_molfiles(tmp_path, record, charge, spin):
    (found,) = read(tmp_path, record, "a.mol")
    assert (found.charge, found.spin) == (charge, spin)
    np.testing.assert_allclose(angstrom(found), ase.io.read(tmp_path / "a.mol").positions, rtol=1e-15)  # as above
    both = read(tmp_path, record + "\n$$$$\n" + mol() + "\n$$$$\n\n", "a.sdf")
    assert [(m.charge, m.spin) for m in both] == [(charge, spin), (0, 0)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (mol(2, "M  CHG  1   1  -2\n"), "charge column, in sum 2 contradicts M  CHG, in sum -2"),
        (mol(0, "M  CHG  1   1  -2\n", title="charge=2"), "charge=2 contradicts M  CHG"),
        (mol() + "> <charge>\none\n", "line 12: charge is 'one'"),
        (mol(9), "line 5: the charge code '9'"),
        (mol(0, "M  CHG  2   1  -2\n"), "line 10: 'M  CHG  2   1  -2' is not read"),
        (mol(0, "M  CHG  1   4  -2\n"), "is not read"),
        (mol(0, "M  RAD  2   1   2   2   2\n"), "2 radicals, whose total spin is not said"),
        (mol(dim="2D"), "line 2: is a drawing"),
        (mol(counts="  4  2"), "line 8: '  1  2  1  0' is not an atom line|line 9: .*is not a bond|line 4: says"),
        (mol(counts="  2  2"), "line 7: .* is not a bond between two of 2 atoms"),
        (mol(counts="  3  1"), "line 9: '  1  3  1  0' is not a property line"),
        (mol().replace("V2000", "V3000"), "V3000 molfile, V2000 is read"),
        (mol().replace("M  END", ""), "line 4: says 3 atoms and 2 bonds"),
        (mol().replace(" O ", "R# "), "line 5: .*'R#'|line 5: .*columns of V2000"),
        ("a\nb\n", "line 4: expected the counts"),
        (mol().replace("    0.0000    0.0000    0.1173", "  0.0000   0.0000   0.1173"), "line 5: .*columns of V2000"),
        (mol() + "$$$$\n" + mol(9), "frame 2, line 16: the charge code"),
        (mol() + mol(), "frame 1, line 12: '     RDKit .* follows 'M  END', but is no data item.*end each molecule"),
        (mol() + mol(title="second"), "frame 1, line 11: 'second' follows 'M  END'"),
        (mol() + "> <note>\nx\n" + mol(title="y"), "frame 1, line 16: .* follows 'M  END'"),
        (mol() + "> <note>\n  3  2  0  0  0  0  0  0  0  0999 V2000\n", "line 12: .*belongs to another molecule"),
        (mol() + "M  END\n", "line 11: 'M  END' follows"),
        (mol() + "> <charge>\n-2\n> <name>\nx\n\n> <total_charge>\n1\n", "charge=-2 contradicts total_charge=1"),
        (mol() + "> <charge>\n-2\nor so\n", "line 12: charge is '-2 or so'"),
        (mol() + "> <charge>\n\n", "line 12: charge is ''"),
        (mol(title="water anion"), "'anion', but charge=0"),
        (mol(title="triplet"), "'triplet', but charge=0 and spin=0"),
        (mol(title="units=bohr"), "line 1: 'units=bohr' says bohr, but this format is in angstrom"),
        (mol(title="units=nm"), "line 1: the unit of length is 'nm'"),
        (mol(0, "M  ISO  1   2   2\n"), "line 10: 'M  ISO  1   2   2': it is an isotope, and masses are not kept"),
        (mol().replace(" H   0  0", " H   1  0", 1), "line 6: the mass difference .* is '1': it is an isotope"),
        (mol().replace(" H ", " D ", 1), "line 6: 'D' is an isotope"),
    ],
)
def test_molfiles_that_are_refused(tmp_path, record, message):
    refused(tmp_path, record, message, "a.sdf")


def pdb_line(symbol, x, charge="", name="C1", altloc=" "):
    atom = f"HETATM    1 {name:>4}{altloc}MOL A   1    {x:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
    return f"{atom:76s}{symbol:>2}{charge:>2}\n"


def test_pdb(tmp_path):
    ion = pdb_line("CA", 0, "2+", "CA") + pdb_line("O", 2) + "END\n"
    models = f"MODEL        1\n{ion[:-4]}ENDMDL\nMODEL        2\n{pdb_line('NE', 1.5)}ENDMDL\nEND\n"
    cell = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    (found,) = read(tmp_path, cell + ion, "a.pdb")
    assert (found.numbers.tolist(), found.charge) == ([20, 8], 2)
    np.testing.assert_allclose(angstrom(found), ase.io.read(tmp_path / "a.pdb").positions, rtol=1e-15)
    assert [(m.natm, m.charge) for m in read(tmp_path, models, "a.pdb", charge=-2)] == [(2, 2), (1, -2)]
    for content, message in [
        (cell.replace(" 1.000", " 9.000") + ion, "line 1: CRYST1 states a cell.*molecule code"),
        (pdb_line("O", 0, "x"), "line 1: the charge in columns 79 to 80 is 'x'"),
        (pdb_line("", 0, name="CA"), "line 1: has no element in columns 77 to 78"),
        (pdb_line("O", 0, altloc="A"), "alternate location 'A'"),
        (pdb_line("O", 0).replace("    0.000   0.000", "   0.000   0.000 ", 1), "do not end in columns|coordinate"),
        (pdb_line("O", float("nan")), "coordinate 'nan'"),
        ("REMARK\n", "holds no structure"),
        (pdb_line("D", 0), "line 1: 'D' is an isotope"),
        ("TITLE     water anion\n" + pdb_line("O", 0), "frame 1: the comment says 'anion', but charge=0"),
        ("TITLE     charge=1\n" + pdb_line("O", 0, "2-"), "charge=1 contradicts columns 79 to 80, in sum -2"),
        ("REMARK units=bohr\n" + pdb_line("O", 0), "line 1: .*says bohr"),
    ]:
        refused(tmp_path, content, message, "a.pdb")
    titles = "TITLE     oxide\nREMARK charge=-2\nREMARK 280 CRYSTALS GROWN AT PH 7, CHARGE UNKNOWN\n"
    assert read(tmp_path, titles + pdb_line("O", 0), "a.pdb")[0].charge == -2


def test_gen(tmp_path):
    atoms = ase_molecule("CH3OH")
    ase.io.write(tmp_path / "a.gen", atoms)
    found = Molecule.from_file(tmp_path / "a.gen", charge=2)
    np.testing.assert_allclose(angstrom(found), atoms.positions, atol=1e-15)  # 15 decimals
    assert (found.charge, found.numbers.tolist()) == (2, atoms.numbers.tolist())
    for content, message in [
        ("1 S\nO\n1 1 0 0 0\n0 0 0\n9 0 0\n0 9 0\n0 0 9\n", "line 1: the kind 'S' is periodic"),
        ("2 C\nO\n1 1 0 0 0\n", "line 1: says 2 atoms, but 1"),
        ("1 C\nO\n1 1 0 0 0\n2 1 0 0 1\n", "line 1: says 1 atoms, but 2"),
        ("1 C\nO\n1 2 0 0 0\n", "line 3: expected 'index element x y z'"),
        ("one\n", "line 1: expected the number of atoms"),
        ("# nothing\n", "holds no structure"),
        ("1 C  # an anion\nO\n1 1 0 0 0\n", "'anion', but charge=0"),
        ("1 C\nD\n1 1 0 0 0\n", "line 2: 'D' is an isotope"),
    ]:
        refused(tmp_path, content, message, "a.gen")


def test_atoms_that_are_read():
    hydroxyl = Molecule.from_ase(ase_molecule("OH"))  # moments of 0.5 each
    assert (hydroxyl.charge, hydroxyl.spin) == (0, 1)
    for key, value in [("charge", np.int64(2)), ("Charge", 2.0), ("total_charge", "2"), ("charge", np.array(2))]:
        atoms = ase_molecule("H2O")
        atoms.info[key] = value
        assert Molecule.from_ase(atoms).charge == 2
    atoms = ase_molecule("H2O")
    for masses in (None, atomic_masses_common[[8, 1, 1]], [15.9994, 1.00794, 1.00794]):  # the last of older tables
        atoms.set_masses("defaults" if masses is None else np.array(masses))  # type: ignore[arg-type]
        assert Molecule.from_ase(atoms).natm == 3
    atoms.info["multiplicity"] = 3
    assert Molecule.from_ase(atoms, spin=2).spin == 2
    atoms.calc = SinglePointCalculator(atoms, magmom=1.9999, charges=[-0.2, 0.1, 0.1], magmoms=[2, 0, 0])
    atoms.calc.parameters = {"charge": 0}
    assert Molecule.from_ase(atoms).spin == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.info.update(charge=1, Charge=2), "charge=1 contradicts Charge=2"),
        (lambda a: a.info.update(charge=None), "charge is None; give an integer"),
        (lambda a: a.info.update(key_value_pairs={"charge": 0.0}), "ASE replaces by the sum of initial charges"),
        (lambda a: a.info.update(charge=True), "charge is True"),
        (lambda a: a.info.update(spin=0.5), "spin is 0.5; give an integer"),
        (lambda a: a.info.update(mulliken_charges=[0, 0, 0]), "mulliken_charges=.* may state"),
        (lambda a: a.set_initial_charges([0.5, 0, 0]), "initial_charges adds up to 0.5"),
        (lambda a: (a.set_initial_charges([1, 0, 0]), a.info.update(charge=0)), "charge=0 contradicts initial_charges"),
        (lambda a: a.set_initial_magnetic_moments([0.5, 0, 0]), "initial_magmoms adds up to 0.5"),
        (
            lambda a: (a.set_initial_magnetic_moments([2, 0, 0]), a.info.update(spin=0)),
            "spin=0 contradicts initial_mag",
        ),
        (lambda a: a.set_initial_magnetic_moments([[0, 0, 2], [0, 0, 0], [0, 0, 0]]), r"shape \(3, 3\)"),
        (lambda a: setattr(a, "calc", SinglePointCalculator(a, magmom=0.5)), "magmom adds up to 0.5"),
        (lambda a: setattr(a, "pbc", [True, False, False]), "pbc is .*molecule code.*atoms.pbc = False"),
        (lambda a: a.set_masses([16, 2.014, 1.008]), "mass of atom 1 is 2.014 u, that of its element 1.008 u"),
        (lambda a: a.info.update(qtot=2), "qtot=2 may state"),
        (lambda a: a.info.update(charge=2), "charge is 0, but atoms state 2"),
    ],
)
def test_atoms_that_are_refused(change, message):
    atoms = ase_molecule("H2O")
    change(atoms)
    with pytest.raises(InputError, match=message) as error:
        Molecule.from_ase(atoms, charge=0)
    assert "\n" not in str(error.value)
