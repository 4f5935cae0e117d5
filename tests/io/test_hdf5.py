"""The layout of data set files: versions, and every kind of damage named in one line."""

import h5py
import numpy as np
import pytest

from tests.io.samples import assert_equal, one_line, tiny_dataset
from vpotjax._checks import InputError
from vpotjax.io.dataset import read_dataset, write_dataset


@pytest.fixture
def tiny():
    return tiny_dataset()


@pytest.mark.parametrize(
    ("attribute", "value"), [("version", 4), ("version", 0), ("format", "another"), ("format", None)]
)
def test_other_versions_and_formats_are_refused(tmp_path, tiny, attribute, value):
    write_dataset(tmp_path / "tiny.h5", tiny)
    with h5py.File(tmp_path / "tiny.h5", "r+") as file:
        if value is None:
            del file.attrs[attribute]
        else:
            file.attrs[attribute] = value
    expected = r"tiny\.h5': format is .*, expected 'vpotjax-dataset' version 1, 2 or 3; make it again"
    with pytest.raises(InputError, match=expected):
        read_dataset(tmp_path / "tiny.h5")


def replace(file, path, value):
    del file[path]
    file[path] = value


def poison(file, path, value):
    data = file[path][()]
    data.flat[0] = value
    replace(file, path, data)


FOCK = "labels/small/fock"
DAMAGES = {
    "no names": (lambda f: f.pop("name"), "no array 'name'"),
    "names are numbers": (lambda f: replace(f, "name", [1, 2, 3]), "'/name' is not a list of text"),
    "too few names": (lambda f: replace(f, "name", ["a"]), "'split' has 3 entries for 1 names"),
    "a split that is none": (lambda f: replace(f, "split", ["train", "val", "test"]), "'H₃O⁺' is in the split 'val'"),
    "no sizes": (lambda f: f.pop("natm"), "no array 'natm'"),
    "wrong sizes": (lambda f: poison(f, "natm", 4), "'numbers' of group '/' has 9 entries, but .* make 10"),
    "negative sizes": (lambda f: replace(f, "natm", [-1, 8, 2]), "'numbers' of group '/'"),
    "sizes of other type": (lambda f: replace(f, "natm", [3.0, 4.0, 2.0]), "'/natm' has dtype float64"),
    "too few charges": (lambda f: replace(f, "charge", [0]), r"'/charge' has shape \(1,\), expected \(3\)"),
    "odd electrons": (lambda f: replace(f, "charge", [1, 1, 0]), "sample 'water': charge=1"),
    "no element": (lambda f: poison(f, "numbers", 130), "sample 'water': numbers contains 130"),
    "NaN positions": (lambda f: poison(f, "positions", np.nan), "sample 'water': positions of atom 0"),
    "flat positions": (lambda f: replace(f, "positions", np.zeros(27)), r"'/positions' has shape \(27,\)"),
    "an extra array": (lambda f: replace_new(f, "forces", [1.0]), "group '/' holds 'forces'"),
    "an extra group": (lambda f: f.create_group("pbe"), "group '/' holds 'pbe'"),
    "no labels": (lambda f: f.pop("labels"), "group '/' lacks 'labels'"),
    "labels are numbers": (lambda f: replace(f, "labels", [1.0]), "'/labels' is not a group"),
    "an array among labels": (lambda f: replace_new(f, "labels/x", [1.0]), "'/labels' holds 'x', which is not a group"),
    "no values": (lambda f: f.pop(f"{FOCK}/values"), "group '/labels/small/fock' lacks 'values'"),
    "an extra array of a label": (lambda f: replace_new(f, f"{FOCK}/x", 1), "group '/labels/small/fock' holds 'x'"),
    "too few shapes": (lambda f: replace(f, f"{FOCK}/shapes", [[1, 1]]), "fock/triangle' has shape"),
    "rows twice": (lambda f: replace_new(f, f"{FOCK}/rows", [0, 1, 1]), "fock' has 3 shapes and rows that do not fit"),
    "rows beyond": (lambda f: replace_new(f, f"{FOCK}/rows", [0, 1, 3]), "fock' has 3 shapes and rows that do not fit"),
    "too few spins": (lambda f: replace(f, "spin", [0]), r"'/spin' has shape \(1,\), expected \(3\)"),
    "another spin": (lambda f: poison(f, "spin", 1), "sample 'water': .*spin"),
    "no splits": (lambda f: f.pop("splits"), "group '/' lacks 'splits'"),
    "a split of others": (
        lambda f: replace_new(f, "splits/size", ["train"]),
        "split 'size' has 1 entries for 3 samples",
    ),
    "a method": (lambda f: f["labels/small"].attrs.update(method="{"), "'/labels/small' has a method that is not JSON"),
    "oblong triangles": (lambda f: poison(f, f"{FOCK}/shapes", 3), "fock' has shapes of triangles that are not square"),
    "negative shapes": (lambda f: poison(f, "labels/small/dipole/shapes", -3), "dipole' has shapes with negative axes"),
    "too few values": (lambda f: replace(f, f"{FOCK}/values", [1.0]), "'values' of group '/labels/small/fock' has 1"),
    "text as values": (lambda f: replace(f, f"{FOCK}/values", ["a"]), "fock/values' has dtype object"),
    "a matrix of other size": (
        lambda f: replace(f, f"{FOCK}/shapes", [[11, 11], [11, 11], [2, 2]]),
        "'values' of group '/labels/small/fock'",
    ),
    "NaN label": (lambda f: poison(f, f"{FOCK}/values", np.nan), r"'water', labels 'small': 'fock' is nan at"),
    "units of another program": (
        lambda f: f["labels/small/energy/values"].attrs.update(units="eV"),
        "energy/values' is marked with units 'eV'",
    ),
    "units of the file": (lambda f: f.attrs.update(units="eV"), "attribute 'units' is 'eV'"),
    "a quantity of one sample": (lambda f: f["labels/small"].pop("fock"), None),
}


def replace_new(file, path, value):
    file[path] = value


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_files_are_named_in_one_line(tmp_path, tiny, case):
    damage, expected = DAMAGES[case]
    write_dataset(tmp_path / "tiny.h5", tiny)
    with h5py.File(tmp_path / "tiny.h5", "r+") as file:
        damage(file)
    if expected is None:
        assert "fock" not in read_dataset(tmp_path / "tiny.h5").samples[0].labels["small"]
        return
    with pytest.raises(InputError, match=expected) as error:
        read_dataset(tmp_path / "tiny.h5")
    one_line(error, str(tmp_path / "tiny.h5"))


def test_files_with_lost_or_changed_bytes(tmp_path, tiny):
    """Cut at any length, or zeroed anywhere: the right samples, or one line; never another exception."""
    write_dataset(tmp_path / "tiny.h5", tiny)
    content = (tmp_path / "tiny.h5").read_bytes()
    refused = []
    for i, at in enumerate(np.linspace(0, len(content) - 1, 60).astype(int)):
        changed = tmp_path / f"{i}.h5"
        changed.write_bytes(content[:at] if i % 2 else content[:at] + bytes(64) + content[at + 64 :])
        try:
            back = read_dataset(changed)
        except InputError as error:
            refused.append(str(error))
        else:
            assert_equal(tiny, back)
    assert len(refused) >= 30  # every cut one
    assert all("\n" not in message and str(tmp_path) in message for message in refused)


def version_2(path, tiny):
    """The layout of version 2, written here by hand from its description."""
    samples = tiny.samples
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "vpotjax-dataset", "version": 2, **tiny.attributes})
        for key in ("name", "split"):
            file.create_dataset(key, data=[getattr(s, key) for s in samples], dtype=h5py.string_dtype())
        file["natm"] = np.array([s.molecule.natm for s in samples])
        file["charge"] = np.array([s.molecule.charge for s in samples])
        file["numbers"] = np.concatenate([s.molecule.numbers for s in samples]).astype(np.int16)
        file["positions"] = np.concatenate([s.molecule.positions for s in samples])
        for basis, labels in samples[0].labels.items():
            for key in labels:
                values = [np.asarray(s.labels[basis][key]) for s in samples]
                group = file.create_group(f"labels/{basis}/{key}")
                group["shapes"] = np.array([v.shape for v in values], dtype=np.int64).reshape(len(values), -1)
                triangle = group.attrs["lower_triangle"] = values[0].ndim == 2
                parts = [v[np.tril_indices(len(v))] if triangle else v.ravel() for v in values]
                group["values"] = np.concatenate(parts)


def version_1(path, tiny):
    """The layout of version 1, written here by hand from its description."""
    samples = tiny.samples
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "vpotjax-dataset", "version": 1, **tiny.attributes})
        for key in ("name", "split"):
            file.create_dataset(key, data=[getattr(s, key) for s in samples], dtype=h5py.string_dtype())
        file["natm"] = np.array([s.molecule.natm for s in samples], dtype=np.int16)
        file["charge"] = np.array([s.molecule.charge for s in samples], dtype=np.int8)
        file["numbers"] = np.concatenate([s.molecule.numbers for s in samples]).astype(np.int8)
        file["positions"] = np.concatenate([s.molecule.positions for s in samples])
        for basis, labels in samples[0].labels.items():
            group = file.create_group(basis)
            group["nao"] = np.array([len(s.labels[basis]["mo_energies"]) for s in samples], dtype=np.int16)
            for key in labels:
                values = [s.labels[basis][key] for s in samples]
                if key in ("fock", "overlap"):
                    values = [value[i, : i + 1] for value in values for i in range(len(value))]  # row by row
                joined = key in ("fock", "overlap", "mo_energies")
                group[key] = np.concatenate(values) if joined else np.stack(values)


@pytest.mark.parametrize("write", [version_1, version_2])
def test_older_versions_are_read(tmp_path, tiny, write):
    write(tmp_path / "old.h5", tiny)
    back = read_dataset(tmp_path / "old.h5")
    assert dict(back.attributes) == dict(tiny.attributes)
    assert_equal(tiny, back)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda f: f["small"].pop("nao"), "group '/small' has no array 'nao'"),
        (lambda f: f.move("small", "pbe/small"), "group '/pbe' has no array 'nao'"),
        (lambda f: poison(f, "small/nao", 9), "'fock' of group '/small'|'mo_energies' of group '/small'"),
        (lambda f: replace(f, "small/dipole", np.zeros((2, 3))), "'/small/dipole' has shape"),
        (lambda f: replace_new(f, "forces", [1.0]), "group '/' holds 'forces'"),
        (lambda f: poison(f, "large/energy", np.nan), "labels 'large': 'energy' is nan"),
    ],
)
def test_damaged_files_of_version_1(tmp_path, tiny, damage, expected):
    version_1(tmp_path / "old.h5", tiny)
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        damage(file)
    with pytest.raises(InputError, match=expected) as error:
        read_dataset(tmp_path / "old.h5")
    one_line(error, "old.h5")


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match=r"data set '.*none\.h5' cannot be read: .*check the path"):
        read_dataset(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(InputError, match=r"data set '.*text\.h5' cannot be read"):
        read_dataset(tmp_path / "text.h5")
