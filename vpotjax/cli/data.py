"""vpotjax reference | import | export | split | info."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vpotjax._checks import InputError
from vpotjax.cli.session import configure_jax
from vpotjax.io.dataset import embedded_dataset_path
from vpotjax.io.sample import SOURCE, SPLITS
from vpotjax.reference.settings import ReferenceSettings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

EXIT_INCOMPLETE = 1


@dataclass(frozen=True)
class Reference:
    """Label molecules with PySCF (pip install 'vpotjax[reference]').

    The same command again continues where it ended, and adds structures that have come since.
    """

    out: Path
    """HDF5 file to write."""
    structures: tyro.conf.Positional[Path | None] = None
    """a file or a folder as for 'predict', with charge and spin of every structure; default: the closed shells of H, C,
    N, O that ASE ships"""
    settings: Annotated[ReferenceSettings, tyro.conf.arg(name="")] = field(default_factory=ReferenceSettings)
    workers: int = 2
    """Processes, one thread each."""
    scheduler: str | None = None
    """Address of a dask scheduler, such as tcp://node1:8786, whose workers do it instead (pip install
    'vpotjax[cluster]')."""


@dataclass(frozen=True)
class Import:
    """Take over labels of others, every matrix checked.

    They are npz or HDF5 of the cookbook kind (Z, R, natoms, fock_sto3g, …), or QH9, nablaDFT, PhiSNet and SchNOrb.
    """

    file: tyro.conf.Positional[Path]
    """npz, HDF5 or SQLite file, or folder of LMDB"""
    out: Path
    """HDF5 file to write."""
    bases: tuple[str, ...] = ()
    """What the suffixes of a cookbook's arrays stand for, as sto3g=sto-3g tzvp=def2-tzvp; the basis of a data base;
    default: that which it is published with."""
    xc: str | None = None
    """Functional of the labels, or hf; default: that which a data base is published with."""
    order: str | None = None
    """AO order of the matrices: pyscf, e3nn, cp2k, orca or psi4, with -listed (as orca-listed) where shells are not
    sorted by l; default: found by the overlap, without one by T + SAP."""
    count: int | None = None
    """Geometries, drawn at random; default: all."""
    check: int = 3
    """So many of the smallest molecules are calculated again by PySCF, and compared."""
    by: Literal["molecule", "random", "size", "farthest"] | None = None
    """Way of the split, as for 'vpotjax split'; default: by molecule where there are three, else at random."""
    validation: float = 0.1
    """Fraction of the molecules."""
    test: float = 0.2
    """Fraction of the molecules."""
    seed: int = 0
    """Of what is random."""


@dataclass(frozen=True)
class Export:
    """Write a data set as npz of the cookbook kind."""

    file: tyro.conf.Positional[Path]
    """HDF5 file"""
    out: Path
    """npz file to write."""
    order: str = "pyscf"
    """AO order of the matrices: pyscf, e3nn, cp2k, orca or psi4."""


@dataclass(frozen=True)
class Split:
    """Divide the molecules of a data set for training, validation and test, by a name that the file keeps."""

    file: tyro.conf.Positional[Path]
    """HDF5 file"""
    name: str
    """Of the split, for 'vpotjax train --split NAME'."""
    by: Literal["molecule", "random", "size", "element", "farthest"] = "molecule"
    """At random, geometries of one molecule together; at random, each geometry alone; the largest molecules test; those
    with one of the elements test; those that are farthest from each other train."""
    validation: float = 0.1
    """Fraction."""
    test: float = 0.2
    """Fraction."""
    elements: tuple[str, ...] = ()
    """Symbols, where the split is by element."""
    seed: int = 0
    """Of what is random."""


@dataclass(frozen=True)
class Info:
    """What is in a data set: composition, splits, method, ranges and outliers of all labels, failures; and versions."""

    file: tyro.conf.Positional[Path | None] = None
    """HDF5 file; default: the embedded data set"""


def _reference(command: Reference) -> int:
    from rich.console import Console

    from vpotjax.molecule import iterate_molecules
    from vpotjax.reference.generate import generate
    from vpotjax.reference.structures import ase_molecules

    if command.structures is None:
        molecules = ase_molecules()
    else:
        molecules = {}
        for name, molecule in iterate_molecules(command.structures):
            own = next(n for n in _numbered(name) if n not in molecules)
            molecules[own] = molecule
    console = Console(width=110, highlight=False)
    with _LabellingReporter(console) as reporter:
        settings, workers = command.settings, command.workers
        outcome = generate(molecules, command.out, settings, workers, command.scheduler, reporter)
    console.print(f"{outcome.labelled} molecules are in {command.out}", markup=False, soft_wrap=True)
    for name, reason in outcome.failures.items():
        console.print(f"not labelled: {name}: {reason}", markup=False, soft_wrap=True)
    return EXIT_INCOMPLETE if outcome.failures else 0


def _numbered(name: str, mark: str = "#") -> Iterator[str]:
    import itertools

    yield name
    yield from (f"{name}{mark}{i}" for i in itertools.count(1))


class _LabellingReporter:
    """How many molecules are labelled, how fast, and how long it takes: as a bar, or a line now and then."""

    INTERVAL = 30.0  # seconds between lines

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("labelled"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        self.console, self.bar = console, Progress(*columns, TimeRemainingColumn(), console=console)
        self.task: TaskID | None = None
        self.start = self.told = time.monotonic()
        self.before = 0

    def __enter__(self) -> _LabellingReporter:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int, name: str, reason: str | None) -> None:
        now = time.monotonic()
        if self.task is None:
            self.before = done - 1
            self.task = self.bar.add_task("", total=total, completed=self.before)
        per_minute = 60 * (done - self.before) / max(now - self.start, 1e-9)
        rate = f"{per_minute:.1f} molecules per minute"
        self.bar.update(self.task, completed=done, description=rate)
        if reason is not None:
            self.console.print(f"not labelled: {name}: {reason}", markup=False, soft_wrap=True)
        if not self.console.is_terminal and (now - self.told > self.INTERVAL or done == total):
            self.told = now
            left = (total - done) / per_minute
            self.console.print(f"labelled {done} of {total}, {rate}, {left:.0f} minutes left")


def _import(command: Import) -> None:
    configure_jax()
    from vpotjax.reference.imports import import_file

    pairs = [text.partition("=") for text in command.bases]
    bases = {first if sign else "": basis if sign else first for first, sign, basis in pairs}
    if len(bases) < len(pairs) or not all(bases.values()):
        raise InputError(f"bases is {command.bases}; give suffixes and what they stand for, as sto3g=sto-3g.")
    found = import_file(
        command.file,
        command.out,
        bases,
        command.xc,
        command.order,
        count=command.count,
        check=command.check,
        by=command.by,
        validation=command.validation,
        test=command.test,
        seed=command.seed,
    )
    order = f", matrices in the order of {found.order}" if found.order else ""
    print(f"{len(found.parts)} geometries are in {command.out}, {_counts(found.parts)}; {found.xc}{order}")
    for (name, basis), error in found.errors.items():
        print(f"PySCF's F or levels of {name} in {basis} differ by {error:.1e} hartree")
    if not found.errors:
        print("no molecule was calculated again to compare")
    if found.left_out:
        print(f"not taken: {', '.join(found.left_out)}")


def _counts(parts: list[str]) -> str:
    return ", ".join(f"{part} {parts.count(part)}" for part in SPLITS)


def _export(command: Export) -> None:
    from vpotjax.io.cookbook import write_cookbook
    from vpotjax.io.dataset import read_dataset

    dataset = read_dataset(command.file)
    bases = sorted({basis for sample in dataset.samples for basis in sample.labels if basis != SOURCE})
    suffixes: dict[str, str] = {}
    for basis in bases:
        plain = "".join(c for c in basis if c.isalnum())
        suffixes[basis] = next(s for s in _numbered(plain, "v") if s not in suffixes.values())
    left_out = write_cookbook(command.out, dataset.samples, suffixes, command.order)
    stated = " ".join(f"{suffix}={basis}" for basis, suffix in suffixes.items())
    print(f"{len(dataset.samples)} molecules are in {command.out}: {stated}")
    if left_out:
        print(f"not written: {', '.join(left_out)}")


def _split(command: Split) -> None:
    configure_jax()
    from ase.data import atomic_numbers

    from vpotjax.io.dataset import DatasetFile
    from vpotjax.reference.splits import add_split, split_parts

    if unknown := [symbol for symbol in command.elements if symbol not in atomic_numbers]:
        raise InputError(f"elements has {unknown[0]!r}; give symbols such as S.")
    if (command.by == "element") != bool(command.elements):
        raise InputError(f"elements is {command.elements} for a split by {command.by!r}; give both or none.")
    elements = [atomic_numbers[symbol] for symbol in command.elements]
    with DatasetFile(command.file) as file:
        names, molecules = file.names, file.molecules()
    parts = split_parts(names, molecules, command.by, command.validation, command.test, command.seed, elements)
    add_split(command.file, command.name, parts)
    print(f"split {command.name!r} of {command.file}, geometries: {_counts(parts)}")


def _info(command: Info) -> None:
    import jax

    from vpotjax._version import __version__
    from vpotjax.io.summary import summary

    print(summary(command.file or embedded_dataset_path()))
    print(f"vpotjax {__version__}, jax {jax.__version__}, device {jax.devices()[0].device_kind}")


COMMANDS: dict[type, Any] = {Reference: _reference, Import: _import, Export: _export, Split: _split, Info: _info}
