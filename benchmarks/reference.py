"""Reference data that survive: the same labels after kills and on a cluster, as by hand, and at what speed.

    python -m benchmarks.reference kills       200 QM7 molecules on two processes, killed ten times, against a whole run
    python -m benchmarks.reference by_hand     8 of them against PySCF's functions, called one by one
    python -m benchmarks.reference cluster     the same on a dask cluster of two workers, one of which is killed
    python -m benchmarks.reference published   the labels of 20 molecules each of two published files, made again
    python -m benchmarks.reference speed       one process, two, and two that only call PySCF, by turns
    python -m benchmarks.reference reading     samples of a file in shuffled batches

B3LYP: F and S in STO-3G, observables in def2-SVP with density fitting; PySCF's grid level 1, for level 3 takes three
times as long and shows the same. What is finished is kept in runs/reference; the same command goes on.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labels import SHARED
from benchmarks.runs import SINGLE_THREAD
from vpotjax.io.dataset import Dataset, read_dataset, write_dataset
from vpotjax.io.sample import SOURCE, Sample
from vpotjax.units import BOHR_TO_ANGSTROM

FOLDER = Path(__file__).parents[1] / "runs" / "reference"
COUNT, KILLS, BY_HAND, FROM_PUBLISHED, TURNS = 200, 10, 8, 20, 3
SPEED_COUNT, READ_COUNT, EPOCHS, BATCH = 16, 1000, 3, 32
SMALL, LARGE = "sto-3g", "def2-svp"
OPTIONS = ["--effective-basis", "None", "--large-basis", LARGE, "--xc", "b3lyp", "--grid-level", "1"]
PUBLISHED = {
    "b3lyp_qm7_train": ["--grid-level", "1"],
    "cookbook_qm7_150": ["--grid-level", "3", "--no-density-fitting"],
}
"""Files of the shared data, and how their labels in def2-TZVP were made. With fitting the highest levels of the second,
at 44 hartree, differ by 4 mhartree, occupied ones by 4e-5 hartree."""


def structures(name: str, count: int) -> Path:
    """Molecules drawn from all of QM7 at random (seed 0), as they stand in its file."""
    path = FOLDER / f"{name}.xyz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with gzip.open(SHARED / "qm7.extxyz.gz", "rt") as lines:
            frames = ["".join([first, *itertools.islice(lines, int(first) + 1)]) for first in lines]
        chosen = np.random.default_rng(0).permutation(len(frames))[:count]
        path.write_text("".join(frames[i] for i in chosen))
    return path


def started(source: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`vpotjax reference` in a process of its own."""
    command = [sys.executable, "-m", "vpotjax.cli", "reference", str(source), "--out", str(out), *OPTIONS, *options]
    return subprocess.Popen(command, env=os.environ | SINGLE_THREAD, stdout=subprocess.DEVNULL)


def finished(source: Path, out: Path, *options: str) -> float:
    """Seconds of a run to its end."""
    start = time.monotonic()
    if code := started(source, out, *options).wait():
        raise SystemExit(f"exit code {code}")
    return time.monotonic() - start


def parts(out: Path) -> int:
    """Molecules that are finished in a run that is not."""
    return len(list(out.with_name(out.name + ".parts").glob("*.h5")))


def kill(source: Path, out: Path, after: int, delay: float) -> None:
    """Kill a run by SIGKILL, some seconds after so many molecules are finished; its workers end by themselves."""
    process = started(source, out, "--workers", "2")
    while process.poll() is None and parts(out) < after:
        time.sleep(0.05)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    print(f"killed with {parts(out)} molecules finished, exit code {code}", flush=True)


def differences(one: Dataset, two: Dataset) -> dict[str, float]:
    """Largest of each label; SystemExit where names, splits, structures, order, labels or methods are not the same."""
    same = one.methods == two.methods and len(one.samples) == len(two.samples)
    largest: dict[str, float] = {}
    for a, b in zip(one.samples, two.samples, strict=False):
        same &= (a.name, a.split) == (b.name, b.split) and a.labels.keys() == b.labels.keys()
        same &= all(a.labels[key].keys() == b.labels[key].keys() for key in a.labels)
        same &= a.molecule.positions.tobytes() == b.molecule.positions.tobytes()
        same &= a.molecule.numbers.tobytes() == b.molecule.numbers.tobytes()
        for basis, key in ((name, key) for name in a.labels if name != SOURCE for key in a.labels[name]):
            own = float(np.abs(a.labels[basis][key] - b.labels[basis][key]).max())
            largest[f"{basis} {key}"] = max(largest.get(f"{basis} {key}", 0.0), own)
    if not same:
        raise SystemExit("names, splits, structures, order, labels or methods differ")
    return largest


def whole_run() -> tuple[Path, Dataset]:
    """The structures, and their labels by a run that nothing interrupts."""
    source, out = structures("qm7", COUNT), FOLDER / "whole.h5"
    if not out.exists():
        print(f"uninterrupted: {finished(source, out, '--workers', '2'):.0f} s", flush=True)
    return source, read_dataset(out)


def kills() -> None:
    """Ten at moments drawn at random over the run."""
    source, whole = whole_run()
    out, rng = FOLDER / "killed.h5", np.random.default_rng(0)
    for after, delay in zip(np.sort(rng.integers(0, COUNT, KILLS)), rng.uniform(0, 10, KILLS), strict=True):
        if not out.exists() and parts(out) <= after:
            kill(source, out, int(after), float(delay))
    print(f"the rest: {finished(source, out, '--workers', '2'):.0f} s", flush=True)
    tell(f"{COUNT} molecules, killed, against the whole run", differences(whole, read_dataset(out)))


def cluster() -> None:
    """A worker of two is killed when a third of the molecules is finished; its nanny starts another."""
    import distributed

    source, whole = whole_run()
    out = FOLDER / "cluster.h5"
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    local: Any = distributed.LocalCluster(**options)
    with local as own:
        process = started(source, out, "--scheduler", own.scheduler_address)
        while process.poll() is None and parts(out) < COUNT // 3:
            time.sleep(0.5)
        victim = next(iter(own.workers.values())).pid
        os.kill(victim, signal.SIGKILL)
        print(f"worker {victim} killed with {parts(out)} molecules finished", flush=True)
        print(f"exit code {process.wait()}", flush=True)
    tell(f"{COUNT} molecules, on the cluster, against the whole run", differences(whole, read_dataset(out)))


def by_hand() -> None:
    """Largest differences to PySCF's own functions, with PySCF's own tables of the bases."""
    out, source = FOLDER / "by_hand.h5", structures("by_hand", BY_HAND)
    finished(source, out, "--workers", "2")
    largest: dict[str, float] = {}
    for sample in read_dataset(out).samples:
        for basis, labels in sample.labels.items():
            if basis == SOURCE:
                continue
            atoms = list(zip(sample.molecule.numbers.tolist(), sample.molecule.positions.tolist(), strict=True))
            mf = calculation(atoms, basis)
            mol, occupied = mf.mol, mf.mol.nelectron // 2
            levels, orbitals = mf.eig(mf.get_fock(), mf.get_ovlp())
            r = orbitals.T @ mol.intor("int1e_r") @ orbitals
            alpha = np.zeros((3, 3))
            for i, a in itertools.product(range(occupied), range(occupied, len(levels))):
                alpha += 4 * np.outer(r[:, i, a], r[:, i, a]) / (levels[a] - levels[i])
            density = 2 * orbitals[:, :occupied] @ orbitals[:, :occupied].T
            values = {"energy": mf.e_tot, "mo_energies": levels}
            values |= {"dipole": mf.dip_moment(dm=density, unit="AU", verbose=0)}
            values |= {"polarizability": alpha, "fock": mf.get_fock(), "overlap": mol.intor("int1e_ovlp")}
            for key, value in labels.items():
                own = float(np.abs(value - values[key]).max())
                largest[f"{basis} {key}"] = max(largest.get(f"{basis} {key}", 0.0), own)
    tell(f"{BY_HAND} molecules by PySCF alone", largest)


def published() -> None:
    """Labels of the generator against those of files that others have made."""
    from vpotjax.io.cookbook import open_cookbook

    bases = {"sto3g": SMALL, "tzvp": "def2-tzvp"}
    for name, options in PUBLISHED.items():
        file = open_cookbook(SHARED / f"{name}.npz", bases)
        places = np.random.default_rng(0).permutation(len(file.names))[:FROM_PUBLISHED].tolist()
        chosen = [Sample(str(file.names[i]), "train", file.molecules[i], file.labels(i)) for i in places]
        source = FOLDER / f"{name}.xyz"
        FOLDER.mkdir(parents=True, exist_ok=True)
        source.write_text("".join(map(xyz, chosen)))
        for basis, others in ((SMALL, ["--grid-level", "3"]), ("def2-tzvp", options)):
            out = FOLDER / f"{name}-{basis}.h5"
            own = ["--small-basis", SMALL, "--large-basis", "None"]
            if basis != SMALL:
                own = ["--small-basis", "sto-6g", "--large-basis", basis, "--matrices"]
            finished(source, out, *own, "--workers", "2", *others, "--observables", *OBSERVABLES)
            made = {s.name: s.labels[basis] for s in read_dataset(out).samples}
            largest: dict[str, float] = {}
            for sample in chosen:
                for key, value in made[sample.name].items():
                    if key in sample.labels[basis]:
                        error = float(np.abs(value - sample.labels[basis][key]).max())
                        largest[f"{basis} {key}"] = max(largest.get(f"{basis} {key}", 0.0), error)
            tell(f"{name}, {len(made)} molecules", largest)


OBSERVABLES = ["energy", "mo_energies", "dipole", "polarizability", "mayer_bond_orders"]


def xyz(sample: Sample) -> str:
    """A frame with coordinates in all digits."""
    from ase.data import chemical_symbols

    rows = [
        " ".join([chemical_symbols[z], *(repr(float(x)) for x in place)])
        for z, place in zip(sample.molecule.numbers, sample.molecule.positions * BOHR_TO_ANGSTROM, strict=True)
    ]
    return "\n".join([str(len(rows)), f"name={sample.name}", *rows]) + "\n"


def calculation(atoms: Sequence[tuple[int, Sequence[float]]], basis: str) -> Any:
    """What `vpotjax reference` runs, with PySCF's own table of the basis."""
    from pyscf import dft, gto

    mf: Any = dft.RKS(gto.M(atom=list(atoms), unit="Bohr", basis=basis, verbose=0), xc="b3lyp")
    mf = mf if basis == SMALL else mf.density_fit()
    mf.grids.level, mf.conv_tol = 1, 1e-10
    mf.kernel()
    return mf


def bare(frame: tuple[list[int], np.ndarray]) -> None:
    """What `vpotjax reference` computes of a molecule, by nothing but PySCF."""
    from pyscf import lib

    lib.num_threads(1)
    for basis in (SMALL, LARGE):
        mf = calculation(list(zip(*frame, strict=True)), basis)
        levels, orbitals = mf.eig(mf.get_fock(), mf.get_ovlp())
        o = mf.mo_occ > 0
        r = np.einsum("xpq,pi,qa->xia", mf.mol.intor("int1e_r"), orbitals[:, o], orbitals[:, ~o])
        np.einsum("xia,yia->xy", r / (levels[None, ~o] - levels[o, None]), r)
        mf.dip_moment(unit="AU", verbose=0)


def bare_seconds(source: Path) -> float:
    """Of PySCF alone on two processes, one molecule at a time, without keeping anything."""
    from vpotjax.molecule import iterate_molecules

    frames = [(m.numbers.tolist(), m.positions) for _, m in iterate_molecules(source)]
    start = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(bare, frames))
    return time.monotonic() - start


def speed() -> None:
    """Medians over the turns, with the start of all processes; the generator writes its file."""
    os.environ.update(SINGLE_THREAD)
    source, times = structures("speed", SPEED_COUNT), {"one process": [], "two processes": [], "bare PySCF, two": []}
    for _ in range(TURNS):
        for name, workers in (("one process", "1"), ("two processes", "2")):
            with fresh(FOLDER / "speed.h5") as out:
                times[name].append(finished(source, out, "--workers", workers))
        times["bare PySCF, two"].append(bare_seconds(source))
    medians = {name: statistics.median(own) for name, own in times.items()}
    tell(f"seconds of {SPEED_COUNT} molecules", medians)
    one, two, bare_two = medians.values()
    print(f"rate of two processes: {one / two:.2f} times that of one, {bare_two / two:.2f} times that of bare PySCF")


def reading() -> None:
    """Molecules per second in shuffled batches, with the opening of the file; random labels of the usual shapes."""
    from vpotjax.io.stream import sample_batches

    rng, path = np.random.default_rng(0), FOLDER / "reading.h5"
    samples = [stuffed(name, rng) for name in molecules_of(structures("reading", READ_COUNT))]
    path.unlink(missing_ok=True)
    write_dataset(path, Dataset(samples))
    rates, count = [], 0
    for _ in range(TURNS):
        start, count = time.monotonic(), 0
        for batch in sample_batches(path, BATCH, epochs=EPOCHS):
            count += len(batch)
        rates.append(count / (time.monotonic() - start))
    print(f"read {count} samples in batches of {BATCH}: {statistics.median(rates):.0f} molecules per second")


def molecules_of(source: Path) -> Iterator[tuple[str, Any]]:
    from vpotjax.molecule import iterate_molecules

    return iterate_molecules(source)


def stuffed(named: tuple[str, Any], rng: np.random.Generator) -> Sample:
    """A sample whose labels have the right shapes."""
    from vpotjax.basis import load_basis

    name, molecule = named
    small, large = (load_basis(basis, molecule.numbers).nao for basis in (SMALL, "def2-tzvp"))
    square = rng.standard_normal((2, small, small))
    fock, overlap = square + np.swapaxes(square, 1, 2)
    labels: dict[str, dict[str, Any]] = {SMALL: {"fock": fock, "overlap": overlap}, "def2-tzvp": {}}
    for basis, n in ((SMALL, small), ("def2-tzvp", large)):
        alpha = rng.standard_normal((3, 3))
        labels[basis] |= {"energy": rng.standard_normal(()), "mo_energies": np.sort(rng.standard_normal(n))}
        labels[basis] |= {"dipole": rng.standard_normal(3), "polarizability": alpha + alpha.T}
    return Sample(name, "train", molecule, labels)


@contextlib.contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """A file that is not there before and after."""
    out.unlink(missing_ok=True)
    yield out
    out.unlink()


def tell(title: str, values: dict[str, float]) -> None:
    """All of them, in lines."""
    print(f"{title}:", flush=True)
    for key, value in values.items():
        print(f"  {key:<32} {value:.3g}", flush=True)


if __name__ == "__main__":
    commands = {
        "kills": kills,
        "by_hand": by_hand,
        "cluster": cluster,
        "published": published,
        "speed": speed,
        "reading": reading,
    }
    if sys.argv[1:2] == [] or sys.argv[1] not in commands:
        raise SystemExit(__doc__)
    commands[sys.argv[1]]()
