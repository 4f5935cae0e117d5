"""`vpotjax reference`: label thermally displaced molecules with PySCF, in parallel, resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.io.dataset import Dataset, Sample, read_dataset, require_text, write_dataset
from vpotjax.molecule import Molecule
from vpotjax.reference.structures import thermal_displacements

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HESSIAN_BASIS = "sto-3g"
LABELS = {"energy", "mo_energies", "dipole", "polarizability"}


@dataclass(frozen=True)
class ReferenceSettings:
    """How labels are made.

    Attributes:
        small_basis: its labels include the Fock and overlap matrices.
        effective_basis: likewise, for effective Hamiltonians of more functions; None: none. With density fitting.
        large_basis: its labels are the targets of an effective Hamiltonian; computed with density fitting.
        xc: functional (PySCF's name), or "hf".
        geometries: per molecule, drawn from the harmonic ensemble of RHF/STO-3G.
        temperature: of that ensemble, kelvin.
        grid_level: PySCF's integration grid, 0 to 9.
        validation, test: fractions of the molecules in these splits; a molecule is never in two.
        seed: of the displacements and of the split.

    Raises:
        InputError: a value is out of range. Names of bases and functional are checked by `generate`.
    """

    small_basis: str = "sto-3g"
    effective_basis: str | None = "6-31g"
    large_basis: str = "def2-tzvp"
    xc: str = "b3lyp"
    geometries: int = 5
    temperature: float = 300.0
    grid_level: int = 3
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("small_basis", "effective_basis", "large_basis", "xc"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "effective_basis" and value is None):
                raise InputError(f"{name} is {value!r}; give a name.")
        for name, low, high in (("geometries", 1, math.inf), ("grid_level", 0, 9), ("seed", 0, math.inf)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
                limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
                raise InputError(f"{name} is {value!r}; give an integer {limit}.")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature} K; give a finite value ≥ 0.")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise InputError(
                f"validation={self.validation} and test={self.test} leave no training molecules; give fractions "
                "whose sum is below 1."
            )
        names = [basis.casefold() for basis in self.bases]
        if twice := next((basis for basis in names if names.count(basis) > 1), None):
            raise InputError(f"two of small_basis, effective_basis and large_basis are {twice!r}; give different ones.")

    @property
    def bases(self) -> dict[str, bool]:
        """All of them, and whether their labels include F and S."""
        middle = {} if self.effective_basis is None else {self.effective_basis: True}
        return {self.small_basis: True} | middle | {self.large_basis: False}


def assign_splits(names: list[str], validation: float, test: float, seed: int) -> dict[str, str]:
    """Split molecules at random (numpy's default generator with `seed`, over the sorted names)."""
    order = [str(n) for n in np.random.default_rng(seed).permutation(sorted(names))]
    ntest, nvalidation = round(test * len(names)), round(validation * len(names))
    return {
        name: "test" if i < ntest else "validation" if i < ntest + nvalidation else "train"
        for i, name in enumerate(order)
    }


def generate(
    molecules: Mapping[str, Molecule],
    out: Path,
    settings: ReferenceSettings,
    workers: int = 1,
    report: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Dataset:
    """Label `molecules` and write `out`.

    Finished molecules are kept in the folder `out`.parts until all are, so that a rerun resumes. A part is known by
    the content of all that decides it (structure, settings, versions of the programs), not by the molecule's name or
    place. Displacements follow from the structure and the seed, so that the order of the molecules does not matter;
    equal structures get different ones, and are in the same split.

    Args:
        molecules: closed shells, by any names.
        out: new file.
        settings: of the labels.
        workers: processes, one thread each.
        report: is told how many molecules are finished, of how many, and the name of the last.

    Raises:
        InputError: before anything is computed, where `out`, `workers`, a name in `settings` or a molecule will not
            do; after everything else is computed and kept, where a calculation fails.
    """
    _check_input(molecules, out, settings, workers)
    parts = out.with_name(out.name + ".parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {str(parts)!r} cannot be made ({error.strerror}); choose another out.") from None
    jobs = _jobs(molecules, parts, settings)
    pending = [job for job in jobs if _read_part(job, settings) is None]
    _label(pending, settings, workers, len(jobs), report)
    samples = []
    for job in jobs:
        part = _read_part(job, settings)
        if part is None:
            raise InputError(
                f"part {str(job.part)!r} of molecule {job.name!r} is gone; run again with one run per out."
            )
        samples += part
    about = {"ao_order": "pyscf", "units": "atomic units; polarizability uncoupled"}
    said = {key: value for key, value in asdict(settings).items() if value is not None}
    dataset = Dataset(samples, said | about | _versions())
    write_dataset(out, dataset)
    _remove_parts(parts)
    return dataset


class _Job(NamedTuple):
    """One molecule: its split, the file of its part, and the seed of its displacements."""

    name: str
    molecule: Molecule
    split: str
    part: Path
    seed: int


def _check_input(molecules: Mapping[str, Molecule], out: Path, settings: ReferenceSettings, workers: int) -> None:
    if out.exists():
        what = (
            "is a folder; give the name of a new file" if out.is_dir() else "exists; delete it or choose another name"
        )
        raise InputError(f"out={str(out)!r} {what}.")
    if workers < 1:
        raise InputError(f"workers is {workers}; give at least 1.")
    if not molecules:
        raise InputError("molecules is empty; give at least one.")
    _check_functional(settings.xc)
    for name, molecule in molecules.items():
        require_text("name of a molecule", name)
        try:
            _check_molecule(molecule, settings)
        except InputError as error:
            raise InputError(f"molecule {name!r}: {error}") from None


def _check_functional(xc: str) -> None:
    try:
        from pyscf.dft import libxc
    except ImportError:
        raise InputError("'vpotjax reference' needs PySCF; pip install 'vpotjax[reference]'.") from None
    from vpotjax.interop.pyscf import reference_labels

    try:
        exchange, terms = libxc.parse_xc(xc)
        if not terms and not any(exchange):
            raise KeyError("no functional in it")
        libxc.xc_type(xc)
        reference_labels(Molecule(np.array([1, 1]), np.diag([1.4, 0, 0])[:2]), HESSIAN_BASIS, xc, grid_level=0)
    except Exception as error:  # PySCF raises many types; dispersion corrections need a package of their own
        raise InputError(
            f"xc is {xc!r}, with which PySCF cannot compute ({_line(error)}); give a functional such as 'b3lyp', or "
            "'hf'."
        ) from None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_molecule(molecule: Molecule, settings: ReferenceSettings) -> None:
    if molecule.spin:
        raise InputError(f"spin is {molecule.spin}; labels are of closed shells, take it out.")
    if not np.all(molecule.numbers):
        raise InputError(f"numbers is {molecule.numbers.tolist()} with ghost atoms, which cannot vibrate; take it out.")
    if molecule.natm == 1 and settings.geometries > 1:
        raise InputError(
            f"one atom has no displaced geometries, and geometries is {settings.geometries}; take it out, or give 1."
        )
    for basis in (HESSIAN_BASIS, *settings.bases):
        electrons = molecule.nelec(load_basis(basis, molecule.numbers))
        if electrons < 2 or electrons % 2:
            raise InputError(
                f"charge={molecule.charge} leaves {electrons} electrons in {basis!r}; labels are of closed shells."
            )


def _jobs(molecules: Mapping[str, Molecule], parts: Path, settings: ReferenceSettings) -> list[_Job]:
    decisive = asdict(settings) | _versions()
    del decisive["validation"], decisive["test"]
    contents = {name: _content(molecule) for name, molecule in molecules.items()}
    first = {content: name for name, content in reversed(contents.items())}
    splits = assign_splits(list(first.values()), settings.validation, settings.test, settings.seed)
    seen: Counter[str] = Counter()
    jobs = []
    for name, content in contents.items():
        molecule = molecules[name]
        plain = Molecule(molecule.numbers, np.asarray(molecule.positions, dtype=float), molecule.charge)
        place = (content, seen[content])  # the second of equal structures is another draw
        seen[content] += 1
        part = parts / f"{_digest(*place, decisive)}.h5"
        jobs.append(_Job(name, plain, splits[first[content]], part, int(_digest(*place, int(settings.seed)), 16)))
    return jobs


def _content(molecule: Molecule) -> str:
    positions = np.asarray(molecule.positions, dtype=float) + 0.0  # no negative zeros
    return json.dumps([molecule.numbers.tolist(), positions.tolist(), molecule.charge])


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _label(
    jobs: list[_Job], settings: ReferenceSettings, workers: int, total: int, report: Callable[[int, int, str], None]
) -> None:
    for variable in THREAD_VARIABLES:  # read by the workers' libraries when they load; one thread per worker
        os.environ.setdefault(variable, "1")
    failures = []
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent)
    try:
        tasks = {pool.submit(_label_molecule, job, settings): job.name for job in jobs}
        for i, task in enumerate(as_completed(tasks)):
            if failure := task.result():
                failures.append(f"{tasks[task]!r}: {failure}")
            report(total - len(jobs) + i + 1, total, tasks[task])
    except BrokenProcessPool:
        raise InputError(
            f"a worker process died, by lack of memory or of an 'if __name__ == \"__main__\"' in a script; try fewer "
            f"than workers={workers}. Finished molecules are kept: a rerun resumes."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        raise InputError(
            f"{len(failures)} of {total} molecules cannot be labelled ({'; '.join(failures[:5])}); take them out. The "
            "others are kept: a rerun takes them over."
        )


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed, or it waits for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _label_molecule(job: _Job, settings: ReferenceSettings) -> str | None:
    """Make the part; returns what went wrong."""
    try:
        job.part.unlink(missing_ok=True)  # a damaged one
        write_dataset(job.part, Dataset(_samples(job, settings)))
    except Exception as error:  # PySCF raises many types; the other molecules go on
        return _line(error)
    return None


def _samples(job: _Job, settings: ReferenceSettings) -> list[Sample]:
    from vpotjax.interop.pyscf import harmonic_hessian, reference_labels

    molecule = job.molecule
    hessian, masses = harmonic_hessian(molecule, HESSIAN_BASIS)
    drawn = thermal_displacements(molecule, hessian, masses, settings.geometries, settings.temperature, job.seed)
    samples = []
    for positions in drawn:
        displaced = Molecule(molecule.numbers, positions, molecule.charge)
        labels = {
            basis: reference_labels(
                displaced, basis, settings.xc, basis != settings.small_basis, settings.grid_level, matrices
            )
            for basis, matrices in settings.bases.items()
        }
        samples.append(Sample(job.name, job.split, displaced, labels))
    return samples


def _read_part(job: _Job, settings: ReferenceSettings) -> list[Sample] | None:
    """Samples of a finished molecule, or None where its part is absent or damaged."""
    try:
        samples = read_dataset(job.part).samples
    except InputError:
        return None
    wanted = {basis: LABELS | ({"fock", "overlap"} if m else set()) for basis, m in settings.bases.items()}
    whole = len(samples) == settings.geometries and all(
        np.array_equal(s.molecule.numbers, job.molecule.numbers)
        and s.molecule.charge == job.molecule.charge
        and {basis: set(labels) for basis, labels in s.labels.items()} == wanted
        for s in samples
    )
    return [dataclasses.replace(s, name=job.name, split=job.split) for s in samples] if whole else None


def _remove_parts(folder: Path) -> None:
    for file in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{64}\.h5(\.unfinished)?", file.name):
            file.unlink()
    with suppress(OSError):  # something else is in it
        folder.rmdir()


def _versions() -> dict[str, str]:
    """Of what decides the labels."""
    import basis_set_exchange
    import pyscf

    from vpotjax._version import __version__

    return {
        "basis_set_exchange_version": basis_set_exchange.version(),
        "numpy_version": np.__version__,
        "pyscf_version": pyscf.__version__,
        "vpotjax_version": __version__,
    }
