"""A predicted density as the start of PySCF's SCF, against PySCF's own guesses, on molecules that were never seen.

    python -m benchmarks.scf_guess labels            F in def2-SVP of QM7 molecules: 240 + 45 + 30, on two processes
    python -m benchmarks.scf_guess train NAME ...    models of F, see ROWS
    python -m benchmarks.scf_guess choose NAME ...   SCF of 8 validation molecules, by which one of them is chosen
    python -m benchmarks.scf_guess scf NAME [SET]    SCF of 30 QM7 test molecules, 30 QM9 molecules and chains
    python -m benchmarks.scf_guess report            the table of what is there
    python -m benchmarks.scf_guess noise             Fock matrices built from converged F with random errors

B3LYP/def2-SVP with density fitting and PySCF's grid level 1, labels and SCF; its other defaults (1e-9 hartree), one
thread, the guesses by turns. Counted are all Fock matrices that are built, that of the guess and the one after
convergence among them. The time of our guess is that of a compiled program.
What is finished is kept in runs/scf_guess; the same command goes on.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels import LABELS
from benchmarks.qm7_data import label_all, made, qm7_dataset, transfer_molecules
from benchmarks.runs import SINGLE_THREAD
from vpotjax.io.dataset import Dataset, write_dataset
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule

BASIS, TRAIN, TEST = "def2-svp", 240, 30
FOLDER, OWN = Path(__file__).parents[1] / "runs" / "scf_guess", LABELS / "qm7-def2-svp"
GUESSES = ("minao", "sap", "vsap")
CHOSEN_BY, LONGEST = 8, 60  # atoms of chains
SIZES = (3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
ON_F = [f"orbital_basis={BASIS}", "elements=1", "members=1"]
ROWS = {
    "linear": [*ON_F, "network.name=Linear"],
    "gated": ON_F,
    "matrix-power": [*ON_F, "network.name=MatrixPower"],
    "density": [*ON_F[1:], "elements=0.1", "density=3e3", f"start={FOLDER / 'gated'}"],
    "density-alone": [*ON_F[:1], "members=1", "density=3e3"],
}


def chosen() -> list[Sample]:
    """Molecules of the three parts, without labels."""
    samples = qm7_dataset(TRAIN).samples
    test = [s for s in samples if s.split == "test"][:TEST]
    return [*(s for s in samples if s.split != "test"), *test]


def labels() -> None:
    label_all([(OWN, s.name, s.molecule, (BASIS,)) for s in chosen()])


def train(*names: str) -> None:
    """By the command line's own path."""
    from vpotjax.cli import main as command_line

    FOLDER.mkdir(parents=True, exist_ok=True)
    data = FOLDER / "data.h5"
    if not data.exists():
        samples = [Sample(s.name, s.split, s.molecule, made(OWN / f"{s.name}.npz")) for s in chosen()]
        if lacking := [s.name for s in samples if not s.labels]:
            raise SystemExit(f"{len(lacking)} molecules have no labels; python -m benchmarks.scf_guess labels first")
        attributes = {"xc": "b3lyp", "small_basis": BASIS, "large_basis": BASIS, "ao_order": "pyscf"}
        write_dataset(data, Dataset(samples, attributes))
    for name in names:
        if command_line(["train", "--data", str(data), "--run", str(FOLDER / name), "--set", *ROWS[name]]):
            raise SystemExit(f"row {name} failed")


def choose(*names: str) -> None:
    """Of the first validation molecules."""
    held = [("validation", s.name, s.molecule) for s in chosen() if s.split == "validation"]
    for name in names:
        rows = finished(name, held[:CHOSEN_BY], FOLDER / f"validation-{name}.jsonl", ("vpotjax", "minao"))
        built = {guess: [row[guess]["built"] for row in rows] for guess in ("vpotjax", "minao")}
        first = statistics.median(row["vpotjax"]["first"] for row in rows)
        print(f"{name}: {built}, {sum(built['vpotjax']) / sum(built['minao']) - 1:+.0%}, E - E_end {first:.1e} hartree")


def scf(name: str, *titles: str) -> None:
    """Of all test molecules, or of these sets."""
    finished(
        name,
        [row for row in molecules() if not titles or row[0] in titles],
        FOLDER / f"scf-{name}.jsonl",
        ("vpotjax", *GUESSES),
    )


def finished(
    name: str, wanted: Sequence[tuple[str, str, Molecule]], out: Path, guesses: Sequence[str]
) -> list[dict[str, Any]]:
    """Fock matrices, energies and seconds of every molecule and guess, a line of JSON each."""
    import jax

    from vpotjax.interop.pyscf import initial_guess
    from vpotjax.io.model import load_model

    jax.config.update("jax_enable_x64", True)
    model = load_model(FOLDER / name)
    done = {json.loads(line)["name"] for line in out.read_text().splitlines()} if out.exists() else set()
    for title, own, molecule in wanted:
        if own in done:
            continue
        mol = mole(molecule)
        initial_guess(model, mol)  # compiles
        row: dict[str, Any] = {"set": title, "name": own, "natm": molecule.natm}
        for guess in guesses:
            row[guess] = converged(mol, lambda mf, g=guess: initial_guess(model, mf.mol) if g == "vpotjax" else g)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(own, *(f"{guess} {row[guess]['built']}" for guess in guesses), flush=True)
    return [json.loads(line) for line in out.read_text().splitlines()]


def molecules() -> list[tuple[str, str, Molecule]]:
    """Set, name and structure."""
    test = [("QM7 test", s.name, s.molecule) for s in chosen() if s.split == "test"]
    others = [("QM9" if name.startswith("qm9") else "chains", name, m) for name, m in transfer_molecules().items()]
    return [*test, *(row for row in others if row[2].natm <= LONGEST)]


def mole(molecule: Molecule) -> Any:
    """As a user of PySCF makes it."""
    from pyscf import gto

    atoms = list(zip(molecule.symbols, molecule.positions.tolist(), strict=True))
    return gto.M(atom=atoms, basis=BASIS, unit="Bohr", verbose=0, max_memory=16000)  # beside compiled programs


def mean_field(mol: Any) -> Any:
    """On one thread."""
    from pyscf import dft, lib

    lib.num_threads(1)
    mf: Any = dft.RKS(mol, xc="b3lyp").density_fit()
    mf.grids.level = 1
    return mf


def converged(mol: Any, guess: Any) -> dict[str, Any]:
    """One SCF: Fock matrices built, energy, seconds with those of the guess, and the error of the energy at first."""
    mf = mean_field(mol)
    build, energies = mf.get_veff, []

    def counted(*arguments: Any, **others: Any) -> Any:
        result = build(*arguments, **others)
        energies.append(mf.energy_tot(others.get("dm", arguments[1] if len(arguments) > 1 else None), vhf=result))
        return result

    mf.get_veff = counted
    start = time.perf_counter()
    density = guess(mf)
    if isinstance(density, str):
        density = mf.get_init_guess(mol, key=density)
    guessed = time.perf_counter() - start
    mf.kernel(dm0=density)
    seconds = time.perf_counter() - start
    return {
        "built": len(energies),
        "converged": bool(mf.converged),
        "energy": float(mf.e_tot),
        "first": float(energies[0] - mf.e_tot),
        "seconds": seconds,
        "guess": guessed,
    }


def noise() -> None:
    """How exact F has to be: of three validation molecules, errors of the elements in the Löwdin basis, hartree."""
    held = [s.molecule for s in chosen() if s.split == "validation"][:3]
    for size in SIZES:
        rows = []
        for i, molecule in enumerate(held):
            mol = mole(molecule)
            mf: Any = mean_field(mol)
            mf.kernel()
            values, vectors = np.linalg.eigh(mf.get_ovlp())
            root = (vectors * np.sqrt(values)) @ vectors.T
            errors = np.random.default_rng(i).standard_normal(root.shape) * size
            levels = mf.eig(mf.get_fock() + root @ (errors + errors.T) @ root / np.sqrt(2), mf.get_ovlp())
            density = mf.make_rdm1(levels[1], mf.mo_occ)
            rows.append(converged(mol, lambda _, own=density: own))
        built, first = [row["built"] for row in rows], statistics.median(row["first"] for row in rows)
        print(f"{size:.0e} hartree: {built} Fock matrices, E - E_end {first:.1e} hartree", flush=True)


def report() -> None:
    """A table for every model."""
    for file in sorted(FOLDER.glob("scf-*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        print(f"\n{file.stem.removeprefix('scf-')}, by molecules: Fock matrices built, seconds of the SCF, hartree\n")
        print("| set | guess | mean | median | against minao | seconds | of the guess | E − E_end at first |")
        print("|---|---|---|---|---|---|---|---|")
        for title in dict.fromkeys(row["set"] for row in rows):
            own = [row for row in rows if row["set"] == title]
            for guess in ("vpotjax", *GUESSES):
                print(f"| {title}, {len(own)} | {guess} | {_cells(own, guess)} |")
        energies = np.array([[row[g]["energy"] for g in ("vpotjax", *GUESSES)] for row in rows])
        lost = [f"{row['name']} {g}" for row in rows for g in ("vpotjax", *GUESSES) if not row[g]["converged"]]
        print(f"\nLargest difference of final energies {np.ptp(energies, axis=1).max():.1e} hartree; ", end="")
        print(f"not converged: {', '.join(lost) or 'none'}")


def _cells(rows: list[dict[str, Any]], guess: str) -> str:
    built, minao = ([row[g]["built"] for row in rows] for g in (guess, "minao"))
    seconds, own, first = ([row[guess][key] for row in rows] for key in ("seconds", "guess", "first"))
    more, mean = sum(built) / sum(minao) - 1, statistics.mean(seconds)
    cells = f"{statistics.mean(built):.2f} | {statistics.median(built):g} | {more:+.0%} | {mean:.2f}"
    return f"{cells} | {statistics.mean(own):.2f} | {statistics.median(first):.1e}"


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    what, *rest = sys.argv[1:] or ["report"]
    {"labels": labels, "train": train, "choose": choose, "scf": scf, "report": report, "noise": noise}[what](*rest)
