"""The command line: vpotjax demo | train | evaluate | predict | reference | import | split | info."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset
from vpotjax.io.sample import SPLITS
from vpotjax.reference.settings import ReferenceSettings
from vpotjax.train.loop import Descent
from vpotjax.train.pipeline import Training

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

EXIT_INCOMPLETE, EXIT_BAD_INPUT = 1, 2
PROGRAMS = 1 << 30  # bytes of compiled programs that are kept, the latest used
PRINTED = 20  # predictions that are printed where they are not written to a file


@dataclass(frozen=True)
class Demo:
    """Train on the embedded molecules and compare with B3LYP/def2-TZVP on molecules never seen; under five minutes."""

    run: Path = Path("runs/demo")
    """New folder for configuration, metrics, checkpoint and plots."""
    training: Training = field(default_factory=lambda: Training(descent=Descent(steps=150), buckets=3))


@dataclass(frozen=True)
class Train:
    """Train on a data set of 'vpotjax reference'."""

    data: Path
    """HDF5 file."""
    run: Path
    """New folder for configuration, metrics, checkpoint and plots."""
    split: str | None = None
    """Of those that 'vpotjax split' stored, by name; default: the one that the data set was made with."""
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Evaluate:
    """Errors of a trained model on one split of a data set."""

    run: Path
    """Folder that 'demo' or 'train' wrote."""
    data: Path | None = None
    """HDF5 file; default: the embedded data set."""
    split: str = "test"
    """train, validation or test."""
    any_method: bool = False
    """Labels of another functional, or of a basis that is another one by the same name, will do; default: an error."""


@dataclass(frozen=True)
class Predict:
    """Levels, gap, dipole, polarizability, charges and bond orders of closed-shell molecules, any number of them."""

    file: tyro.conf.Positional[Path]
    """xyz, extxyz, mol, sdf, pdb, gen, traj, db or json, or a folder of such; every structure is predicted, with the
    charge that it has"""
    run: Path
    """Folder that 'demo' or 'train' wrote."""
    out: Path | None = None
    """extxyz, h5 or csv file to write; default: the first 20 are printed."""
    skip: bool = False
    """Leave out, and name, molecules that the model does not know: other elements, open shells; default: they are an
    error."""


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
    """Take over labels of others: npz or HDF5 of the cookbook kind (Z, R, natoms, fock_sto3g, …), AOs checked."""

    file: tyro.conf.Positional[Path]
    """npz or HDF5 file"""
    out: Path
    """HDF5 file to write."""
    bases: tuple[str, ...]
    """What the suffixes of its arrays stand for, as sto3g=sto-3g tzvp=def2-tzvp."""
    xc: str
    """Functional of the labels, or hf."""
    order: str | None = None
    """AO order of the matrices: pyscf, e3nn, cp2k, orca or psi4; default: found by the overlap."""
    validation: float = 0.1
    """Fraction of the molecules."""
    test: float = 0.2
    """Fraction of the molecules."""
    seed: int = 0
    """Of the split."""


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


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input is one line on stderr and exit code 2."""
    _one_blas_thread()
    try:
        command = _parsed(arguments)
        return COMMANDS[type(command)](command) or 0
    except (InputError, OSError) as error:  # bad input, or a file system that refuses
        print(f"vpotjax: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _parsed(arguments: list[str] | None) -> Any:
    """The command; what a setting refuses is one line, not tyro's box, which is kept for everything else.

    Raises:
        InputError: a setting is out of range.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                Demo | Train | Evaluate | Predict | Reference | Import | Split | Info, args=arguments, prog="vpotjax"
            )
    except SystemExit:
        text = printed.getvalue()
        refused = "Value error" in text
        if not refused:
            print(text, file=sys.stderr, end="")
            raise
    words = " ".join(line.strip("│╭╮╰╯─ ") for line in text.splitlines()[1:])
    raise InputError(words.split("For full helptext")[0].replace("Error parsing __tyro-dummy-inner__.", "").strip())


def _one_blas_thread() -> None:
    """Small matrices lose by more; the environment wins."""
    if not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} & os.environ.keys():
        import scipy.linalg  # noqa: F401  its BLAS has to be there
        import threadpoolctl

        threadpoolctl.threadpool_limits(1, "blas")


def _configure_jax() -> None:
    """Double precision; and compiled programs are kept for the next command. The environment wins here too."""
    import jax

    jax.config.update("jax_enable_x64", True)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(_program_cache()))
        jax.config.update("jax_compilation_cache_max_size", PROGRAMS)


def _program_cache() -> Path:
    """A folder of its own for each kind of processor, whose programs no other can run."""
    import hashlib
    import platform

    import platformdirs

    kind = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):  # Linux alone has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        kind += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return platformdirs.user_cache_path("vpotjax") / f"programs-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


class _ConsoleReporter:
    """Prints lines, and a progress bar once training reports."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps = console, steps
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.done: dict[int, int] = {}  # steps of each network

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def progress(self, row: dict[str, Any]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.bar is None or self.task is None:
            columns = (TextColumn("  step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps)
        self.done[row["network"]] = row["step"]
        if row.get("first_left_out"):
            self.say(f"  step {row['step']}: {row['left_out']} gradients left out, not finite: {row['first_left_out']}")
        losses = f"validation {row['validation_loss']:.4g}"
        if row["step"]:  # before the first there is no other
            losses = f"loss {row['training_loss']:.4g}, {losses}"
        if row["limited"]:
            losses += f", limited {row['limited']}"
        self.bar.update(self.task, completed=sum(self.done.values()), description=losses)
        if not self.console.is_terminal:  # where a bar is not seen before its end
            self.say(f"  network {row['network']}, step {row['step']}: {losses}")
        if sum(self.done.values()) >= self.steps:
            self.bar.stop()


def _train(data: Path, run: Path, training: Training, split: str | None = None) -> None:
    _configure_jax()
    from rich.console import Console

    from vpotjax.train.pipeline import train_run
    from vpotjax.train.report import error_table

    console = Console(width=110)
    dataset = read_dataset(data)
    if split is not None:
        dataset = dataset.split_by(split)
    reporter = _ConsoleReporter(console, training.descent.steps * training.members)
    outcome = train_run(dataset, run, training, reporter)
    console.print(error_table(outcome.rows, f"Test molecules against {_method(dataset)}"))
    console.print(f"in brackets: fraction of the error of {outcome.rows[0]['model']}", highlight=False)
    console.print(f"\nWritten to {run}: " + ", ".join(file.name for file in outcome.files), highlight=False)
    console.print(f"Next: vpotjax predict FILE.xyz --run {run}", highlight=False)


def _method(dataset: Dataset) -> str:
    return f"{str(dataset.attribute('xc')).upper()}/{dataset.attribute('large_basis')}"


def _demo(command: Demo) -> None:
    _train(embedded_dataset_path(), command.run, command.training)


def _evaluate(command: Evaluate) -> None:
    _configure_jax()
    from rich.console import Console

    from vpotjax.io.model import load_model
    from vpotjax.io.run import training_data
    from vpotjax.train.pipeline import evaluate
    from vpotjax.train.report import error_table

    dataset = read_dataset(command.data or embedded_dataset_path())
    model, trained_on = load_model(command.run), training_data(command.run)
    rows = evaluate(model, dataset, command.split, trained_on, command.any_method)
    title = f"Split {command.split!r} against {_method(dataset)}"
    Console(width=110).print(error_table(rows, title))


def _predict(command: Predict) -> None:
    _configure_jax()
    from rich.console import Console

    from vpotjax.io.model import load_model
    from vpotjax.molecule import iterate_molecules
    from vpotjax.train.predict import predictions
    from vpotjax.train.report import expected_text

    model, expected, console = load_model(command.run), expected_text(command.run), Console()

    def tell(text: str) -> None:
        console.print(f"left out: {text}", highlight=False, markup=False, soft_wrap=True)

    predicted = predictions(model, iterate_molecules(command.file), left_out=tell if command.skip else None)
    if command.out is not None:
        _write_predictions(command, predicted, console)
    else:
        _print_predictions(command, predicted, model, console)
    if expected:
        console.print(expected, highlight=False, markup=False, soft_wrap=True)


def _require_some(count: int, file: Path) -> None:
    if not count:
        raise InputError(f"file={str(file)!r} holds no molecule that the model knows; train with its elements.")


def _print_predictions(command: Predict, predicted: Iterator[Any], model: Any, console: Console) -> None:
    from vpotjax.basis import load_basis
    from vpotjax.train.report import prediction_text

    count = 0
    for count, prediction in enumerate(predicted, 1):
        if count > PRINTED:
            break
        molecule = prediction.molecule
        nelec = molecule.nelec(load_basis(model.settings.orbital_basis, molecule.numbers))
        console.print(prediction_text(prediction, nelec), highlight=False, markup=False, soft_wrap=True)
    _require_some(count, command.file)
    if count > PRINTED:
        console.print(f"… and more; give --out FILE.extxyz, .h5 or .csv for all beyond {PRINTED}", highlight=False)


def _write_predictions(command: Predict, predicted: Iterator[Any], console: Console) -> None:
    """All predictions to a file, as they come."""
    from rich.progress import Progress

    from vpotjax.electronic.observables import OBSERVABLES
    from vpotjax.io.predictions import prediction_writer
    from vpotjax.molecule import molecule_count
    from vpotjax.train.predict import CHUNK

    assert command.out is not None
    units = {name: observable.atomic_unit for name, observable in OBSERVABLES.items()}
    axes = {name: observable.axes for name, observable in OBSERVABLES.items()}
    warned = written = 0
    with prediction_writer(command.out, units, axes) as writer, Progress(console=console) as bar:
        task = bar.add_task("predicting", total=molecule_count(command.file))
        for chunk in _chunks(predicted, CHUNK):
            values, spreads = (
                {key: [getattr(p, part)[key] for p in chunk] for key in getattr(chunk[0], part)}
                for part in ("values", "spreads")
            )
            names, molecules = [p.name for p in chunk], [p.molecule for p in chunk]
            writer.write(names, molecules, values, spreads, [p.warnings for p in chunk])
            written, warned = written + len(chunk), warned + sum(bool(p.warnings) for p in chunk)
            bar.update(task, completed=written)
        _require_some(written, command.file)
    console.print(f"{written} molecules written to {command.out}, {warned} of them with warnings", highlight=False)


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    import itertools

    while chunk := list(itertools.islice(items, size)):
        yield chunk


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


def _numbered(name: str) -> Iterator[str]:
    import itertools

    yield name
    yield from (f"{name}#{i}" for i in itertools.count(1))


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
    _configure_jax()
    from vpotjax.io.dataset import write_dataset
    from vpotjax.reference.imports import imported_dataset

    bases = {suffix: basis for suffix, _, basis in (text.partition("=") for text in command.bases)}
    if not all(bases.values()):
        raise InputError(f"bases is {command.bases}; give a suffix and the basis that it stands for, as sto3g=sto-3g.")
    fractions = command.validation, command.test
    dataset, found = imported_dataset(command.file, bases, command.xc, command.order, *fractions, command.seed)
    write_dataset(command.out, dataset)
    order = f", matrices in the order of {found.order}" if found.order else ""
    print(f"{len(dataset.samples)} molecules are in {command.out}{order}")
    if found.left_out:
        print(f"not taken: {', '.join(found.left_out)}")


def _split(command: Split) -> None:
    _configure_jax()
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
    counts = ", ".join(f"{part} {parts.count(part)}" for part in SPLITS)
    print(f"split {command.name!r} of {command.file}, geometries: {counts}")


def _info(command: Info) -> None:
    import jax

    from vpotjax._version import __version__
    from vpotjax.io.summary import summary

    print(summary(command.file or embedded_dataset_path()))
    print(f"vpotjax {__version__}, jax {jax.__version__}, device {jax.devices()[0].device_kind}")


COMMANDS: dict[type, Any] = {
    Demo: _demo,
    Train: lambda command: _train(command.data, command.run, command.training, command.split),
    Evaluate: _evaluate,
    Predict: _predict,
    Reference: _reference,
    Import: _import,
    Split: _split,
    Info: _info,
}


if __name__ == "__main__":
    sys.exit(main())
