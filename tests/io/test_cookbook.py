"""Files of the cookbook kind, written here from PySCF's results in the order of each program."""

import dataclasses
import itertools

import h5py
import numpy as np
import pytest

from tests.molecules import distorted, g2, shared_file
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.conventions import AO_ORDERS, reorder_ao
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.interop.pyscf_labels import reference_labels
from vpotjax.io.cookbook import NAMES, open_cookbook, write_cookbook
from vpotjax.io.dataset import read_dataset
from vpotjax.io.foreign import converted, fitting_layouts, found_layout
from vpotjax.molecule import Molecule
from vpotjax.reference.imports import import_file
from vpotjax.units import BOHR_TO_ANGSTROM

BASES = {"sto3g": "sto-3g", "svp": "def2-svp"}
MOLECULES = {"water": g2("H2O"), "H2": g2("H2"), "methane": g2("CH4")}


@pytest.fixture(scope="module")
def labels():
    quantities = list(NAMES.values())
    return {
        suffix: [reference_labels(m, basis, "hf", quantities=quantities) for m in MOLECULES.values()]
        for suffix, basis in BASES.items()
    }


def arrays(labels, order="pyscf"):
    """All of a file; matrices in `order`."""
    molecules = list(MOLECULES.values())
    data = {
        "Z": np.concatenate([m.numbers for m in molecules]),
        "R": np.concatenate([m.positions for m in molecules]) * BOHR_TO_ANGSTROM,
        "natoms": np.array([m.natm for m in molecules]),
        "names": np.array(list(MOLECULES)),
        "colour": np.zeros(3),
    }
    for suffix, basis in BASES.items():
        for short, key in NAMES.items():
            values = [own[key] for own in labels[suffix]]
            if short in ("fock", "overlap"):
                shells = [load_basis(basis, m.numbers).shell_angular_momenta() for m in molecules]
                values = [reorder_ao(v, s, "pyscf", order) for v, s in zip(values, shells, strict=True)]
            whole = short in ("mu", "alpha_uncoupled", "E")
            if short == "mayer":
                values = [v + np.eye(len(v)) for v in values]  # as some programs have it
            data[f"{short}_{suffix}"] = np.stack(values) if whole else np.concatenate([v.ravel() for v in values])
    return data


def written(path, data):
    if path.suffix == ".npz":
        np.savez(path, **data)
    else:
        with h5py.File(path, "w") as file:
            for key, value in data.items():
                file[key] = value.astype("S") if value.dtype.kind == "U" else value
    return path


def read(path, bases=BASES, order=None):
    """Order and samples of a file."""
    source = open_cookbook(path, bases)
    layout = found_layout(source, order)
    return layout, list(converted(source, layout))


@pytest.mark.parametrize("order", AO_ORDERS)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_every_order_is_found_and_every_label_comes_back(tmp_path, labels, order, suffix):
    path = written(tmp_path / f"a{suffix}", arrays(labels, order))
    layout, samples = read(path)
    assert layout == ("orca or psi4" if order in ("orca", "psi4") else order)  # which are the same up to d functions
    assert open_cookbook(path, BASES).left_out == ["colour"]
    for i, (sample, (name, molecule)) in enumerate(zip(samples, MOLECULES.items(), strict=True)):
        assert sample.name == name
        np.testing.assert_allclose(sample.molecule.positions, molecule.positions, atol=1e-12)
        for key, basis in BASES.items():
            assert set(sample.labels[basis]) == set(NAMES.values())
            for quantity, value in sample.labels[basis].items():
                np.testing.assert_allclose(value, labels[key][i][quantity], atol=1e-8, err_msg=quantity)


def test_a_data_set_is_split_and_says_what_it_is(tmp_path, labels):
    path = written(tmp_path / "a.npz", arrays(labels))
    found = import_file(path, tmp_path / "a.h5", BASES, "hf", check=1, validation=0.34, test=0.34)
    dataset = read_dataset(tmp_path / "a.h5")
    assert max(found.errors.values()) < 1e-5
    assert set(found.errors) == {("H2", "sto-3g"), ("H2", "def2-svp")}
    assert sorted(s.split for s in dataset.samples) == ["test", "train", "validation"]
    assert {k: dataset.attribute(k) for k in ("xc", "small_basis", "large_basis", "imported_from")} == {
        "xc": "hf",
        "small_basis": "sto-3g",
        "large_basis": "def2-svp",
        "imported_from": "a.npz",
    }
    assert dataset.methods["def2-svp"]["basis_functions"].keys() == {"1", "6", "8"}


def permuted(matrix, places):
    order = np.arange(len(matrix))
    order[places] = np.roll(places, 1)
    return matrix[np.ix_(order, order)]


@pytest.mark.parametrize("shell", range(6))
@pytest.mark.parametrize("fault", ["permutation", "sign", "scale"])
def test_a_fault_in_one_shell_is_named(tmp_path, labels, shell, fault):
    """Oxygen in def2-SVP has 3 s, 2 p and a d shell."""
    water = MOLECULES["water"]
    shells = load_basis("def2-svp", water.numbers).shell_angular_momenta()
    assert list(shells[:6]) == [0, 0, 0, 1, 1, 2]
    start = int(np.sum(2 * np.array(shells[:shell]) + 1))
    places = np.arange(start, start + 2 * shells[shell] + 1)
    data = arrays(labels)
    for key in ("fock", "overlap"):
        own = [np.array(x[key]) for x in labels["svp"]]
        factor = np.ones(len(own[0]))
        factor[places[:1]] = {"sign": -1.0, "scale": 1.5, "permutation": 1.0}[fault]
        if fault == "permutation":
            if len(places) == 1:
                pytest.skip("one function has no order")
            own[0] = permuted(own[0], places)
        own[0] = factor[:, None] * own[0] * factor
        data[f"{key}_svp"] = np.concatenate([v.ravel() for v in own])
    with pytest.raises(
        InputError, match=rf"molecule 'water', 'def2-svp': .* {shell} \({'spd'[shells[shell]]} of atom 0\)"
    ):
        read(written(tmp_path / "a.npz", data), BASES)


def without(*keys):
    return lambda data: {key: value for key, value in data.items() if key not in keys}


BAD = {
    "no geometries": (without("R"), {}, "lacks R; it has E_sto3g"),
    "no sizes": (without("natoms"), {}, "has neither natoms nor offsets"),
    "other sizes": (lambda d: d | {"natoms": np.array([3, 2, 6])}, {}, "natoms make 11 atoms, which do not fit"),
    "flat positions": (lambda d: d | {"R": d["R"].ravel()}, {}, r"R has shape \(30,\)"),
    "too few names": (lambda d: d | {"names": np.array(["a"])}, {}, "has 1 names for 3 molecules"),
    "positions in bohr of clashing atoms": (
        lambda d: d | {"R": d["R"] * 0.05},
        {},
        "molecule 'water': positions of atoms",
    ),
    "an unknown suffix": (lambda d: d, {"bases": {"svp": "def2-svp"}}, "labels of 'sto3g'; state its basis"),
    "a suffix too many": (lambda d: d, {"bases": BASES | {"tz": "def2-tzvp"}}, "no labels of 'tz' .it has: sto3g, svp"),
    "another basis": (lambda d: d, {"bases": BASES | {"svp": "6-31g"}}, "fock_svp has .* numbers, but .* '6-31g' make"),
    "a basis of that size": (lambda d: d, {"bases": BASES | {"sto3g": "sto-6g"}}, "'water', 'sto-6g': overlap differs"),
    "too few numbers": (lambda d: d | {"mu_svp": d["mu_svp"][:2]}, {}, "mu_svp has 6 numbers, but"),
    "positions in bohr": (lambda d: d | {"R": d["R"] / BOHR_TO_ANGSTROM}, {}, "'water', 'sto-3g': overlap differs"),
    "another order by T + SAP": (without("overlap_svp", "overlap_sto3g"), {"order": "orca"}, "by its distance from T"),
    "another order": (lambda d: d, {"order": "orca"}, "order is stated to be 'orca', but the overlap is in .* 'pyscf'"),
    "no order": (lambda d: d, {"order": "gaussian"}, "order is 'gaussian'; give one of pyscf"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path, labels, case):
    change, options, expected = BAD[case]
    path = written(tmp_path / "a.npz", change(arrays(labels)))
    with pytest.raises(InputError, match=expected) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    assert "a.npz" in str(error.value) or case == "no order"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.npz").write_text("not a zip")
    np.savez(tmp_path / "pickled.npz", Z=np.array([{"a": 1}], dtype=object))
    for name in ("a.npz", "none.npz", "none.h5", "pickled.npz"):
        with pytest.raises(InputError, match=rf"{name}' cannot be read as npz or HDF5"):
            open_cookbook(tmp_path / name, BASES)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["pyscf", "e3nn", "cp2k", "orca"])
def test_without_overlaps_the_order_is_found_by_the_fock_matrix(tmp_path, labels, order):
    data = without("overlap_svp", "overlap_sto3g")(arrays(labels, order))
    layout, samples = read(written(tmp_path / "a.npz", data))
    assert layout == ("orca or psi4" if order == "orca" else order)
    for sample, own in zip(samples, labels["svp"], strict=True):
        for key in ("fock", "overlap"):
            np.testing.assert_allclose(sample.labels["def2-svp"][key], own[key], atol=1e-8)


@pytest.mark.parametrize("order", AO_ORDERS)
def test_with_f_functions_every_order_is_itself(tmp_path, order):
    """And shells in the order of the table of 6-31G, which is s s p s p, are sorted."""
    water = g2("H2O")
    made = {
        basis: reference_labels(water, basis, "hf", quantities=["fock", "overlap"]) for basis in ("def2-tzvp", "6-31g")
    }
    listed = np.array([0, 1, 3, 4, 5, 2, 6, 7, 8, *range(9, 13)])  # of oxygen
    data = {"Z": water.numbers, "R": water.positions * BOHR_TO_ANGSTROM, "natoms": np.array([3])}
    for suffix, basis in (("tz", "def2-tzvp"), ("pople", "6-31g")):
        shells = load_basis(basis, water.numbers).shell_angular_momenta()
        for key in ("fock", "overlap"):
            matrix = reorder_ao(made[basis][key], shells, "pyscf", order)
            data[f"{key}_{suffix}"] = (matrix if suffix == "tz" else matrix[np.ix_(listed, listed)]).ravel()
    layout, (sample,) = read(written(tmp_path / "a.npz", data), {"tz": "def2-tzvp", "pople": "6-31g"})
    assert layout == f"{order}-listed"
    for basis in made:
        for key in ("fock", "overlap"):
            np.testing.assert_allclose(sample.labels[basis][key], made[basis][key], atol=1e-8)


def test_what_is_written_is_read_again(tmp_path, labels):
    """Files of this kind that the package writes, in the order of another program."""
    _, samples = read(written(tmp_path / "a.npz", arrays(labels)))
    suffixes = {basis: suffix for suffix, basis in BASES.items()}
    assert write_cookbook(tmp_path / "b.npz", samples, suffixes, "e3nn") == []
    layout, again = read(tmp_path / "b.npz")
    assert layout == "e3nn"
    for one, two in zip(samples, again, strict=True):
        assert one.name == two.name
        for basis, own in one.labels.items():
            for key, value in own.items():
                np.testing.assert_allclose(two.labels[basis][key], value, atol=1e-12, err_msg=key)
    with pytest.raises(InputError, match=r"b\.npz' exists"):
        write_cookbook(tmp_path / "b.npz", samples, suffixes)
    open_shell = dataclasses.replace(samples[0], molecule=Molecule(np.array([8, 1]), np.eye(3)[:2] * 1.8, spin=1))
    with pytest.raises(InputError, match="'water' has charge or spin"):
        write_cookbook(tmp_path / "c.npz", [open_shell], suffixes)
    fewer = dataclasses.replace(samples[0], labels={"sto-3g": samples[0].labels["sto-3g"]})
    with pytest.raises(InputError, match="'water' has no 'fock' in 'def2-svp', but others have"):
        write_cookbook(tmp_path / "c.npz", [fewer, *samples[1:]], suffixes)
    assert not (tmp_path / "c.npz").exists()


@pytest.mark.parametrize("name", ["cookbook_qm7_150", pytest.param("b3lyp_qm7_train", marks=pytest.mark.slow)])
def test_published_files_are_taken_as_they_are(name):
    path, bases = shared_file(f"{name}.npz"), {"sto3g": "sto-3g", "tzvp": "def2-tzvp"}
    layout, samples = read(path, bases)
    assert (len(samples), layout) == ({"c": 150, "b": 700}[name[0]], "pyscf")
    assert {"fock", "overlap", "mo_energies", "dipole", "polarizability"} <= set(samples[0].labels["sto-3g"])


def test_every_permutation_and_every_sign_of_a_shell_is_found_and_named():
    """All 119 and 5 orders of d and p functions, and all signs, in each shell alone."""
    molecule = distorted("NH3", 4)
    functions = load_basis("def2-svp", molecule.numbers)
    shells, atoms = functions.shell_angular_momenta(), functions.shell_atoms()
    overlap = to_pyscf(molecule, "def2-svp").intor("int1e_ovlp")
    starts, count = np.cumsum([0, *(2 * l + 1 for l in shells)]), 0
    for shell, l in enumerate(shells):
        places = np.arange(starts[shell], starts[shell + 1])
        changes = [np.eye(len(places))[list(p)] for p in itertools.permutations(range(len(places)))]
        changes += [np.diag(signs) for signs in itertools.product((1.0, -1.0), repeat=len(places))]
        for change in changes:
            if np.array_equal(change, np.eye(len(places))):
                continue
            wrong = np.eye(len(overlap))
            wrong[np.ix_(places, places)] = change
            named = rf"at 1 of {len(shells)} shells: {shell} \({'spd'[l]} of atom {atoms[shell]}\)"
            with pytest.raises(InputError, match=named):
                fitting_layouts("a.npz", molecule, "def2-svp", wrong @ overlap @ wrong.T, overlap)
            count += 1
    assert count == 1 * (119 + 31) + 5 * (5 + 7) + 9 * 1
