"""Labels of others as a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vpotjax.basis import load_basis
from vpotjax.interop.pyscf_labels import stated_method
from vpotjax.io.cookbook import Imported, read_cookbook
from vpotjax.io.dataset import Dataset
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
