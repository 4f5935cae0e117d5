"""The command line: vpotjax demo | train | evaluate | predict | reference | info."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from vpotjax.io.dataset import Dataset

EXIT_BAD_INPUT = 2


@dataclass(frozen=True)
class Training:
    """Settings of a training."""

    members: int = 3
    """Networks for each kind of product."""
    steps: int = 450
    """Adam steps of each network."""
    batch_size: int = 32
    """Molecules per step."""
    learning_rate: float = 4e-4
    """Peak learning rate."""
    seed: int = 0
    """Of initial weights and batches."""
    potential_basis: str = "def2-svp"
    """Basis in which V is represented."""
    power_order: int = 3
    """Highest power of V."""
    power_kinds: tuple[str, ...] = ("raw", "metric")
    """Products of V: raw, metric, lowdin, rational; F is the mean over all networks."""
    network: str = "gated"
    """linear, gated, or matrix-power."""
    baseline: str = "zero"
    """What the network corrects: sap, core or zero."""
    frame: str = "ao"
    """Of the correction: ao or lowdin."""
    layers: int = 3
    """Of the matrix-power network."""
    channels: int = 8
    """Hidden operators of the matrix-power network."""
    shells: int = 4
    """Hidden shells of each l of the matrix-power network."""


@dataclass(frozen=True)
class Demo:
    """Train on the embedded molecules and compare with B3LYP/def2-TZVP on molecules never seen; under five minutes."""

    run: Path = Path("runs/demo")
    """New folder for configuration, metrics, checkpoint and plots."""
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Train:
    """Train on a data set of 'vpotjax reference'."""

    data: Path
    """HDF5 file."""
    run: Path
    """New folder for configuration, metrics, checkpoint and plots."""
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


@dataclass(frozen=True)
class Predict:
    """Orbital energies around the gap, dipole and polarizability of closed-shell molecules."""

    file: tyro.conf.Positional[Path]
    """xyz, extxyz, mol, sdf, pdb, gen, traj, db or json; every structure is predicted, with the charge that it has"""
    run: Path
    """Folder that 'demo' or 'train' wrote."""


@dataclass(frozen=True)
class Reference:
    """Label thermally displaced molecules with PySCF (pip install 'vpotjax[reference]'); resumes where it stopped."""

    out: Path
    """HDF5 file to write."""
    structures: Path | None = None
    """XYZ or another file of molecules (see 'predict'); default: the closed shells of H, C, N, O that ASE ships."""
    small_basis: str = "sto-3g"
    """Labels with Fock and overlap matrices."""
    large_basis: str = "def2-tzvp"
    """Labels that are the targets; density fitting."""
    xc: str = "b3lyp"
    """Functional, or hf."""
    geometries: int = 5
    """Thermally displaced geometries per molecule."""
    temperature: float = 300.0
    """Kelvin."""
    grid_level: int = 3
    """PySCF's integration grid."""
    seed: int = 0
    """Of displacements and split."""
    workers: int = 2
    """Processes, one thread each."""


@dataclass(frozen=True)
class Info:
    """Versions, device, and the embedded data set."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input is one line on stderr and exit code 2."""
    _process_settings()
    from vpotjax._checks import InputError

    command = tyro.cli(Demo | Train | Evaluate | Predict | Reference | Info, args=arguments, prog="vpotjax")
    try:
        COMMANDS[type(command)](command)
    except (InputError, OSError) as error:  # bad input, or a file system that refuses
        print(f"vpotjax: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _process_settings() -> None:
    """One BLAS thread, for small matrices lose by more; set before JAX and BLAS load, and the environment wins."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def _double_precision() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)


class _ConsoleReporter:
    """Prints lines, and a progress bar once training reports."""

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps = console, steps
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.done = self.last = 0  # steps of finished networks, and of this one

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def progress(self, row: dict[str, Any]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.bar is None or self.task is None:
            columns = (TextColumn("  step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps)
        if row["step"] < self.last:
            self.done += self.last
        self.last = row["step"]
        losses = f"{row['network']}: loss {row['training_loss']:.4g}, validation {row['validation_loss']:.4g}"
        self.bar.update(self.task, completed=self.done + self.last, description=losses)
        if self.done + self.last >= self.steps:
            self.bar.stop()


def _train(data: Path, run: Path, training: Training) -> None:
    from dataclasses import asdict, fields

    _double_precision()
    from rich.console import Console

    from vpotjax.io.dataset import read_dataset
    from vpotjax.train.fit import TrainConfig
    from vpotjax.train.pipeline import train_run
    from vpotjax.train.report import error_table

    values = asdict(training)
    of_training = {f.name for f in fields(TrainConfig)}
    options = {key: values.pop(key) for key in values.keys() - of_training}
    console = Console(width=100)
    steps = training.steps * training.members * len(training.power_kinds)
    dataset = read_dataset(data)
    title = f"Test molecules against {_method(dataset)}"
    outcome = train_run(dataset, run, TrainConfig(**values), options, _ConsoleReporter(console, steps))
    console.print(error_table(outcome.rows, title))
    console.print(f"in brackets: fraction of the error of {dataset.attribute('small_basis')}", highlight=False)
    console.print(f"\nWritten to {run}: " + ", ".join(file.name for file in outcome.files), highlight=False)
    console.print(f"Next: vpotjax predict FILE.xyz --run {run}", highlight=False)


def _method(dataset: Dataset) -> str:
    return f"{str(dataset.attribute('xc')).upper()}/{dataset.attribute('large_basis')}"


def _demo(command: Demo) -> None:
    from vpotjax.io.dataset import embedded_dataset_path

    _train(embedded_dataset_path(), command.run, command.training)


def _evaluate(command: Evaluate) -> None:
    _double_precision()
    from rich.console import Console

    from vpotjax.io.dataset import embedded_dataset_path, read_dataset
    from vpotjax.io.run import load_model, training_data
    from vpotjax.train.pipeline import evaluate
    from vpotjax.train.report import error_table

    dataset = read_dataset(command.data or embedded_dataset_path())
    rows = evaluate(load_model(command.run), dataset, command.split, training_data(command.run))
    title = f"Split {command.split!r} against {_method(dataset)}"
    Console(width=100).print(error_table(rows, title))


def _predict(command: Predict) -> None:
    _double_precision()
    import jax
    from rich.console import Console

    from vpotjax.basis import load_basis
    from vpotjax.io.run import load_model
    from vpotjax.molecule import molecules_from_file
    from vpotjax.train.report import prediction_text

    model, molecules = load_model(command.run), molecules_from_file(command.file)
    predicted = model.predict(molecules)
    for i, molecule in enumerate(molecules):
        nelec = molecule.nelec(load_basis(model.config.orbital_basis, molecule.numbers))
        text = prediction_text(molecule, nelec, jax.tree.map(lambda values, i=i: values[i], predicted))
        Console().print(text, highlight=False, markup=False, soft_wrap=True)


def _reference(command: Reference) -> None:
    from dataclasses import asdict

    from rich.progress import Progress

    from vpotjax.molecule import molecules_from_file
    from vpotjax.reference.generate import ReferenceSettings, generate
    from vpotjax.reference.structures import ase_molecules

    values: dict[str, Any] = asdict(command)
    out, structures, workers = (values.pop(key) for key in ("out", "structures", "workers"))
    if structures is None:
        molecules = ase_molecules()
    else:
        molecules = {f"{i:05d}_{m.formula}": m for i, m in enumerate(molecules_from_file(structures))}
    with Progress() as bar:
        task = bar.add_task("labelling", total=len(molecules))
        generate(
            molecules,
            out,
            ReferenceSettings(**values),
            workers,
            report=lambda done, total, name: bar.update(task, completed=done, description=f"labelled {name}"),
        )


def _info(_: Info) -> None:
    import jax
    from rich.console import Console

    import vpotjax
    from vpotjax.io.dataset import SPLITS, embedded_dataset_path, read_dataset

    dataset = read_dataset(embedded_dataset_path())
    console = Console(highlight=False)
    console.print(f"vpotjax {vpotjax.__version__}, jax {jax.__version__}, device {jax.devices()[0].device_kind}")
    console.print(f"embedded data set {embedded_dataset_path()}")
    for name in SPLITS:
        samples = dataset.split(name)
        console.print(f"  {name}: {len({s.name for s in samples})} molecules, {len(samples)} geometries")
    for key, value in dataset.attributes.items():
        console.print(f"  {key} = {value}")


COMMANDS: dict[type, Any] = {
    Demo: _demo,
    Train: lambda command: _train(command.data, command.run, command.training),
    Evaluate: _evaluate,
    Predict: _predict,
    Reference: _reference,
    Info: _info,
}


if __name__ == "__main__":
    sys.exit(main())
