"""An effective Hamiltonian of QM7: trained on 700 molecules, tested on QM7, QM9 and chains that it never saw.

    python -m benchmarks.qm7_data           labels of QM9 molecules and chains, once
    python -m benchmarks.qm7                the default, by the command line's own path; at most 30 minutes on two cores
    python -m benchmarks.qm7 seed-1 bare    other rows, see ROWS
    python -m benchmarks.qm7 report         the tables of all rows that are there

Errors are RMSE of ‖Δ‖/natm (Suman et al. 2025, JCTC 21, 6505, whose linear models are the last row) and the mean
absolute error of the gap. How the settings were chosen, with test errors in view, is in docs/benchmarks/qm7.md. Runs
are kept in runs/qm7.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.qm7_data import LARGE, MIDDLE, SMALL, qm7_dataset, transfer_dataset

if TYPE_CHECKING:
    from vpotjax.train.evaluate import Evaluation

RUNS = Path(__file__).parents[1] / "runs" / "qm7"
ONE = ["members=1"]
SHORT = [*ONE, "descent.steps=400"]
STO_3G = ["orbital_basis=sto-3g"]
BARE = ['inputs=["overlap", "kinetic", "external"]', "baseline=core", "frame=ao"]
ROWS: dict[str, tuple[int, list[str]]] = {
    "default": (700, []),
    "seed-1": (700, ["descent.seed=100"]),
    "seed-2": (700, ["descent.seed=200"]),
    "sto-3g": (700, STO_3G),
    "bare": (700, [*ONE, *BARE]),
    "unguarded": (700, [*SHORT, *BARE, "descent.limit=1e9", "descent.tolerated=0.99"]),
    "100": (100, ONE),
    "200": (200, ONE),
    "400": (400, ONE),
    "rate-4": (700, [*SHORT, "descent.seed=300", "descent.learning_rate=8e-3"]),
    "rate-quarter": (700, [*SHORT, "descent.seed=400", "descent.learning_rate=5e-4"]),
    "batch-8": (700, [*SHORT, "descent.seed=500", "descent.learning_rate=4e-3", "descent.batch_size=8"]),
    "batch-16": (700, [*SHORT, "descent.seed=600", "descent.batch_size=16"]),
    "batch-128": (700, [*SHORT, "descent.seed=700", "descent.batch_size=128"]),
}
"""By name: training molecules, and settings of `vpotjax train`."""
SHOWN = ("mo_energies", "dipole", "polarizability")
PUBLISHED = {"QM7 test": (0.283, 0.0086, 1.136), "QM9": (0.488, 0.0261, 2.822)}


def run(name: str) -> None:
    """Train one row."""
    from vpotjax.cli import main as command_line
    from vpotjax.io.dataset import write_dataset

    train, settings = ROWS[name]
    RUNS.mkdir(parents=True, exist_ok=True)
    data = RUNS / f"data-{train}.h5"
    if not data.exists():
        dataset = qm7_dataset(train)
        if lacking := [s.name for s in dataset.samples if MIDDLE not in s.labels]:
            raise SystemExit(f"{len(lacking)} molecules have no F in {MIDDLE}; python -m benchmarks.qm7_data first")
        write_dataset(data, dataset)
    start = time.perf_counter()
    if command_line(["train", "--data", str(data), "--run", str(RUNS / name), "--set", *settings]):
        raise SystemExit(f"row {name} failed")
    (RUNS / name / "seconds.txt").write_text(f"{time.perf_counter() - start:.0f}\n")


def report(names: Sequence[str]) -> str:
    """Markdown tables of rows that are there."""
    import jax

    from vpotjax.io.model import load_model
    from vpotjax.models.ensemble import Ensemble
    from vpotjax.nn import Linear
    from vpotjax.train.evaluate import evaluated
    from vpotjax.train.samples import Labels, prepared_buckets

    jax.config.update("jax_enable_x64", True)
    transfer = transfer_dataset().samples
    sets = {
        "QM7 test": qm7_dataset().split("test"),
        "QM9": [s for s in transfer if s.name.startswith("qm9")],
        "chains": [s for s in transfer if not s.name.startswith("qm9")],
    }
    names_of_observables = (*SHOWN, "homo_lumo_gap")
    lines, chains = [], []
    for title, samples in sets.items():
        if not samples:
            continue
        lines += [
            f"\n{title}, {len(samples)} molecules\n",
            "| row | ε (eV) | μ (e·bohr) | α (bohr³) | gap MAE (eV) | s |",
        ]
        lines.append("|---|---|---|---|---|---|")
        prepared: dict[Any, Any] = {}
        for name in names:
            folder = RUNS / name
            if not (folder / "seconds.txt").exists():
                continue
            model = load_model(folder)
            key = dataclasses.replace(model.settings, network=Linear())  # rows differ in the network, or in nothing
            if key not in prepared:
                labels = Labels(LARGE, SMALL, names_of_observables)
                made = prepared_buckets(samples, model.settings, labels, 2 if title != "chains" else 4)
                prepared[key] = [b for _, b in made]
            buckets = prepared[key]
            seconds = (folder / "seconds.txt").read_text().strip()
            whole = evaluated(model, buckets, names_of_observables)
            lines.append(_row(name, whole, seconds))
            if model.members > 1:
                alone = dataclasses.replace(model.model, params=jax.tree.map(lambda x: x[0], model.model.params))
                lines.append(
                    _row(f"{name}, one network", evaluated(Ensemble.of([alone]), buckets, names_of_observables), "")
                )
            if title == "chains":
                chains += _molecules(name, whole, {s.name: s.molecule.natm for s in samples})
        if title in PUBLISHED:
            lines.append("| published, linear | " + " | ".join(str(x) for x in PUBLISHED[title]) + " | | |")
    return "\n".join([*lines, "", *chains]) + "\n"


def _row(name: str, evaluation: Evaluation, seconds: str) -> str:
    summary = evaluation.summary
    cells = [f"{summary[key].rms_norm:.4f}" for key in SHOWN] + [
        f"{summary['homo_lumo_gap'].mean_absolute:.3f}",
        seconds,
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _molecules(name: str, evaluation: Evaluation, natm: dict[str, int]) -> list[str]:
    """Gaps, and errors and uncertainties of each molecule."""
    from vpotjax.units import HARTREE_TO_EV

    lines = [f"\n{name}: gap, and ‖Δ‖/natm of the others; in brackets the uncertainty\n"]
    lines += ["| molecule | gap, B3LYP (eV) | predicted | ε (eV) | μ (e·bohr) | α (bohr³) |"]
    lines += ["|---|---|---|---|---|---|"]
    predicted, wanted = (x * HARTREE_TO_EV for x in evaluation.pairs["homo_lumo_gap"])

    def cell(value: Any, key: str, i: int, digits: int, factor: float = 1.0) -> str:
        uncertainty = evaluation.uncertainties.get(key)
        return f"{value:.{digits}f}" + ("" if uncertainty is None else f" ({factor * uncertainty[i]:.{digits}f})")

    for i in np.argsort(evaluation.names):
        cells = [cell(evaluation.norms[key][i], key, i, 4) for key in SHOWN]
        gap = cell(predicted[i], "homo_lumo_gap", i, 2, natm[evaluation.names[i]])
        lines.append(f"| {evaluation.names[i]} | {wanted[i]:.2f} | {gap} | " + " | ".join(cells) + " |")
    for key in (*SHOWN, "homo_lumo_gap"):
        if key in evaluation.uncertainties:
            errors, uncertainties = evaluation.norms[key], evaluation.uncertainties[key]
            one, other = (np.argsort(np.argsort(x)) for x in (errors, uncertainties))
            lines.append(f"Rank correlation of error and uncertainty, {key}: {np.corrcoef(one, other)[0, 1]:.2f}")
    return lines


def main(arguments: Sequence[str]) -> None:
    """Rows, or the report."""
    if list(arguments) == ["report"]:
        print(report(list(ROWS)))
        return
    for name in arguments or ("default",):
        run(name)
    print(report(arguments or ("default",)))


if __name__ == "__main__":
    main(sys.argv[1:])
