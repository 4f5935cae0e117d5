"""`vpotjax reference`: labels against PySCF, what a part is known by, resuming, and refusals before any work."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from pyscf import gto, scf

import vpotjax.interop.pyscf
from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.io.dataset import read_dataset
from vpotjax.molecule import Molecule
from vpotjax.reference import generate as module
from vpotjax.reference.generate import ReferenceSettings, assign_splits, generate

SETTINGS = ReferenceSettings(effective_basis="3-21g", large_basis="6-31g", xc="hf", geometries=2, grid_level=0)
H2, HEH, WATER = g2("H2"), Molecule(np.array([2, 1]), np.diag([0, 0, 1.46])[1:], charge=1), g2("H2O")


def moved(molecule, shift=0.05):
    """The same molecule with its last atom moved, in bohr."""
    positions = np.array(molecule.positions)
    positions[-1] += shift
    return Molecule(molecule.numbers, positions, molecule.charge)


@pytest.fixture
def labelled(monkeypatch):
    """Molecules run in this process; returns the list of the formulas that are computed."""
    computed, lock = [], threading.Lock()
    hessian = vpotjax.interop.pyscf.harmonic_hessian

    def counted(molecule, *arguments):
        with lock:
            computed.append(molecule.formula)
        return hessian(molecule, *arguments)

    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda workers, **options: ThreadPoolExecutor(1))
    monkeypatch.setattr(vpotjax.interop.pyscf, "harmonic_hessian", counted)
    return computed


def interrupted(monkeypatch, molecules, out, settings=SETTINGS):
    """A run that labels everything and is stopped before it writes `out`."""

    def stop(path, dataset, write=module.write_dataset):
        if path == out:
            raise KeyboardInterrupt
        write(path, dataset)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_dataset", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(molecules, out, settings)
    assert not out.exists()


def energies(dataset):
    return {
        name: [float(s.labels["sto-3g"]["energy"]) for s in dataset.samples if s.name == name]
        for name in names(dataset)
    }


def names(dataset):
    return list(dict.fromkeys(s.name for s in dataset.samples))


def require_pyscf(dataset):
    """Energies of the STO-3G labels are those of PySCF's own RHF at the stored geometries."""
    for s in dataset.samples:
        atoms = list(zip(s.molecule.symbols, s.molecule.positions, strict=True))
        mol = gto.M(atom=atoms, unit="Bohr", basis="sto-3g", charge=s.molecule.charge, verbose=0)
        # Both are converged to 1e-9 or better; the tables of STO-3G agree to 1e-7 in the exponents.
        assert float(s.labels["sto-3g"]["energy"]) == pytest.approx(scf.RHF(mol).kernel(), abs=1e-6)


def test_labels_are_those_of_pyscf(tmp_path):
    """In two spawned processes, into a folder that does not exist; names are not used as names of files."""
    out, reports = tmp_path / "new" / "a.h5", []
    molecules = {"../a/b": WATER, "H₂ *?": H2, "": HEH}
    dataset = generate(molecules, out, SETTINGS, 2, lambda *report: reports.append(report))
    assert names(dataset) == list(molecules)
    assert [(done, total) for done, total, _ in reports] == [(1, 3), (2, 3), (3, 3)]
    assert [file.name for file in out.parent.iterdir()] == ["a.h5"]
    require_pyscf(read_dataset(out))
    assert read_dataset(out).attribute("large_basis") == "6-31g"
    for name, molecule in molecules.items():
        drawn = [s.molecule.positions for s in dataset.samples if s.name == name]
        assert len(drawn) == 2
        assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
        # A thermal displacement of a hydrogen is below 0.5 bohr at 300 K.
        assert 1e-3 < np.abs(drawn[0] - molecule.positions).max() < 1.5


def test_an_edited_file_gives_its_own_labels(tmp_path, labelled, monkeypatch):
    """Another geometry, charge or order under the same names and the same out."""
    out = tmp_path / "a.h5"
    interrupted(monkeypatch, {"0_X": H2, "1_X": HEH}, out)
    labelled.clear()
    edited = {"0_X": HEH, "1_X": moved(H2), "2_X": H2}
    dataset = generate(edited, out, SETTINGS)
    assert labelled == ["H2"]  # only the moved one
    require_pyscf(dataset)
    for name, molecule in edited.items():
        for sample in dataset.samples:
            if sample.name == name:
                assert sample.molecule.numbers.tolist() == molecule.numbers.tolist()
                assert sample.molecule.charge == molecule.charge
    assert energies(dataset) == energies(generate(edited, tmp_path / "fresh.h5", SETTINGS))


def test_order_and_names_do_not_change_labels(tmp_path, labelled):
    one = generate({"a": H2, "b": HEH, "c": moved(H2)}, tmp_path / "1.h5", SETTINGS)
    two = generate({"z": moved(H2), "y": HEH, "x": H2}, tmp_path / "2.h5", SETTINGS)
    by = energies(one), energies(two)
    assert [by[0][k] for k in "abc"] == [by[1][k] for k in "xyz"]


def test_equal_structures_are_different_samples_of_one_split(tmp_path, labelled):
    settings = dataclasses.replace(SETTINGS, test=0.5, validation=0.25)
    dataset = generate({"a": H2, "b": HEH, "c": H2, "d": H2, "e": moved(H2)}, tmp_path / "a.h5", settings)
    assert sorted(labelled) == ["H2"] * 4 + ["HHe"]
    assert [s.name for s in dataset.samples] == list("aabbccddee")
    values = [x for name in "acd" for x in energies(dataset)[name]]
    assert len(set(values)) == 6
    assert len({s.split for s in dataset.samples if s.name in "acd"}) == 1


CHANGES = {
    "small_basis": "4-31g",
    "effective_basis": "cc-pvdz",
    "large_basis": "6-311g",
    "xc": "lda,vwn",
    "geometries": 1,
    "temperature": 500.0,
    "grid_level": 1,
    "seed": 1,
}


@pytest.mark.parametrize("key", CHANGES)
def test_parts_of_other_settings_are_not_taken(tmp_path, labelled, monkeypatch, key):
    interrupted(monkeypatch, {"a": H2}, tmp_path / "a.h5")
    settings = dataclasses.replace(SETTINGS, **{key: CHANGES[key]})
    dataset = generate({"a": H2}, tmp_path / "a.h5", settings)
    assert labelled == ["H2", "H2"]
    assert set(dataset.samples[0].labels) == set(settings.bases)
    assert len(dataset.samples) == settings.geometries


def test_parts_of_other_versions_are_not_taken(tmp_path, labelled, monkeypatch):
    interrupted(monkeypatch, {"a": H2}, tmp_path / "a.h5")
    monkeypatch.setattr("pyscf.__version__", "0")
    generate({"a": H2}, tmp_path / "a.h5", SETTINGS)
    assert labelled == ["H2", "H2"]


def test_parts_serve_any_split_and_are_removed(tmp_path, labelled, monkeypatch):
    interrupted(monkeypatch, {"a": H2}, tmp_path / "a.h5")
    (tmp_path / "a.h5.parts" / f"{'0' * 64}.h5.unfinished").write_text("left by a kill")
    (tmp_path / "a.h5.unfinished").write_text("left by a kill")
    generate({"b": H2}, tmp_path / "a.h5", dataclasses.replace(SETTINGS, validation=0.0, test=0.0))
    assert labelled == ["H2"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_files_of_others_are_kept(tmp_path, labelled):
    (tmp_path / "a.h5.parts").mkdir()
    (tmp_path / "a.h5.parts" / "notes.txt").write_text("precious")
    generate({"a": H2}, tmp_path / "a.h5", SETTINGS)
    assert [file.name for file in (tmp_path / "a.h5.parts").iterdir()] == ["notes.txt"]


DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"not HDF5 " * 100,
    "zeros": lambda content: content[:2000] + bytes(len(content) - 2000),
}


@pytest.mark.parametrize("case", [*DAMAGES, "another molecule", "a label less"])
def test_damaged_parts_are_computed_again(tmp_path, labelled, monkeypatch, case):
    out = tmp_path / "a.h5"
    interrupted(monkeypatch, {"a": H2}, out)
    (part,) = (tmp_path / "a.h5.parts").iterdir()
    if case in DAMAGES:
        part.write_bytes(DAMAGES[case](part.read_bytes()))
    else:
        samples = read_dataset(part).samples
        if case == "another molecule":
            samples = [dataclasses.replace(s, molecule=HEH) for s in samples]
        else:
            samples = [
                dataclasses.replace(s, labels={b: {"energy": x["energy"]} for b, x in s.labels.items()})
                for s in samples
            ]
        part.unlink()
        module.write_dataset(part, module.Dataset(samples))
    dataset = generate({"a": H2}, out, SETTINGS)
    assert labelled == ["H2", "H2"]
    assert energies(dataset) == energies(generate({"a": H2}, tmp_path / "fresh.h5", SETTINGS))


def test_a_failure_is_one_line_and_the_others_are_kept(tmp_path, labelled, monkeypatch):
    labels = vpotjax.interop.pyscf.reference_labels

    def failing(molecule, *arguments, **options):
        if molecule.charge:
            raise RuntimeError("hf/sto-3g of HHe did not\nconverge")
        return labels(molecule, *arguments, **options)

    molecules = {"a": HEH, "b": H2, "c": moved(H2)}
    with monkeypatch.context() as patch:
        patch.setattr(vpotjax.interop.pyscf, "reference_labels", failing)
        expected = r"1 of 3 molecules cannot be labelled \('a': RuntimeError: hf/sto-3g of HHe did not converge\)"
        with pytest.raises(InputError, match=expected) as error:
            generate(molecules, tmp_path / "a.h5", SETTINGS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.h5").exists()
    labelled.clear()
    require_pyscf(generate(molecules, tmp_path / "a.h5", SETTINGS))
    assert labelled == ["HHe"]


def test_a_part_without_ascending_levels_is_a_failure(tmp_path, labelled, monkeypatch):
    labels = vpotjax.interop.pyscf.reference_labels

    def falling(*arguments, **options):
        made = labels(*arguments, **options)
        return made | {"mo_energies": made["mo_energies"][::-1]}

    monkeypatch.setattr(vpotjax.interop.pyscf, "reference_labels", falling)
    with pytest.raises(InputError, match=r"'a': InputError: .*'mo_energies' falls"):
        generate({"a": H2}, tmp_path / "a.h5", SETTINGS)


def test_a_worker_that_dies(tmp_path, monkeypatch):
    def die(job, settings):
        raise BrokenProcessPool

    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda workers, **options: ThreadPoolExecutor(1))
    monkeypatch.setattr(module, "_label_molecule", die)
    with pytest.raises(InputError, match=r"a worker process died.*fewer than workers=1"):
        generate({"a": H2}, tmp_path / "a.h5", SETTINGS)


OXYGEN = Molecule(np.array([8, 8]), np.diag([2.3, 0, 0])[:2], spin=2)
GHOST = Molecule(np.array([1, 1, 0]), np.diag([1.4, 0, 3.0]))
REFUSALS = {
    "xc": ({"xc": "nonsense"}, {}, "xc is 'nonsense', with which PySCF cannot compute"),
    "no xc": ({"xc": " "}, {}, "xc is ' '"),
    "libxc number": ({"xc": "99999"}, {}, "xc is '99999'"),
    "small basis": ({"small_basis": "sto3gg"}, {}, "molecule 'H2': basis 'sto3gg' is not known"),
    "large basis": ({"large_basis": "pbe/sto-3g"}, {}, "molecule 'H2': basis 'pbe/sto-3g' is not known"),
    "element": (
        {"large_basis": "cc-pvtz"},
        {"RbH": Molecule(np.array([37, 1]), np.diag([4.5, 0, 0])[:2])},
        "'RbH'.*Rb",
    ),
    "spin": ({}, {"O2": OXYGEN}, "molecule 'O2': spin is 2"),
    "ghost": ({}, {"gh": GHOST}, "molecule 'gh': .*ghost"),
    "bare nuclei": (
        {},
        {"H2++": Molecule(H2.numbers, H2.positions, charge=2)},
        r"'H2\+\+': charge=2 leaves 0 electrons",
    ),
    "one atom": ({}, {"He": Molecule(np.array([2]), np.zeros((1, 3)))}, "molecule 'He': one atom"),
    "a name": ({}, {"a\0b": H2}, "name of a molecule is 'a.x00b'"),
    "a number": ({}, {5: H2}, "name of a molecule is 5"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_refused_before_any_work(tmp_path, labelled, case):
    change, more, expected = REFUSALS[case]
    with pytest.raises(InputError, match=expected) as error:
        generate({"H2": H2, **more}, tmp_path / "a.h5", dataclasses.replace(SETTINGS, **change))
    assert "\n" not in str(error.value)
    assert not labelled
    assert not list(tmp_path.iterdir())


def test_workers_molecules_and_out(tmp_path, labelled):
    for workers in (0, -1):
        with pytest.raises(InputError, match=f"workers is {workers}; give at least 1"):
            generate({"a": H2}, tmp_path / "a.h5", SETTINGS, workers)
    with pytest.raises(InputError, match="molecules is empty"):
        generate({}, tmp_path / "a.h5", SETTINGS)
    with pytest.raises(InputError, match="is a folder; give"):
        generate({"a": H2}, tmp_path, SETTINGS)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match="exists; delete it"):
        generate({"a": H2}, tmp_path / "file", SETTINGS)
    with pytest.raises(InputError, match="cannot be made"):
        generate({"a": H2}, tmp_path / "file" / "a.h5", SETTINGS)
    assert not labelled


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("geometries", 0, "geometries is 0; give an integer of at least 1"),
        ("geometries", 1.5, "geometries is 1.5"),
        ("temperature", -1.0, "temperature is -1.0 K; give a finite value"),
        ("temperature", float("nan"), "temperature is nan"),
        ("temperature", float("inf"), "temperature is inf"),
        ("grid_level", -1, "grid_level is -1; give an integer from 0 to 9"),
        ("grid_level", 10, "grid_level is 10"),
        ("seed", -1, "seed is -1"),
        ("test", 1.0, "leave no training molecules"),
        ("validation", -0.1, "leave no training molecules"),
        ("validation", float("nan"), "leave no training molecules"),
        ("large_basis", "STO-3G", "effective_basis and large_basis are 'sto-3g'; give"),
        ("xc", None, "xc is None; give a name"),
    ],
)
def test_settings_out_of_range(key, value, expected):
    with pytest.raises(InputError, match=expected):
        ReferenceSettings(**{key: value})


def test_splits_have_the_sizes_asked_for():
    splits = assign_splits([f"m{i}" for i in range(50)], 0.1, 0.2, seed=3)
    assert [list(splits.values()).count(name) for name in ("train", "validation", "test")] == [35, 5, 10]
    assert splits == assign_splits([f"m{i}" for i in reversed(range(50))], 0.1, 0.2, seed=3)
