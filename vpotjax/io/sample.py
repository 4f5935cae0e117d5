"""A labelled molecule: what it has to be, the same on writing and on reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.molecule import Molecule

SPLITS = ("train", "validation", "test")
MATRICES = ("fock", "overlap")
SOURCE = "source"
"""Name of the set of labels with what a sample was made of, which are no quantum chemistry."""
UNITS = "atomic units"
ROUNDING = {2: 1e-2, 4: 1e-5, 8: 1e-10}  # by bytes: asymmetry of a matrix in units of its largest element
LEVEL_ROUNDING = 1e-8  # hartree; levels of equal energy come in any order


@dataclass(frozen=True)
class Sample:
    """One labelled geometry.

    Attributes:
        name: of the molecule; geometries of one molecule share it.
        split: one of SPLITS; all geometries of a molecule are in the same.
        molecule: numbers and positions (bohr), charge and spin.
        labels: by name of the set, which is that of the basis, then by quantity: energy (), mo_energies (nao,)
            ascending, dipole (3,), polarizability (3, 3) uncoupled, fock and overlap (nao, nao), symmetric; atomic
            units, PySCF's AO order. With a leading axis of α and β, mo_energies (2, nao) and fock (2, nao, nao) are
            of an unrestricted calculation. Other quantities may have any name and shape, and none has to be there.
    """

    name: str
    split: str
    molecule: Molecule
    labels: Mapping[str, Mapping[str, np.ndarray]]


def require_sample(sample: Sample) -> None:
    """Raise InputError unless a sample is what `Sample` says."""
    require_text("name of a sample", sample.name)
    if sample.split not in SPLITS:
        raise InputError(f"sample {sample.name!r} is in the split {sample.split!r}; give one of {', '.join(SPLITS)}.")
    for name, labels in sample.labels.items():
        for text in (name, *labels):
            require_text("name of labels", text)
        _require_labels(f"sample {sample.name!r}, labels {name!r}:", labels)


def _require_labels(where: str, labels: Mapping[str, Any]) -> None:
    arrays = {key: _label_array(f"{where} {key!r}", value) for key, value in labels.items()}
    sizes = [arrays[key].shape[-1] for key in ("mo_energies", *MATRICES) if key in arrays and arrays[key].ndim]
    nao = sizes[0] if sizes else None
    spins = (2,) if any(arrays[key].ndim > n for key, n in (("mo_energies", 1), ("fock", 2)) if key in arrays) else ()
    shapes = {"energy": (), "mo_energies": (*spins, nao), "dipole": (3,), "polarizability": (3, 3)}
    shapes |= {"fock": (*spins, nao, nao), "overlap": (nao, nao)}
    for key, shape in shapes.items():
        if key in arrays:
            require_shape(f"{where} {key!r}", arrays[key], shape)
    for key in [key for key in (*MATRICES, "polarizability") if key in arrays]:
        matrix = arrays[key].astype(float)
        error = np.abs(matrix - np.swapaxes(matrix, -1, -2)).max(initial=0)
        if error > ROUNDING.get(arrays[key].dtype.itemsize, 1e-10) * np.abs(matrix).max(initial=0):
            raise InputError(
                f"{where} {key!r} is not symmetric, it differs from its transpose by {error:.3g}; give a symmetric one."
            )
    for levels in np.atleast_2d(arrays.get("mo_energies", np.zeros(0)).astype(float)):
        falls = np.flatnonzero(np.diff(levels) < -LEVEL_ROUNDING)
        if falls.size:
            raise InputError(
                f"{where} 'mo_energies' falls from {levels[falls[0]]} to {levels[falls[0] + 1]} at level "
                f"{falls[0] + 1}; levels are paired by position: sort in ascending order."
            )


def _label_array(where: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # rows of unequal lengths
        raise InputError(f"{where} is no array; give numbers.") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where} has dtype {array.dtype}; give real numbers.")
    if not np.isfinite(array).all():
        index = tuple(np.argwhere(~np.isfinite(array))[0].tolist())
        raise InputError(f"{where} is {array[index]} at index {index}; leave the sample out or compute it again.")
    return array


def require_text(what: str, value: Any) -> None:
    """Raise InputError unless `value` is text that HDF5 can hold; `what` names it in the message."""
    if not isinstance(value, str):
        raise InputError(f"{what} is {one_line(repr(value))}; give text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is {value!r}, which UTF-8 cannot encode; choose other characters.") from None
    if "\0" in value:
        raise InputError(f"{what} is {value!r}; leave out NUL.")


def one_line(value: object) -> str:
    """Its text in one line, of at most 200 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:200] + "…"
