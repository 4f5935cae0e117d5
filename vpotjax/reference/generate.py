"""`vpotjax reference`: label thermally displaced molecules with PySCF, in parallel, resumable."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.dataset import Dataset, Sample, write_dataset
from vpotjax.molecule import Molecule
from vpotjax.reference.structures import thermal_displacements

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class ReferenceSettings:
    """How labels are made.

    Attributes:
        small_basis: its labels include the Fock and overlap matrices.
        large_basis: its labels are the targets of an effective Hamiltonian; computed with density fitting.
        xc: functional (PySCF's name), or "hf".
        geometries: per molecule, drawn from the harmonic ensemble of RHF/STO-3G.
        temperature: of that ensemble, kelvin.
        grid_level: PySCF's integration grid.
        validation, test: fractions of the molecules in these splits; a molecule is never in two.
        seed: of the displacements and of the split.
    """

    small_basis: str = "sto-3g"
    large_basis: str = "def2-tzvp"
    xc: str = "b3lyp"
    geometries: int = 5
    temperature: float = 300.0
    grid_level: int = 3
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.geometries < 1:
            raise InputError(f"geometries is {self.geometries}; give at least 1.")
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise InputError(
                f"validation={self.validation} and test={self.test} leave no training molecules; give fractions "
                "whose sum is below 1."
            )


def assign_splits(names: list[str], validation: float, test: float, seed: int) -> dict[str, str]:
    """Split molecules at random (numpy's default generator with `seed`, over the sorted names)."""
    order = [str(n) for n in np.random.default_rng(seed).permutation(sorted(names))]
    ntest, nvalidation = round(test * len(names)), round(validation * len(names))
    return {
        name: "test" if i < ntest else "validation" if i < ntest + nvalidation else "train"
        for i, name in enumerate(order)
    }


def generate(
    molecules: Mapping[str, Molecule],
    out: Path,
    settings: ReferenceSettings,
    workers: int = 1,
    report: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Dataset:
    """Label `molecules` and write `out`; finished molecules are kept in `out`.parts, so that a rerun resumes.

    Raises:
        InputError: `out` exists, or the parts folder holds results of other settings.
        RuntimeError: a calculation does not converge.
    """
    if out.exists():
        raise InputError(f"out={str(out)!r} exists; delete it or choose another name.")
    parts = _parts_folder(out, settings)
    splits = assign_splits(list(molecules), settings.validation, settings.test, settings.seed)
    for variable in THREAD_VARIABLES:  # read by the workers' libraries when they load; one thread per worker
        os.environ.setdefault(variable, "1")
    pending = [name for name in molecules if not (parts / f"{name}.npz").exists()]
    with ProcessPoolExecutor(workers) as pool:
        jobs = {pool.submit(_label_molecule, n, molecules[n], settings, parts): n for n in pending}
        for i, job in enumerate(as_completed(jobs)):
            job.result()
            report(len(molecules) - len(pending) + i + 1, len(molecules), jobs[job])
    samples = [s for name in molecules for s in _read_part(parts / f"{name}.npz", name, splits[name], settings)]
    dataset = Dataset(samples, _attributes(settings))
    write_dataset(out, dataset)
    return dataset


def _parts_folder(out: Path, settings: ReferenceSettings) -> Path:
    parts = out.with_name(out.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    stamp, text = parts / "settings.txt", "".join(f"{k} = {v}\n" for k, v in asdict(settings).items())
    if stamp.exists() and stamp.read_text() != text:
        raise InputError(f"{str(parts)!r} holds results of other settings ({stamp}); delete it or change out.")
    stamp.write_text(text)
    return parts


def _label_molecule(name: str, molecule: Molecule, settings: ReferenceSettings, parts: Path) -> None:
    from vpotjax.interop.pyscf import harmonic_hessian, reference_labels

    hessian, masses = harmonic_hessian(molecule)
    seed = settings.seed + zlib.crc32(name.encode())
    positions = thermal_displacements(molecule, hessian, masses, settings.geometries, settings.temperature, seed)
    arrays: dict[str, Any] = {"numbers": molecule.numbers, "charge": np.array(molecule.charge), "positions": positions}
    for i, geometry in enumerate(positions):
        displaced = Molecule(molecule.numbers, geometry, molecule.charge)
        for basis, large in ((settings.small_basis, False), (settings.large_basis, True)):
            labels = reference_labels(
                displaced, basis, settings.xc, density_fit=large, grid_level=settings.grid_level, matrices=not large
            )
            arrays |= {f"{i}/{basis}/{key}": value for key, value in labels.items()}
    unfinished = parts / f"{name}.tmp.npz"
    np.savez(unfinished, **arrays)
    unfinished.rename(parts / f"{name}.npz")


def _read_part(path: Path, name: str, split: str, settings: ReferenceSettings) -> list[Sample]:
    with np.load(path) as arrays:
        labels: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in range(settings.geometries)]
        for full_key in (k for k in arrays if "/" in k):
            i, basis, key = full_key.split("/")
            labels[int(i)].setdefault(basis, {})[key] = arrays[full_key]
        numbers, charge = arrays["numbers"], int(arrays["charge"])
        return [
            Sample(name, split, Molecule(numbers, p, charge), t)
            for p, t in zip(arrays["positions"], labels, strict=True)
        ]


def _attributes(settings: ReferenceSettings) -> dict[str, str | int | float]:
    import pyscf

    import vpotjax

    return {
        **asdict(settings),
        "ao_order": "pyscf",
        "units": "atomic units; polarizability uncoupled",
        "pyscf_version": pyscf.__version__,
        "vpotjax_version": vpotjax.__version__,
    }
