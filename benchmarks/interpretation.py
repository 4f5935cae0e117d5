"""What the effective Fock matrix of the shipped model is: its levels, orbitals and elements beside those of B3LYP.

    python -m benchmarks.interpretation molecules    beside F of 6-31G, and F of def2-TZVP projected on 6-31G
    python -m benchmarks.interpretation decay        elements of V, F, P and the effective F against distance
    python -m benchmarks.interpretation truncation   levels and densities without the elements of distant atoms

Elements are those in the Löwdin basis of 6-31G. Molecules are ASE's, chains those of the shared data. A minute for each
molecule, and some for each chain, whose matrices are kept in runs/interpretation, on one core.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.qm7_data import LARGE, MIDDLE, transfer_molecules
from benchmarks.runs import SINGLE_THREAD, save_arrays
from vpotjax.molecule import Molecule
from vpotjax.units import HARTREE_TO_EV

NAMES = ("C2H6", "C2H4", "C2H2", "H2CO", "CH3CN", "butadiene", "C6H6")
CHAINS = ("alkane_C12", "polyene_C12")
RUNS = Path(__file__).parents[1] / "runs" / "interpretation"
EDGES = (1.0, 3.5, 6.0, 9.0, 12.0, 15.0, 20.0, 30.0)  # bohr
CUTOFFS = (6.0, 9.0, 12.0, 15.0, 20.0)


class Matrices(NamedTuple):
    """Of one molecule in 6-31G, hartree."""

    overlap: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    fock: np.ndarray
    effective: np.ndarray
    atoms: np.ndarray
    nocc: int


def kept(name: str) -> tuple[Molecule, Matrices]:
    """A chain and its `matrices`, which are made once for a model."""
    import jax

    import vpotjax as vp

    weights = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(vp.load_pretrained()))
    file = RUNS / hashlib.sha256(weights).hexdigest()[:12] / f"{name}.npz"
    molecule = transfer_molecules()[name]
    if not file.exists():
        save_arrays(file, matrices(molecule)._asdict())
    with np.load(file) as known:
        *arrays, nocc = (known[key] for key in Matrices._fields)
    return molecule, Matrices(*arrays, nocc=int(nocc))


def matrices(molecule: Molecule) -> Matrices:
    """V, T and F of B3LYP/6-31G, and the mean F of the shipped networks."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.interop.pyscf_labels import reference_labels

    labels = reference_labels(molecule, MIDDLE, "b3lyp", quantities=["fock", "overlap"])
    model, basis, places = vp.load_pretrained(), vp.load_basis(MIDDLE, molecule.numbers), molecule.positions
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([molecule]))
    predicted = jax.jit(lambda m, b: m(b).matrix)(jax.tree.map(jnp.asarray, model), batch)
    potential, kinetic = (np.asarray(f(basis, places)) for f in (vp.external_potential, vp.kinetic))
    effective = np.asarray(predicted)[: basis.nao, : basis.nao]
    nocc, atoms = int(molecule.nelec(basis)) // 2, np.asarray(basis.ao_atom)
    return Matrices(labels["overlap"], potential, kinetic, labels["fock"], effective, atoms, nocc)


def lowdin(matrix: np.ndarray, overlap: np.ndarray, power: float = -0.5) -> np.ndarray:
    """S^p M S^p."""
    values, vectors = np.linalg.eigh(overlap)
    root = (vectors * values**power) @ vectors.T
    return root @ matrix @ root


def of_molecules() -> None:
    """Levels, orbitals and elements."""
    import scipy.linalg
    from ase.build import molecule as built

    import vpotjax as vp
    from vpotjax.electronic.comparison import eigenbasis_alignment, projected_fock
    from vpotjax.interop.pyscf_labels import reference_labels

    print("| molecule | F | occupied ε, eV | gap, eV | occupied space | LUMO | elements, mhartree | aligned |")
    print("|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        molecule = Molecule.from_ase(built(name))
        own = matrices(molecule)
        labels = reference_labels(molecule, LARGE, "b3lyp", quantities=["fock", "overlap"])
        small, large = (vp.load_basis(basis, molecule.numbers) for basis in (MIDDLE, LARGE))
        cross = np.asarray(vp.cross_overlap(large, small, molecule.positions))
        levels, orbitals = scipy.linalg.eigh(labels["fock"], labels["overlap"])
        projected = np.asarray(projected_fock(labels["fock"], labels["overlap"], cross))
        rows = {"6-31G": own.fock, "projected": projected, "effective": own.effective}
        for title, fock in rows.items():
            energies, vectors = scipy.linalg.eigh(fock, own.overlap)
            both = orbitals.T @ cross @ vectors
            n = own.nocc
            shift = HARTREE_TO_EV * np.sqrt(np.mean((energies[:n] - levels[:n]) ** 2))
            gaps = HARTREE_TO_EV * (energies[n] - energies[n - 1] - levels[n] + levels[n - 1])
            space, lumo = np.sum(both[:n, :n] ** 2) / n, _lumo(both, levels, n)
            aligned = np.asarray(eigenbasis_alignment(fock, own.fock, own.overlap))
            elements = [1e3 * _rms(lowdin(x - own.fock, own.overlap)) for x in (fock, aligned)]
            print(
                f"| {name} | {title} | {shift:.3f} | {gaps:+.3f} | {space:.4f} | {lumo:.4f} | {elements[0]:.2f} | "
                f"{elements[1]:.2f} |",
                flush=True,
            )


def _lumo(overlaps: np.ndarray, levels: np.ndarray, n: int) -> float:
    """Weight of the LUMO in the degenerate level of the reference's."""
    same = np.abs(levels - levels[n]) < 1e-4
    return float(np.sum(overlaps[same, n] ** 2))


def _rms(matrix: np.ndarray) -> float:
    return float(np.sqrt(np.mean(matrix**2)))


def _chains() -> Iterator[tuple[str, Matrices, np.ndarray]]:
    """Name, matrices, and distances of the atoms of two orbitals."""
    for name in CHAINS:
        molecule, own = kept(name)
        places = np.asarray(molecule.positions)[:, None]
        distances = np.linalg.norm(places - np.swapaxes(places, 0, 1), axis=-1)
        yield name, own, distances[np.ix_(own.atoms, own.atoms)]


def density(fock: np.ndarray, nocc: int) -> np.ndarray:
    """P of a Fock matrix in an orthonormal basis."""
    vectors = np.linalg.eigh(fock)[1][:, :nocc]
    return 2 * vectors @ vectors.T


def decay() -> None:
    """Largest element between atoms of a range of distances."""
    for name, own, distances in _chains():
        potential, fock, effective = (lowdin(x, own.overlap) for x in (own.potential, own.fock, own.effective))
        rows = {
            "S": own.overlap,
            "V": potential,
            "F": fock,
            "effective F": effective,
            "P": density(fock, own.nocc),
            "P of the effective F": density(effective, own.nocc),
        }
        ranges = list(itertools.pairwise(EDGES))
        heads = [f"{a:g} to {b:g}" for a, b in ranges]
        print(f"\n{name}, bohr\n\n| matrix | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for title, matrix in rows.items():
            inside = [(distances >= a) & (distances < b) for a, b in ranges]
            cells = [f"{np.abs(matrix[chosen]).max():.1e}" if chosen.any() else "" for chosen in inside]
            print(f"| {title} | {' | '.join(cells)} |")


def truncation() -> None:
    """Errors of occupied levels and electrons at places without the elements between atoms beyond a distance."""
    for name, own, distances in _chains():
        core = lowdin(own.kinetic + own.potential, own.overlap)
        fock, effective = (lowdin(x, own.overlap) for x in (own.fock, own.effective))
        print(f"\n{name}\n\n| cutoff, bohr | T + V | F | effective F | P: electrons misplaced |\n|---|---|---|---|---|")
        for cutoff in CUTOFFS:
            near = distances <= cutoff
            cells = [f"{1e3 * _change(x, near, own.nocc):.3g}" for x in (core, fock, effective)]
            full = density(fock, own.nocc)
            lost = np.sum((full - near * full) ** 2) / (2 * own.nocc)
            print(f"| {cutoff:g} | {' | '.join(cells)} | {lost:.1e} |")


def _change(matrix: np.ndarray, near: np.ndarray, nocc: int) -> float:
    """Largest change of an occupied level, hartree."""
    before, after = (np.linalg.eigvalsh(x)[:nocc] for x in (matrix, near * matrix))
    return float(np.abs(before - after).max())


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    import jax

    jax.config.update("jax_enable_x64", True)
    parts: dict[str, Callable[[], Any]] = {"molecules": of_molecules, "decay": decay, "truncation": truncation}
    for part in sys.argv[1:] or parts:
        parts[part]()
