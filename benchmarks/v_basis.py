"""The basis of V against that of F: F of B3LYP in three bases, fitted in closed form from powers of V in three.

    python -m benchmarks.scf_guess labels     F in def2-SVP of 240 + 45 + 30 QM7 molecules
    python -m benchmarks.pretrained labels    in 6-31G; in STO-3G it is among the shared data
    python -m benchmarks.v_basis              20 minutes on one core
    python -m benchmarks.v_basis report

240 molecules are fitted, 45 choose regularisers with them, 30 are the test: the same for all rows, which have no
network. Errors are those of the levels and of the gap against the F that is learned. Finished rows are kept in
runs/v_basis.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.qm7_data import EFFECTIVE, MIDDLE, SMALL, made
from benchmarks.runs import SINGLE_THREAD
from benchmarks.scf_guess import BASIS as SPLIT_VALENCE
from benchmarks.scf_guess import OWN, chosen
from vpotjax.io.sample import Sample

FILE = Path(__file__).parents[1] / "runs" / "v_basis.json"
BASES = (SMALL, MIDDLE, SPLIT_VALENCE)
FOLDERS = {MIDDLE: EFFECTIVE, SPLIT_VALENCE: OWN}
SPECIES, SHOWN = (1, 6, 7, 8), ("mo_energies", "homo_lumo_gap")


def labelled() -> list[Sample]:
    """The molecules with F in all bases."""
    result = []
    for sample in chosen():
        own = {basis: made(folder / f"{sample.name}.npz")[basis] for basis, folder in FOLDERS.items()}
        result.append(dataclasses.replace(sample, labels={**sample.labels, **own}))
    return result


def row(samples: list[Sample], potential: str, target: str) -> dict[str, Any]:
    """Errors on the test molecules, eV, of one fit."""
    from vpotjax.models.ensemble import Ensemble
    from vpotjax.train.config import Training
    from vpotjax.train.evaluate import evaluated
    from vpotjax.train.fit import linear_fit, whitened
    from vpotjax.train.samples import Labels, prepared_buckets
    from vpotjax.train.stages import split_buckets

    settings = Training(basis=potential, orbital_basis=target).settings(SPECIES, target)
    parts = {part: [s for s in samples if s.split == part] for part in ("train", "validation", "test")}
    labels, begun = Labels(target, target, SHOWN, target), time.perf_counter()
    train, validation = split_buckets({k: parts[k] for k in ("train", "validation")}, settings, labels, 2).values()
    model = linear_fit(train, validation, settings, whitened(train, settings), lambda b: b.reference.values["fock"])
    seconds = time.perf_counter() - begun
    test = [b for _, b in prepared_buckets(parts["test"], settings, Labels(target, target, SHOWN), 1)]
    summary = evaluated(Ensemble.of([model]), test, SHOWN).summary
    return {key: float(summary[key].mean_absolute) for key in SHOWN} | {
        "left": float(model.scale),
        "channels": sum(sum(n) for n in settings.representation.channels(i for i, _ in settings.outputs).values()),
        "seconds": round(seconds),
    }


def main() -> None:
    """The rows that are not there yet; a target of d functions needs d functions of V."""
    import jax

    jax.config.update("jax_enable_x64", True)
    rows = json.loads(FILE.read_text()) if FILE.exists() else {}
    samples = labelled()
    for potential in BASES:
        for target in BASES:
            key = f"{potential} {target}"
            if key in rows or (target == SPLIT_VALENCE and potential != SPLIT_VALENCE):
                continue
            rows[key] = row(samples, potential, target)
            FILE.parent.mkdir(parents=True, exist_ok=True)
            FILE.write_text(json.dumps(rows))
            print(key, rows[key], flush=True)
            jax.clear_caches()


def report() -> None:
    """The table."""
    print("| V in | F in | ε, eV | gap, eV | left of F, mhartree | channels | seconds |\n|---|---|---|---|---|---|---|")
    for key, own in json.loads(FILE.read_text()).items():
        cells = [*key.split(), *(f"{own[name]:.3f}" for name in SHOWN), f"{1e3 * own['left']:.2f}"]
        print(f"| {' | '.join(cells)} | {own['channels']} | {own['seconds']} |")


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    (report if "report" in sys.argv else main)()
