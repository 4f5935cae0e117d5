"""Splits: what each way promises, and that the file keeps them beside everything else."""

import numpy as np
import pytest

from tests.io.samples import assert_equal, random_sample
from tests.molecules import distorted, g2
from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, read_dataset, write_dataset
from vpotjax.molecule import Molecule
from vpotjax.reference.splits import WAYS, add_split, descriptors, split_parts

NAMES = ["H2O", "CH4", "NH3", "C2H6", "C2H4", "C2H2", "CO", "N2", "HCN", "CH3OH"]
MOLECULES = [g2(name) for name in NAMES]


def parts_by_name(by, **options):
    return dict(zip(NAMES, split_parts(NAMES, MOLECULES, by, **options), strict=True))


@pytest.mark.parametrize("by", WAYS)
def test_sizes_are_those_asked_for(by):
    parts = list(parts_by_name(by, validation=0.2, test=0.3, elements=[7]).values())
    assert [parts.count(p) for p in ("train", "validation", "test")] == ([6, 1, 3] if by == "element" else [5, 2, 3])
    other = list(parts_by_name(by, validation=0.2, test=0.3, elements=[7], seed=1).values())
    assert by in ("size", "element") or parts != other


def test_geometries_of_a_molecule_stay_together():
    """By name, by bonds, and both: frames of a trajectory have names of their own."""
    frames = [distorted("H2O", i, 0.05) for i in range(8)] + [distorted("CH4", i, 0.05) for i in range(8)]
    names = [f"run.xyz#{i}" for i in range(16)]
    more = [distorted(name, i, 0.05) for name in ("NH3", "C2H6", "CO", "N2", "HCN") for i in range(2)]
    names += [name for name in ("a", "b", "c", "d", "e") for _ in range(2)]
    parts = split_parts(names, frames + more, "molecule", 0.2, 0.3)
    assert len(set(parts[:8])) == len(set(parts[8:16])) == 1
    assert all(parts[i] == parts[i + 1] for i in range(16, 26, 2))
    apart = split_parts(names, frames + more, "random", 0.2, 0.3)
    assert len(set(apart[:8])) > 1
    cation = Molecule(MOLECULES[0].numbers, MOLECULES[0].positions, charge=2)
    assert len(set(split_parts(["a", "b", "c"], [cation, *MOLECULES[:2]], "molecule", 0.34, 0.34))) == 3


def test_the_largest_and_those_with_an_element_test():
    by_size = parts_by_name("size", validation=0.1, test=0.2)
    sizes = {part: [g2(name).natm for name, own in by_size.items() if own == part] for part in by_size.values()}
    assert min(sizes["test"]) >= max(sizes["validation"])
    assert min(sizes["validation"]) >= max(sizes["train"])
    by_element = parts_by_name("element", validation=0.2, elements=[7])
    assert {name for name, part in by_element.items() if part == "test"} == {"NH3", "N2", "HCN"}


def test_the_farthest_train():
    """No two training molecules are closer to each other than any other molecule is to one of them."""
    train = np.array([part == "train" for part in split_parts(NAMES, MOLECULES, "farthest", 0.1, 0.4)])
    distances = np.linalg.norm(descriptors(MOLECULES)[:, None] - descriptors(MOLECULES), axis=2)
    among = distances[np.ix_(train, train)] + np.diag(np.full(train.sum(), np.inf))
    assert among.min() >= distances[np.ix_(~train, train)].min(axis=1).max()


def test_descriptors_do_not_depend_on_position_order_or_batch():
    molecule = MOLECULES[-1]
    moved = Molecule(molecule.numbers[::-1], (np.asarray(molecule.positions) + 1.0)[::-1])
    points = descriptors([*MOLECULES, moved])
    np.testing.assert_allclose(points[-1], points[-2], atol=1e-8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"by": "age"}, "by is 'age'; give one of molecule, random"),
        ({"validation": 0.5, "test": 0.5}, "leave no training molecules"),
        ({"validation": -0.1}, "leave no training molecules"),
        ({"validation": 0.01}, "split by 'molecule' leaves none of 10 molecules for validation"),
        ({"by": "element", "elements": [16]}, "split by 'element' leaves none of 10 molecules for test"),
    ],
)
def test_splits_that_cannot_be(options, expected):
    with pytest.raises(InputError, match=expected):
        split_parts(NAMES, MOLECULES, **options)


def test_the_file_keeps_a_split_and_everything_else(tmp_path):
    rng = np.random.default_rng(0)
    samples = [random_sample(n, "train", m, rng) for n, m in zip(NAMES, MOLECULES, strict=True)]
    dataset = Dataset(samples, {"xc": "pbe"}, {"old": ["test"] * 10}, {"small": {"xc": "pbe"}})
    write_dataset(tmp_path / "a.h5", dataset)
    parts = list(parts_by_name("size").values())
    (tmp_path / "a.h5.split").write_text("left by a kill")
    add_split(tmp_path / "a.h5", "new", parts)
    back = read_dataset(tmp_path / "a.h5")
    assert_equal(dataset, back)
    assert (back.attributes, back.methods) == (dataset.attributes, dataset.methods)
    assert back.splits == {"old": ["test"] * 10, "new": parts}
    content = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(InputError, match="name is 'new', which the file has already, of 'new', 'old'; give another"):
        add_split(tmp_path / "a.h5", "new", parts)
    with pytest.raises(InputError, match="split 'short' has 1 entries"):
        add_split(tmp_path / "a.h5", "short", ["train"])
    assert (tmp_path / "a.h5").read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
