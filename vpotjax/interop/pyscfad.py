"""PySCFAD: energies and Fock matrices of a density that JAX differentiates; imported where it is needed."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from vpotjax._basis_tables import BasisTable
from vpotjax._checks import InputError, require_shape
from vpotjax._typing import Array
from vpotjax.interop.pyscf import require_functional, to_pyscf
from vpotjax.molecule import Molecule


def energy_functional(molecule: Molecule, basis: BasisTable, xc: str = "hf") -> Callable[[Array], jax.Array]:
    """E[P], hartree, of a closed shell at fixed geometry, differentiable in P: ∂E/∂P is the Fock matrix of P.

    Effective core potentials are those of `to_pyscf`.

    Args:
        molecule: closed shell.
        basis: name of the orbital basis, or a dict as in `load_basis`.
        xc: functional; "hf" gives Hartree–Fock.

    Returns:
        A function of P, (nao, nao), spin-summed, PySCF's AO order; not to be used inside jit.

    Raises:
        InputError: an open shell; a functional that PySCF does not know, or with a dispersion correction, or of
            exchange alone other than "hf"; from the function: a density of the wrong shape.
    """
    from pyscf.dft import dft_parser, libxc
    from pyscfad import dft, gto, scf

    if molecule.spin:
        raise InputError(f"spin is {molecule.spin}; the functional is for closed shells, give spin=0.")
    require_functional(xc)
    name, _, dispersion = dft_parser.parse_dft(xc)
    hartree_fock = xc.lower() == "hf"
    if dispersion or not (hartree_fock or libxc.parse_xc(name)[1]):
        raise InputError(f"xc is {xc!r}; PySCFAD needs a functional of the density without dispersion, or 'hf'.")
    plain = to_pyscf(molecule, basis)
    mol = gto.Mole()
    mol.atom, mol.unit, mol.charge = plain.atom, "Bohr", plain.charge
    mol.basis, mol.ecp, mol.verbose = plain._basis, plain._ecp, 0
    mol.build(trace_coords=False, trace_exp=False, trace_ctr_coeff=False)
    mf = scf.RHF(mol) if hartree_fock else dft.RKS(mol, xc=xc)

    def energy(density: Array) -> jax.Array:
        require_shape("density", density, (plain.nao, plain.nao))
        return mf.energy_tot(dm=density)

    return energy


def rebuilt_fock(molecule: Molecule, basis: BasisTable, density: Array, xc: str = "hf") -> np.ndarray:
    """F[P] = ∂E/∂P, (nao, nao), hartree; arguments as `energy_functional`."""
    fock = np.asarray(jax.grad(energy_functional(molecule, basis, xc))(jax.numpy.asarray(density)))
    return (fock + fock.T) / 2
