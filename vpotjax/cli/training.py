"""vpotjax demo | train | evaluate | calibrate."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vpotjax._checks import InputError
from vpotjax.cli.session import configure_jax, join_processes
from vpotjax.io.dataset import SPLIT_BY, Dataset, embedded_dataset_path, read_dataset
from vpotjax.io.sample import SPLITS
from vpotjax.train.config import Place, Training, config_text, read_config
from vpotjax.train.descent import Descent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class Demo:
    """Train on the embedded molecules and compare with B3LYP/def2-TZVP on molecules never seen; under five minutes."""

    run: Path = Path("runs/demo")
    """Folder for configuration, metrics, checkpoint and plots; a demo that was ended goes on in it."""
    set: tuple[str, ...] = ()
    """Settings, as for 'train'."""


@dataclass(frozen=True)
class Train:
    """Train on a data set; the same command again goes on with a training that was ended."""

    config: tyro.conf.Positional[Path | None] = None
    """TOML file with data, run, split and all other settings; default: those that --print-config writes"""
    data: Path | None = None
    """HDF5 file, in place of that of the configuration."""
    run: Path | None = None
    """Folder for configuration, metrics, checkpoint and plots, likewise."""
    split: str | None = None
    """Of those that 'vpotjax split' stored, by name; default: the one that the data set was made with."""
    set: tuple[str, ...] = ()
    """Other settings, as --set members=1 descent.steps=200 network.name=MatrixPower."""
    processes: str | None = None
    """Where several processes train one model, each on devices of its own: 'auto' under SLURM and Open MPI, else
    ADDRESS,COUNT,NUMBER, such as node1:9876,2,0 for the first of two, which has that address."""
    print_config: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the whole configuration with comments, as TOML, and do nothing else."""


@dataclass(frozen=True)
class Evaluate:
    """Errors of a trained model on splits of a data set, with bootstrap intervals (95 %, over molecules)."""

    run: tyro.conf.Positional[Path]
    """folder that 'demo' or 'train' wrote"""
    data: tyro.conf.Positional[Path | None] = None
    """HDF5 file; default: the embedded data set"""
    split: tuple[str, ...] = ("test",)
    """train, validation, test, or several of them."""
    by: str | None = None
    """Name of a split of the file; default: the one that the model was trained with."""
    json: Path | None = None
    """New file for all numbers."""
    any_method: bool = False
    """Labels of another functional, or of a basis that is another one by the same name, will do; default: an error."""


@dataclass(frozen=True)
class Calibrate:
    """Fit how uncertainties grow beyond the size of the training molecules, by labels of some larger ones; weights, and
    uncertainties of that size, stay.
    """

    run: tyro.conf.Positional[Path]
    """folder that 'demo' or 'train' wrote"""
    data: tyro.conf.Positional[Path]
    """HDF5 file; molecules with more heavy atoms than (nearly) all of the training count, at least five"""
    split: tuple[str, ...] = SPLITS
    """Of the file that count; give those alone on which the model will not be tested."""
    any_method: bool = False
    """Labels of another functional, or of a basis that is another one by the same name, will do; default: an error."""


class _ConsoleReporter:
    """Prints lines, and a progress bar once training reports; lines now and then where there is no terminal."""

    INTERVAL = 10.0  # seconds between lines

    def __init__(self, console: Console) -> None:
        self.console, self.told = console, 0.0
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.rows: dict[int, dict[str, Any]] = {}  # the last of each network

    def __enter__(self) -> _ConsoleReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def progress(self, row: dict[str, Any], members: int) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        if self.bar is None or self.task is None:
            columns = (TextColumn("  training"), TaskProgressColumn(), BarColumn(20), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("", total=members)
        self.rows[row["network"]] = row
        if row.get("first_left_out"):
            self.say(f"  step {row['step']}: {row['left_out']} gradients left out, not finite: {row['first_left_out']}")
        text = _progress_text(row)
        self.bar.update(self.task, completed=sum(own["progress"] for own in self.rows.values()), description=text)
        ends = row["progress"] in (0, 1)
        if not self.console.is_terminal and (ends or time.monotonic() - self.told > self.INTERVAL):
            self.told = time.monotonic()
            self.say(f"  network {row['network']}, step {row['step']}: {text}")


def _progress_text(row: dict[str, Any]) -> str:
    """Errors of the validation molecules, in units, and how fast it goes."""
    from vpotjax.electronic.observables import OBSERVABLES

    errors = []
    for key, value in row.items():
        name = key.removeprefix("validation_")
        if key != name and name in OBSERVABLES:
            observable = OBSERVABLES[name]
            errors.append(" ".join(filter(None, (observable.symbol, f"{value:.3g}", observable.unit))))
    text = ", ".join(errors) or f"validation {row['validation_loss']:.4g}"
    if row["limited"]:
        text += f", {row['limited']} gradients limited"
    return text + (f", {row['molecules_per_second']:.0f} molecules/s" if row["step"] else "")


DEMO = Training(descent=Descent(steps=150), buckets=3)


def _demo(command: Demo) -> None:
    if taken := [text for text in command.set if text.partition("=")[0].strip() in ("data", "run", "split")]:
        raise InputError(f"set is {taken[0]!r}; a demo has its own data, and --run for the folder.")
    place, training = read_config(None, command.set, {"run": command.run}, DEMO)
    _train_on(embedded_dataset_path(), place, training)


def _train(command: Train) -> None:
    if command.processes is not None and not command.print_config:
        join_processes(command.processes)  # before the first use of JAX, as of Optax by settings
    given = {"data": command.data, "run": command.run, "split": command.split}
    place, training = read_config(command.config, command.set, given)
    if command.print_config:
        print(config_text(place, training), end="")
        return
    if lacking := next((name for name in ("data", "run") if getattr(place, name) is None), None):
        raise InputError(f"{lacking} is not given; give --{lacking}, or the key {lacking!r} in the configuration.")
    _train_on(Path(str(place.data)), place, training)


def _train_on(data: Path, place: Place, training: Training) -> None:
    configure_jax()
    from rich.console import Console

    from vpotjax.train.devices import leads
    from vpotjax.train.pipeline import train_run
    from vpotjax.train.report import coverage_text, error_table

    console, run = Console(width=110, quiet=not leads()), Path(str(place.run))
    dataset = read_dataset(data)
    if place.split is not None:
        dataset = dataset.split_by(place.split)
    with _ConsoleReporter(console) as reporter:
        outcome = train_run(dataset, run, training, reporter)
    console.print(error_table(outcome.rows, f"Test molecules against {_method(dataset)}"))
    console.print(f"in brackets: fraction of the error of {outcome.rows[0]['model']}", highlight=False)
    if covered := coverage_text(outcome.rows[-1]):
        console.print(covered, highlight=False)
    console.print(f"\nWritten to {run}: " + ", ".join(file.name for file in outcome.files), highlight=False)
    console.print(f"Next: vpotjax predict FILE.xyz --run {run}", highlight=False)


def _method(dataset: Dataset) -> str:
    return f"{str(dataset.attribute('xc')).upper()}/{dataset.attribute('large_basis')}"


def _evaluate(command: Evaluate) -> None:
    configure_jax()
    from rich.console import Console

    from vpotjax.io.model import load_model
    from vpotjax.io.run import training_data
    from vpotjax.train.pipeline import evaluate
    from vpotjax.train.report import coverage_text, error_table

    if command.json is not None and command.json.exists():
        raise InputError(f"json={str(command.json)!r} exists; delete it or choose another name.")
    dataset = read_dataset(command.data or embedded_dataset_path())
    model, trained_on = load_model(command.run), training_data(command.run)
    by = command.by or trained_on.get(SPLIT_BY)
    if by is not None and (command.by or by in dataset.splits):
        dataset = dataset.split_by(by)
    tables = {split: evaluate(model, dataset, split, trained_on, command.any_method) for split in command.split}
    for split, rows in tables.items():
        title = f"Split {split!r} against {_method(dataset)}"
        console = Console(width=110)
        console.print(error_table(rows, title, intervals=True))
        if covered := coverage_text(rows[-1]):
            console.print(covered, highlight=False)
            samples, domain = dataset.split(split), model.domain
            if doubted := sum(bool([*domain.doubts(s.molecule)]) for s in samples):
                bonds = ", atoms bonded as in the training" if domain.bonds else ""
                known = f"up to {domain.checked} heavy atoms, charges {', '.join(map(str, domain.charges))}{bonds}"
                text = f"{doubted} of {len(samples)} geometries are not like what the model knows: {known}"
                console.print(text, highlight=False)
    if command.json is not None:
        command.json.write_text(json.dumps({"method": _method(dataset), "splits": tables}, indent=1) + "\n")


def _calibrate(command: Calibrate) -> None:
    configure_jax()
    from rich.console import Console

    from vpotjax.io.model import load_model, replace_model
    from vpotjax.io.run import training_data, write_metrics
    from vpotjax.train.growth import calibrate
    from vpotjax.train.report import LARGER_ERRORS, coverage_text, error_table, growth_text

    dataset, trained_on, console = read_dataset(command.data), training_data(command.run), Console(width=110)
    done = calibrate(load_model(command.run), dataset, trained_on, command.split, command.any_method)
    before, now = done.rows
    sizes = f"{done.model.domain.size + 1} to {done.model.domain.checked} heavy atoms"
    console.print(
        error_table([now | {"model": "model"}], f"{len(done.names)} geometries of {sizes} against {_method(dataset)}")
    )
    said = [
        growth_text(done.model.calibration, done.model.domain)
        or "Uncertainties are not larger beyond the size of the training"
    ]
    said += [f"{when}. {text}" for when, row in (("Before", before), ("Now", now)) if (text := coverage_text(row))]
    for text in said:
        console.print(text, highlight=False)
    replace_model(command.run, done.model)
    write_metrics(command.run, LARGER_ERRORS, [now])
    console.print(f"Written to {command.run}: checkpoint, {LARGER_ERRORS}", highlight=False)


COMMANDS: dict[type, Any] = {
    Demo: _demo,
    Train: _train,
    Evaluate: _evaluate,
    Calibrate: _calibrate,
}
