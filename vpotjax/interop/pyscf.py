"""PySCF: molecules and reference calculations. PySCF is imported inside the functions that need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vpotjax._checks import InputError, require_shape
from vpotjax.basis import ShellList, element_basis
from vpotjax.molecule import Molecule

if TYPE_CHECKING:
    from pyscf.gto import Mole


def to_pyscf(molecule: Molecule, basis: str | Mapping[str, str | ShellList], *, cartesian: bool = False) -> Mole:
    """A built `pyscf.gto.Mole` (bohr, no symmetry) with the exponents and coefficients of `load_basis`.

    Elements for which the basis comes with an effective core potential get PySCF's potential of the same name.
    """
    from pyscf import gto

    elements = {s: element_basis(basis, int(z)) for s, z in zip(molecule.symbols, molecule.numbers, strict=True)}
    atoms = [(symbol, position) for symbol, position in zip(molecule.symbols, molecule.positions, strict=True)]
    return gto.M(
        atom=atoms,
        basis={symbol: shells for symbol, (shells, _) in elements.items()},
        ecp={
            symbol: basis if isinstance(basis, str) else basis[symbol] for symbol, (_, core) in elements.items() if core
        },
        unit="Bohr",
        charge=molecule.charge,
        spin=molecule.spin,
        cart=cartesian,
        verbose=0,
        dump_input=False,
    )


def uncoupled_polarizability(mf: Any) -> np.ndarray:
    """α = 4 Σ_ia r_ia ⊗ r_ia / (ε_a − ε_i), (3, 3) in bohr³, of a converged restricted calculation."""
    occupied = mf.mo_occ > 0
    position = mf.mol.intor_symmetric("int1e_r")
    transition = np.einsum("xpq,pi,qa->xia", position, mf.mo_coeff[:, occupied], mf.mo_coeff[:, ~occupied])
    gaps = mf.mo_energy[None, ~occupied] - mf.mo_energy[occupied, None]
    return 4 * np.einsum("xia,yia->xy", transition / gaps, transition)


def reference_labels(
    molecule: Molecule,
    basis: str,
    xc: str = "b3lyp",
    density_fit: bool = False,
    grid_level: int = 3,
    matrices: bool = False,
) -> dict[str, np.ndarray]:
    """Restricted Kohn–Sham labels of a closed-shell molecule; xc="hf" gives Hartree–Fock.

    Returns:
        energy (hartree), mo_energies (nao,) hartree, dipole (3,) e·bohr about the origin of the coordinates,
        polarizability (3, 3) bohr³, uncoupled; with `matrices` also fock and overlap (nao, nao), PySCF's AO order.

    Raises:
        InputError: the molecule is not closed-shell.
        RuntimeError: the calculation does not converge, even with the second-order solver.
    """
    mf = _mean_field(molecule, basis, xc)
    if xc != "hf":
        mf.grids.level = grid_level
    if density_fit:
        mf = mf.density_fit()
        mf.with_df.build()  # or PySCF integrates anew for every Coulomb matrix when there is no exchange
    mf.conv_tol = 1e-10
    mf.kernel()
    if not mf.converged:
        mf = mf.newton()
        mf.kernel()
    if not mf.converged:
        raise RuntimeError(f"{xc}/{basis} of {molecule.formula} did not converge; check the geometry.")
    fock, overlap = np.asarray(mf.get_fock()), np.asarray(mf.get_ovlp())
    if matrices:  # PySCF's last F is built after its last ε and C; take all labels from the F that is stored
        mf.mo_energy, mf.mo_coeff = mf.eig(fock, overlap)
    labels = {
        "energy": np.asarray(mf.e_tot),
        "mo_energies": np.asarray(mf.mo_energy),
        "dipole": mf.dip_moment(dm=mf.make_rdm1(), unit="AU", verbose=0),
        "polarizability": uncoupled_polarizability(mf),
    }
    if matrices:
        labels |= {"fock": fock, "overlap": overlap}
    return labels


@dataclass(frozen=True)
class DensityReport:
    """How good a predicted density is, by PySCF.

    Attributes:
        energy: total energy functional of the density as it is, hartree.
        energy_error: energy minus the converged one, hartree; ≥ 0 for Hartree–Fock with an idempotent density.
        fock: F rebuilt from the density, (nao, nao), hartree.
        cycles: of an SCF that starts from the density.
        default_cycles: of an SCF that starts from PySCF's default guess.
    """

    energy: float
    energy_error: float
    fock: np.ndarray
    cycles: int
    default_cycles: int


def density_report(molecule: Molecule, basis: str, density: np.ndarray, xc: str = "b3lyp") -> DensityReport:
    """Total energy, Fock rebuild and SCF cycles from a density of a closed shell.

    Args:
        molecule: closed shell.
        basis: name of the orbital basis.
        density: P, (nao, nao), spin-summed, PySCF's AO order, without padding.
        xc: functional; "hf" gives Hartree–Fock.

    Raises:
        InputError: an open shell; a density of the wrong shape or with another number of electrons.
    """
    mf = _mean_field(molecule, basis, xc)
    density = np.asarray(density)
    require_shape("density", density, (mf.mol.nao, mf.mol.nao))
    electrons = float(np.sum(density * mf.get_ovlp()))
    if abs(electrons - mf.mol.nelectron) > 1e-3:
        raise InputError(f"density holds {electrons:.4f} electrons, not {mf.mol.nelectron}; check basis and order.")
    potential = mf.get_veff(mf.mol, density)
    energy, fock = float(mf.energy_tot(density, vhf=potential)), np.asarray(mf.get_fock(dm=density, vhf=potential))
    mf.kernel(dm0=density)
    fresh = _mean_field(molecule, basis, xc)
    fresh.kernel()
    return DensityReport(energy, energy - float(fresh.e_tot), fock, int(mf.cycles), int(fresh.cycles))


def _mean_field(molecule: Molecule, basis: str, xc: str) -> Any:
    from pyscf import dft, scf

    if molecule.spin:
        raise InputError(f"spin is {molecule.spin}; these calculations are for closed shells, give spin=0.")
    mol = to_pyscf(molecule, basis)
    return scf.RHF(mol) if xc == "hf" else dft.RKS(mol, xc=xc)


def harmonic_hessian(molecule: Molecule, basis: str = "sto-3g") -> tuple[np.ndarray, np.ndarray]:
    """RHF Hessian (natm, natm, 3, 3) in hartree/bohr² and atomic masses (natm,) in dalton, for thermal sampling."""
    from pyscf import scf

    mol = to_pyscf(molecule, basis)
    mf = scf.RHF(mol).run()
    return np.asarray(mf.Hessian().kernel()), np.asarray(mol.atom_mass_list(isotope_avg=True))
