"""vpotjax predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vpotjax._checks import InputError
from vpotjax.cli.session import configure_jax

if TYPE_CHECKING:
    from rich.console import Console

PRINTED = 20  # predictions that are printed where they are not written to a file


@dataclass(frozen=True)
class Predict:
    """Levels, gap, dipole, polarizability, charges and bond orders of closed-shell molecules, or the one property that
    a model was trained for, of any number of them.
    """

    file: tyro.conf.Positional[Path]
    """xyz, extxyz, mol, sdf, pdb, gen, traj, db or json, or a folder of such; every structure is predicted, with the
    charge that it has"""
    run: Path | None = None
    """Folder that 'demo' or 'train' wrote; default: the model that the package ships, of H, C, N and O."""
    out: Path | None = None
    """extxyz, h5 or csv file to write; default: the first 20 are printed."""
    skip: bool = False
    """Leave out, and name, molecules that the model does not know (other elements, open shells), structures that are no
    molecule, and of a folder what is broken; default: they are an error."""


def _predict(command: Predict) -> None:
    configure_jax()
    from rich.console import Console

    from vpotjax.io.model import load_model
    from vpotjax.io.pretrained import PRETRAINED, pretrained_path
    from vpotjax.molecule import iterate_molecules
    from vpotjax.train.predict import predictions
    from vpotjax.train.report import expected_text

    run, console = command.run or pretrained_path(), Console()
    model = load_model(run)
    expected = expected_text(run, model)
    if command.run is None:
        about = f"Model: {PRETRAINED['levels']}; card: {run / 'MODEL_CARD.md'}"
        console.print(about, highlight=False, markup=False, soft_wrap=True)

    count = 0

    def tell(text: str) -> None:
        nonlocal count
        count += 1
        console.print(f"left out: {text}", highlight=False, markup=False, soft_wrap=True)

    left_out = tell if command.skip else None
    predicted = predictions(model, iterate_molecules(command.file, left_out=left_out), left_out=left_out)
    if command.out is not None:
        _write_predictions(command, predicted, console)
    else:
        _print_predictions(command, predicted, model, console)
    if count:
        console.print(f"{count} left out, named above", highlight=False)
    if expected:
        console.print(expected, highlight=False, markup=False, soft_wrap=True)


def _require_some(count: int, file: Path) -> None:
    if not count:
        raise InputError(
            f"file={str(file)!r} holds no molecule that the model knows; see above, train with its elements."
        )


def _print_predictions(command: Predict, predicted: Iterator[Any], model: Any, console: Console) -> None:
    from vpotjax.basis import load_basis
    from vpotjax.train.report import prediction_text, property_text

    count, settings = 0, model.settings
    for count, prediction in enumerate(predicted, 1):
        if count > PRINTED:
            break
        if "orbital" in settings.bases:
            numbers = prediction.molecule.numbers
            text = prediction_text(prediction, prediction.molecule.nelec(load_basis(settings.orbital_basis, numbers)))
        else:
            text = property_text(prediction)
        console.print(text, highlight=False, markup=False, soft_wrap=True)
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
            values, uncertainties = (
                {key: [getattr(p, part)[key] for p in chunk] for key in getattr(chunk[0], part)}
                for part in ("values", "uncertainties")
            )
            names, molecules = [p.name for p in chunk], [p.molecule for p in chunk]
            writer.write(names, molecules, values, uncertainties, [p.warnings for p in chunk])
            written, warned = written + len(chunk), warned + sum(bool(p.warnings) for p in chunk)
            bar.update(task, completed=written)
        bar.update(task, total=written)  # without what was left out
        _require_some(written, command.file)
    console.print(f"{written} molecules written to {command.out}, {warned} of them with warnings", highlight=False)


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    import itertools

    while chunk := list(itertools.islice(items, size)):
        yield chunk


COMMANDS: dict[type, Any] = {Predict: _predict}
