"""Data of `benchmarks.qm7`: 850 labelled QM7 molecules, and labels made here of QM9 molecules and of chains.

    python -m benchmarks.qm7_data          label what has no labels yet, two processes on one thread each; two hours

Labels are those of the shared QM7 files: RKS B3LYP, STO-3G with F and S, def2-TZVP with density fitting and PySCF's
grid level 1. F and S in 6-31G, with density fitting and that grid too, are made here. Finished molecules are kept in
runs/labels/transfer and runs/labels/qm7-6-31g.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels import LABELS, SHARED, frames
from benchmarks.runs import save_arrays
from vpotjax.io.dataset import Dataset
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule
from vpotjax.reference.workers import THREAD_VARIABLES
from vpotjax.units import ANGSTROM_TO_BOHR

SMALL, MIDDLE, LARGE = "sto-3g", "6-31g", "def2-tzvp"
EFFECTIVE, TRANSFER = LABELS / "qm7-6-31g", LABELS / "transfer"
ATTRIBUTES = {"xc": "b3lyp", "small_basis": SMALL, "large_basis": LARGE, "ao_order": "pyscf"}
TEST, VALIDATION, TRAIN = 60, 45, 700
QM9_COUNT = 30
ELEMENTS = {"H", "C", "N", "O"}
CHAINS = (
    "alkane_C06",
    "acene_2",
    "polyene_C08",
    "omega_amino_acid_4",
    "uracil",
    "aminopolyenoic_3",
    "acene_3",
    "alkane_C12",
    "polyene_C12",
    "omega_amino_acid_8",
    "acene_4",
    "acene_5",
    "polyene_C20",
)
"""Labelled for transfer, in the order of their cost."""


def qm7_dataset(train: int = TRAIN, seed: int = 0) -> Dataset:
    """Of the 850 molecules 60 at random as test, 45 as validation, and the first `train` of the rest."""
    samples = [*_samples("cookbook_qm7_150"), *_samples("b3lyp_qm7_train")]
    order = np.random.default_rng(seed).permutation(len(samples))
    names = ["test"] * TEST + ["validation"] * VALIDATION + ["train"] * train
    chosen = [dataclasses.replace(samples[i], split=split) for i, split in zip(order, names, strict=False)]
    return Dataset(chosen, ATTRIBUTES)


def _samples(name: str) -> Iterator[Sample]:
    with np.load(SHARED / f"{name}.npz") as file:
        data = dict(file)
    small, large, matrices = (np.cumsum([0, *n]) for n in (data["nao_sto3g"], data["nao_tzvp"], data["nao_sto3g"] ** 2))
    for i, (start, natm) in enumerate(zip(data["offsets"], data["natoms"], strict=False)):
        atoms, n = slice(start, start + natm), int(data["nao_sto3g"][i])
        molecule = Molecule(data["Z"][atoms].astype(int), data["R"][atoms] * ANGSTROM_TO_BOHR)
        own = {
            "fock": data["fock_sto3g"][matrices[i] : matrices[i + 1]].reshape(n, n),
            "overlap": data["overlap_sto3g"][matrices[i] : matrices[i + 1]].reshape(n, n),
            "mo_energies": data["eps_sto3g"][small[i] : small[i + 1]],
        }
        labels = {SMALL: own, LARGE: {"mo_energies": data["eps_tzvp"][large[i] : large[i + 1]]}}
        for basis, short in ((SMALL, "sto3g"), (LARGE, "tzvp")):
            labels[basis] |= {"dipole": data[f"mu_{short}"][i]}
            alpha = data[f"alpha_uncoupled_{short}"][i]
            labels[basis] |= {"polarizability": (alpha + alpha.T) / 2}  # it is symmetric up to rounding
        name = str(data["names"][i]) if "names" in data else f"cookbook_{i:03d}"
        yield Sample(name, "train", molecule, labels | made(EFFECTIVE / f"{name}.npz"))


def bond_orders() -> dict[str, np.ndarray]:
    """Mayer bond orders in def2-TZVP, (natm, natm), of the 700 molecules that have them, by name."""
    with np.load(SHARED / "b3lyp_qm7_train.npz") as file:
        names, natoms, flat = file["names"], file["natoms"], file["mayer_tzvp"]
    ends = np.cumsum(natoms**2)
    return {
        str(name): own.reshape(natm, natm)
        for name, natm, own in zip(names, natoms, np.split(flat, ends[:-1]), strict=True)
    }


def transfer_molecules(chains: Sequence[str] = CHAINS) -> dict[str, Molecule]:
    """By name: 30 QM9 molecules of H, C, N, O drawn at random (seed 0), and some of the chains."""
    parsed = [f for f in frames(SHARED / "qm9_22k.extxyz.gz") if set(f[1]) <= ELEMENTS]
    chosen = np.random.default_rng(0).permutation(len(parsed))[:QM9_COUNT]
    known = {fields["name"]: (symbols, places) for fields, symbols, places in frames(SHARED / "chains.extxyz.gz")}
    result = {f"qm9_{i:02d}": _molecule(*parsed[k][1:]) for i, k in enumerate(chosen)}
    return result | {name: _molecule(*known[name]) for name in chains}


def _molecule(symbols: list[str], positions: np.ndarray) -> Molecule:
    from ase.data import atomic_numbers

    return Molecule(np.array([atomic_numbers[s] for s in symbols]), positions * ANGSTROM_TO_BOHR)


def transfer_dataset(chains: Sequence[str] = CHAINS) -> Dataset:
    """What is labelled of `transfer_molecules`, all in the split "test"."""
    molecules = transfer_molecules(chains).items()
    samples = [Sample(name, "test", molecule, made(TRANSFER / f"{name}.npz")) for name, molecule in molecules]
    return Dataset([s for s in samples if s.labels], ATTRIBUTES)


def made(path: Path) -> dict[str, dict[str, Any]]:
    """Labels of a file by basis; none where it is not there."""
    labels: dict[str, dict[str, Any]] = {}
    if path.exists():
        with np.load(path) as file:
            for key in file:
                basis, quantity = key.split("/")
                labels.setdefault(basis, {})[quantity] = file[key]
    return labels


def _label(path: Path, molecule: Molecule, bases: Sequence[str]) -> str:
    """Make the file of one molecule; returns its name."""
    from vpotjax.interop.pyscf_labels import OBSERVED, reference_labels

    labels = {}
    for basis in bases:
        settings: dict[str, Any] = {} if basis == SMALL else {"density_fit": True, "grid_level": 1}
        quantities = OBSERVED if basis == LARGE else [*OBSERVED, "fock", "overlap"]
        own = reference_labels(molecule, basis, "b3lyp", quantities=quantities, **settings)
        labels |= {f"{basis}/{key}": x for key, x in own.items()}
    save_arrays(path, labels)
    return path.stem


def make() -> None:
    """Label what has no labels yet."""
    jobs = [(EFFECTIVE, s.name, s.molecule, (MIDDLE,)) for s in qm7_dataset().samples]
    jobs += [(TRANSFER, name, molecule, (SMALL, LARGE)) for name, molecule in transfer_molecules().items()]
    label_all(jobs)


def label_all(jobs: Sequence[tuple[Path, str, Molecule, Sequence[str]]]) -> None:
    """Label what has no labels yet, on two processes: folder, name, molecule and bases."""
    for folder, *_ in jobs:
        folder.mkdir(parents=True, exist_ok=True)
    paths = [(folder / f"{name}.npz", molecule, bases) for folder, name, molecule, bases in jobs]
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_label, *job) for job in paths if not job[0].exists()]
        for i, task in enumerate(as_completed(tasks)):
            print(f"{i + 1} of {len(tasks)}: {task.result()}", flush=True)


if __name__ == "__main__":
    make()
