"""Alchemical derivatives: energies and levels differentiated in nuclear charges, N₂ to CO and benzene to borazine.

    python -m benchmarks.alchemy            a minute on one core

Charges of V are numbers like others, fractional and traced. Of the SCF energy in the reference's basis (Hartree–Fock,
def2-SVP of λ = 0) dE/dλ = Σ_A (dZ_A/dλ) [tr P v_A + Σ_B Z_B/R_AB], with v_A, V of a unit charge, from the package, P
from PySCF (von Lilienfeld 2009, doi:10.1063/1.3249969), against five-point differences of SCFs with those charges; of
the sum of the occupied levels of T + V the whole way by `jax.grad`, against differences; both at λ = 0.2 (N₂'s HOMO
and LUMO of T + V cross at 0.3015). A trained model has weights for each pair of elements, so it cannot say what is
between two of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.runs import SINGLE_THREAD
from vpotjax.molecule import Molecule

STEP, AT = 0.02, 0.2
BOND = 2.08  # bohr, N₂


def paths() -> dict[str, tuple[Molecule, np.ndarray]]:
    """By name: the molecule at λ = 0, and dZ/dλ."""
    from ase.build import molecule

    nitrogen = Molecule(np.array([7, 7]), np.array([[0.0, 0, 0], [0, 0, BOND]]))
    benzene = Molecule.from_ase(molecule("C6H6"))
    angles = np.arctan2(*np.asarray(benzene.positions)[:6, [1, 2]].T)
    ring = np.where(np.argsort(np.argsort(angles)) % 2, 1.0, -1.0)  # B and N by turns
    return {"N2 to CO": (nitrogen, np.array([-1.0, 1.0])), "C6H6 to B3N3H6": (benzene, np.append(ring, np.zeros(6)))}


def scf(mol: Any, terms: np.ndarray, charges: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy and P of Hartree–Fock with nuclei of any charge; `terms` are V of unit charges."""
    from pyscf import scf as pyscf_scf

    mf: Any = pyscf_scf.RHF(mol)
    core = mol.intor("int1e_kin") + np.einsum("a,apq->pq", charges, terms)
    mf.get_hcore = lambda *_: core
    mf.energy_nuc = lambda *_: repulsion(mol, charges)
    mf.conv_tol = 1e-12
    mf.kernel()
    return float(mf.e_tot), np.asarray(mf.make_rdm1())


def repulsion(mol: Any, charges: np.ndarray) -> float:
    """Of the nuclei, hartree."""
    return float(charges @ inverse_distances(mol) @ charges) / 2


def inverse_distances(mol: Any) -> np.ndarray:
    """1/R, zero on the diagonal."""
    places = mol.atom_coords()
    distances = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(len(places))
    return 1 / distances - np.eye(len(places))


def slope(function: Callable[[float], float], step: float = STEP) -> float:
    """Five-point difference at 0."""
    a, b, c, d = (function(t * step) for t in (-2, -1, 1, 2))
    return (a - 8 * b + 8 * c - d) / (12 * step)


def main() -> None:
    """Print a table."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.interop.pyscf import to_pyscf

    print("| path | dE/dλ | by differences | λ² term predicts E(1) − E(0) | SCF | d Σε/dλ | by differences |")
    print("|---|---|---|---|---|---|---|")
    for name, (molecule, change) in paths().items():
        mol, basis = to_pyscf(molecule, "def2-svp"), vp.load_basis("def2-svp", molecule.numbers)
        places, before = jnp.asarray(molecule.positions), np.asarray(molecule.numbers, float)
        terms = np.asarray(vp.nuclear_attraction(basis, places)) / before[:, None, None]

        def energy(
            t: float, m: Any = mol, v: Any = terms, z: Any = before, dz: Any = change
        ) -> tuple[float, np.ndarray]:
            return scf(m, v, z + t * dz)

        potential = np.einsum("apq,pq->a", terms, energy(AT)[1]) + inverse_distances(mol) @ (before + AT * change)
        own, wanted = float(change @ potential), slope(lambda t, e=energy: e(AT + t)[0])
        start = energy(0.0)[0]  # by symmetry the first derivative there is zero
        guess = (energy(STEP)[0] + energy(-STEP)[0] - 2 * start) / STEP**2 / 2
        exact = energy(1.0)[0] - start
        kinetic, overlap, nocc = vp.kinetic(basis, places), vp.overlap(basis, places), int(before.sum()) // 2

        def occupied(
            t: Any, k: Any = kinetic, s: Any = overlap, v: Any = terms, z: Any = before, dz: Any = change
        ) -> Any:
            levels = vp.eigh(k + jnp.einsum("a,apq->pq", z + t * dz, v), s)[0]
            return jnp.sum(levels[:nocc])  # noqa: B023  used at once

        slopes = float(jax.grad(occupied)(AT)), slope(lambda t, g=occupied: float(g(AT + t)), 1e-3)
        print(
            f"| {name} | {own:.8f} | {wanted:.8f} | {guess:.3f} | {exact:.3f} | {slopes[0]:.8f} | {slopes[1]:.8f} |",
            flush=True,
        )


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    import jax

    jax.config.update("jax_enable_x64", True)
    main()
