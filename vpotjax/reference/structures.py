"""Structures to label: closed-shell molecules that ASE ships, and thermal displacements of any molecule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vpotjax._checks import InputError
from vpotjax.bonds import bonded
from vpotjax.molecule import Molecule
from vpotjax.units import BOHR_TO_ANGSTROM, DALTON_TO_ELECTRON_MASS, HARTREE_TO_KELVIN, HARTREE_TO_WAVENUMBER
from vpotjax.vibrations import normal_modes

if TYPE_CHECKING:
    from ase import Atoms

MIN_WAVENUMBER = 200.0  # cm^-1; softer (or imaginary) modes are displaced as if they had this one


def ase_molecules(elements: Iterable[str] = ("H", "C", "N", "O"), max_heavy: int = 7) -> dict[str, Molecule]:
    """Closed-shell molecules of `elements` with at most `max_heavy` heavy atoms that ASE ships, by name.

    They are the G2 set and ASE's extra molecules, the connected parts of the S22 complexes, and the minima of
    DBH24, smallest first. Of structures with the same bonds only the first is taken.
    """
    from ase.data import atomic_numbers

    wanted = {atomic_numbers[symbol] for symbol in elements}
    chosen: dict[str, Molecule] = {}
    seen: set[tuple[str, ...]] = set()
    for name, atoms in _ase_candidates():
        numbers = atoms.numbers
        if not set(numbers) <= wanted or np.sum(numbers > 1) > max_heavy or len(numbers) < 2:
            continue
        if sum(numbers) % 2 or np.any(atoms.get_initial_magnetic_moments()):
            continue
        graph = bond_graph_labels(atoms)
        if graph in seen:
            continue
        seen.add(graph)
        chosen[name] = Molecule.from_ase(atoms)
    return dict(sorted(chosen.items(), key=lambda item: (int(np.sum(item[1].numbers > 1)), item[1].natm)))


def _ase_candidates() -> Iterator[tuple[str, Atoms]]:
    from ase.build.molecule import extra, molecule
    from ase.collections import g2
    from ase.data import dbh24, s22
    from scipy.sparse.csgraph import connected_components

    for name in [*g2.names, *extra]:
        yield name, molecule(name)
    for name in s22.s22:
        atoms = s22.create_s22_system(name)
        count, part = connected_components(_bonds(atoms), directed=False)
        for i in range(count):
            fragment = atoms[part == i]
            yield fragment.get_chemical_formula(mode="hill") + "_s22", fragment
    for name in dbh24.dbh24:
        if "tst" not in name and "ion" not in name:
            yield name.removeprefix("dbh24_"), dbh24.create_dbh24_system(name)


def _bonds(atoms: Atoms) -> np.ndarray:
    return bonded(atoms.numbers, atoms.positions / BOHR_TO_ANGSTROM)


def bond_graph_labels(atoms: Atoms) -> tuple[str, ...]:
    """The same tuple for molecules with the same bonds: colour refinement (Weisfeiler and Leman 1968)."""
    bonds = _bonds(atoms)
    labels = [str(z) for z in atoms.numbers]
    for _ in range(4):
        labels = [
            f"{labels[i]}({','.join(sorted(labels[j] for j in np.flatnonzero(row)))})" for i, row in enumerate(bonds)
        ]
    return tuple(sorted(labels))


def thermal_displacements(
    molecule: Molecule, hessian: np.ndarray, masses: np.ndarray, count: int, temperature: float, seed: int
) -> np.ndarray:
    """Positions drawn from the quantum-harmonic canonical ensemble around `molecule.positions`.

    Along the mass-weighted normal mode of frequency ω the displacement is normal with variance
    ħ/(2ω) coth(ħω / 2kT) (Wigner 1932, doi:10.1103/PhysRev.40.749, integrated over momenta). Modes are those of
    the Hessian with translations and rotations projected out; ω is at least MIN_WAVENUMBER.

    Args:
        molecule: the centre; need not be a stationary point of the surface that the Hessian is from.
        hessian: (natm, natm, 3, 3) in hartree/bohr².
        masses: (natm,) in dalton.
        count: how many geometries.
        temperature: in kelvin, ≥ 0.
        seed: of numpy's default generator.

    Returns:
        (count, natm, 3) in bohr.
    """
    if temperature < 0:
        raise InputError(f"temperature is {temperature} K; give a value ≥ 0.")
    modes = normal_modes(np.asarray(molecule.positions), hessian, masses)
    frequency = np.sqrt(np.maximum(modes.squares, (MIN_WAVENUMBER / HARTREE_TO_WAVENUMBER) ** 2))
    ratio = frequency * HARTREE_TO_KELVIN / (2 * max(temperature, 1e-6))
    sigma = np.sqrt(1 / (2 * frequency * np.tanh(ratio) * DALTON_TO_ELECTRON_MASS))  # of Q, bohr √dalton
    normal = np.random.default_rng(seed).standard_normal((count, len(frequency)))
    return np.asarray(molecule.positions) + np.einsum("ck,kai->cai", normal * sigma, modes.displacements)
