"""Labelled molecules: what a sample has to be, and the file that keeps them (its layout is in `hdf5`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.molecule import Molecule

SPLITS = ("train", "validation", "test")
MATRICES = ("fock", "overlap")
UNITS = "atomic units"
ROUNDING = {2: 1e-2, 4: 1e-5, 8: 1e-10}  # by bytes: asymmetry of a matrix in units of its largest element
LEVEL_ROUNDING = 1e-8  # hartree; levels of equal energy come in any order


@dataclass(frozen=True)
class Sample:
    """One labelled geometry.

    Attributes:
        name: of the molecule; geometries of one molecule share it.
        split: one of SPLITS; all geometries of a molecule are in the same.
        molecule: numbers and positions (bohr).
        labels: by basis name, then by quantity: energy (), mo_energies (nao,) ascending, dipole (3,), polarizability
            (3, 3) uncoupled, and where the file has them fock and overlap (nao, nao), symmetric; atomic units,
            PySCF's AO order. Other quantities may have any name and shape.
    """

    name: str
    split: str
    molecule: Molecule
    labels: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Dataset:
    """Samples and how they were made (`attributes`: command, functional, versions)."""

    samples: Sequence[Sample]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> list[Sample]:
        """The samples of one split."""
        if name not in SPLITS:
            raise InputError(f"split is {name!r}; give one of {', '.join(SPLITS)}.")
        return [sample for sample in self.samples if sample.split == name]

    def attribute(self, name: str) -> Any:
        """How the data set was made, by name: "xc", "small_basis", "large_basis", …

        Raises:
            InputError: the data set does not say it.
        """
        if name not in self.attributes:
            known = ", ".join(map(repr, self.attributes)) or "none"
            raise InputError(
                f"data set has no attribute {name!r} (it has: {known}); write it with "
                f"Dataset(samples, {{{name!r}: …}}), or make the file with 'vpotjax reference'."
            )
        return self.attributes[name]


def embedded_dataset_path() -> Path:
    """The data set that the package ships: small molecules of H, C, N, O with B3LYP labels."""
    return Path(__file__).parent.parent / "data" / "hcno_b3lyp.h5"


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write `dataset` to a new file, whole or not at all; refuses to overwrite.

    Every label comes back with its shape and dtype. Names may hold any characters.

    Raises:
        InputError: `path` exists or cannot be written; a sample or an attribute is not what `Sample` says.
    """
    import h5py

    from vpotjax.io.hdf5 import encode

    path = Path(path)
    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another name.")
    _check_samples(dataset.samples)
    _check_attributes(dataset.attributes)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with h5py.File(unfinished, "w", libver=("v110", "v110")) as file:  # with checksums of all that describes data
            encode(file, dataset)
        unfinished.rename(path)
    except OSError as error:
        raise InputError(
            f"data set {str(path)!r} cannot be written: {_line(error)}; check the folder and the space on the disk."
        ) from None
    finally:
        if unfinished.is_file():
            unfinished.unlink()


def read_dataset(path: str | Path) -> Dataset:
    """Read a file that `write_dataset` made, of this version or an earlier one.

    Raises:
        InputError: the file is absent, damaged, not such a file, or from a later version; or a label in it is not
            what `Sample` says. Names the file and what is wrong.
    """
    import h5py

    from vpotjax.io.hdf5 import decode

    try:
        with h5py.File(path, "r") as file:
            dataset = decode(file)
        _check_attributes(dataset.attributes)
        _check_samples(dataset.samples)
    except InputError as error:
        raise InputError(f"data set {str(path)!r}: {error}") from None
    except OSError as error:
        raise InputError(f"data set {str(path)!r} cannot be read: {_line(error)}; check the path.") from None
    except (RuntimeError, ValueError, TypeError, KeyError) as error:  # what h5py raises on a damaged file
        raise InputError(
            f"data set {str(path)!r} is damaged ({type(error).__name__}: {_line(error)}); make it again."
        ) from None
    return dataset


def _line(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:200] + "…"


# What a sample has to be; the same on writing and on reading.


def _check_samples(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("dataset has no samples; give at least one.")
    wanted = {basis: set(labels) for basis, labels in samples[0].labels.items()}
    for sample in samples:
        require_text("name of a sample", sample.name)
        if sample.split not in SPLITS:
            raise InputError(
                f"sample {sample.name!r} is in the split {sample.split!r}; give one of {', '.join(SPLITS)}."
            )
        if sample.molecule.spin:
            raise InputError(
                f"sample {sample.name!r} has spin {sample.molecule.spin}; the format is for closed shells."
            )
        if {basis: set(labels) for basis, labels in sample.labels.items()} != wanted:
            raise InputError(f"sample {sample.name!r} has other labels than {samples[0].name!r}; give all the same.")
        for basis, labels in sample.labels.items():
            _check_labels(f"sample {sample.name!r}, labels {basis!r}:", labels)
    for basis, keys in wanted.items():
        for name in (basis, *keys):
            require_text("name of labels", name)


def _check_labels(where: str, labels: Mapping[str, Any]) -> None:
    arrays = {key: _label_array(f"{where} {key!r}", value) for key, value in labels.items()}
    sizes = [len(arrays[key]) for key in ("mo_energies", *MATRICES) if key in arrays and arrays[key].ndim]
    nao = sizes[0] if sizes else None
    shapes = {"energy": (), "mo_energies": (nao,), "dipole": (3,), "polarizability": (3, 3)}
    shapes |= dict.fromkeys(MATRICES, (nao, nao))
    for key, shape in shapes.items():
        if key in arrays:
            require_shape(f"{where} {key!r}", arrays[key], shape)
    for key in [key for key in (*MATRICES, "polarizability") if key in arrays]:
        matrix = arrays[key].astype(float)
        error = np.abs(matrix - matrix.T).max(initial=0)
        if error > ROUNDING.get(arrays[key].dtype.itemsize, 1e-10) * np.abs(matrix).max(initial=0):
            raise InputError(
                f"{where} {key!r} is not symmetric, it differs from its transpose by {error:.3g}; give a symmetric one."
            )
    levels = arrays.get("mo_energies", np.zeros(0)).astype(float)
    falls = np.flatnonzero(np.diff(levels) < -LEVEL_ROUNDING)
    if falls.size:
        raise InputError(
            f"{where} 'mo_energies' falls from {levels[falls[0]]} to {levels[falls[0] + 1]} at level {falls[0] + 1}; "
            "levels are paired by position: sort in ascending order."
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


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    for key in attributes:
        require_text("name of an attribute", key)
        if key in ("", "format", "version"):
            raise InputError(f"attribute {key!r} is not free: the format has its own; choose another name.")
    if not str(attributes.get("units", UNITS)).startswith(UNITS):
        raise InputError(
            f"attribute 'units' is {_line(attributes['units'])!r}, but labels are in {UNITS}; convert them."
        )


def require_text(what: str, value: Any) -> None:
    """Raise InputError unless `value` is text that HDF5 can hold; `what` names it in the message."""
    if not isinstance(value, str):
        raise InputError(f"{what} is {_line(repr(value))}; give text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} is {value!r}, which UTF-8 cannot encode; choose other characters.") from None
    if "\0" in value:
        raise InputError(f"{what} is {value!r}; leave out NUL.")
