"""What a run shows: the table of errors and the parity plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpotjax.losses import Targets
from vpotjax.metrics import ObservableErrors
from vpotjax.model import Observables
from vpotjax.molecule import Molecule
from vpotjax.train.data import TrainingArrays
from vpotjax.units import EBOHR_TO_DEBYE, HARTREE_TO_EV

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

COLUMNS = {
    "mo_energies": "ε (eV)",
    "occupied": "ε occ. (eV)",
    "gap": "gap (eV)",
    "dipole": "μ (a.u.)",
    "polarizability": "α (a.u.)",
}


def error_rows(errors: Mapping[str, ObservableErrors], baseline: str) -> list[dict[str, float | str]]:
    """One row per model: each error, and its fraction of that of `baseline`."""
    base = asdict(errors[baseline])
    return [
        {
            "model": name,
            **asdict(values),
            **{f"{key}_fraction": value / (base[key] or float("nan")) for key, value in asdict(values).items()},
        }
        for name, values in errors.items()
    ]


def error_table(rows: list[dict[str, float | str]], title: str) -> Table:
    """A rich table; below each error its fraction of the first row's."""
    from rich.table import Table

    table = Table(title=title, caption="mean absolute ε and gap; mean ‖Δ‖/natm of μ and uncoupled α")
    table.add_column("model")
    for label in COLUMNS.values():
        table.add_column(label, justify="right")
    for row in rows:
        cells = [f"{float(row[key]):.3g}  ({float(row[key + '_fraction']):.2f})" for key in COLUMNS]
        table.add_row(str(row["model"]), *cells)
    return table


def parity_plots(folder: Path, arrays: TrainingArrays, predicted: Observables) -> list[Path]:
    """PNG files of prediction and small basis against the reference, for ε, μ and α."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mask = np.asarray(arrays.targets.level_mask)
    axis_labels = {
        "mo_energies": ("orbital energy", "eV", HARTREE_TO_EV),
        "dipole": ("dipole component", "e·bohr", 1.0),
        "polarizability": ("uncoupled polarizability component", "bohr³", 1.0),
    }
    files = []
    for key, (label, unit, factor) in axis_labels.items():
        figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
        chosen = mask if key == "mo_energies" else ...
        reference = np.asarray(getattr(arrays.targets, key))[chosen].ravel() * factor
        series: dict[str, Observables | Targets] = {"small basis": arrays.small, "trained model": predicted}
        for (name, values), colour in zip(series.items(), ("0.65", "tab:blue"), strict=True):
            axes.scatter(
                reference,
                np.asarray(getattr(values, key))[chosen].ravel() * factor,
                s=6,
                c=colour,
                label=name,
                linewidths=0,
            )
        _decorate(axes, reference, f"{label} ({unit})")
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


def prediction_text(molecule: Molecule, nelec: int, predicted: Observables) -> str:
    """ε around the gap, μ and α of one molecule, to print; what cannot be given is named with the reason.

    Args:
        molecule: that was predicted.
        nelec: electrons that the model's basis holds.
        predicted: of that molecule, without batch axis.
    """
    energies = np.asarray(predicted.mo_energies)
    energies = energies[~np.isposinf(energies)]  # without padding
    nocc = nelec // 2
    lines = [f"{molecule.formula}: {molecule.natm} atoms, charge {molecule.charge}, {nocc} occupied orbitals"]
    if not np.isfinite(energies).all():
        return "\n".join(
            [*lines, "  no prediction: the Fock matrix is not finite, so the model cannot describe this one"]
        )
    lines.append("  orbital energies (eV)")
    for i in range(max(0, nocc - 4), min(len(energies), nocc + 4)):
        name, offset = ("HOMO", i - nocc + 1) if i < nocc else ("LUMO", i - nocc)
        lines.append(f"    {name}{f'{offset:+d}' if offset else '':4s} {energies[i] * HARTREE_TO_EV:10.3f}")
    gap = float(predicted.homo_lumo_gap)
    missing = "without electrons" if not nocc else "no virtual orbital in this basis"
    lines.append(f"  no gap: {missing}" if np.isnan(gap) else f"  gap {gap * HARTREE_TO_EV:.3f} eV")
    return "\n".join(
        [*lines, *_response_lines(molecule, np.asarray(predicted.dipole), np.asarray(predicted.polarizability))]
    )


def _response_lines(molecule: Molecule, dipole: np.ndarray, polarizability: np.ndarray) -> list[str]:
    """Dipole and polarizability; the dipole of an ion depends on the origin, so that is moved and named."""
    if np.isnan(dipole).any():
        return ["  dipole and polarizability: undefined, HOMO and LUMO have the same energy"]
    about = ""
    if molecule.charge:
        numbers = np.asarray(molecule.numbers, float)
        centre = numbers @ np.asarray(molecule.positions) / numbers.sum()
        dipole = dipole - molecule.charge * centre
        about = " about the centre of nuclear charge"
    norm = float(np.linalg.norm(dipole))
    return [
        f"  dipole{about} (e·bohr) {_numbers(dipole)}, norm {norm:.4f} = {norm * EBOHR_TO_DEBYE:.4f} debye",
        f"  uncoupled polarizability (bohr³), isotropic {np.trace(polarizability) / 3:.3f}",
        *(f"    {_numbers(row)}" for row in polarizability),
    ]


def _numbers(values: np.ndarray) -> str:
    return "  ".join(f"{v:9.4f}" for v in values)
