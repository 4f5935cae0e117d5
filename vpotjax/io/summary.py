"""What is in a data set file, in a screenful."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpotjax.io.dataset import DatasetFile
from vpotjax.io.sample import MATRICES, SOURCE, SPLITS, Sample

FAR = 10.0
"""An outlier is so many median absolute deviations from the median."""
UNITS_OF = {
    "energy": "hartree",
    "mo_energies": "hartree",
    "fock": "hartree",
    "core_hamiltonian": "hartree",
    "kinetic": "hartree",
    "dipole": "e·bohr",
    "quadrupole": "e·bohr²",
    "polarizability": "bohr³",
    "coupled_polarizability": "bohr³",
    "mulliken_charges": "e",
    "lowdin_charges": "e",
    "forces": "hartree/bohr",
}
NAMED = 3
SHOWN = 40  # characters of a value


class _Range(NamedTuple):
    """Of the numbers of a label: least, largest, how many samples have it, and a size of each of these."""

    least: float
    largest: float
    rows: list[int]
    sizes: list[float]


def summary(path: str | Path) -> str:
    """Composition, splits, method and ranges of all labels, outliers and failures of a file, read sample by sample.

    Everything is read, so that a checksum that does not fit is found.

    Raises:
        InputError: as of `DatasetFile`.
    """
    with DatasetFile(path) as file:
        samples, ranges = _Samples(), dict[tuple[str, str], _Range]()
        for row, sample in enumerate(file):
            samples.add(sample)
            for name, labels in sample.labels.items():
                for key, value in labels.items():
                    ranges[name, key] = _wider(ranges.get((name, key)), row, np.asarray(value, float))
        size = Path(path).stat().st_size / 1e6
        lines = [
            f"{path}: {len(file)} geometries of {len(set(file.names))} molecules, {size:.1f} MB, all checksums right"
        ]
        lines += samples.lines()
        lines += [_split_line(name, parts) for name, parts in [("", samples.splits), *file.splits.items()]]
        for name in dict.fromkeys(name for name, _ in ranges if name != SOURCE):
            lines.append(f"labels {name!r}{_method_text(file.methods.get(name, {}))}")
            lines += [
                _range_line(key, own, samples, file.names) for (other, key), own in ranges.items() if other == name
            ]
        lines += [f"  {key} = {_short(value)}" for key, value in _shown_attributes(file.attributes)]
        lines += [f"not labelled: {name}: {reason}" for name, reason in _failed(file.attributes)]
    return "\n".join(lines)


class _Samples:
    """Composition of the samples so far."""

    def __init__(self) -> None:
        self.elements: Counter[int] = Counter()
        self.counts: list[Counter[int]] = []
        self.charges: Counter[int] = Counter()
        self.spins: Counter[int] = Counter()
        self.splits: list[str] = []

    def add(self, sample: Sample) -> None:
        """One more."""
        own = Counter(sample.molecule.numbers.tolist())
        self.counts.append(own)
        self.elements.update(own)
        self.charges[sample.molecule.charge] += 1
        self.spins[sample.molecule.spin] += 1
        self.splits.append(sample.split)

    def lines(self) -> list[str]:
        """Elements, sizes, charges and spins."""
        from ase.data import chemical_symbols

        sizes = [sum(own.values()) for own in self.counts]
        symbols = ", ".join(f"{chemical_symbols[z]} {n}" for z, n in sorted(self.elements.items()))
        odd = [
            f"{name} " + ", ".join(f"{value:+d} ({n})" for value, n in sorted(values.items()) if value)
            for name, values in (("charge", self.charges), ("spin", self.spins))
            if set(values) - {0}
        ]
        return [
            f"  atoms: {symbols}; {min(sizes)} to {max(sizes)} in a molecule, median {np.median(sizes):.0f}",
            *(f"  {text}" for text in odd),
        ]

    def without_composition(self, rows: Sequence[int], values: np.ndarray) -> np.ndarray:
        """What is left of energies after the best sum over atoms, which the worst fifth does not decide."""
        elements = sorted(self.elements)
        table = np.array([[self.counts[row][z] for z in elements] for row in rows], float)
        left, kept = values, np.ones(len(values), bool)
        for _ in range(3):
            left = values - table @ np.linalg.lstsq(table[kept], values[kept], rcond=None)[0]
            kept = np.abs(left) <= np.quantile(np.abs(left), 0.8)
        return left


def _wider(known: _Range | None, row: int, value: np.ndarray) -> _Range:
    known = known or _Range(np.inf, -np.inf, [], [])
    if value.size:
        known = known._replace(least=min(known.least, value.min()), largest=max(known.largest, value.max()))
    size = float(value) if not value.ndim else float(np.sqrt(np.mean(value**2))) if value.size else 0.0
    known.rows.append(row)
    known.sizes.append(size)
    return known


def _range_line(key: str, own: _Range, samples: _Samples, names: Sequence[str]) -> str:
    sizes = np.array(own.sizes)
    if key == "energy":
        sizes = samples.without_composition(own.rows, sizes)
    distance = np.abs(sizes - np.median(sizes))
    bound = FAR * max(float(np.median(distance)), 1e-6 * float(np.abs(sizes).max(initial=0)))
    far = [own.rows[i] for i in np.argsort(-distance) if distance[i] > bound]
    count = "" if len(own.rows) == len(names) else f", {len(own.rows)} samples"
    outliers = ""
    if far and key not in MATRICES:  # whose size follows that of the molecule
        named = ", ".join(_short(names[row]) for row in far[:NAMED])
        outliers = f"; unlike the others: {named}" + (f" and {len(far) - NAMED} more" if len(far) > NAMED else "")
    unit = UNITS_OF.get(key, "")
    return f"  {key}: {own.least:.6g} to {own.largest:.6g}{f' {unit}' if unit else ''}{count}{outliers}"


def _split_line(name: str, parts: Sequence[str]) -> str:
    counts = Counter(parts)
    own = f"split {name!r}" if name else "split"
    return f"  {own}: " + ", ".join(f"{part or 'none'} {counts[part]}" for part in (*SPLITS, "") if counts[part])


def _method_text(method: Mapping[str, Any]) -> str:
    if not method:
        return ""
    parts = [str(method[key]) for key in ("xc",) if key in method]
    if "program" in method:
        parts.append(f"{method['program']} {method.get('version', '')}".strip())
    if method.get("functional"):
        parts.append("libxc " + " + ".join(f"{factor:g}·{number}" for number, factor in method["functional"]))
    if "grid_level" in method:
        parts.append(f"grid level {method['grid_level']}")
    if "density_fitting" in method:
        parts.append("density fitting" if method["density_fitting"] else "no density fitting")
    return f": {', '.join(parts)}"


def _shown_attributes(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Without those that are for programs."""
    return ((key, value) for key, value in attributes.items() if key not in ("settings", "failed", "units"))


def _failed(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:
    try:
        return list(json.loads(str(attributes.get("failed", "{}"))).items())
    except (ValueError, AttributeError):
        return []


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
