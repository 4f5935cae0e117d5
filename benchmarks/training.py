"""Speed of a training step, and memory of a training on all of QM7.

    python -m benchmarks.training step CHECKOUT    against the package in another folder, with the API of 86d33f0
    python -m benchmarks.training memory           all 7041 molecules, 100 steps in batches of 32; prints the peak

A step is that of ε, μ and α of B3LYP/def2-TZVP with each package's default network, in processes of their own on one
thread, by turns. Both take the same 32 molecules of the 700 of `benchmarks.qm7_data`, from each bucket in turn, and pad
as in a training on all 700: the old package to the largest molecule of the set, this one to that of the bucket.

Memory: labels are those of T + SAP, made here, in 6-31G (with F and S) and in def2-SVP: the truth does not matter, and
the few molecules whose gap is closed there get zeros. The data set and the run are in runs/memory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels import SHARED, frames
from benchmarks.runs import SINGLE_THREAD

ROOT = Path(__file__).parents[1]
BATCH, REPORTS, INTERVAL, TURNS = 32, 5, 20, 3
MEMORY = ROOT / "runs" / "memory"
Report = Callable[[dict[str, Any]], None]


def seconds_of(train: Callable[[Report], Any]) -> float:
    """Of a step: median over the reports of a training, but for the two first, which compile."""
    times = [time.perf_counter()]
    train(lambda row: times.append(time.perf_counter()))
    return statistics.median(np.diff(times)[2:]) / INTERVAL


def this_step(orbital_basis: str, raw: Sequence[Any]) -> float:
    """Seconds of a step of this package."""
    from benchmarks.qm7_data import LARGE, SMALL
    from vpotjax.io.sample import Sample
    from vpotjax.molecule import Molecule
    from vpotjax.train.config import Training
    from vpotjax.train.descent import Descent
    from vpotjax.train.matrix_training import labels_for
    from vpotjax.train.samples import with_model
    from vpotjax.train.stages import split_buckets

    fit: Any = importlib.import_module("vpotjax.train.fit")
    samples = [Sample(name, "train", Molecule(z, r), labels) for name, z, r, labels in raw[: BATCH + 2]]
    descent = Descent(REPORTS * INTERVAL, batch_size=BATCH, learning_rate=1e-6, evaluations=REPORTS)
    training = Training(members=1, orbital_basis=orbital_basis, descent=descent)
    settings = training.settings((1, 6, 7, 8), SMALL)
    labels = labels_for(training, settings, SMALL, LARGE, samples[0])
    parts = {"train": samples[:BATCH], "validation": samples[BATCH:]}
    train, check = split_buckets(parts, settings, labels, 1).values()
    whitening = fit.whitened(train, settings)
    start = fit.linear_fit(train, check, settings, whitening, fit.aligned_matrices)
    train, check = ([with_model(b, start) for b in own] for own in (train, check))
    loss = training.loss(1.0)
    return seconds_of(lambda tell: fit.fit(start, settings, train, check, loss, descent, report=tell))


def _stop() -> None:
    raise StopIteration


def old_step(folder: str, raw: Sequence[Any]) -> float:
    """Seconds of a step of the package in `folder`; the last molecule is the largest of the set."""
    for name in [name for name in sys.modules if name.split(".")[0] == "vpotjax"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    package, fit, data, config, dataset, molecule = (
        importlib.import_module(name)
        for name in (
            "vpotjax",
            "vpotjax.train.fit",
            "vpotjax.train.data",
            "vpotjax.model",
            "vpotjax.io.dataset",
            "vpotjax.molecule",
        )
    )
    assert str(package.__file__).startswith(folder), package.__file__
    samples = [dataset.Sample(name, "train", molecule.Molecule(z, r), labels) for name, z, r, labels in raw]
    settings = fit.TrainConfig(steps=REPORTS * INTERVAL, batch_size=BATCH, learning_rate=1e-6, evaluations=REPORTS)
    model = config.ModelConfig(species=(1, 6, 7, 8), orbital_basis="sto-3g")
    arrays = data.training_arrays(samples, model, "def2-tzvp")
    start = fit.direct_fit(arrays[:BATCH], arrays[BATCH:], model, settings)

    def train(tell: Report) -> None:
        """Its networks follow one another; the first is timed."""
        with contextlib.suppress(StopIteration):
            fit.train_on_observables(start, settings, lambda row: tell(row) if row["network"] == "raw-0" else _stop())

    return seconds_of(train)


def worker(kind: str, argument: str, file: str) -> None:
    """Print the seconds of one package."""
    import jax

    jax.config.update("jax_enable_x64", True)
    raw = pickle.loads(Path(file).read_bytes())
    print(json.dumps((this_step if kind == "this" else old_step)(argument, raw)))


def batches() -> Iterator[tuple[float, list[Any]]]:
    """Share of each bucket among the 700, and 34 of its molecules with the largest of all: names, places, labels."""
    from benchmarks.qm7_data import MIDDLE, SMALL, qm7_dataset
    from vpotjax.batching import buckets

    samples = qm7_dataset().split("train")
    largest = max(samples, key=lambda s: s.molecule.natm)
    molecules = [s.molecule for s in samples]
    for rows, _ in buckets(molecules, {"orbital": MIDDLE if MIDDLE in samples[0].labels else SMALL}, 4):
        chosen = np.random.default_rng(0).permutation(rows)[: BATCH + 2]
        own = [*(samples[i] for i in chosen), largest]
        yield (
            len(rows) / len(samples),
            [(s.name, np.asarray(s.molecule.numbers), np.asarray(s.molecule.positions), s.labels) for s in own],
        )


def steps(checkout: str) -> None:
    """The table."""
    rows: dict[str, list[float]] = {}
    jobs = {"sto-3g": ("this", "sto-3g"), "6-31g": ("this", "6-31g"), "old": ("old", str(Path(checkout).resolve()))}
    for share, raw in batches():
        with tempfile.NamedTemporaryFile() as file:
            file.write(pickle.dumps(raw))
            file.flush()
            times: dict[str, list[float]] = {name: [] for name in jobs}
            for _ in range(TURNS):
                for name, job in jobs.items():
                    command = [sys.executable, "-m", "benchmarks.training", "worker", *job, file.name]
                    done = subprocess.run(
                        command, env=os.environ | SINGLE_THREAD, capture_output=True, text=True, check=False
                    )
                    if done.returncode:
                        raise SystemExit(f"{' '.join(job)} failed:\n{done.stderr[-2000:]}")
                    times[name].append(float(done.stdout.splitlines()[-1]))
        own = {name: statistics.median(values) for name, values in times.items()}
        size = max(len(numbers) for _, numbers, *_ in raw[:BATCH])
        cells = ", ".join(f"{name} {x:.3f} s" for name, x in own.items())
        print(f"share {share:.2f}, up to {size} atoms: {cells}", flush=True)
        for name, x in own.items():
            rows.setdefault(name, []).append(share * x)
    mean = {name: sum(values) for name, values in rows.items()}
    for name, x in mean.items():
        print(f"{name}: {x:.3f} s, {BATCH / x:.0f} molecules per second, {mean['old'] / x:.2f} times the old package")


def memory() -> None:
    """Make the data set and train; print the largest resident set."""
    from vpotjax.cli import main as command_line

    data = MEMORY / "qm7.h5"
    if not data.exists():
        MEMORY.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, "-m", "benchmarks.training", "data", str(data)], check=False)
        if done.returncode:
            raise SystemExit("the data set could not be made")
    number = len(list(MEMORY.glob("run-*")))
    arguments = ["train", "--data", str(data), "--run", str(MEMORY / f"run-{number}")]
    start = time.perf_counter()
    code = command_line([*arguments, "--set", "members=1", "descent.steps=100", "descent.evaluations=2"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"exit code {code}, {time.perf_counter() - start:.0f} s, largest resident set {peak:.2f} GiB")


def make_data(path: str) -> None:
    """All of QM7 with labels of T + SAP."""
    import jax
    from ase.data import atomic_numbers

    from vpotjax.io.dataset import Dataset, write_dataset
    from vpotjax.io.sample import Sample
    from vpotjax.molecule import Molecule
    from vpotjax.units import ANGSTROM_TO_BOHR

    jax.config.update("jax_enable_x64", True)
    molecules = [
        Molecule(np.array([atomic_numbers[s] for s in symbols]), places * ANGSTROM_TO_BOHR)
        for _, symbols, places in frames(SHARED / "qm7.extxyz.gz")
    ]
    labels = [_baseline_labels(molecules, basis, basis == "6-31g") for basis in ("6-31g", "def2-svp")]
    order = np.random.default_rng(0).permutation(len(molecules))
    splits = dict.fromkeys(order[:60].tolist(), "test") | dict.fromkeys(order[60:120].tolist(), "validation")
    samples = [
        Sample(f"qm7_{i}", splits.get(i, "train"), m, {"6-31g": small, "def2-svp": large})
        for i, (m, small, large) in enumerate(zip(molecules, *labels, strict=True))
    ]
    attributes = {"xc": "none", "small_basis": "6-31g", "large_basis": "def2-svp", "ao_order": "pyscf"}
    write_dataset(Path(path), Dataset(samples, attributes))


def _baseline_labels(molecules: Sequence[Any], basis: str, matrices: bool) -> list[dict[str, np.ndarray]]:
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.batching import buckets, pad_batch
    from vpotjax.models.matrix_model import baseline_fock

    def one(molecule: Any) -> dict[str, jax.Array]:
        own, places = molecule.bases["orbital"], molecule.positions
        fock, overlap = baseline_fock(own, places, "sap"), vp.overlap(own, places)
        position = vp.position_integrals(own, places, jnp.zeros(3))
        solved = vp.orbitals(fock, overlap, molecule.nelec, own.ao_mask)
        charges = jnp.asarray(own.nuclear_charges)
        return {
            "fock": fock,
            "overlap": overlap,
            "mo_energies": vp.eigh(fock, overlap, own.ao_mask)[0],
            "dipole": vp.dipole(solved.density, position, places, charges),
            "polarizability": vp.polarizability(fock, overlap, position, molecule.nelec, own.ao_mask),
        }

    compute = jax.jit(lambda batch: jax.lax.map(one, batch))
    result: list[Any] = [None] * len(molecules)
    for rows, shape in buckets(molecules, {"orbital": basis}, 8):
        for start in range(0, len(rows), 64):
            chosen = rows[start : start + 64]
            batch = pad_batch([molecules[i] for i in chosen], {"orbital": basis}, shape)
            values = jax.tree.map(np.asarray, compute(jax.tree.map(jnp.asarray, batch)))
            for place, i in enumerate(chosen):
                n = int(batch[place].bases["orbital"].ao_mask.sum())
                cut = {key: x[place][tuple(slice(n) for _ in range(x.ndim - 1))] for key, x in values.items()}
                cut |= {key: np.nan_to_num(values[key][place]) for key in ("dipole", "polarizability")}
                result[i] = {k: x for k, x in cut.items() if matrices or k not in ("fock", "overlap")}
    return result


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["memory"]
    {"step": steps, "memory": memory, "worker": worker, "data": make_data}[what](*rest)
