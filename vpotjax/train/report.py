"""What a run shows: the table of errors, the parity plots, and predictions as text."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.electronic.observables import DERIVED, OBSERVABLES, Observable
from vpotjax.metrics import bootstrap_interval
from vpotjax.models.calibration import Calibration
from vpotjax.models.domain import Domain
from vpotjax.models.ensemble import Ensemble
from vpotjax.train.evaluate import Evaluation
from vpotjax.train.predict import MoleculePrediction
from vpotjax.train.uncertainty import STEEPEST, coverage
from vpotjax.units import EBOHR_TO_DEBYE, HARTREE_TO_EV

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table


VALIDATION_ERRORS, LARGER_ERRORS = "validation_errors.csv", "larger_errors.csv"
"""Files of a run."""


def error_rows(evaluations: Mapping[str, Evaluation]) -> list[dict[str, float | str]]:
    """One row per model: each error in its unit of the table, and of several its fraction of that of the first.

    The error is the customary one, see `ErrorSummary.customary`, "_low" and "_high" the ends of its bootstrap interval
    (95 %); "_rms" is the root mean square of ‖Δ‖/natm, "_uncertainty" the mean of ‖uncertainty‖/natm, "_within" and
    "_within_2" the shares of molecules whose error is below the uncertainty, and below twice that.
    """
    rows: list[dict[str, float | str]] = []
    first = next(iter(evaluations.values())).summary
    for model, evaluation in evaluations.items():
        row: dict[str, float | str] = {"model": model}
        for name, summary in evaluation.summary.items():
            own = summary.customary(OBSERVABLES[name])
            row[name] = own
            if len(evaluations) > 1:
                row[f"{name}_fraction"] = own / (first[name].customary(OBSERVABLES[name]) or float("nan"))
            row[f"{name}_rms"] = summary.rms_norm
            interval = bootstrap_interval(evaluation.errors[name], OBSERVABLES[name].mean_absolute)
            row[f"{name}_low"], row[f"{name}_high"] = interval
            if name in evaluation.uncertainties:
                row[f"{name}_uncertainty"] = float(np.mean(evaluation.uncertainties[name]))
                row[f"{name}_within"], row[f"{name}_within_2"] = coverage(evaluation, name)
        rows.append(row)
    return rows


def calibration_text(calibration: Mapping[str, Calibration], count: int, several: bool) -> str | None:
    """What uncertainties are made of, in one line; None where there is nothing to say.

    Args:
        calibration: by observable.
        count: of the validation molecules that it was fitted to.
        several: whether there is a spread of networks.
    """
    parts = []
    for name, own in calibration.items():
        observable, scale = OBSERVABLES[name], f" and {float(own.scale):.2g} spreads" if several else ""
        parts.append(f"{observable.symbol} {_amount(observable, float(own.floor) * observable.factor)}{scale}")
    if not parts:
        return None
    return f"Uncertainties by {count} validation geometries, added in quadrature: {', '.join(parts)}"


def growth_text(calibration: Mapping[str, Calibration], domain: Domain) -> str | None:
    """How uncertainties grow beyond the size of the training molecules, in one line; None where they do not.

    Args:
        calibration: by observable.
        domain: of the training molecules.
    """
    parts = []
    for name, own in calibration.items():
        if own.grows:
            power = f"(n/{domain.size})^{own.growth:.2g}" if own.growth > 0 else ""
            factor = f"{own.jump:.2g}" if own.jump > 1 else ""
            bound = " (or more)" if own.growth >= STEEPEST else ""
            parts.append(f"{OBSERVABLES[name].symbol} by {' '.join(filter(None, (factor, power)))}{bound}")
    if not parts:
        return None
    return (
        f"Uncertainties of n > {domain.size} heavy atoms are multiplied: {', '.join(parts)}; fitted up to n = "
        f"{domain.checked}"
    )


def coverage_text(row: Mapping[str, float | str]) -> str | None:
    """How often uncertainties hold, in one line; None where the model has none.

    Of independent normal errors these are 68 and 95 % for one number, 61 and 99 % for a vector, 54 and 100 % for many
    levels.

    Args:
        row: of `error_rows`.
    """
    parts = [
        f"{observable.symbol} {100 * float(row[f'{name}_within']):.0f} and {100 * float(row[f'{name}_within_2']):.0f} %"
        for name, observable in OBSERVABLES.items()
        if not np.isnan(float(row.get(f"{name}_within", np.nan)))
    ]
    if not parts:
        return None
    return f"Share with an error below the uncertainty, and below twice that: {', '.join(parts)}"


def expected_text(run: Path, model: Ensemble[Any]) -> str | None:
    """Errors of the validation molecules of a run, and what uncertainties are, in one line; None where it does not say.

    Args:
        run: folder.
        model: of it.

    Raises:
        InputError: the file of them is not what a training writes.
    """
    file = run / VALIDATION_ERRORS
    if not file.is_file():
        return None
    try:
        with file.open(newline="") as stream:
            (row,) = csv.DictReader(stream)
        values = {name: float(row[name]) for name in OBSERVABLES if row.get(name)}
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}); delete it, or train again.") from None
    errors = ", ".join(
        f"{OBSERVABLES[name].symbol} {_amount(OBSERVABLES[name], value)}" for name, value in values.items()
    )
    text = f"Mean errors of the model's validation molecules: {errors}."
    if model.calibration:
        grown = any(own.grows for own in model.calibration.values())
        more = f" and by larger ones of up to {model.domain.checked} heavy atoms" if grown else ""
        by = f"one standard deviation of the error by these{more}"
        return f"{text} Uncertainties (±): {by}, of |μ| and tr α/3 at most that."
    if model.members > 1:
        return f"{text} Uncertainties (±) are the spread of its networks, to which their common errors are added."
    return text


def _amount(observable: Observable, value: float) -> str:
    """With its unit; of what grows with the molecule per atom, as are its errors."""
    per_atom = "" if observable.mean_absolute else "per atom"
    return " ".join(filter(None, (f"{value:.2g}", observable.unit, per_atom)))


def idle_text(history: Sequence[Mapping[str, Any]]) -> str | None:
    """A line where networks are kept as they started, because no step lowered their validation loss; else None.

    Args:
        history: rows of metrics with "network", "step" and "validation_loss".
    """
    best: dict[int, Mapping[str, Any]] = {}
    for row in history:
        kept = best.setdefault(row["network"], row)
        best[row["network"]] = min(kept, row, key=lambda r: r["validation_loss"])
    idle = sum(row["step"] == 0 for row in best.values())
    if not idle:
        return None
    return (
        f"{idle} of {len(best)} networks did not lower the validation loss: they are the closed-form start, and their "
        "spread says nothing; more molecules would help, or a lower learning_rate"
    )


def error_table(rows: list[dict[str, float | str]], title: str, intervals: bool = False) -> Table:
    """A rich table; beside each error its fraction of the first row's, and its interval where that is asked for."""
    from rich.table import Table

    names = [name for name in OBSERVABLES if name in rows[0]]
    table = Table(title=title, caption="mean absolute errors of ε and gap; mean ‖Δ‖/natm of the others; α is uncoupled")
    table.add_column("model")
    for name in names:
        observable = OBSERVABLES[name]
        unit = f" ({observable.unit})" if observable.unit else ""
        table.add_column(observable.symbol + unit, justify="right")
    for row in rows:
        fractions = [f"  ({float(row[f'{key}_fraction']):.2f})" if f"{key}_fraction" in row else "" for key in names]
        cells = [f"{float(row[key]):.3g}{fraction}" for key, fraction in zip(names, fractions, strict=True)]
        if intervals:
            ranges = [tuple(float(row[f"{key}_{end}"]) for end in ("low", "high")) for key in names]
            cells = [f"{cell}\n{low:.3g} to {high:.3g}" for cell, (low, high) in zip(cells, ranges, strict=True)]
        table.add_row(str(row["model"]), *cells)
    return table


def parity_plots(folder: Path, evaluations: Mapping[str, Evaluation]) -> list[Path]:
    """PNG files of predictions of the first and of the last model against the reference, one for each observable."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    models = list(evaluations)
    shown = {name: evaluations[name].pairs for name in dict.fromkeys((models[0], models[-1]))}
    files = []
    for key in shown[models[-1]]:
        if key in DERIVED:
            continue
        observable = OBSERVABLES[key]
        figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
        for (name, pairs), colour in zip(shown.items(), ("0.65", "tab:blue"), strict=False):
            values, reference = (x * observable.factor for x in pairs[key])
            axes.scatter(reference, values, s=6, c=colour, label=name, linewidths=0)
        _decorate(axes, shown[models[-1]][key][1] * observable.factor, f"{observable.symbol} ({observable.unit})")
        files.append(folder / f"parity_{key}.png")
        figure.savefig(files[-1], dpi=150)
        plt.close(figure)
    return files


def _decorate(axes: Axes, reference: np.ndarray, label: str) -> None:
    ends = [float(reference.min()), float(reference.max())]
    axes.plot(ends, ends, c="k", lw=0.8, zorder=0)
    axes.set_xlabel(f"reference {label}")
    axes.set_ylabel(f"predicted {label}")
    axes.legend(frameon=False)


def property_text(prediction: MoleculePrediction) -> str:
    """The properties of one molecule that were predicted without F, each with its uncertainty, to print."""
    molecule = prediction.molecule
    lines = [f"{prediction.name}: {molecule.formula}, {molecule.natm} atoms"]
    for name, value in prediction.values.items():
        unit, own = OBSERVABLES[name].atomic_unit, (_of_trace if value.ndim == 2 else _plus_minus)(prediction, name)
        if not value.ndim:
            lines.append(f"  {name} {float(value):.6f}{own} {unit}")
        elif value.ndim == 1:
            lines.append(f"  {name} ({unit}) {_numbers(value)}, norm {float(np.linalg.norm(value)):.4f}{own}")
        else:
            lines.append(f"  {name} ({unit}), isotropic {np.trace(value) / 3:.3f}{own}")
            lines += [f"    {_numbers(row)}" for row in value]
    return "\n".join([*lines, *(f"  WARNING: {w}" for w in prediction.warnings)])


def prediction_text(prediction: MoleculePrediction, nelec: int) -> str:
    """ε around the gap, μ and α of one molecule, with uncertainties, to print; what cannot be given has a reason.

    Args:
        prediction: of the molecule.
        nelec: electrons that the model's basis holds.
    """
    molecule, values = prediction.molecule, prediction.values
    energies, nocc = values["mo_energies"], nelec // 2
    lines = [
        f"{prediction.name}: {molecule.formula}, {molecule.natm} atoms, charge {molecule.charge}, "
        f"{nocc} occupied orbitals"
    ]
    if not np.isfinite(energies).all():
        lines.append("  no prediction: the Fock matrix is not finite, so the model cannot describe this one")
        return "\n".join([*lines, *(f"  WARNING: {w}" for w in prediction.warnings)])
    uncertainty = prediction.uncertainties.get("mo_energies")
    lines.append("  orbital energies (eV)")
    for i in range(max(0, nocc - 4), min(len(energies), nocc + 4)):
        name, offset = ("HOMO", i - nocc + 1) if i < nocc else ("LUMO", i - nocc)
        own = "" if uncertainty is None else f" ± {uncertainty[i] * HARTREE_TO_EV:.3f}"
        lines.append(f"    {name}{f'{offset:+d}' if offset else '':4s} {energies[i] * HARTREE_TO_EV:10.3f}{own}")
    gap = float(values["homo_lumo_gap"])
    missing = "without electrons" if not nocc else "no virtual orbital in this basis"
    own = _plus_minus(prediction, "homo_lumo_gap", HARTREE_TO_EV)
    lines.append(f"  no gap: {missing}" if np.isnan(gap) else f"  gap {gap * HARTREE_TO_EV:.3f}{own} eV")
    lines += _response_lines(prediction)
    return "\n".join([*lines, *(f"  WARNING: {w}" for w in prediction.warnings)])


def _plus_minus(prediction: MoleculePrediction, name: str, factor: float = 1.0) -> str:
    """Of the form " ± uncertainty", of vectors and matrices the norm times `factor`; empty where there is none."""
    if name not in prediction.uncertainties:
        return ""
    return f" ± {factor * float(np.linalg.norm(prediction.uncertainties[name])):.3g}"


def _of_trace(prediction: MoleculePrediction, name: str) -> str:
    """For a third of the trace: |tr Δ| ≤ √3 ‖Δ‖."""
    return _plus_minus(prediction, name, 3**-0.5)


def _response_lines(prediction: MoleculePrediction) -> list[str]:
    """Dipole and polarizability; the dipole of an ion depends on the origin, so that is moved and named."""
    molecule, dipole = prediction.molecule, prediction.values["dipole"]
    polarizability = prediction.values["polarizability"]
    if np.isnan(dipole).any():
        return ["  dipole and polarizability: undefined, HOMO and LUMO have the same energy"]
    about = ""
    if molecule.charge:
        numbers = np.asarray(molecule.numbers, float)
        centre = numbers @ np.asarray(molecule.positions) / numbers.sum()
        dipole = dipole - molecule.charge * centre
        about = " about the centre of nuclear charge"
    norm = float(np.linalg.norm(dipole))
    own = _plus_minus(prediction, "dipole")
    return [
        f"  dipole{about} (e·bohr) {_numbers(dipole)}, norm {norm:.4f}{own} = {norm * EBOHR_TO_DEBYE:.4f} debye",
        f"  uncoupled polarizability (bohr³), isotropic {np.trace(polarizability) / 3:.3f}"
        f"{_of_trace(prediction, 'polarizability')}",
        *(f"    {_numbers(row)}" for row in polarizability),
    ]


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{v:9.4f}" for v in values)
