"""What is predicted for one molecule, how an observable is written, and the checks of a chunk of molecules."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.molecule import Molecule

_RESERVED = frozenset(
    ("name", "formula", "natm", "charge", "spin", "warnings", "properties", "pbc", "lattice", "species", "pos", "z")
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one molecule.

    Args:
        name: of the molecule.
        molecule: that the observables belong to.
        values: observables by name, of any shapes, in atomic units.
        uncertainties: standard deviations, of the same shapes; of all observables, some or none.
        warnings: about this prediction.
    """

    name: str
    molecule: Molecule
    values: Mapping[str, np.ndarray]
    uncertainties: Mapping[str, np.ndarray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Observable(NamedTuple):
    """How an observable is written.

    Args:
        name: in `Prediction.values`.
        unit: such as "e·bohr", or "".
        axes: "xyz" (3), "atom" (natm) or any other word for each axis; other sizes may differ between molecules.
        uncertain: True where standard deviations are written, too.
    """

    name: str
    unit: str
    axes: tuple[str, ...]
    uncertain: bool

    @property
    def suffix(self) -> str:
        """The unit in ASCII after an underscore, as "_bohr3"; "" where there is none."""
        return _suffix(self.unit)

    @property
    def key(self) -> str:
        """Name and unit, as "polarizability_bohr3"."""
        return self.name + self.suffix

    def entries(self, prediction: Prediction) -> Iterator[tuple[str, np.ndarray]]:
        """Key and numbers of the value, then those of its uncertainty where there is one."""
        yield self.key, prediction.values[self.name]
        if self.uncertain:
            yield f"{self.key}_uncertainty", prediction.uncertainties[self.name]


@functools.cache
def _suffix(unit: str) -> str:
    plain = unicodedata.normalize("NFKC", unit.replace("⁻", "minus").replace("/", "_per_"))
    return "_" + re.sub("[^A-Za-z0-9_]", "", plain) if plain else ""


def checked_chunk(names: Any, molecules: Any, values: Any, uncertainties: Any, warnings: Any) -> list[Prediction]:
    """A chunk, molecule by molecule, with clean texts and numbers in double precision; see `PredictionWriter.write`.

    Raises:
        InputError: lengths differ; numbers are not real; `warnings` holds no lists.
    """
    columns = {"names": names, "warnings": warnings}
    columns |= {f"values[{key!r}]": entries for key, entries in values.items()}
    columns |= {f"uncertainties[{key!r}]": entries for key, entries in uncertainties.items()}
    for what, entries in columns.items():
        if isinstance(entries, str) or len(entries) != len(molecules):
            raise InputError(f"{what} has {len(entries)} entries for {len(molecules)} molecules; give a list of these.")
    text = next((entry for entry in warnings if isinstance(entry, str)), None)
    if text is not None:
        raise InputError(f"warnings holds the text {text[:60]!r}; give a list of texts for each molecule.")
    return [
        Prediction(
            _clean(names[i]),
            molecule,
            {key: _numbers(f"values[{key!r}]", entries[i]) for key, entries in values.items()},
            {key: _numbers(f"uncertainties[{key!r}]", entries[i]) for key, entries in uncertainties.items()},
            tuple(map(_clean, warnings[i])),
        )
        for i, molecule in enumerate(molecules)
    ]


def _clean(text: Any) -> str:
    """The text without line ends and null bytes; what UTF-8 cannot hold is a question mark."""
    return re.sub("[\0\r\n]+", " ", str(text).encode("utf-8", "replace").decode())


def _numbers(what: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {array.dtype}; give real numbers.")
    return array.astype(float)


def observables_of(
    first: Prediction, units: Mapping[str, str], axes: Mapping[str, tuple[str, ...]]
) -> tuple[Observable, ...]:
    """How the observables of a prediction, and of all after it, are written.

    Args:
        first: the prediction.
        units, axes: by observable; by default none, and of any size.

    Raises:
        InputError: a key is taken, twice there, or not a word; an uncertainty is without a value.
    """
    alone = sorted(first.uncertainties.keys() - first.values.keys())
    if alone:
        raise InputError(f"uncertainties has {alone[0]!r}, which values has not; give the values, too.")
    found = tuple(
        Observable(name, units.get(name, ""), axes.get(name, ("any",) * value.ndim), name in first.uncertainties)
        for name, value in first.values.items()
    )
    keys = [key for one in found for key, _ in one.entries(first)]
    for key in keys:
        if not _NAME.fullmatch(key) or key.lower() in _RESERVED or keys.count(key) > 1:
            raise InputError(
                f"values has an observable with the key {key!r} in the file, which is taken or not made of letters, "
                "digits and underscores; rename it."
            )
    return found


def check_shapes(prediction: Prediction, observables: Sequence[Observable]) -> None:
    """Raise InputError unless every value has the shape that its axes say, and every uncertainty that of the value."""
    sizes = {"xyz": 3, "atom": prediction.molecule.natm}
    for one in observables:
        value = prediction.values[one.name]
        require_shape(f"values[{one.name!r}] of {prediction.name!r}", value, tuple(sizes.get(a) for a in one.axes))
        if one.uncertain:
            own = prediction.uncertainties[one.name]
            require_shape(f"uncertainties[{one.name!r}] of {prediction.name!r}", own, value.shape)
