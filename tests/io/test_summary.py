"""What `vpotjax info` says of a file."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from tests.io.samples import random_sample, tiny_dataset
from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, write_dataset
from vpotjax.io.summary import summary
from vpotjax.molecule import Molecule


def test_composition_ranges_methods_splits_and_failures(tmp_path):
    tiny = tiny_dataset()
    radical = Molecule(np.array([8, 1]), np.eye(3)[:2], spin=1)
    samples = [*tiny.samples, dataclasses.replace(tiny.samples[0], molecule=radical, labels={"large": {"energy": 2.5}})]
    method = {"xc": "b3lyp", "program": "PySCF", "version": "2.14", "functional": [[402, 1.0]], "density_fitting": None}
    attributes = {"large_basis": "x" * 99, "failed": json.dumps({"C60": "RuntimeError: did not converge"})}
    dataset = Dataset(samples, attributes, {"by size": ["train", "test", "", ""]}, {"small": method})
    write_dataset(tmp_path / "a.h5", dataset)
    lines = summary(tmp_path / "a.h5").splitlines()
    assert lines[0].startswith(f"{tmp_path / 'a.h5'}: 4 geometries of 3 molecules")
    assert lines[1:6] == [
        "  atoms: H 8, O 3; 2 to 4 in a molecule, median 2",
        "  charge +1 (1)",
        "  spin +1 (1)",
        "  split: train 2, validation 1, test 1",
        "  split 'by size': train 1, test 1, none 2",
    ]
    text = "\n".join(lines)
    assert "labels 'small': b3lyp, PySCF 2.14, libxc 1·402, no density fitting" in text
    energies = [float(s.labels["small"]["energy"]) for s in tiny.samples]
    assert f"  energy: {min(energies):.6g} to {max(energies):.6g} hartree, 3 samples" in text
    assert f"  large_basis = {'x' * 40}…" in text
    assert lines[-1] == "not labelled: C60: RuntimeError: did not converge"
    assert all(len(line) < 200 for line in lines[1:])


def test_outliers_are_named(tmp_path):
    """An energy in eV among others, which spans no wider range than methane and water do, and a large dipole."""
    rng = np.random.default_rng(0)
    molecules = [g2(name) for name in ("H2O", "CH4", "NH3", "C2H6") * 8]
    atoms = {1: -0.5, 6: -37.8, 7: -54.6, 8: -75.1}
    samples = []
    for i, molecule in enumerate(molecules):
        sample = random_sample(f"m{i}", "train", molecule, rng)
        energy = sum(atoms[z] for z in molecule.numbers.tolist()) + 0.01 * rng.standard_normal()
        labels = {"energy": energy + (0.5 if i == 5 else 0), "dipole": np.full(3, 90.0 if i == 7 else 0.1 + 1e-3 * i)}
        samples.append(dataclasses.replace(sample, labels={"b": labels}))
    write_dataset(tmp_path / "a.h5", Dataset(samples))
    lines = summary(tmp_path / "a.h5").splitlines()
    assert next(line for line in lines if "energy" in line).endswith("; unlike the others: m5")
    assert next(line for line in lines if "dipole" in line).endswith("; unlike the others: m7")


def test_a_damaged_label_is_found(tmp_path):
    write_dataset(tmp_path / "a.h5", tiny_dataset())
    with h5py.File(tmp_path / "a.h5", "r") as file:
        dataset = file["labels/small/fock/values"]
        place, size = dataset.id.get_chunk_info(0).byte_offset, dataset.id.get_chunk_info(0).size
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place + size // 2] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.h5' cannot be read"):
        summary(tmp_path / "a.h5")
