"""Data sets of the cookbook kind: npz or HDF5 with arrays of all molecules, one after the other.

`Z` and `R` (Å) of all atoms, `natoms` of each molecule or `offsets`, `names` if there are; and for each basis a suffix,
as in `fock_sto3g`: fock, overlap, mayer (flattened), eps, mu, alpha_uncoupled, E, with numbers of levels `nao_sto3g`.
What the suffix stands for is not in the file. (The example hamiltonian-qm7 of the atomistic cookbook.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.io.foreign import OF_AOS, in_own_order, overlaps
from vpotjax.io.sample import Sample, one_line
from vpotjax.molecule import Molecule
from vpotjax.units import ANGSTROM_TO_BOHR

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


class Imported(NamedTuple):
    """Samples, the quantities that were not taken, and the AO order of the matrices; None without matrices."""

    samples: list[Sample]
    left_out: list[str]
    order: str | None


def read_cookbook(path: str | Path, bases: Mapping[str, str], order: str | None = None) -> Imported:
    """All molecules of a file, for training, with matrices in PySCF's AO order.

    Args:
        path: of an npz or HDF5 file; nothing in it is unpickled.
        bases: what each suffix stands for, such as {"sto3g": "sto-3g", "tzvp": "def2-tzvp"}.
        order: of the AOs as it is stated; default: found by the overlap.

    Raises:
        InputError: the file is absent or damaged, lacks geometries, has a suffix that `bases` lack, arrays that do not
            fit each other, or matrices in no known AO order; names file, array and molecule.
    """
    path = Path(path)
    data = _arrays(path)
    molecules, names = _molecules(path, data)
    suffixes = {key.rpartition("_")[2] for key in data if key.rpartition("_")[0] in NAMES}
    if unknown := sorted(suffixes - set(bases)):
        raise InputError(f"{str(path)!r} has labels of {unknown[0]!r}; state its basis, as {unknown[0]}=sto-3g.")
    if lacking := sorted(set(bases) - suffixes):
        known = ", ".join(sorted(suffixes)) or "none"
        raise InputError(f"{str(path)!r} has no labels of {lacking[0]!r} (it has: {known}); leave it out.")
    labels: list[dict[str, Any]] = [{} for _ in molecules]
    taken, orders = {"Z", "R", "natoms", "offsets", "names"}, set()
    for suffix, basis in bases.items():
        keys = [key for key in NAMES if f"{key}_{suffix}" in data]
        taken |= {f"{key}_{suffix}" for key in [*keys, "nao"]}
        columns = {NAMES[key]: list(_column(path, data, key, suffix, molecules, basis)) for key in keys}
        expected = dict(overlaps(molecules, basis)) if set(columns) & set(OF_AOS) else {}
        for i, molecule in enumerate(molecules):
            own = {key: column[i] for key, column in columns.items()}
            where = f"{str(path)!r}, molecule {names[i]!r}, {suffix!r}"
            labels[i][basis], found = in_own_order(where, molecule, basis, own, expected.get(i), order)
            orders |= {found} - {None}
    if len(orders) > 1:  # H2 in s functions fits any order, and the first one that fits is found
        return read_cookbook(path, bases, min(map(str, orders - {"pyscf"})))
    samples = [Sample(n, "train", m, own) for n, m, own in zip(names, molecules, labels, strict=True)]
    return Imported(samples, sorted(set(data) - taken), next(iter(orders), None))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    import h5py

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        with h5py.File(path, "r") as file:
            return {key: np.asarray(item[()]) for key, item in file.items() if isinstance(item, h5py.Dataset)}
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        line = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{str(path)!r} cannot be read as npz or HDF5 ({line}).") from None


def _molecules(path: Path, data: Mapping[str, np.ndarray]) -> tuple[list[Molecule], list[str]]:
    if lacking := [key for key in ("Z", "R") if key not in data]:
        raise InputError(f"{str(path)!r} lacks {lacking[0]}; it has {', '.join(sorted(data)) or 'nothing'}.")
    numbers, positions = data["Z"], np.asarray(data["R"], float)
    if "natoms" in data:
        sizes = np.asarray(data["natoms"], int)
    elif "offsets" in data:
        sizes = np.diff(np.asarray(data["offsets"], int))
    else:
        raise InputError(f"{str(path)!r} has neither natoms nor offsets; add the number of atoms of each molecule.")
    if positions.shape != (len(numbers), 3) or np.any(sizes < 1) or sizes.sum() != len(numbers):
        raise InputError(
            f"{str(path)!r}: R has shape {positions.shape}, Z {numbers.shape}, and natoms make {sizes.sum()} atoms, "
            "which do not fit each other."
        )
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
        yield (value + value.T) / 2 if NAMES[key] in SYMMETRIC and np.allclose(value, value.T, atol=1e-5) else value
