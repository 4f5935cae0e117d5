"""Kohn–Sham labels of the shared structures, computed here with PySCF; finished structures are kept in runs/labels.

    python -m benchmarks.labels water dimers qm7      all of these sets, one process on one thread
    python -m benchmarks.labels keep qm7              write what there is of a set to benchmarks/labels_qm7.csv

The other benchmarks read them through `labelled`. Energies and dipoles that were kept are not computed again.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax.molecule import Molecule
from vpotjax.units import ANGSTROM_TO_BOHR

SHARED = Path(__file__).parents[2] / "shared" / "data"
LABELS = Path(__file__).parents[1] / "runs" / "labels"
COLUMNS = ["structure", "energy", "dipole_x", "dipole_y", "dipole_z"]  # hartree, e·bohr


@dataclass(frozen=True)
class Level:
    """What is computed: functional, basis, PySCF's grid level, density fitting, and whether F and S are kept."""

    xc: str
    basis: str
    grid_level: int
    density_fit: bool
    matrices: bool


LEVELS = {
    "water": Level("pbe", "def2-svp", 3, False, True),
    "dimers": Level("pbe", "def2-tzvp", 3, True, False),
    "qm7": Level("lda,vwn", "def2-svp", 1, True, False),
}


@dataclass(frozen=True)
class Structures:
    """Molecules of a set, and of dimers their distances in Å."""

    molecules: list[Molecule]
    distance: np.ndarray


def frames(path: Path) -> list[tuple[dict[str, str], list[str], np.ndarray]]:
    """Comment fields, symbols and positions (Å) of a gzipped XYZ file whose columns are species and position."""
    parsed = []
    with gzip.open(path, "rt") as lines:
        for first in lines:
            comment, *rows = itertools.islice(lines, int(first) + 1)
            fields = dict(part.split("=", 1) for part in comment.split() if "=" in part)
            columns = [row.split() for row in rows]
            parsed.append((fields, [c[0] for c in columns], np.array([c[1:4] for c in columns], float)))
    return parsed


def structures(name: str) -> Structures:
    """All of a set: the water monomers, the water dimers, or 1000 QM7 molecules drawn at random (seed 0)."""
    from ase.data import atomic_numbers

    if name == "water":
        with np.load(SHARED / "water_monomer_ccsd_1000.npz") as file:
            molecules = [Molecule(file["Z"], r * ANGSTROM_TO_BOHR) for r in file["R"]]
        return Structures(molecules, np.zeros(len(molecules)))
    path = "water_dimers_long_range.extxyz.gz" if name == "dimers" else "qm7.extxyz.gz"
    parsed = frames(SHARED / path)
    if name == "qm7":
        parsed = [parsed[i] for i in np.random.default_rng(0).permutation(len(parsed))[:1000]]
    molecules = [
        Molecule(np.array([atomic_numbers[s] for s in symbols]), positions * ANGSTROM_TO_BOHR)
        for _, symbols, positions in parsed
    ]
    return Structures(molecules, np.array([float(fields.get("distance_angstrom", 0)) for fields, _, _ in parsed]))


def labelled(name: str) -> tuple[Structures, list[dict[str, Any]]]:
    """The structures of a set and their labels.

    Raises:
        SystemExit: some have none yet.
    """
    known, labels, before = structures(name), [], kept(name)
    for i in range(len(known.molecules)):
        path = LABELS / name / f"{i}.npz"
        if i in before:
            labels.append(before[i])
            continue
        if not path.exists():
            raise SystemExit(f"{name} has labels up to {i}; make the rest first: python -m benchmarks.labels {name}")
        with np.load(path) as file:
            labels.append(dict(file))
    return known, labels


def kept(name: str) -> dict[int, dict[str, Any]]:
    """Energies and dipoles by structure that an earlier run kept; none where there is no such file."""
    path = Path(__file__).parent / f"labels_{name}.csv"
    if not path.exists():
        return {}
    with path.open() as file:
        rows = [[float(row[column]) for column in COLUMNS] for row in csv.DictReader(file)]
    return {int(i): {"energy": np.array(energy), "dipole": np.array(dipole)} for i, energy, *dipole in rows}


def keep(name: str) -> None:
    """Write the energies and dipoles of all finished structures of a set."""
    if LEVELS[name].matrices:
        raise SystemExit(f"{name} needs its matrices, which are not kept; give a set without them, such as qm7")
    finished = kept(name)
    for path in (LABELS / name).glob("*.npz"):
        with np.load(path) as file:
            finished[int(path.stem)] = {"energy": file["energy"], "dipole": file["dipole"]}
    with (Path(__file__).parent / f"labels_{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, label in sorted(finished.items()):
            writer.writerow([i, *(f"{x:.10f}" for x in (label["energy"], *label["dipole"]))])


def make(name: str) -> None:
    """Label what has no labels yet."""
    from vpotjax.interop.pyscf_labels import OBSERVED, reference_labels

    level, folder, before = LEVELS[name], LABELS / name, kept(name)
    folder.mkdir(parents=True, exist_ok=True)
    for i, molecule in enumerate(structures(name).molecules):
        if i in before or (folder / f"{i}.npz").exists():
            continue
        labels: dict[str, Any] = reference_labels(
            molecule,
            level.basis,
            level.xc,
            quantities=[*OBSERVED, *(("fock", "overlap") if level.matrices else ())],
            density_fit=level.density_fit,
            grid_level=level.grid_level,
        )
        unfinished = folder / f"{i}.unfinished"
        with unfinished.open("wb") as file:
            np.savez(file, **labels)
        unfinished.rename(folder / f"{i}.npz")


if __name__ == "__main__":
    action, names = (keep, sys.argv[2:]) if sys.argv[1:2] == ["keep"] else (make, sys.argv[1:])
    for wanted in names or LEVELS:
        action(wanted)
