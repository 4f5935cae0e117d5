"""`vpotjax reference`: labels of molecules by PySCF, in parallel, that survive whatever ends them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.interop.pyscf_labels import reference_labels
from vpotjax.io.sample import SOURCE, Sample, require_text
from vpotjax.molecule import Molecule
from vpotjax.reference.parts import (
    CONTENT,
    Job,
    finished,
    is_whole,
    jobs_of,
    keep,
    listed,
    own_folder,
    remove_parts,
    require_same,
    settings_of,
    write_whole,
)
from vpotjax.reference.settings import ReferenceSettings
from vpotjax.reference.structures import thermal_displacements
from vpotjax.reference.workers import line_of, on_cluster, on_processes

HESSIAN_BASIS = "sto-3g"
Report = Callable[[int, int, str, str | None], None]


class Outcome(NamedTuple):
    """How many molecules the file has, and by name of the others why they are not in it."""

    labelled: int
    failures: dict[str, str]


def generate(
    molecules: Mapping[str, Molecule],
    out: str | Path,
    settings: ReferenceSettings,
    workers: int = 1,
    scheduler: str | None = None,
    report: Report = lambda done, total, name, reason: None,
) -> Outcome:
    """Label `molecules` in `out`, a data set file.

    Finished molecules are kept one by one in the folder `out`.parts until all have been tried, so that the same call
    continues after whatever ended it; where `out` is there, it adds those that are not in it. A finished molecule is
    known by the content of all that decides it (structure, settings, versions of the programs), not by its name or
    place. Displacements follow from the structure and the seed, so that the order of the molecules does not matter;
    equal structures get different ones, and are in the same split, and so are frames of one name ("ethanol",
    "ethanol#1") where there are three names. A molecule that fails does not end the others; the
    next call tries it again.

    Args:
        molecules: by any names.
        out: new file, or one that this function made with the same settings.
        settings: of the labels.
        workers: processes of this machine, one thread each.
        scheduler: address of a dask scheduler, whose workers do it instead.
        report: is told how many molecules are finished, of how many, the name of the last, and why it failed or None.

    Raises:
        InputError: before anything is computed, where `out`, `workers`, a name in `settings` or a molecule will not
            do, or `out` or its parts are of other settings; the disk is full; no molecule can be labelled.
    """
    out = Path(out)
    _check_input(molecules, out, settings, workers)
    parts = out.with_name(out.name + ".parts")
    with own_folder(parts, out, settings):
        jobs = jobs_of(molecules, parts, settings)
        known = finished(out)
        pending = [job for job in jobs if job.digest not in known and not is_whole(job, settings)]
        pending.sort(key=lambda job: -int(job.molecule.numbers.sum()))  # the largest last would keep one process alone
        function = functools.partial(_label_molecule, settings)
        run = (
            on_processes(function, pending, workers) if scheduler is None else on_cluster(function, pending, scheduler)
        )
        failures: dict[str, str] = {}
        with contextlib.closing(run) as results:
            for i, result in enumerate(results, len(jobs) - len(pending) + 1):
                reason = result.reason or keep(result.job, result.result)
                if reason is not None:
                    failures[result.job.name] = reason
                report(i, len(jobs), result.job.name, reason)
        done = [job for job in jobs if job.name not in failures]
        if not done:
            raise InputError(f"no molecule can be labelled: {listed(failures)}; look at their structures.")
        if pending or not out.exists():
            write_whole(out, done, known, settings, failures)
        remove_parts(parts)
    return Outcome(len(done), failures)


def _check_input(molecules: Mapping[str, Molecule], out: Path, settings: ReferenceSettings, workers: int) -> None:
    if out.is_dir():
        raise InputError(f"out={str(out)!r} is a folder; give the name of a new file.")
    if out.exists():
        require_same(f"out={str(out)!r}", settings_of(out), settings)
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

    try:
        exchange, terms = libxc.parse_xc(xc)
        if not terms and not any(exchange):
            raise KeyError("no functional in it")
        libxc.xc_type(xc)
        reference_labels(Molecule(np.array([1, 1]), np.diag([1.4, 0, 0])[:2]), HESSIAN_BASIS, xc, grid_level=0)
    except Exception as error:  # PySCF raises many types; dispersion corrections need a package of their own
        raise InputError(
            f"xc is {xc!r}, with which PySCF cannot compute ({line_of(error)}); give a functional such as 'b3lyp', or "
            "'hf'."
        ) from None


def _check_molecule(molecule: Molecule, settings: ReferenceSettings) -> None:
    displaced = settings.geometries is not None
    if not np.all(molecule.numbers):
        raise InputError(f"numbers is {molecule.numbers.tolist()} with ghost atoms; take it out.")
    if displaced and molecule.spin:
        raise InputError(f"spin is {molecule.spin}; displacements are of closed shells, leave geometries out.")
    if displaced and molecule.natm == 1:
        raise InputError(f"one atom has no displaced geometries, and geometries is {settings.geometries}; take it out.")
    for basis in (*((HESSIAN_BASIS,) if displaced else ()), *settings.bases):
        electrons = molecule.nelec(load_basis(basis, molecule.numbers))
        if electrons < max(1, abs(molecule.spin)) or (electrons - molecule.spin) % 2:
            raise InputError(
                f"charge={molecule.charge} and spin={molecule.spin} do not fit the {electrons} electrons in {basis!r}."
            )


def _label_molecule(settings: ReferenceSettings, job: Job) -> list[Sample]:
    """The samples of a molecule, in a process of its own."""
    from pyscf import lib

    lib.num_threads(1)
    source = {SOURCE: {CONTENT: np.frombuffer(bytes.fromhex(job.digest), np.uint8)}}
    samples = []
    for molecule in _geometries(settings, job):
        labels = {
            basis: reference_labels(
                molecule, basis, settings.xc, quantities=settings.quantities(basis), **settings.calculation(basis)
            )
            for basis in settings.bases
        }
        samples.append(Sample(job.name, job.split, molecule, labels | source))
    return samples


def _geometries(settings: ReferenceSettings, job: Job) -> list[Molecule]:
    from vpotjax.interop.pyscf import harmonic_hessian

    molecule = job.molecule
    if settings.geometries is None:
        return [molecule]
    hessian, masses = harmonic_hessian(molecule, HESSIAN_BASIS)
    drawn = thermal_displacements(molecule, hessian, masses, settings.geometries, settings.temperature, job.seed)
    return [Molecule(molecule.numbers, positions, molecule.charge) for positions in drawn]
