"""vpotjax demo | train | evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpotjax.cli.session import configure_jax
from vpotjax.io.dataset import Dataset, embedded_dataset_path, read_dataset
from vpotjax.train.loop import Descent
from vpotjax.train.pipeline import Training

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


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
    configure_jax()
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
    configure_jax()
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


COMMANDS: dict[type, Any] = {
    Demo: _demo,
    Train: lambda command: _train(command.data, command.run, command.training, command.split),
    Evaluate: _evaluate,
}
