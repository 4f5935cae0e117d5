"""`vpotjax reference`: labels against PySCF, what a part is known by, resuming, and refusals before any work."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pyscf import gto, scf

import vpotjax.interop.pyscf
from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.interop.pyscf_labels import auxiliary_basis
from vpotjax.io.dataset import Dataset, read_dataset, write_dataset
from vpotjax.molecule import Molecule
from vpotjax.reference import generate as module
from vpotjax.reference import parts as parts_module
from vpotjax.reference import workers as workers_module
from vpotjax.reference.generate import generate
from vpotjax.reference.parts import assign_splits, jobs_of
from vpotjax.reference.settings import ReferenceSettings

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

    in_threads(monkeypatch)
    monkeypatch.setattr(vpotjax.interop.pyscf, "harmonic_hessian", counted)
    return computed


def in_threads(monkeypatch):
    """No processes."""
    monkeypatch.setattr(workers_module, "ProcessPoolExecutor", lambda workers, **options: ThreadPoolExecutor(1))


def made(molecules, out, settings=None, **options):
    """What `generate` writes."""
    outcome = generate(molecules, out, settings or SETTINGS, **options)
    assert not outcome.failures
    return read_dataset(out)


def interrupted(monkeypatch, molecules, out, settings=SETTINGS):
    """A run that labels everything and is stopped before it writes `out`."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(molecules, out, settings)
    assert not out.exists()


def part_of(out):
    (part,) = out.with_name(out.name + ".parts").glob("*.h5")
    return part


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
    dataset = made(molecules, out, workers=2, report=lambda *report: reports.append(report))
    assert names(dataset) == list(molecules)
    assert [(done, total, reason) for done, total, _, reason in reports] == [(i, 3, None) for i in (1, 2, 3)]
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
    dataset = made(edited, out, SETTINGS)
    assert labelled == ["H2"]  # only the moved one
    require_pyscf(dataset)
    for name, molecule in edited.items():
        for sample in dataset.samples:
            if sample.name == name:
                assert sample.molecule.numbers.tolist() == molecule.numbers.tolist()
                assert sample.molecule.charge == molecule.charge
    assert energies(dataset) == energies(made(edited, tmp_path / "fresh.h5", SETTINGS))


def test_order_and_names_do_not_change_labels(tmp_path, labelled):
    one = made({"a": H2, "b": HEH, "c": moved(H2)}, tmp_path / "1.h5", SETTINGS)
    two = made({"z": moved(H2), "y": HEH, "x": H2}, tmp_path / "2.h5", SETTINGS)
    by = energies(one), energies(two)
    assert [by[0][k] for k in "abc"] == [by[1][k] for k in "xyz"]


def test_equal_structures_are_different_samples_of_one_split(tmp_path, labelled):
    settings = dataclasses.replace(SETTINGS, test=0.5, validation=0.25)
    dataset = made({"a": H2, "b": HEH, "c": H2, "d": H2, "e": moved(H2)}, tmp_path / "a.h5", settings)
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
def test_other_settings_are_refused_with_the_difference(tmp_path, labelled, monkeypatch, key):
    """For the parts, and for the finished file; both stay as they are."""
    out = tmp_path / "a.h5"
    settings = dataclasses.replace(SETTINGS, **{key: CHANGES[key]})
    expected = (
        f"made with other settings: {key} .* there, .* now. Take those, choose another name for out, or delete it"
    )
    interrupted(monkeypatch, {"a": H2}, out)
    with pytest.raises(InputError, match=f"a.h5.parts' was {expected}"):
        generate({"a": H2}, out, settings)
    generate({"a": H2}, out, SETTINGS)
    content = out.read_bytes()
    with pytest.raises(InputError, match=f"a.h5' was {expected}"):
        generate({"a": H2}, out, settings)
    assert out.read_bytes() == content
    assert labelled == ["H2"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_labels_of_other_versions_are_not_taken(tmp_path, labelled, monkeypatch):
    interrupted(monkeypatch, {"a": H2}, tmp_path / "a.h5")
    monkeypatch.setattr("pyscf.__version__", "0")
    with pytest.raises(InputError, match=r"pyscf_version '.*' there, '0' now"):
        generate({"a": H2}, tmp_path / "a.h5", SETTINGS)


def test_the_same_call_again_does_nothing_and_a_longer_one_adds(tmp_path, labelled):
    """Molecules that are there keep labels and split; those that are not asked for stay; names may change."""
    out = tmp_path / "a.h5"
    first = made({"a": H2, "b": HEH}, out)
    content = out.read_bytes()
    assert generate({"a": H2, "b": HEH}, out, SETTINGS).labelled == 2
    assert out.read_bytes() == content
    longer = made({"new": moved(H2), "old": H2}, out)
    assert labelled == ["HHe", "H2", "H2"]  # the largest first
    assert names(longer) == ["new", "old", "b"]
    for before, after in (("a", "old"), ("b", "b")):
        one, two = ([s for s in d.samples if s.name == name] for d, name in ((first, before), (longer, after)))
        assert [s.split for s in one] == [s.split for s in two]
        for old, new in zip(one, two, strict=True):
            np.testing.assert_array_equal(old.molecule.positions, new.molecule.positions)
            assert old.labels["6-31g"]["energy"] == new.labels["6-31g"]["energy"]


def test_structures_as_they_are_with_charge_and_spin(tmp_path, monkeypatch):
    """A radical, an ion and an atom; the file says what made the labels."""
    in_threads(monkeypatch)
    settings = ReferenceSettings(
        effective_basis=None,
        large_basis="6-31g",
        xc="hf",
        grid_level=0,
        observables=("energy", "mo_energies", "forces"),
    )
    helium = Molecule(np.array([2]), np.zeros((1, 3)))
    hydroxyl = Molecule(np.array([8, 1]), np.diag([0, 0, 1.8])[1:], spin=1)
    molecules = {"H2": H2, "OH": hydroxyl, "HeH+": HEH, "He": helium}
    dataset = made(molecules, tmp_path / "a.h5", settings)
    for sample, (name, molecule) in zip(dataset.samples, molecules.items(), strict=True):
        assert (sample.name, sample.molecule.spin, sample.molecule.charge) == (name, molecule.spin, molecule.charge)
        np.testing.assert_array_equal(sample.molecule.positions, molecule.positions)
        mol = to_pyscf(molecule, "6-31g")
        mf = (scf.UHF if molecule.spin else scf.RHF)(mol).density_fit(auxbasis=auxiliary_basis(mol, "6-31g", "hf"))
        assert float(sample.labels["6-31g"]["energy"]) == pytest.approx(mf.kernel(), abs=1e-7)
        assert set(sample.labels["sto-3g"]) == {"energy", "mo_energies", "forces", "fock", "overlap"}
    assert dataset.samples[1].labels["sto-3g"]["fock"].shape == (2, 6, 6)
    method = dataset.methods["6-31g"]
    assert (method["xc"], method["density_fitting"] is None) == ("hf", False)
    assert set(method["basis_functions"]) == {"1", "2", "8"}


def test_two_runs_on_one_file(tmp_path, labelled, monkeypatch):
    """The second one is refused while the first runs, and does no harm."""
    out, refusals = tmp_path / "a.h5", []

    def second(*_):
        with pytest.raises(InputError, match="is being made by another process") as error:
            generate({"b": HEH}, out, SETTINGS)
        refusals.append(str(error.value))

    assert names(made({"a": H2}, out, report=second)) == ["a"]
    assert len(refusals) == 1


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, labelled, monkeypatch):
    out, write = tmp_path / "a.h5", parts_module.write_dataset

    def full(path, dataset):
        if not dataset.samples[0].molecule.charge:
            raise InputError("data set cannot be written: No space left on device; check the folder")
        write(path, dataset)

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "write_dataset", full)
        with pytest.raises(InputError, match="No space left"):
            generate({"a": H2, "b": HEH}, out, SETTINGS)
    assert not out.exists()
    made({"a": H2, "b": HEH}, out)
    assert labelled == ["HHe", "H2", "H2"]


def test_parts_are_removed(tmp_path, labelled, monkeypatch):
    interrupted(monkeypatch, {"a": H2}, tmp_path / "a.h5")
    (tmp_path / "a.h5.parts" / f"{'0' * 64}.h5.unfinished").write_text("left by a kill")
    (tmp_path / "a.h5.parts" / "whole.h5.unfinished").write_text("left by a kill")
    (tmp_path / "a.h5.parts" / "whole.h5").write_text("left by a kill")
    made({"b": H2}, tmp_path / "a.h5")
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
    part = part_of(out)
    if case in DAMAGES:
        part.write_bytes(DAMAGES[case](part.read_bytes()))
    else:
        samples = read_dataset(part).samples
        if case == "another molecule":
            samples = [dataclasses.replace(s, molecule=HEH) for s in samples]
        else:
            samples = [
                dataclasses.replace(s, labels=s.labels | {"6-31g": {"energy": s.labels["6-31g"]["energy"]}})
                for s in samples
            ]
        part.unlink()
        write_dataset(part, Dataset(samples))
    dataset = made({"a": H2}, out, SETTINGS)
    assert labelled == ["H2", "H2"]
    assert energies(dataset) == energies(made({"a": H2}, tmp_path / "fresh.h5", SETTINGS))


def failing(monkeypatch, change):
    """`reference_labels` of ions is what `change` makes of it."""
    labels = module.reference_labels

    def changed(molecule, *arguments, **options):
        made_labels = labels(molecule, *arguments, **options)
        return change(made_labels) if molecule.charge else made_labels

    monkeypatch.setattr(module, "reference_labels", changed)


def not_converged(_):
    raise RuntimeError("hf/sto-3g of HHe did not\nconverge")


FAILURES = {
    "not converged": (not_converged, "RuntimeError: hf/sto-3g of HHe did not converge"),
    "levels fall": (
        lambda labels: labels | {"mo_energies": labels["mo_energies"][::-1]},
        "sample 'a', labels 'sto-3g': 'mo_energies' falls",
    ),
    "NaN": (lambda labels: labels | {"energy": np.array(np.nan)}, "sample 'a', labels 'sto-3g': 'energy' is nan"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_has_a_reason_and_does_not_end_the_others(tmp_path, labelled, monkeypatch, case):
    """It is told at once and at the end, is in the file, and is tried again by the next call."""
    change, expected = FAILURES[case]
    molecules, out, reports = {"a": HEH, "b": H2, "c": moved(H2)}, tmp_path / "a.h5", []
    with monkeypatch.context() as patch:
        failing(patch, change)
        outcome = generate(molecules, out, SETTINGS, report=lambda *report: reports.append(report))
    assert (outcome.labelled, list(outcome.failures)) == (2, ["a"])
    assert outcome.failures["a"].startswith(expected)
    assert "\n" not in outcome.failures["a"]
    assert {name: reason for _, _, name, reason in reports} == {"b": None, "c": None} | outcome.failures
    dataset = read_dataset(out)
    assert names(dataset) == ["b", "c"]
    assert json.loads(dataset.attribute("failed")) == outcome.failures
    labelled.clear()
    assert names(made(molecules, out)) == ["a", "b", "c"]
    assert labelled == ["HHe"]
    assert json.loads(read_dataset(out).attribute("failed")) == {}


def test_all_molecules_fail(tmp_path, labelled, monkeypatch):
    """Then other settings may be tried on the same file."""
    failing(monkeypatch, not_converged)
    with pytest.raises(InputError, match=r"no molecule can be labelled: 'a': RuntimeError: .*; look at") as error:
        generate({"a": HEH}, tmp_path / "a.h5", SETTINGS)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.h5").exists()
    assert names(made({"b": H2}, tmp_path / "a.h5", dataclasses.replace(SETTINGS, seed=3))) == ["b"]


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
    "spin": ({}, {"O2": OXYGEN}, "molecule 'O2': spin is 2; displacements are of closed shells"),
    "ghost": ({}, {"gh": GHOST}, "molecule 'gh': .*ghost"),
    "bare nuclei": (
        {},
        {"H2++": Molecule(H2.numbers, H2.positions, charge=2)},
        r"'H2\+\+': charge=2 and spin=0 do not fit the 0 electrons in 'sto-3g'",
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
    with pytest.raises(InputError, match="exists and was not made by 'vpotjax reference'; choose another name"):
        generate({"a": H2}, tmp_path / "file", SETTINGS)
    assert (tmp_path / "file").read_text() == "precious"
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
        ("matrices", ("fock", "gap"), "matrices has 'gap'; give some of energy, mo_energies"),
        ("observables", ("homo",), "observables has 'homo'; give some of"),
    ],
)
def test_settings_out_of_range(key, value, expected):
    with pytest.raises(InputError, match=expected):
        ReferenceSettings(**{key: value})


def test_splits_have_the_sizes_asked_for():
    splits = assign_splits([f"m{i}" for i in range(50)], 0.1, 0.2, seed=3)
    assert [list(splits.values()).count(name) for name in ("train", "validation", "test")] == [35, 5, 10]
    assert splits == assign_splits([f"m{i}" for i in reversed(range(50))], 0.1, 0.2, seed=3)


@pytest.mark.parametrize("count", [2, 30])
def test_frames_of_one_name_are_in_the_same_split_unless_there_is_little_else(tmp_path, count):
    """Numbered frames, as the command line names them; "#" in other names means nothing."""
    water = g2("H2O")
    frames = {
        f"m{i}" + (f"#{k}" if k else ""): Molecule(water.numbers, water.positions * (1 + 0.01 * i + 0.001 * k))
        for i in range(count)
        for k in range(6)
    }
    jobs = jobs_of(frames | {"a#b": g2("NH3"), "z#3": g2("CH4")}, tmp_path, ReferenceSettings())
    parts = {}
    for job in jobs:
        parts.setdefault(job.name.partition("#")[0], set()).add(job.split)
    assert {len(own) for own in parts.values()} == {1}
    trajectory = {name: frames[name] for name in list(frames)[:12]}
    assert {job.split for job in jobs_of(trajectory, tmp_path, ReferenceSettings())} == {"train", "validation", "test"}
