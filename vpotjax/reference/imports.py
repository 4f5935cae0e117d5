"""Labels of others as samples and data sets: their files and data bases, PySCF's objects and checkpoint files."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.interop.pyscf import from_pyscf, require_functional
from vpotjax.interop.pyscf_labels import OBSERVED, labels_of, reference_labels, stated_method
from vpotjax.io.cookbook import open_cookbook
from vpotjax.io.databases import is_lmdb, is_sqlite, open_database
from vpotjax.io.dataset import DatasetWriter
from vpotjax.io.foreign import Foreign, Integrals, Layout, converted, fitting_layouts, found_layout
from vpotjax.io.sample import Sample, one_line, require_sample
from vpotjax.reference.splits import split_parts

CHECKED_ATOMS = 12
"""Molecules of more are not calculated again."""


class Imported(NamedTuple):
    """What has become of a file.

    Attributes:
        parts: of each geometry, "train", "validation" or "test".
        order: AO order of the matrices in the file; None without matrices.
        xc: functional.
        left_out: what was not taken.
        errors: largest differences, hartree, of F or levels to PySCF's, by molecule and basis.
    """

    parts: list[str]
    order: str | None
    xc: str
    left_out: Sequence[str]
    errors: dict[tuple[str, str], float]


def import_file(
    path: str | Path,
    out: str | Path,
    bases: Mapping[str, str],
    xc: str | None = None,
    order: str | None = None,
    *,
    count: int | None = None,
    check: int = 3,
    by: str | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Imported:
    """Write a file of others as a data set, every matrix checked and in PySCF's AO order.

    npz and HDF5 of the cookbook kind (`vpotjax.io.cookbook`), QH9, nablaDFT, PhiSNet and SchNOrb
    (`vpotjax.io.databases`). Molecules are read a few at a time. The smallest of several bases becomes that of the
    matrices, the largest that of the targets.

    Args:
        path: of the file; of LMDB its folder.
        out: new data set file.
        bases: what each suffix of a cookbook's arrays stands for, such as {"sto3g": "sto-3g"}; of a data base
            {"": basis} where it is another one than it is published with.
        xc: functional of the labels; default: that which the data base is published with.
        order: of the AOs, as "orca" or "orca-listed"; default: found.
        count: of geometries, drawn at random; default: all.
        check: so many of the smallest molecules are calculated again by PySCF, and F or levels compared; 0: none.
        by: way of the split, see `split_parts`; default: by molecule where there are three, else at random.
        validation, test, seed: see `split_parts`.

    Raises:
        InputError: the file is absent, damaged or of no known kind; its matrices are in no known order, are not those
            of the basis, or F is not of the functional: names file, molecule and shells; no functional is known; an
            argument is out of range.
    """
    path = Path(path)
    if check < 0:
        raise InputError(f"check is {check}; give 0 or a positive number.")
    with opened(path, bases) as source, DatasetWriter(out) as writer:
        if count is not None:
            if not 1 <= count <= len(source.names):
                raise InputError(f"count is {count}; give 1 to {len(source.names)}, or leave it out.")
            rows = np.sort(np.random.default_rng(seed).permutation(len(source.names))[:count])
            source = source.chosen(rows.tolist())
        functional = xc or source.xc
        if functional is None:
            raise InputError(f"{str(path)!r} does not say its functional; give xc, as 'pbe', or 'hf'.")
        parts = _parts(source, by, validation, test, seed)
        layout = found_layout(source, order)
        smallest = np.argsort([m.natm for m in source.molecules], kind="stable")[:check].tolist()
        errors: dict[tuple[str, str], float] = {}
        for row, (sample, part) in enumerate(zip(converted(source, layout), parts, strict=True)):
            if row in smallest:
                errors |= _errors(source, sample, functional)
            writer.append(dataclasses.replace(sample, split=part))
        writer.attributes |= _attributes(source, functional)
        elements = {int(z) for molecule in source.molecules for z in molecule.numbers}
        writer.methods |= {basis: stated_method(functional, basis, elements) for basis in source.bases}
        return Imported(parts, layout, functional, source.left_out, errors)


@contextlib.contextmanager
def opened(path: Path, bases: Mapping[str, str]) -> Iterator[Foreign]:
    """A file of others, while the context lasts; see `import_file`."""
    if is_sqlite(path) or is_lmdb(path):
        if set(bases) - {""}:
            raise InputError(f"bases is {dict(bases)}; {str(path)!r} has one, give its name alone, or none.")
        with open_database(path, bases.get("")) as source:
            yield source
    else:
        if "" in bases:
            raise InputError(
                f"bases has {bases['']!r}; give a suffix and the basis that it stands for, as sto3g=sto-3g."
            )
        yield open_cookbook(path, bases)


def _parts(source: Foreign, by: str | None, validation: float, test: float, seed: int) -> list[str]:
    def split(way: str) -> list[str]:
        return split_parts(source.names, source.molecules, way, validation, test, seed)

    if by is not None:
        return split(by)
    try:
        return split("molecule")
    except InputError:  # too few of them; what else is wrong is wrong of geometries too
        return split("random")


def _attributes(source: Foreign, xc: str) -> dict[str, Any]:
    sizes = {basis: load_basis(basis, source.molecules[0].numbers).nao for basis in source.bases}
    return {
        "xc": xc,
        "small_basis": min(sizes, key=lambda basis: sizes[basis]),
        "large_basis": max(sizes, key=lambda basis: sizes[basis]),
        "ao_order": "pyscf",
        "units": "atomic units",
        "imported_from": source.path.name,
    }


def _errors(source: Foreign, sample: Sample, xc: str) -> dict[tuple[str, str], float]:
    """Of a molecule that is not too large, where PySCF is installed and knows the functional."""
    try:
        require_functional(xc)
    except (ImportError, InputError):
        return {}
    errors: dict[tuple[str, str], float] = {}
    for basis, labels in sample.labels.items():
        key = next((key for key in ("fock", "mo_energies") if key in labels), None)
        if key is None or sample.molecule.natm > CHECKED_ATOMS:
            continue
        expected = reference_labels(sample.molecule, basis, xc, quantities=[key])[key]
        error = float(np.abs(labels[key] - expected).max()) if labels[key].shape == expected.shape else np.inf
        errors[sample.name, basis] = error
        if not error < SLOPE:
            raise InputError(
                f"{str(source.path)!r}, molecule {sample.name!r}, {basis!r}: {key} differs by {error:.2g} hartree from "
                f"PySCF's with xc={xc!r}; state the functional, basis and order that the file is of."
            )
    return errors


OF_PYSCF = (*OBSERVED, "fock", "overlap")
"""Quantities that are taken of PySCF's calculations."""
SLOPE = 6e-3
"""Hartree. Of orbitals from density fitting F has up to 3e-3 here, and from other grids 2e-4. Of orbitals of B3LYP
it has 1.3e-2 and more with PBE or PBE0 (NH3, CH3OH, benzene), but 5e-4 with the other VWN: these are not told apart."""


def sample_from_pyscf(name: str, mf: Any, basis: str, quantities: Sequence[str] = OF_PYSCF) -> Sample:
    """A converged PySCF calculation as a sample for training.

    Args:
        name: of the molecule.
        mf: RHF, RKS, UHF or UKS.
        basis: its name in basis-set-exchange, by which the functions are found again; they are compared with those of
            `mf`.
        quantities: of `vpotjax.interop.pyscf_labels.QUANTITIES`.

    Raises:
        InputError: as `from_pyscf` and `labels_of`; the functions of `mf` are not those of `basis`: names the shells
            that differ, and says whether they are another contraction of the same primitives.
    """
    molecule, _ = from_pyscf(mf.mol)
    if mf.mol.cart:
        raise InputError(f"mf of {name!r} has Cartesian functions; compute it with spherical ones.")
    labels = labels_of(mf, quantities)
    expected = Integrals([molecule], basis)([0])[0]["overlap"]
    if Layout("pyscf") not in (found := fitting_layouts(f"mf of {name!r}", molecule, basis, mf.get_ovlp(), expected)):
        raise InputError(f"mf of {name!r} has its AOs in the order of {str(found[0])!r}; use PySCF's own.")
    sample = Sample(name, "train", molecule, {basis: labels})
    require_sample(sample)
    return sample


def sample_from_chkfile(name: str, path: str | Path, basis: str, xc: str) -> Sample:
    """A PySCF checkpoint file as a sample for training: OF_PYSCF, of the F that the density in it makes.

    A checkpoint does not say whether its SCF has converged, or with which functional; F is made again to see both.

    Args:
        name: of the molecule.
        path: of a file that `mf.chkfile` names.
        basis: see `sample_from_pyscf`.
        xc: functional of the calculation, or "hf".

    Raises:
        InputError: the file is absent or holds no SCF; F mixes its occupied and virtual orbitals, so it is not
            converged or of another functional; as `sample_from_pyscf`.
    """
    from pyscf import dft, scf
    from pyscf.scf import chkfile

    require_functional(xc)
    try:
        _require_plain(path)
        loaded: tuple[Any, Any] = chkfile.load_scf(str(path))
    except (OSError, KeyError, ValueError, TypeError, SyntaxError, NameError, AttributeError) as error:
        raise InputError(f"{str(path)!r} cannot be read as a checkpoint of PySCF ({one_line(error)}).") from None
    mol, stored = loaded
    unrestricted = np.ndim(stored["mo_occ"]) == 2
    if xc.lower() == "hf":
        mf: Any = (scf.UHF if unrestricted else scf.RHF)(mol)
    else:
        mf = (dft.UKS if unrestricted else dft.RKS)(mol, xc=xc)
    mf.mo_coeff, mf.mo_energy, mf.mo_occ = (np.asarray(stored[key]) for key in ("mo_coeff", "mo_energy", "mo_occ"))
    slope = float(np.abs(mf.get_grad(mf.mo_coeff, mf.mo_occ)).max(initial=0))
    if not slope < SLOPE:
        raise InputError(
            f"{str(path)!r}: with xc={xc!r} F mixes occupied and virtual orbitals by {slope:.2g} hartree, more than "
            f"{SLOPE}; its SCF has not converged, or is of another functional."
        )
    mf.e_tot, mf.converged = float(stored["e_tot"]), True
    return sample_from_pyscf(name, mf, basis)


EVALUATED = ("atom", "basis", "ecp", "pseudo")
"""Texts in a checkpoint of PySCF, which it runs as Python."""
PLAIN = (ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.UnaryOp, ast.USub, ast.UAdd, ast.Load)


def _require_plain(path: str | Path) -> None:
    """Raise ValueError where a checkpoint holds more than numbers and texts, for PySCF would run it."""
    import h5py

    with h5py.File(path) as file:
        stored: Any = file["mol"]
        content = json.loads(stored[()])
    for key in EVALUATED:
        for node in ast.walk(ast.parse(str(content.get(key)), mode="eval")):
            array = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords
            if not (array or isinstance(node, PLAIN) or (isinstance(node, ast.Name) and node.id == "array")):
                raise ValueError(f"its {key} is no plain data, but Python code")
