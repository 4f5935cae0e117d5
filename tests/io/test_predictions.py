"""Files of predictions: what comes back from each format, what is refused, and what is left after a failure."""

import csv
import resource
import subprocess
import sys

import ase.io
import h5py
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.io.predictions import prediction_writer, read_predictions
from vpotjax.molecule import Molecule, iterate_molecules, molecules_from_file

ENDINGS = ("extxyz", "xyz", "h5", "hdf5", "csv")
HYDRONIUM = Molecule(g2("NH3").numbers + np.array([1, 0, 0, 0]), g2("NH3").positions, charge=1)
HELIUM = Molecule(np.array([2]), np.zeros((1, 3)), charge=-1, spin=1)
GHOSTED = Molecule(np.array([0, 8, 1, 1]), np.array([[0.0, 0, 0], [0, 0, 3], [1.5, 0, 4], [-1.5, 0, 4]]))
MOLECULES = [g2("H2O"), HYDRONIUM, HELIUM, GHOSTED, g2("C6H6")]
NAMES = ["C/C=C\\C", "H₃O⁺, 1", "He #0", 'the "fourth"', "benzene = anion?"]
WARNINGS = [[], ["small gap, charge=3", "far from the data"], [], ['a "quoted" one'], []]
KEYS = {
    "energy": "energy_hartree",
    "homo_lumo_gap": "homo_lumo_gap_hartree",
    "mo_energies": "mo_energies_hartree",
    "dipole": "dipole_ebohr",
    "polarizability": "polarizability_bohr3",
    "lowdin_charges": "lowdin_charges_e",
    "mayer_bond_orders": "mayer_bond_orders",
    "forces": "forces_hartree_per_bohr",
    "quality": "quality",
}
UNITS, AXES = {"forces": "hartree/bohr"}, {"forces": ("atom", "xyz")}


def observables(molecule, rng):
    n, nao = molecule.natm, int(sum(molecule.numbers)) // 2
    half = rng.standard_normal((3, 3))
    charges = rng.standard_normal(n)
    return {
        "energy": np.asarray(rng.standard_normal()),
        "homo_lumo_gap": np.float32(rng.standard_normal()),
        "mo_energies": rng.standard_normal(nao),
        "dipole": rng.standard_normal(3),
        "polarizability": half + half.T,
        "lowdin_charges": charges + (molecule.charge - charges.sum()) / n,
        "mayer_bond_orders": rng.standard_normal((n, n)),
        "forces": rng.standard_normal((n, 3)),
        "quality": np.asarray(int(rng.integers(5))),
    }


def predicted(molecules, with_uncertainties, seed=0):
    """Values and uncertainties as a writer takes them."""
    rng = np.random.default_rng(seed)
    values = [observables(m, rng) for m in molecules]
    uncertainties = [{k: np.abs(v) for k, v in observables(m, rng).items() if k != "quality"} for m in molecules]
    keys = list(uncertainties[0]) if with_uncertainties else []
    return {k: [v[k] for v in values] for k in KEYS}, {k: [s[k] for s in uncertainties] for k in keys}


def written(path, chunks=((0, 2), (2, 2), (2, 5)), with_uncertainties=True):
    values, uncertainties = predicted(MOLECULES, with_uncertainties)
    with prediction_writer(path, UNITS, AXES) as writer:
        for a, b in chunks:
            of_chunk = [{k: v[a:b] for k, v in columns.items()} for columns in (values, uncertainties)]
            writer.write(NAMES[a:b], MOLECULES[a:b], *of_chunk, WARNINGS[a:b])
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return values, uncertainties


def single(path, name="dipole", value=(1.0, 2, 3), spread=None, **options):
    """One water molecule with one observable."""
    uncertainties = {} if spread is None else {name: [np.asarray(spread)]}
    with prediction_writer(path, **options) as writer:
        writer.write(["water"], [g2("H2O")], {name: [np.asarray(value)]}, uncertainties, [[]])


@pytest.mark.parametrize("with_uncertainties", [True, False])
def test_extxyz_through_ase(tmp_path, with_uncertainties):
    path = tmp_path / "a.extxyz"
    values, uncertainties = written(path, with_uncertainties=with_uncertainties)
    frames = ase.io.read(path, index=":")
    assert len(frames) == len(MOLECULES)
    for i, (atoms, molecule) in enumerate(zip(frames, MOLECULES, strict=True)):
        assert atoms.calc is None  # nothing is taken for a result in ASE's units
        assert not atoms.pbc.any()
        assert atoms.numbers.tolist() == molecule.numbers.tolist()
        np.testing.assert_allclose(atoms.positions, molecule.to_ase().positions, atol=1e-10)  # 10 decimals
        assert (atoms.info["charge"], atoms.info["spin"]) == (molecule.charge, molecule.spin)
        assert atoms.info["name"] == NAMES[i].replace('"', "'")
        assert atoms.info.get("warnings", "") == "; ".join(WARNINGS[i]).replace('"', "'")
        for suffix, columns in (("", values), ("_uncertainty", uncertainties)):
            for name, expected in columns.items():
                where = atoms.arrays if name in {"lowdin_charges", "forces"} else atoms.info
                found = where[KEYS[name] + suffix]
                assert np.shape(found) == np.shape(expected[i])
                np.testing.assert_allclose(found, expected[i], rtol=1e-9)  # 10 digits
        assert ("dipole_ebohr_uncertainty" in atoms.info) == with_uncertainties


def test_extxyz_through_own_reader(tmp_path):
    written(tmp_path / "a.xyz")
    found = list(iterate_molecules(tmp_path / "a.xyz", charge=5, spin=5))
    assert [name for name, _ in found] == [name.replace('"', "'") for name in NAMES]
    for (_, one), other in zip(found, MOLECULES, strict=True):
        assert (one.numbers.tolist(), one.charge, one.spin) == (other.numbers.tolist(), other.charge, other.spin)
        np.testing.assert_allclose(one.positions, other.positions, atol=2e-10)  # 10 decimals in Å


@pytest.mark.parametrize("with_uncertainties", [True, False])
def test_hdf5_keeps_every_bit(tmp_path, with_uncertainties):
    path = tmp_path / "a.h5"
    values, uncertainties = written(path, with_uncertainties=with_uncertainties)
    found = read_predictions(path)
    assert [p.name for p in found] == NAMES
    assert [list(p.warnings) for p in found] == WARNINGS
    for i, (one, molecule) in enumerate(zip(found, MOLECULES, strict=True)):
        assert (one.molecule.charge, one.molecule.spin) == (molecule.charge, molecule.spin)
        np.testing.assert_array_equal(one.molecule.numbers, molecule.numbers)
        np.testing.assert_array_equal(one.molecule.positions, molecule.positions)
        for columns, own in ((values, one.values), (uncertainties, one.uncertainties)):
            assert set(own) == set(columns)
            for name, expected in columns.items():
                assert own[name].shape == np.shape(expected[i])
                np.testing.assert_array_equal(own[name], expected[i])
    with h5py.File(path) as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("vpotjax-predictions", 2)
        units = {key: file[f"values/{key}"].attrs["units"] for key in ("homo_lumo_gap", "dipole", "quality")}
        assert units == {"homo_lumo_gap": "hartree", "dipole": "e·bohr", "quality": ""}
        assert file["values/mo_energies/values"].attrs["units"] == "hartree"
        assert file["structures/positions"].attrs["units"] == "bohr"
        assert file["values/polarizability"].shape == (5, 3, 3)
        assert file["values/lowdin_charges/offsets"][()].tolist() == [0, 3, 7, 8, 12, 24]
        assert file["values/mayer_bond_orders/shapes"][()].tolist() == [[n, n] for n in (3, 4, 1, 4, 12)]
        assert file["values/dipole"].compression == "gzip"


def test_csv(tmp_path):
    values, uncertainties = written(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == NAMES
    assert [row["formula"] for row in rows] == ["H2O", "H3O", "He", "H2OX", "C6H6"]
    assert [(int(r["natm"]), int(r["charge"]), int(r["spin"])) for r in rows] == [
        (m.natm, m.charge, m.spin) for m in MOLECULES
    ]
    assert rows[1]["warnings"] == "small gap, charge=3; far from the data"
    names = [name for name in rows[0] if not name.endswith("_uncertainty")]
    assert names == [
        *["name", "formula", "natm", "charge", "spin", "energy_hartree", "homo_lumo_gap_hartree"],
        *["dipole_x_ebohr", "dipole_y_ebohr", "dipole_z_ebohr"],
        *(f"polarizability_{part}_bohr3" for part in ("xx", "xy", "xz", "yy", "yz", "zz", "isotropic")),
        *["quality", "warnings"],
    ]
    for i, row in enumerate(rows):
        for name, expected in {
            "energy_hartree": values["energy"][i],
            "homo_lumo_gap_hartree_uncertainty": uncertainties["homo_lumo_gap"][i],
            "dipole_y_ebohr": values["dipole"][i][1],
            "dipole_z_ebohr_uncertainty": uncertainties["dipole"][i][2],
            "polarizability_yz_bohr3": values["polarizability"][i][1, 2],
            "polarizability_xx_bohr3_uncertainty": uncertainties["polarizability"][i][0, 0],
            "polarizability_isotropic_bohr3": np.trace(values["polarizability"][i]) / 3,
        }.items():
            assert float(row[name]) == pytest.approx(float(expected), rel=1e-9)  # 10 digits
    assert "polarizability_isotropic_bohr3_uncertainty" not in rows[0]


def test_numbers_that_are_not_finite_come_back(tmp_path):
    for ending in ("xyz", "h5", "csv"):
        single(tmp_path / f"a.{ending}", value=[np.nan, np.inf, -np.inf])
        single(tmp_path / f"b.{ending}", "matrix", [[np.nan, np.inf], [-np.inf, 0]])
        single(tmp_path / f"c.{ending}", "homo_lumo_gap", np.nan)
    np.testing.assert_array_equal(ase.io.read(tmp_path / "a.xyz").info["dipole_ebohr"], [np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(ase.io.read(tmp_path / "b.xyz").info["matrix"], [[np.nan, np.inf], [-np.inf, 0]])
    assert np.isnan(ase.io.read(tmp_path / "c.xyz").info["homo_lumo_gap_hartree"])
    assert np.isnan(read_predictions(tmp_path / "c.h5")[0].values["homo_lumo_gap"])
    for name in "abc":
        assert molecules_from_file(tmp_path / f"{name}.xyz")[0].natm == 3


def test_texts_that_files_cannot_hold_are_cleaned(tmp_path):
    for ending in ("xyz", "h5", "csv"):
        with prediction_writer(tmp_path / f"a.{ending}") as writer:
            writer.write(["a\nb\0c\udc80"], [g2("H2O")], {}, {}, [["one\r\ntwo"]])
    (found,) = read_predictions(tmp_path / "a.h5")
    assert (found.name, found.warnings) == ("a b c?", ("one two",))
    assert next(iterate_molecules(tmp_path / "a.xyz"))[0] == "a b c?"
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "a b c?,H2O,3,0,0,one two"


def test_nothing_predicted(tmp_path):
    for ending in ENDINGS:
        with prediction_writer(tmp_path / f"a.{ending}"):
            pass
    assert read_predictions(tmp_path / "a.h5") == []
    assert (tmp_path / "a.csv").read_text() == "name,formula,natm,charge,spin,warnings\n"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_leaves_nothing(tmp_path, ending):
    path = tmp_path / f"a.{ending}"

    def interrupted(error):
        with prediction_writer(path) as writer:
            writer.write(["water"], [g2("H2O")], {"dipole": [np.zeros(3)]}, {}, [[]])
            assert path.with_name(path.name + ".unfinished").exists()
            raise error

    for error in (KeyboardInterrupt(), InputError("frame 3"), MemoryError()):
        with pytest.raises(type(error)):
            interrupted(error)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_files_are_kept(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"a\..*' exists; delete it or choose another name"):
        single(path)
    assert path.read_text() == "precious"
    path.rename(path.with_name(path.name + ".unfinished"))
    with pytest.raises(InputError, match=r"\.unfinished' exists: a run is writing it, or was killed; delete it"):
        single(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["precious"]
    for file in tmp_path.iterdir():
        file.unlink()

    def overtaken():
        with prediction_writer(path) as writer:
            path.write_text("precious")
            writer.write(["water"], [g2("H2O")], {}, {}, [[]])

    with pytest.raises(InputError, match="exists"):
        overtaken()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "precious")]


def test_places_that_are_refused(tmp_path):
    for name in ("a.txt", "a", "a.h5.gz", ""):
        with pytest.raises(InputError, match=r"has the ending '.*'; predictions are written to \.extxyz, .*\.csv"):
            single(tmp_path / name)
    for name in ("absent/a.csv", "absent/a.h5", 300 * "x" + ".xyz"):
        with pytest.raises(InputError, match=r"cannot be written: .*; check the folder") as error:
            single(tmp_path / name)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_one_line(tmp_path, ending):
    rng = np.random.default_rng(0)

    def fill():
        with prediction_writer(tmp_path / f"a.{ending}") as writer:
            for _ in range(50):
                writer.write(
                    100 * ["water"], 100 * [g2("H2O")], {"dipole": rng.standard_normal((100, 3))}, {}, 100 * [[]]
                )

    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # bytes in any file
    try:
        with pytest.raises(InputError, match=r"cannot be written: .*; check the folder and the space") as error:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


FAILING = """
import resource, signal, sys
import numpy as np
from vpotjax._checks import InputError
from vpotjax.io.predictions import prediction_writer
from vpotjax.io.raw_file import RawFile
from vpotjax.molecule import Molecule

helium = 200 * [Molecule(np.array([2]), np.zeros((1, 3)))]
write = RawFile.write

def interrupted(file, data):
    signal.raise_signal(signal.SIGINT)
    return write(file, data)

def fill():
    with prediction_writer(sys.argv[1]) as writer:
        for _ in range(20):
            writer.write(200 * ["He"], helium, {"dipole": np.random.default_rng(0).random((200, 3))}, {}, 200 * [[]])

limits = resource.getrlimit(resource.RLIMIT_FSIZE)
for size in (0, 100, 10_000, 50_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        fill()
    except InputError as error:
        print("File too large" in str(error))
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
RawFile.write = interrupted
try:
    fill()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_hdf5_does_not_crash_the_process(tmp_path):
    """HDF5 does at the end of a process where a write of it has failed, so that the exit code would be another."""
    command = [sys.executable, "-c", FAILING, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, 4 * "True\n" + "interrupted\n", "")
    assert list(tmp_path.iterdir()) == []


def write_water(writer, **changes):
    arguments = {
        "names": ["water"],
        "molecules": [g2("H2O")],
        "values": {"dipole": [np.zeros(3)]},
        "uncertainties": {},
        "warnings": [[]],
    }
    writer.write(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": []}, "names has 0 entries for 1 molecules"),
        ({"names": "x"}, "names has 1 entries"),
        ({"warnings": ["text"]}, "warnings holds the text 'text'; give a list of texts"),
        ({"values": {"dipole": []}}, r"values\['dipole'\] has 0 entries"),
        ({"values": {"dipole": [np.zeros(2)]}}, r"values\['dipole'\] of 'water' has shape \(2,\), expected \(3\)"),
        ({"values": {"dipole": [np.zeros(3)], "more": [1]}}, r"values has \['dipole', 'more'\], before \['dipole'\]"),
        ({"values": {"dipole": [1j * np.zeros(3)]}}, "dtype complex128; give real numbers"),
        ({"values": {"dipole": [["a"]]}}, "give real numbers"),
        ({"uncertainties": {"dipole": [np.zeros(3)]}}, r"uncertainties has \['dipole'\], before \[\]; give the same"),
    ],
)
def test_chunks_that_do_not_fit(tmp_path, changes, message):
    with prediction_writer(tmp_path / "a.h5") as writer:
        write_water(writer)
        with pytest.raises(InputError, match=message):
            write_water(writer, **changes)
        write_water(writer)
    assert len(read_predictions(tmp_path / "a.h5")) == 2  # nothing of the refused chunk


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "lowdin_charges", "value": np.zeros(2)}, r"has shape \(2,\), expected \(3\)"),
        ({"name": "mayer_bond_orders", "value": np.zeros((3, 2))}, r"has shape \(3, 2\), expected \(3, 3\)"),
        ({"name": "mo_energies", "value": 1.0}, r"has shape \(\), expected \(any\)"),
        ({"name": "two words", "value": 1.0}, "key 'two words' in the file"),
        ({"name": "charge", "value": 1.0}, "key 'charge' in the file, which is taken"),
        ({"name": "a/b", "value": 1.0}, "rename it"),
        ({"spread": np.zeros(2)}, r"uncertainties\['dipole'\] of 'water' has shape \(2,\), expected \(3\)"),
    ],
)
def test_first_chunks_that_do_not_fit(tmp_path, arguments, message):
    for ending in ("xyz", "h5"):
        with pytest.raises(InputError, match=message):
            single(tmp_path / f"a.{ending}", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_keys_that_clash(tmp_path):
    values = {"a_b": [1.0], "a": [1.0]}
    with pytest.raises(InputError, match="key 'a_b'"), prediction_writer(tmp_path / "a.csv", {"a": "b"}) as writer:
        write_water(writer, values=values)
    with pytest.raises(InputError, match="uncertainties has 'gap'"), prediction_writer(tmp_path / "a.csv") as writer:
        write_water(writer, values={}, uncertainties={"gap": [1.0]})
