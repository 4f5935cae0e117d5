"""The report of a training: figures, worst molecules, and one HTML page that shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vpotjax.electronic.observables import DERIVED, OBSERVABLES
from vpotjax.train.evaluate import Evaluation
from vpotjax.units import BOHR_TO_ANGSTROM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vpotjax.io.sample import Sample
    from vpotjax.molecule import Molecule

FOLDER, PAGE, WORST, SHOWN = "report", "index.html", "worst.xyz", 20


def write_report(
    run: Path,
    history: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    trained: Evaluation,
    samples: Sequence[Sample],
    parity: Sequence[Path],
    settings: str,
) -> Path:
    """Figures and page in the folder "report" of a run; returns the page.

    Args:
        run: folder of the run.
        history: rows of metrics of all networks.
        rows: errors on the test molecules by model, see `error_rows`.
        trained: of the test molecules.
        samples: that are tested.
        parity: plots that are there already.
        settings: of the training, as text.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    shapes = _in_order(trained, samples)
    names = [name for name in trained.norms if name not in DERIVED]
    figures = [_learning_curves(folder, history)]
    elements = sorted({symbol for molecule in shapes for symbol in molecule.symbols})
    sizes = np.array([molecule.natm for molecule in shapes])
    holds = {symbol: np.array([symbol in molecule.symbols for molecule in shapes]) for symbol in elements}

    def by_element(axes: Axes, name: str) -> None:
        axes.bar(elements, [float(np.nanmean(trained.norms[name][holds[symbol]])) for symbol in elements])
        axes.set_xlabel("molecules with")

    def by_size(axes: Axes, name: str) -> None:
        axes.scatter(sizes, trained.norms[name], s=8)
        axes.set_xlabel("atoms")

    def by_distance(axes: Axes, name: str) -> None:
        axes.scatter(np.minimum(trained.excess, 10), trained.norms[name], s=8)
        axes.axvline(1, c="k", lw=0.8)
        axes.set_xlabel("distance from the training set (1: its range)")

    for title, draw in (("by_element", by_element), ("by_size", by_size), ("by_distance", by_distance)):
        figures.append(_panels(folder / f"errors_{title}.png", names, draw))
    worst = _worst(trained, names)
    _write_xyz(folder / WORST, trained, shapes, worst, names)
    page = folder / PAGE
    pictures = [file.name for file in figures] + [f"../{file.name}" for file in parity]
    page.write_text(_page(run.name, rows, pictures, trained, shapes, worst, names, settings), encoding="utf-8")
    return page


def _in_order(trained: Evaluation, samples: Sequence[Sample]) -> list[Molecule]:
    """Molecules of an evaluation, where geometries of one name and size are in their order, others by size."""
    left: dict[tuple[str, int], list[Molecule]] = {}
    for sample in samples:
        left.setdefault((sample.name, sample.molecule.natm), []).append(sample.molecule)
    return [left[name, int(natm)].pop(0) for name, natm in zip(trained.names, trained.natm, strict=True)]


def _learning_curves(folder: Path, history: Sequence[Mapping[str, Any]]) -> Path:
    keys = [key for key in history[0] if key.startswith("validation_")] if history else []

    def draw(axes: Axes, key: str) -> None:
        for network in sorted({row["network"] for row in history}):
            own = [row for row in history if row["network"] == network]
            axes.plot([row["step"] for row in own], [row[key] for row in own], lw=1)
        axes.set_xlabel("step")
        axes.set_yscale("log")

    return _panels(folder / "learning_curves.png", keys or ["validation_loss"], draw)


def _panels(file: Path, names: Sequence[str], draw: Callable[[Any, str], None]) -> Path:
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), layout="constrained", squeeze=False)
    for axes, name in zip(grid[0], names, strict=True):
        draw(axes, name)
        axes.set_ylabel(_label(name))
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file


def _label(name: str) -> str:
    own = name.removeprefix("validation_")
    if own not in OBSERVABLES:
        return name.replace("_", " ")
    observable = OBSERVABLES[own]
    part = "validation " if own != name else ""
    return f"{part}{observable.symbol} ({observable.unit} per atom)" if observable.unit else part + observable.symbol


def _worst(trained: Evaluation, names: Sequence[str]) -> list[int]:
    """Places of the molecules with the largest error of any observable, in multiples of its mean."""
    if not names:
        return []
    norms = [np.where(np.isfinite(trained.norms[name]), trained.norms[name], np.inf) for name in names]
    means = [max(float(own[np.isfinite(own)].mean()) if np.isfinite(own).any() else 1.0, 1e-300) for own in norms]
    ratios = np.stack([own / mean for own, mean in zip(norms, means, strict=True)])
    return np.argsort(-ratios.max(axis=0), kind="stable")[:SHOWN].tolist()


def _write_xyz(
    file: Path, trained: Evaluation, molecules: Sequence[Molecule], places: Sequence[int], names: Sequence[str]
) -> None:
    lines = []
    for i in places:
        molecule = molecules[i]
        errors = " ".join(f"error_{name}={trained.norms[name][i]:.6g}" for name in names)
        lines += [str(molecule.natm), f"name={trained.names[i].replace(' ', '_')} charge={molecule.charge} {errors}"]
        for symbol, place in zip(molecule.symbols, molecule.positions * BOHR_TO_ANGSTROM, strict=True):
            lines.append(" ".join([symbol, *(f"{x:.8f}" for x in place)]))
    file.write_text("\n".join(lines) + "\n")


def _page(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[str],
    trained: Evaluation,
    molecules: Sequence[Molecule],
    worst: Sequence[int],
    names: Sequence[str],
    settings: str,
) -> str:
    shown = [name for name in OBSERVABLES if name in rows[0]]
    heads = ["model", *(f"{OBSERVABLES[n].symbol} ({OBSERVABLES[n].unit})" for n in shown)]
    errors = [[str(row["model"]), *(_with_interval(row, name) for name in shown)] for row in rows]
    far = []
    for i in worst:
        own = [f"{trained.norms[name][i]:.3g}" for name in names]
        far.append([trained.names[i], molecules[i].formula, f"{trained.excess[i]:.2g}", *own])
    images = "\n".join(f'<p><img src="{html.escape(picture)}"></p>' for picture in pictures)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body {{ font-family: sans-serif; max-width: 75em; margin: 2em auto; }} img {{ max-width: 100%; }}
td, th {{ padding: 0.2em 0.8em; text-align: right; }} td:first-child {{ text-align: left; }}</style></head><body>
<h1>{html.escape(title)}</h1>
<h2>Errors of the {len(trained.names)} test geometries</h2>
<p>Mean absolute errors of levels and gap, mean ‖Δ‖ per atom of the others, with 95 % bootstrap intervals.</p>
{_table(heads, errors)}
{images}
<h2>Worst geometries</h2>
<p>‖Δ‖ per atom; above 1 the distance is outside the training set's range. Structures are in
<a href="{WORST}">{WORST}</a>.</p>
{_table(["name", "formula", "distance", *(OBSERVABLES[n].symbol for n in names)], far)}
<h2>Settings</h2>
<pre>{html.escape(settings)}</pre>
</body></html>
"""


def _with_interval(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + "\n".join([line(heads, "th"), *(line(row, "td") for row in rows)]) + "</table>"
