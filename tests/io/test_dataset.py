"""Data set files: round trip, refusals, and the embedded set against recomputed integrals."""

import dataclasses
import subprocess
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.io.samples import assert_equal, one_line, random_sample, tiny_dataset
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import pad_batch
from vpotjax.integrals.overlap import overlap
from vpotjax.io.dataset import Dataset, DatasetFile, DatasetWriter, embedded_dataset_path, read_dataset, write_dataset
from vpotjax.io.sample import SPLITS, Sample
from vpotjax.molecule import Molecule
from vpotjax.reference.structures import bond_graph_labels


@pytest.fixture
def tiny():
    return tiny_dataset()


def test_round_trip_is_exact(tmp_path, tiny):
    write_dataset(tmp_path / "tiny.h5", tiny)
    back = read_dataset(tmp_path / "tiny.h5")
    assert (back.attributes["xc"], back.attributes["seed"]) == ("b3lyp", 3)
    assert_equal(tiny, back)


def test_splits(tiny):
    assert [[s.name for s in tiny.split(split)] for split in SPLITS] == [["water"], ["H₃O⁺"], ["H2"]]
    with pytest.raises(InputError, match="split is 'val'; give one of train, validation, test"):
        tiny.split("val")


def test_existing_files_are_kept(tmp_path, tiny):
    (tmp_path / "tiny.h5").write_text("precious")
    with pytest.raises(InputError, match=r"tiny\.h5' exists; delete it or choose another name"):
        write_dataset(tmp_path / "tiny.h5", tiny)
    assert (tmp_path / "tiny.h5").read_text() == "precious"


def relabelled(tiny, index=1, **change):
    """`tiny` with labels of the set "small" of one sample changed."""
    samples = list(tiny.samples)
    labels = samples[index].labels
    samples[index] = dataclasses.replace(samples[index], labels={**labels, "small": {**labels["small"], **change}})
    return Dataset(samples, tiny.attributes)


def labelled(tiny, name, key, value_of):
    """`tiny` with one more label: what `value_of` makes of a sample."""
    samples = [
        dataclasses.replace(s, labels={**s.labels, name: {**s.labels.get(name, {}), key: value_of(s)}})
        for s in tiny.samples
    ]
    return Dataset(samples, tiny.attributes)


@pytest.mark.parametrize(
    "name", ["pbe/sto-3g", "/", ".", "..", "", "%", "%2F", "a.b", "nao", "name", "Å ∂²\n", "values", "x" * 300]
)
def test_labels_may_have_any_name(tmp_path, tiny, name):
    """As names of a label set, of a quantity, and of a molecule."""
    written = labelled(labelled(tiny, name, "energy", lambda s: 1.5), "small", name, lambda s: np.arange(2.0))
    samples = [dataclasses.replace(s, name=name) for s in written.samples]
    write_dataset(tmp_path / "tiny.h5", Dataset(samples))
    for sample in read_dataset(tmp_path / "tiny.h5").samples:
        assert sample.name == name
        assert set(sample.labels) == {"small", "large", name}
        assert sample.labels[name]["energy"] == 1.5
        np.testing.assert_array_equal(sample.labels["small"][name], [0.0, 1.0])


SHAPES = {
    "charges": lambda s: (s.molecule.natm,),
    "bond orders": lambda s: (s.molecule.natm, s.molecule.natm),
    "forces": lambda s: (s.molecule.natm, 3),
    "hessian": lambda s: (s.molecule.natm, 3, s.molecule.natm, 3),
    "coefficients": lambda s: (len(s.labels["small"]["mo_energies"]), 4),
    "quadrupole": lambda s: (3, 3),
    "time": lambda s: (),
    "no entries": lambda s: (0, s.molecule.natm),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", "uint8", "bool"])
@pytest.mark.parametrize("key", SHAPES)
def test_every_shape_and_dtype_comes_back(tmp_path, tiny, key, dtype):
    rng = np.random.default_rng(7)
    written = labelled(tiny, "small", key, lambda s: rng.integers(0, 100, SHAPES[key](s)).astype(dtype))
    write_dataset(tmp_path / "tiny.h5", written)
    for old, new in zip(written.samples, read_dataset(tmp_path / "tiny.h5").samples, strict=True):
        back = new.labels["small"][key]
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, old.labels["small"][key], strict=True)


def test_rounding_in_a_matrix_is_kept(tmp_path, tiny):
    """An F that is symmetric up to rounding comes back element by element, both triangles."""
    fock = tiny.samples[1].labels["small"]["fock"].copy()
    fock[0, 1] = np.nextafter(fock[0, 1], 9)
    write_dataset(tmp_path / "tiny.h5", relabelled(tiny, fock=fock))
    back = read_dataset(tmp_path / "tiny.h5").samples[1].labels["small"]["fock"]
    assert back[0, 1] != back[1, 0]
    np.testing.assert_array_equal(back, fock)


def test_ghosts_large_charges_and_many_functions_come_back(tmp_path):
    """Beyond what one byte or two hold: charge −200, 40000 levels."""
    molecule = Molecule(np.array([118, 0, 2]), 9 * np.eye(3), charge=-200)
    write_dataset(tmp_path / "a.h5", Dataset([Sample("a", "train", molecule, {"b": {"mo_energies": np.arange(4e4)}})]))
    (sample,) = read_dataset(tmp_path / "a.h5").samples
    assert (sample.molecule.numbers.tolist(), sample.molecule.charge) == ([118, 0, 2], -200)
    np.testing.assert_array_equal(sample.labels["b"]["mo_energies"], np.arange(4e4))


def off_symmetric(n, error):
    return np.eye(n) + error * np.eye(n, k=1)


BAD_LABELS = {
    "asymmetric": ({"fock": off_symmetric(11, 1e-6)}, r"'fock' is not symmetric.*1e-06"),
    "asymmetric S": ({"overlap": off_symmetric(11, 0.1).astype("f4")}, r"'overlap' is not symmetric"),
    "NaN": ({"energy": np.nan}, r"'energy' is nan at index \(\)"),
    "inf": ({"dipole": [0, np.inf, 0]}, r"'dipole' is inf at index \(1,\)"),
    "descending": ({"mo_energies": np.arange(11.0)[::-1]}, "'mo_energies' falls from 10.0 to 9.0 at level 1"),
    "size": ({"fock": np.eye(10)}, r"'fock' has shape \(10, 10\), expected \(11, 11\)"),
    "not square": ({"overlap": np.ones((11, 10))}, r"'overlap' has shape \(11, 10\)"),
    "levels": ({"mo_energies": np.zeros((1, 11))}, "'mo_energies' has shape"),
    "dipole": ({"dipole": np.zeros(2)}, r"'dipole' has shape \(2,\), expected \(3\)"),
    "energy": ({"energy": np.zeros(1)}, r"'energy' has shape \(1,\), expected \(\)"),
    "text": ({"energy": "low"}, "'energy' has dtype"),
    "None": ({"energy": None}, "'energy' has dtype object"),
    "ragged": ({"polarizability": [[1], [1, 2]]}, "'polarizability' is no array"),
    "complex": ({"polarizability": 1j * np.eye(3)}, "'polarizability' has dtype complex128"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_are_not_written(tmp_path, tiny, case):
    change, expected = BAD_LABELS[case]
    with pytest.raises(InputError, match=expected) as error:
        write_dataset(tmp_path / "tiny.h5", relabelled(tiny, **change))
    one_line(error, "H₃O⁺", "'small'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"split": "val"}, "is in the split 'val'; give one of train"),
        ({"name": 3}, "name of a sample is 3; give text"),
        ({"name": "a\0b"}, "leave out NUL"),
        ({"name": "\ud800"}, "UTF-8 cannot encode"),
    ],
)
def test_bad_samples_are_not_written(tmp_path, tiny, change, expected):
    samples = [tiny.samples[0], dataclasses.replace(tiny.samples[1], **change)]
    with pytest.raises(InputError, match=expected):
        write_dataset(tmp_path / "tiny.h5", Dataset(samples))
    assert not list(tmp_path.iterdir())


def test_a_label_has_one_dtype_and_any_number_of_axes(tmp_path, tiny):
    values = {"water": np.eye(2), "H2": np.zeros(2), "H₃O⁺": np.zeros((2, 3, 3))}
    written = labelled(tiny, "small", "x", lambda s: values[s.name])
    write_dataset(tmp_path / "tiny.h5", written)
    assert_equal(written, read_dataset(tmp_path / "tiny.h5"))
    other = labelled(tiny, "small", "x", lambda s: values[s.name].astype("f4" if s.name == "H2" else "f8"))
    with pytest.raises(InputError, match="'x' of sample 'H2' has dtype float32, of 'water' float64; give all the same"):
        write_dataset(tmp_path / "other.h5", other)
    assert not (tmp_path / "other.h5").exists()


def test_labels_may_be_of_some_samples(tmp_path, tiny):
    """Of none, of one of them, and a set of its own."""
    water, hydronium, hydrogen = tiny.samples
    fewer = dataclasses.replace(water, labels={})
    more = {**hydrogen.labels, "ccsd": {"energy": -1.0}}
    samples = [fewer, hydronium, dataclasses.replace(hydrogen, labels=more)]
    write_dataset(tmp_path / "a.h5", Dataset(samples))
    assert_equal(Dataset(samples), read_dataset(tmp_path / "a.h5"))


def test_open_shells_and_unrestricted_labels(tmp_path):
    """α and β have levels and Fock matrices of their own and one overlap."""
    rng = np.random.default_rng(0)
    fock = rng.standard_normal((2, 4, 4))
    fock += np.swapaxes(fock, 1, 2)
    labels = {"mo_energies": np.sort(rng.standard_normal((2, 4))), "fock": fock, "overlap": np.eye(4)}
    triplet = Sample("O2", "train", Molecule(np.array([8, 8]), np.eye(3)[:2], spin=2), {"b": labels})
    write_dataset(tmp_path / "a.h5", Dataset([triplet]))
    assert_equal(Dataset([triplet]), read_dataset(tmp_path / "a.h5"))
    for change, expected in {
        "mo_energies": (labels["mo_energies"][0], r"'mo_energies' has shape \(4,\), expected \(2, 4\)"),
        "fock": (fock + np.eye(4, k=1), "'fock' is not symmetric"),
    }.items():
        value, match = expected
        bad = dataclasses.replace(triplet, labels={"b": labels | {change: value}})
        with pytest.raises(InputError, match=match):
            write_dataset(tmp_path / "b.h5", Dataset([bad]))
    falling = dataclasses.replace(triplet, labels={"b": {"mo_energies": [[0.0, 1.0], [1.0, 0.0]]}})
    with pytest.raises(InputError, match=r"falls from 1\.0 to 0\.0 at level 1"):
        write_dataset(tmp_path / "b.h5", Dataset([falling]))


def test_further_splits_and_methods(tmp_path, tiny):
    splits = {"by size": ["test", "", "train"], "/": ["train"] * 3}
    methods = {"small": {"xc": "b3lyp", "basis": {"H": [[0, [3.4, 0.2]]]}}, "none": {}}
    write_dataset(tmp_path / "a.h5", Dataset(tiny.samples, {"xc": "pbe"}, splits, methods))
    back = read_dataset(tmp_path / "a.h5")
    assert (back.splits, back.methods) == (splits, methods)
    chosen = back.split_by("by size")
    assert [(s.name, s.split) for s in chosen.samples] == [("water", "test"), ("H2", "train")]
    assert (chosen.attributes, chosen.methods) == ({**back.attributes, "split_by": "by size"}, methods)
    with pytest.raises(InputError, match=r"no splits 'age' \(it has: '/', 'by size'\); make it with"):
        back.split_by("age")
    for bad in (["train"], ["train", "test", "val"]):
        with pytest.raises(InputError, match=f"split 'x' has {len(bad)} entries"):
            write_dataset(tmp_path / "b.h5", Dataset(tiny.samples, {}, {"x": bad}))
    assert not (tmp_path / "b.h5").exists()


def test_samples_are_read_as_they_are_asked_for(tmp_path, tiny):
    """Any places in any order, twice, and from the end; damage in one sample does not show in others."""
    rng = np.random.default_rng(0)
    samples = [random_sample(f"{i}", "train", tiny.samples[i % 3].molecule, rng) for i in range(600)]
    write_dataset(tmp_path / "a.h5", Dataset(samples))
    with DatasetFile(tmp_path / "a.h5") as file:
        assert (len(file), file.names[7]) == (600, "7")
        order = [599, 3, 3, 0, 4, 301]
        assert_equal(Dataset([samples[i] for i in order]), Dataset(file[order]))
        assert_equal(Dataset(samples[::50]), Dataset(file[::50]))
        assert_equal(Dataset([samples[-2]]), Dataset([file[-2]]))
        assert_equal(Dataset(samples), Dataset(list(file)))
        with pytest.raises(IndexError):
            file[600]
    with h5py.File(tmp_path / "a.h5", "r+") as raw:
        values = raw["labels/small/fock/values"]
        values[-1] = np.nan
    with DatasetFile(tmp_path / "a.h5") as file:
        assert_equal(Dataset(samples[:300]), Dataset(file[:300]))
        with pytest.raises(InputError, match=r"a\.h5': sample '599', labels 'small': 'fock' is nan"):
            file[599]


FULL = """
import resource, sys
from pathlib import Path
from tests.io.samples import tiny_dataset
from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, read_dataset, write_dataset

tiny, path = tiny_dataset(), Path(sys.argv[1])
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
for size in (0, 100, 2000, 10_000, 20_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        write_dataset(path, Dataset(200 * list(tiny.samples)))
    except InputError as error:
        print("File too large" in str(error), list(path.parent.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
write_dataset(path, tiny)
print(len(read_dataset(path).samples))
"""


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """In a process of its own: HDF5 ends one in which a write has failed, unless it does not get to know of it."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, 5 * "True []\n" + "3\n", "")


def test_a_writer_that_is_stopped_leaves_nothing(tmp_path, tiny):
    def stopped():
        with DatasetWriter(tmp_path / "a.h5") as writer:
            writer.append(tiny.samples[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no samples"), DatasetWriter(tmp_path / "a.h5"):
        pass
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(tiny.samples[0])
        with pytest.raises(InputError, match="'val'"):
            writer.append(dataclasses.replace(tiny.samples[1], split="val"))
        single = {"small": {"fock": tiny.samples[0].labels["small"]["fock"].astype("f4")}, "new": {"energy": 1.0}}
        with pytest.raises(InputError, match="'fock' of sample 'water' has dtype float32"):
            writer.append(dataclasses.replace(tiny.samples[0], labels=single))
        with pytest.raises(InputError, match="exists"):
            DatasetWriter(tmp_path / "a.h5.unfinished")
    assert_equal(Dataset(tiny.samples[:1]), read_dataset(tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("command", {"a": 1}, "attribute 'command' is a dict that HDF5 cannot store"),
        ("command", None, "attribute 'command' is a NoneType"),
        ("command", 2**70, "attribute 'command' is a int"),
        ("command", [[1], [2, 3]], "attribute 'command' is a list"),
        ("version", 1, "attribute 'version' is not free"),
        ("format", "mine", "attribute 'format' is not free"),
        ("", 1, "attribute '' is not free"),
        (3, 1, "name of an attribute is 3"),
        ("units", "eV", "attribute 'units' is 'eV', but labels are in atomic units"),
    ],
)
def test_bad_attributes_are_not_written(tmp_path, tiny, name, value, expected):
    with pytest.raises(InputError, match=expected) as error:
        write_dataset(tmp_path / "tiny.h5", Dataset(tiny.samples, {name: value}))
    one_line(error)
    assert not list(tmp_path.iterdir())


def test_attributes_by_name(tmp_path, tiny):
    write_dataset(tmp_path / "tiny.h5", Dataset(tiny.samples, {"a/b": "c", "list": [1, 2], "units": "atomic units"}))
    back = read_dataset(tmp_path / "tiny.h5")
    assert back.attribute("a/b") == "c"
    assert back.attribute("list").tolist() == [1, 2]
    with pytest.raises(
        InputError, match=r"no attribute 'large_basis' \(it has: 'a/b', 'list', 'units'\); write it with"
    ):
        back.attribute("large_basis")
    with pytest.raises(InputError, match=r"no attribute 'xc' \(it has: none\)"):
        Dataset(tiny.samples).attribute("xc")


def test_a_read_set_can_be_written_again(tmp_path, tiny):
    write_dataset(tmp_path / "a.h5", tiny)
    write_dataset(tmp_path / "b.h5", read_dataset(tmp_path / "a.h5"))
    assert read_dataset(tmp_path / "b.h5").attributes == read_dataset(tmp_path / "a.h5").attributes


def test_places_that_cannot_be_written(tmp_path, tiny):
    with pytest.raises(InputError, match=r"'.*none/a\.h5' cannot be written: .*check the folder"):
        write_dataset(tmp_path / "none" / "a.h5", tiny)
    with pytest.raises(InputError, match="exists"):
        write_dataset(tmp_path, tiny)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def embedded():
    return read_dataset(embedded_dataset_path())


def test_embedded_set_is_large_enough_and_small(embedded):
    assert len({s.name for s in embedded.samples}) >= 60
    assert len(embedded.samples) >= 300
    assert embedded_dataset_path().stat().st_size < 10e6


def test_embedded_splits_are_disjoint(embedded):
    names = [{s.name for s in embedded.split(split)} for split in SPLITS]
    assert all(names)
    assert sum(map(len, names)) == len(set().union(*names))
    compositions = {}  # one name is one molecule
    for s in embedded.samples:
        assert compositions.setdefault(s.name, s.molecule.numbers.tolist()) == s.molecule.numbers.tolist()


def test_no_embedded_molecule_has_the_bonds_of_one_in_another_split(embedded):
    graphs = []
    for split in SPLITS:
        first = {s.name: s.molecule for s in reversed(embedded.split(split))}  # the geometry at rest
        graphs.append({bond_graph_labels(m.to_ase()) for m in first.values()})
    assert sum(map(len, graphs)) == len(set().union(*graphs))


def test_embedded_geometries_differ(embedded):
    by_name = {}
    for s in embedded.samples:
        by_name.setdefault(s.name, []).append(s.molecule.positions)
    for positions in by_name.values():
        for i in range(len(positions)):
            # Random draws; along the one mode of a diatomic two may come close.
            assert all(np.abs(positions[i] - other).max() > 1e-6 for other in positions[:i])


def test_embedded_labels_are_closed_shell_and_complete(embedded):
    attributes = embedded.attributes
    small, middle, large = (attributes[f"{name}_basis"] for name in ("small", "effective", "large"))
    for s in embedded.samples:
        assert s.molecule.spin == 0
        for name in (small, middle, large):
            labels = s.labels[name]
            electrons = s.molecule.nelec(load_basis(name, s.molecule.numbers))
            assert electrons % 2 == 0
            occupied = electrons // 2
            assert np.all(np.diff(labels["mo_energies"]) >= 0)
            assert labels["mo_energies"][occupied] - labels["mo_energies"][occupied - 1] > 0.01
            # α is a sum of squares over states.
            assert np.linalg.eigvalsh(labels["polarizability"]).min() > -1e-10
        assert (
            s.labels[large]["energy"] < s.labels[middle]["energy"] < s.labels[small]["energy"]
        )  # the larger basis is lower by hartrees


@pytest.mark.parametrize("role", ["small_basis", "effective_basis"])
def test_embedded_fock_matrices_have_the_stored_levels(embedded, role):
    name = embedded.attributes[role]
    for s in embedded.samples:
        labels = s.labels[name]
        values = scipy.linalg.eigh(labels["fock"], labels["overlap"], eigvals_only=True)
        # Rounding is 1e-12; labels are converged to 1e-10 in the energy.
        np.testing.assert_allclose(values, labels["mo_energies"], atol=1e-6, err_msg=s.name)
        trace = np.trace(np.linalg.solve(labels["overlap"], labels["fock"]))
        np.testing.assert_allclose(trace, labels["mo_energies"].sum(), atol=1e-5, err_msg=s.name)


@pytest.mark.parametrize("role", ["small_basis", "effective_basis"])
def test_embedded_overlaps_are_reproduced(embedded, role):
    name = embedded.attributes[role]
    samples = embedded.samples[:: len(embedded.samples) // 8]
    batch = jax.tree.map(jnp.asarray, pad_batch([s.molecule for s in samples], name))
    ours = jax.jit(lambda b: jax.lax.map(lambda m: overlap(m.basis, m.positions), b))(batch)
    for s, matrix in zip(samples, ours, strict=True):
        nao = load_basis(name, s.molecule.numbers).nao
        # Float64 integrals of the same contraction coefficients.
        np.testing.assert_allclose(matrix[:nao, :nao], s.labels[name]["overlap"], atol=1e-9, err_msg=s.name)


def test_samples_are_frozen(tiny):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.samples[0].split = "test"
