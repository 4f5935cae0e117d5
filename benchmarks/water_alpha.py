"""Polarizability of water by CCSD: trained on it directly, or pretrained on Fock matrices and fine-tuned.

    python -m benchmarks.water_alpha          all runs, one process on one thread; finished ones are kept
    python -m benchmarks.water_alpha report   the learning curve of what is there

Coupled α, CCSD/d-aug-cc-pVTZ (Grisafi et al. 2018, PRL 120, 036002), of 1000 geometries: 500 at random (seed 0) are the
test molecules; of the first N of the others four fifths train and one fifth, at least two, validates. Pretraining: F of
PBE/def2-SVP (`python -m benchmarks.labels water`) of all 500, with which nobody has to wait for CCSD. Both ways have
the same network, steps and learning rates; of these the one with the least error of the validation molecules counts.
Errors are root mean squares of the components, bohr³: ‖Δ‖/3, which for three atoms is what the tables of the package
have.
Everything goes through the command line; runs are kept in runs/water_alpha.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels import SHARED, labelled
from benchmarks.runs import SINGLE_THREAD

FOLDER = Path(__file__).parents[1] / "runs" / "water_alpha"
SIZES, RATES = (10, 30, 100, 300, 500), ("5e-4", "2e-3", "8e-3", "3.2e-2")
TEST, BASIS = 500, "def2-svp"
MODEL = [f"orbital_basis={BASIS}", "members=1", "buckets=1"]
PRETRAINED = "pretrained"


def make_data(path: Path, size: int | None) -> None:
    """α of `size` geometries and of the test; None: F of all others, in tenths of 8, 1 and 1."""
    from vpotjax.io.dataset import Dataset, write_dataset
    from vpotjax.io.sample import Sample

    known, labels = labelled("water")
    with np.load(SHARED / "water_monomer_ccsd_1000.npz") as file:
        alphas = file["alpha_au"]
    order = np.random.default_rng(0).permutation(len(alphas))
    seen = order[TEST:]
    if size is None:
        tenths = ["test", "validation", *["train"] * 8]
        parts = [(i, tenths[k % 10]) for k, i in enumerate(seen)]
        own = [{BASIS: {key: x for key, x in labels[i].items() if key != "energy"}} for i, _ in parts]
        attributes = {"xc": "pbe", "small_basis": BASIS, "large_basis": BASIS, "ao_order": "pyscf"}
    else:
        held = max(2, size // 5)
        parts = [(i, "validation" if k < held else "train") for k, i in enumerate(seen[:size])]
        parts += [(i, "test") for i in order[:TEST]]
        own = [{"ccsd": {"polarizability": (alphas[i] + alphas[i].T) / 2}} for i, _ in parts]
        attributes = {"xc": "ccsd", "small_basis": BASIS, "large_basis": "ccsd", "ao_order": "pyscf"}
    samples = [
        Sample(f"water_{i}", part, known.molecules[i], values) for (i, part), values in zip(parts, own, strict=True)
    ]
    write_dataset(path, Dataset(samples, attributes))


def train(name: str, size: int | None, settings: list[str]) -> None:
    """One run of the command line, unless it is there."""
    from vpotjax.cli import main as command_line

    FOLDER.mkdir(parents=True, exist_ok=True)
    data = FOLDER / f"data-{size or 'fock'}.h5"
    if not data.exists():
        make_data(data, size)
    if (FOLDER / name / "checkpoint").exists():
        return
    if command_line(["train", "--data", str(data), "--run", str(FOLDER / name), "--set", *settings]):
        raise SystemExit(f"{name} failed")


def everything() -> None:
    """Pretraining, then both ways with every size and rate."""
    train(PRETRAINED, None, [*MODEL, "elements=1", "scale=0.03"])
    for size in SIZES:
        for rate in RATES:
            common = ["weights.polarizability=1", f"descent.learning_rate={rate}", "members=1", "buckets=1"]
            train(f"direct-{size}-{rate}", size, [*MODEL, *common])
            train(f"tuned-{size}-{rate}", size, [*common, f"start={FOLDER / PRETRAINED}"])
    report()


def report() -> None:
    """RMSE of the test and, in brackets, of the validation molecules, and the rate that these chose."""
    print("| N | direct | pretrained on F |\n|---|---|---|")
    for size in SIZES:
        cells = [_best(way, size) for way in ("direct", "tuned")]
        if all(cells):
            print(f"| {size} | {' | '.join(cells)} |")


def _best(way: str, size: int) -> str:
    rows: list[tuple[float, float, str]] = []
    for rate in RATES:
        run = FOLDER / f"{way}-{size}-{rate}"
        if (run / "checkpoint").exists():
            errors = [_error(run / f"{part}_errors.csv") for part in ("validation", "test")]
            rows.append((errors[0], errors[1], rate))
    if not rows:
        return ""
    held, test, rate = min(rows)
    return f"{test:.4f} ({held:.4f}, {rate})"


def _error(file: Path) -> float:
    with file.open() as lines:
        row: dict[str, Any] = list(csv.DictReader(lines))[-1]
    return float(row["polarizability_rms"])


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    (report if sys.argv[1:] == ["report"] else everything)()
