"""Labels of others as samples and data sets: files of the cookbook kind, PySCF's objects and checkpoint files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.interop.pyscf import from_pyscf, require_functional
from vpotjax.interop.pyscf_labels import OBSERVED, labels_of, stated_method
from vpotjax.io.cookbook import Imported, read_cookbook
from vpotjax.io.dataset import Dataset
from vpotjax.io.foreign import in_own_order, overlaps
from vpotjax.io.sample import Sample, one_line, require_sample
from vpotjax.reference.splits import split_parts


def imported_dataset(
    path: str | Path,
    bases: Mapping[str, str],
    xc: str,
    order: str | None = None,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> tuple[Dataset, Imported]:
    """A data set of a file of the cookbook kind, split by molecule, and what was found in the file.

    The smallest of the bases is that of the matrices, the largest that of the targets.

    Args:
        path, bases, order: see `read_cookbook`.
        xc: functional of the labels.
        validation, test, seed: see `split_parts`.

    Raises:
        InputError: as of these.
    """
    found = read_cookbook(path, bases, order)
    names, molecules = [s.name for s in found.samples], [s.molecule for s in found.samples]
    parts = split_parts(names, molecules, "molecule", validation, test, seed)
    samples = [dataclasses.replace(s, split=part) for s, part in zip(found.samples, parts, strict=True)]
    sizes = {basis: load_basis(basis, molecules[0].numbers).nao for basis in bases.values()}
    attributes = {
        "xc": xc,
        "small_basis": min(sizes, key=lambda basis: sizes[basis]),
        "large_basis": max(sizes, key=lambda basis: sizes[basis]),
        "ao_order": "pyscf",
        "units": "atomic units",
        "imported_from": Path(path).name,
    }
    elements = {int(z) for molecule in molecules for z in molecule.numbers}
    methods = {basis: stated_method(xc, basis, elements) for basis in sizes}
    return Dataset(samples, attributes, {}, methods), found


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
    ((_, expected),) = overlaps([molecule], basis)
    in_own_order(f"mf of {name!r}", molecule, basis, {"overlap": mf.get_ovlp()}, expected, "pyscf")
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
        loaded: tuple[Any, Any] = chkfile.load_scf(str(path))
    except (OSError, KeyError, ValueError, TypeError) as error:
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
