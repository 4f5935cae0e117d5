"""Infrared and Raman intensities of the shipped model beside B3LYP: μ and α differentiated in the geometry.

    python -m benchmarks.vibrations water methanol benzene      a minute, ten, and an hour, on one core

Geometry, Hessian and normal modes are those of B3LYP/def2-SVP at its minimum. The model is differentiated through
integrals, network and eigenproblem; B3LYP/def2-TZVP (density fitting), with the uncoupled α that the model has learned,
by the difference of two SCFs along every mode. Minimum and modes are kept in runs/vibrations.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import SINGLE_THREAD, save_arrays
from vpotjax.molecule import Molecule

NAMES = {"water": "H2O", "methanol": "CH3OH", "benzene": "C6H6"}
RUNS = Path(__file__).parents[1] / "runs" / "vibrations"
STEP, SHOWN = 0.01, 500.0  # bohr √dalton; cm⁻¹


def minimum(name: str) -> tuple[Molecule, np.ndarray]:
    """Of B3LYP/def2-SVP, with its Hessian; found once."""
    file = RUNS / f"{name}.npz"
    if not file.exists():
        molecule, hessian = _minimum(name)
        save_arrays(file, {"numbers": molecule.numbers, "positions": molecule.positions, "hessian": hessian})
    with np.load(file) as known:
        return Molecule(known["numbers"], known["positions"]), known["hessian"]


def _minimum(name: str) -> tuple[Molecule, np.ndarray]:
    from ase.build import molecule
    from ase.calculators.calculator import Calculator
    from ase.optimize import BFGS
    from pyscf import dft, gto

    from vpotjax.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

    def mean_field(atoms: Any) -> Any:
        mol = gto.M(
            atom=list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True)),
            basis="def2-svp",
            verbose=0,
        )
        mf: Any = dft.RKS(mol, xc="b3lyp")
        mf.kernel()
        return mf

    class Forces(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012  as ASE has it

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
            mf = mean_field(atoms)
            self.results["energy"] = mf.e_tot * HARTREE_TO_EV
            self.results["forces"] = -mf.nuc_grad_method().kernel() * HARTREE_TO_EV / BOHR_TO_ANGSTROM

    atoms = molecule(NAMES[name])
    atoms.calc = Forces()
    BFGS(atoms, logfile=None).run(fmax=0.005)
    hessian = mean_field(atoms).Hessian().kernel()
    return Molecule.from_ase(atoms.copy()), hessian


def by_differences(name: str, molecule: Molecule, displacements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dμ/dQ (modes, 3) and dα/dQ (modes, 3, 3) of B3LYP/def2-TZVP."""
    slopes: list[dict[str, np.ndarray]] = []
    for i, displacement in enumerate(displacements):
        file = RUNS / f"{name}-{i}.npz"
        if not file.exists():
            save_arrays(file, _slopes(molecule, displacement))
        with np.load(file) as known:
            slopes.append(dict(known))
    return np.array([s["dipole"] for s in slopes]), np.array([s["polarizability"] for s in slopes])


def _slopes(molecule: Molecule, displacement: np.ndarray) -> dict[str, np.ndarray]:
    from vpotjax.interop.pyscf_labels import reference_labels

    quantities, places = ["dipole", "polarizability"], np.asarray(molecule.positions)
    before, after = (
        reference_labels(
            Molecule(molecule.numbers, places + sign * STEP * displacement),
            "def2-tzvp",
            "b3lyp",
            quantities=quantities,
            density_fit=True,
        )
        for sign in (-1, 1)
    )
    return {key: (after[key] - before[key]) / (2 * STEP) for key in quantities}


def compare(name: str) -> None:
    """A table of modes."""
    from vpotjax.io.pretrained import load_pretrained
    from vpotjax.models.derivatives import geometric_derivatives
    from vpotjax.vibrations import infrared_intensities, normal_modes, raman_activities

    molecule, hessian = minimum(name)
    modes = normal_modes(np.asarray(molecule.positions), hessian, molecule.to_ase().get_masses())
    start = time.perf_counter()
    own = geometric_derivatives(load_pretrained(), molecule)
    seconds = time.perf_counter() - start
    mu, alpha = by_differences(name, molecule, modes.displacements)
    unit = np.eye(len(mu))[:, :, None] * np.eye(3)[0]  # each mode as one coordinate
    wanted = (
        infrared_intensities(np.einsum("kx,i->xki", mu, np.eye(3)[0]), unit),
        raman_activities(np.einsum("kxy,i->xyki", alpha, np.eye(3)[0]), unit),
    )
    found = (
        infrared_intensities(own["dipole"], modes.displacements),
        raman_activities(own["polarizability"], modes.displacements),
    )
    print(f"\n{name}, model {seconds:.0f} s with compilation\n")
    print("| cm⁻¹ | IR, B3LYP (km/mol) | model | Raman, B3LYP (Å⁴/dalton) | model |\n|---|---|---|---|---|")
    for i in np.flatnonzero(modes.wavenumbers > SHOWN):
        cells = [f"{float(x[i]):.1f}" for pair in zip(wanted, found, strict=True) for x in pair]
        print(f"| {modes.wavenumbers[i]:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    import jax

    jax.config.update("jax_enable_x64", True)
    for one in sys.argv[1:] or ["water"]:
        compare(one)
