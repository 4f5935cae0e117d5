"""Labelled molecules in one HDF5 file: ragged arrays are concatenated, symmetric matrices kept as lower triangles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.molecule import Molecule

FORMAT = "vpotjax-dataset"
VERSION = 1
SPLITS = ("train", "validation", "test")
MATRICES = ("fock", "overlap")


@dataclass(frozen=True)
class Sample:
    """One labelled geometry.

    Attributes:
        name: of the molecule; geometries of one molecule share it.
        split: one of SPLITS; all geometries of a molecule are in the same.
        molecule: numbers and positions (bohr).
        labels: by basis name, then by quantity: energy (), mo_energies (nao,), dipole (3,), polarizability (3, 3)
            uncoupled, and where the file has them fock and overlap (nao, nao); atomic units, PySCF's AO order.
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


def embedded_dataset_path() -> Path:
    """The data set that the package ships: small molecules of H, C, N, O with B3LYP labels."""
    return Path(__file__).parent.parent / "data" / "ase_hcno_b3lyp.h5"


def write_dataset(path: str | Path, dataset: Dataset) -> None:
    """Write `dataset` to a new file; refuses to overwrite."""
    import h5py

    path = Path(path)
    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another name.")
    samples = dataset.samples
    _check_samples(samples)
    unfinished = path.with_name(path.name + ".unfinished")
    with h5py.File(unfinished, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, **dataset.attributes})
        text = h5py.string_dtype()
        file.create_dataset("name", data=[s.name for s in samples], dtype=text)
        file.create_dataset("split", data=[s.split for s in samples], dtype=text)
        _write(file, "natm", np.array([s.molecule.natm for s in samples], dtype=np.int16))
        _write(file, "charge", np.array([s.molecule.charge for s in samples], dtype=np.int8))
        _write(file, "numbers", np.concatenate([s.molecule.numbers for s in samples]).astype(np.int8))
        _write(file, "positions", np.concatenate([np.asarray(s.molecule.positions) for s in samples]))
        for basis in samples[0].labels:
            group = file.create_group(basis)
            _write(group, "nao", np.array([s.labels[basis]["mo_energies"].size for s in samples], dtype=np.int16))
            for key in samples[0].labels[basis]:
                values = [np.asarray(s.labels[basis][key]) for s in samples]
                _write(group, key, _pack(key, values))
    unfinished.rename(path)


def _check_samples(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("dataset has no samples; give at least one.")
    wanted = {basis: set(labels) for basis, labels in samples[0].labels.items()}
    for sample in samples:
        if sample.molecule.spin:
            raise InputError(
                f"sample {sample.name!r} has spin {sample.molecule.spin}; the format is for closed shells."
            )
        if {basis: set(labels) for basis, labels in sample.labels.items()} != wanted:
            raise InputError(f"sample {sample.name!r} has other labels than {samples[0].name!r}; give all the same.")


def read_dataset(path: str | Path) -> Dataset:
    """Read a file that `write_dataset` made.

    Raises:
        InputError: the file is absent, is not such a file, or is from another version.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            if attributes.get("format") != FORMAT or attributes.get("version") != VERSION:
                raise InputError(
                    f"{str(path)!r} is {attributes.get('format', 'no ' + FORMAT)} version {attributes.get('version')}, "
                    f"expected {FORMAT} version {VERSION}; make it again with 'vpotjax reference'."
                )
            return Dataset(_read_samples(file), attributes)
    except OSError as error:
        raise InputError(f"data set {str(path)!r} cannot be read: {error}; check the path.") from None


def _read_samples(file: Any) -> list[Sample]:
    names, splits = file["name"].asstr()[:], file["split"].asstr()[:]
    bounds = np.cumsum(file["natm"][:])[:-1]
    numbers = np.split(file["numbers"][:].astype(int), bounds)
    positions = np.split(file["positions"][:], bounds)
    charges = file["charge"][:]
    columns = {}
    for basis in (key for key, value in file.items() if hasattr(value, "items")):
        nao = file[basis]["nao"][:].astype(int)
        columns[basis] = {key: _unpack(key, value[:], nao) for key, value in file[basis].items() if key != "nao"}
    return [
        Sample(
            str(names[i]),
            str(splits[i]),
            Molecule(numbers[i], positions[i], charge=int(charges[i])),
            {basis: {key: values[i] for key, values in column.items()} for basis, column in columns.items()},
        )
        for i in range(len(names))
    ]


def _write(group: Any, key: str, data: np.ndarray) -> None:
    group.create_dataset(key, data=data, compression="gzip", shuffle=True)


def _pack(key: str, values: list[np.ndarray]) -> np.ndarray:
    if key in MATRICES:
        return np.concatenate([m[np.tril_indices(len(m))] for m in values])
    return np.concatenate(values) if key == "mo_energies" else np.stack(values)


def _unpack(key: str, data: np.ndarray, nao: np.ndarray) -> Sequence[np.ndarray]:
    if key == "mo_energies":
        return np.split(data, np.cumsum(nao)[:-1])
    if key not in MATRICES:
        return list(data)
    matrices = []
    for n, triangle in zip(nao, np.split(data, np.cumsum(nao * (nao + 1) // 2)[:-1]), strict=True):
        matrix = np.zeros((n, n))
        matrix[np.tril_indices(n)] = triangle
        matrices.append(matrix + np.tril(matrix, -1).T)
    return matrices
