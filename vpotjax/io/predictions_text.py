"""Predictions as extended xyz and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vpotjax.io.predictions_chunk import Observable, Prediction
from vpotjax.units import BOHR_TO_ANGSTROM

_COLUMNS_PER_ATOM = {("atom",): 1, ("atom", "xyz"): 3}
_PARTS: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {
    (): {"": ()},
    ("xyz",): {f"_{a}": (i,) for i, a in enumerate("xyz")},
    ("xyz", "xyz"): {f"_{a}{b}": (i, j) for i, a in enumerate("xyz") for j, b in enumerate("xyz") if i <= j},
}
_BASE = ("name", "formula", "natm", "charge", "spin")


class ExtxyzSink:
    """A new extended xyz file.

    Args:
        path: of an empty file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def append(self, predictions: Sequence[Prediction], observables: Sequence[Observable]) -> None:
        """One frame for each."""
        for prediction in predictions:
            self._file.write(_frame(prediction, observables))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def _frame(prediction: Prediction, observables: Sequence[Observable]) -> str:
    molecule = prediction.molecule
    properties, columns, pairs = ["species:S:1:pos:R:3"], [], []
    for observable in observables:
        width = _COLUMNS_PER_ATOM.get(observable.axes)
        for key, array in observable.entries(prediction):
            if width:
                properties.append(f"{key}:R:{width}")
                columns.append(array.reshape(molecule.natm, width))
            else:
                pairs.append(f"{key}={_text(array)}")
    if prediction.warnings:
        pairs.append(f"warnings={_quoted('; '.join(prediction.warnings))}")
    comment = [
        f"name={_quoted(prediction.name)} charge={molecule.charge} spin={molecule.spin}",
        f'Properties={":".join(properties)} pbc="F F F"',
    ]
    positions = np.asarray(molecule.positions, dtype=float) * BOHR_TO_ANGSTROM
    lines = [str(molecule.natm), " ".join([*comment, *pairs])]
    numbers = np.hstack([np.zeros((molecule.natm, 0)), *columns])
    for symbol, (x, y, z), row in zip(molecule.symbols, positions.tolist(), numbers, strict=True):
        lines.append(f"{symbol:2s} {x:16.10f} {y:16.10f} {z:16.10f} {_joined(row, ' ')}".rstrip())
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', "'")
    return f'"{text}"'


def _text(array: np.ndarray) -> str:
    """Scalars bare, vectors between quotes; matrices, and vectors that ASE would take for scalars, as JSON."""
    if array.ndim == 0:
        return _joined(array[None], "")
    if array.ndim == 1 and array.size > 1:
        return f'"{_joined(array, " ")}"'
    return f'"_JSON {_json(array)}"'


def _json(array: np.ndarray) -> str:
    return f"[{_joined(array, ', ') if array.ndim == 1 else ', '.join(map(_json, array))}]"


def _joined(values: np.ndarray, separator: str) -> str:
    """Ten digits, always with a decimal point; NaN and Infinity as in JSON."""
    text = separator.join(["%#.10g"] * len(values)) % tuple(values.tolist())
    return text.replace("nan", "NaN").replace("inf", "Infinity") if "n" in text else text


class CsvSink:
    """A new CSV file.

    Args:
        path: of an empty file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._headed = False

    def append(self, predictions: Sequence[Prediction], observables: Sequence[Observable]) -> None:
        """One row for each."""
        for prediction in predictions:
            cells = dict(_cells(prediction, observables))
            self._head(cells)
            molecule = prediction.molecule
            base = (prediction.name, molecule.formula, molecule.natm, molecule.charge, molecule.spin)
            self._rows.writerow([*base, *cells.values(), "; ".join(prediction.warnings)])

    def close(self) -> None:
        """Finish the file."""
        if not self._file.closed:
            self._head(())
        self._file.close()

    def _head(self, keys: Sequence[str] | dict[str, str]) -> None:
        if not self._headed:
            self._rows.writerow([*_BASE, *keys, "warnings"])
            self._headed = True


def _cells(prediction: Prediction, observables: Sequence[Observable]) -> Iterator[tuple[str, str]]:
    for one in observables:
        for key, array in one.entries(prediction):
            ending = key.removeprefix(one.key)
            for part, index in _PARTS.get(one.axes, {}).items():
                yield f"{one.name}{part}{one.suffix}{ending}", f"{array[index]:.10g}"
            if one.axes == ("xyz", "xyz") and not ending:
                yield f"{one.name}_isotropic{one.suffix}", f"{np.trace(array) / 3:.10g}"
