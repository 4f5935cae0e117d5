"""Data sets of the cookbook kind: npz or HDF5 with arrays of all molecules, one after the other.

`Z` and `R` (Å) of all atoms, `natoms` of each molecule or `offsets`, `names` if there are; and for each basis a suffix,
as in `fock_sto3g`: fock, overlap, mayer (flattened), eps, mu, alpha_uncoupled, E, with numbers of levels `nao_sto3g`.
What the suffix stands for is not in the file. (The example hamiltonian-qm7 of the atomistic cookbook.)
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.conventions import AO_ORDERS, reorder_ao
from vpotjax.io.foreign import OF_AOS, Foreign
from vpotjax.io.sample import Sample, one_line
from vpotjax.molecule import Molecule
from vpotjax.units import ANGSTROM_TO_BOHR, BOHR_TO_ANGSTROM

NAMES = {
    "fock": "fock",
    "overlap": "overlap",
    "eps": "mo_energies",
    "mu": "dipole",
    "alpha_uncoupled": "polarizability",
    "E": "energy",
    "mayer": "mayer_bond_orders",
}
"""Quantities, by their names in the file."""
SYMMETRIC = ("polarizability", "fock", "overlap", "mayer_bond_orders")  # rounding is taken out


def open_cookbook(path: Path, bases: Mapping[str, str]) -> Foreign:
    """A file, all of which is read; nothing in it is unpickled.

    Args:
        path: of an npz or HDF5 file.
        bases: what each suffix stands for, such as {"sto3g": "sto-3g", "tzvp": "def2-tzvp"}.

    Raises:
        InputError: the file is absent or damaged, lacks geometries, has a suffix that `bases` lack, or arrays that do
            not fit each other; names file and array.
    """
    data = _arrays(path)
    molecules, names = _molecules(path, data)
    suffixes = {key.rpartition("_")[2] for key in data if key.rpartition("_")[0] in NAMES}
    if unknown := sorted(suffixes - set(bases)):
        raise InputError(f"{str(path)!r} has labels of {unknown[0]!r}; state its basis, as {unknown[0]}=sto-3g.")
    if lacking := sorted(set(bases) - suffixes):
        known = ", ".join(sorted(suffixes)) or "none"
        raise InputError(f"{str(path)!r} has no labels of {lacking[0]!r} (it has: {known}); leave it out.")
    labels: list[dict[str, dict[str, Any]]] = [{basis: {} for basis in bases.values()} for _ in molecules]
    taken = {"Z", "R", "natoms", "offsets", "names"}
    for suffix, basis in bases.items():
        keys = [key for key in NAMES if f"{key}_{suffix}" in data]
        taken |= {f"{key}_{suffix}" for key in [*keys, "nao"]}
        for key in keys:
            for own, value in zip(labels, _column(path, data, key, suffix, molecules, basis), strict=True):
                own[basis][NAMES[key]] = value
    return Foreign(path, names, molecules, list(bases.values()), labels.__getitem__, sorted(set(data) - taken))


def write_cookbook(
    path: str | Path, samples: Sequence[Sample], suffixes: Mapping[str, str], order: str = "pyscf"
) -> list[str]:
    """Write samples as an npz file of this kind, whole or not at all; returns what the format has no place for.

    Args:
        path: new npz file.
        samples: all with the same labels.
        suffixes: by the name of a set of labels, such as {"sto-3g": "sto3g"}.
        order: of AO_ORDERS, of the matrices.

    Raises:
        InputError: the path exists or cannot be written; a sample lacks a label that others have, or is of an open
            shell, whose spins the format cannot tell; `order` is unknown.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another name.")
    if order not in AO_ORDERS:
        raise InputError(f"order is {order!r}; give one of {', '.join(AO_ORDERS)}.")
    for sample in samples:
        if sample.molecule.spin or sample.molecule.charge:
            raise InputError(f"sample {sample.name!r} has charge or spin, for which the format has no place.")
    molecules = [s.molecule for s in samples]
    arrays: dict[str, Any] = {
        "Z": np.concatenate([m.numbers for m in molecules]),
        "R": np.concatenate([m.positions for m in molecules]) * BOHR_TO_ANGSTROM,
        "natoms": np.array([m.natm for m in molecules]),
        "names": np.array([s.name for s in samples]),
    }
    for basis, suffix in suffixes.items():
        for short, key in NAMES.items():
            if any(key in s.labels.get(basis, {}) for s in samples):
                arrays[f"{short}_{suffix}"] = _flattened(samples, basis, key, order)
        if f"eps_{suffix}" in arrays:
            arrays[f"nao_{suffix}"] = np.array([len(s.labels[basis]["mo_energies"]) for s in samples])
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)
        unfinished.rename(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({one_line(error)}); check folder and disk.") from None
    finally:
        unfinished.unlink(missing_ok=True)
    known = {key for basis in suffixes for s in samples for key in s.labels.get(basis, {})}
    return sorted(known - set(NAMES.values()))


def _flattened(samples: Sequence[Sample], basis: str, key: str, order: str) -> np.ndarray:
    values = []
    for sample in samples:
        if key not in sample.labels.get(basis, {}):
            raise InputError(f"sample {sample.name!r} has no {key!r} in {basis!r}, but others have; leave it out.")
        value = np.asarray(sample.labels[basis][key])
        if value.ndim == 3 or (key == "mo_energies" and value.ndim == 2):
            raise InputError(f"sample {sample.name!r} is unrestricted, for whose spins the format has no place.")
        if key in OF_AOS:
            shells = load_basis(basis, sample.molecule.numbers).shell_angular_momenta()
            value = reorder_ao(value, shells, "pyscf", order)
        values.append(value)
    return (
        np.stack(values)
        if key in ("energy", "dipole", "polarizability")
        else np.concatenate([v.ravel() for v in values])
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    import h5py

    try:
        if path.suffix == ".npz":
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        with h5py.File(path, "r") as file:
            return {key: np.asarray(item[()]) for key, item in file.items() if isinstance(item, h5py.Dataset)}
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        line = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{str(path)!r} cannot be read as npz or HDF5 ({line}).") from None


def _molecules(path: Path, data: Mapping[str, np.ndarray]) -> tuple[list[Molecule], list[str]]:
    if lacking := [key for key in ("Z", "R") if key not in data]:
        raise InputError(f"{str(path)!r} lacks {lacking[0]}; it has {', '.join(sorted(data)) or 'nothing'}.")
    numbers, positions = data["Z"], np.asarray(data["R"], float)
    if "natoms" in data:
        sizes = np.atleast_1d(np.asarray(data["natoms"], int))
    elif "offsets" in data:
        sizes = np.diff(np.asarray(data["offsets"], int))
    else:
        raise InputError(f"{str(path)!r} has neither natoms nor offsets; add the number of atoms of each molecule.")
    if positions.shape != (len(numbers), 3) or np.any(sizes < 1) or sizes.sum() != len(numbers):
        raise InputError(
            f"{str(path)!r}: R has shape {positions.shape}, Z {numbers.shape}, and natoms make {sizes.sum()} atoms, "
            "which do not fit each other."
        )
    if not len(sizes):
        raise InputError(f"{str(path)!r} has no molecules; natoms is empty.")
    names = [f"{path.stem}#{i}" for i in range(len(sizes))]
    if "names" in data:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in data["names"].tolist()]
    if len(names) != len(sizes):
        raise InputError(f"{str(path)!r} has {len(names)} names for {len(sizes)} molecules.")
    molecules, ends = [], np.cumsum(sizes)
    for name, start, stop in zip(names, ends - sizes, ends, strict=True):
        try:
            own = Molecule(numbers[start:stop].astype(int), positions[start:stop] * ANGSTROM_TO_BOHR)
        except InputError as error:
            raise InputError(f"{str(path)!r}, molecule {name!r}: {error}") from None
        molecules.append(own)
    return molecules, names


def _column(
    path: Path, data: Mapping[str, np.ndarray], key: str, suffix: str, molecules: list[Molecule], basis: str
) -> Iterator[np.ndarray]:
    """One quantity of each molecule, in its shape."""
    values = np.asarray(data[f"{key}_{suffix}"], float)
    shapes: list[tuple[int, ...]] = []
    for molecule in molecules:
        nao = load_basis(basis, molecule.numbers).nao if key in ("fock", "overlap", "eps") else 0
        own = {"fock": (nao, nao), "overlap": (nao, nao), "eps": (nao,), "mayer": (molecule.natm,) * 2, "mu": (3,)}
        shapes.append(own.get(key, () if key == "E" else (3, 3)))
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    if key == "eps" and values.size != sizes.sum() and f"nao_{suffix}" in data:  # functions were dropped as dependent
        sizes = np.asarray(data[f"nao_{suffix}"], int)
        shapes = [(n,) for n in sizes.tolist()]
    if values.size != sizes.sum():
        raise InputError(
            f"{str(path)!r}: {key}_{suffix} has {values.size} numbers, but the molecules in {basis!r} make "
            f"{sizes.sum()}; check what the suffix stands for."
        )
    for part, shape in zip(np.split(values.ravel(), np.cumsum(sizes)[:-1]), shapes, strict=True):
        value = part.reshape(shape)
        if key == "mayer":  # some files have an atom's bond with itself, which is none here
            value = value - np.diag(np.diag(value))
        yield (value + value.T) / 2 if NAMES[key] in SYMMETRIC and np.allclose(value, value.T, atol=1e-5) else value
