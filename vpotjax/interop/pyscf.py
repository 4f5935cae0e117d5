"""PySCF: molecules and reference calculations. PySCF is imported inside the functions that need it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._basis_tables import BasisTable, basis_entry, element_basis, exchange_element, shown
from vpotjax._checks import InputError, require_shape
from vpotjax._guards import require_hermitian
from vpotjax._programs import potentials, quick_jit
from vpotjax.basis import MAX_L, Basis, Contraction, assemble_basis, atom_shells, primitive_norm
from vpotjax.molecule import Molecule
from vpotjax.shape_pool import ShapePool

if TYPE_CHECKING:
    from pyscf.gto import Mole

    from vpotjax.batching import Batch
    from vpotjax.models import Ensemble


def from_pyscf(mol: Mole) -> tuple[Molecule, Basis]:
    """Atoms and basis of a built `Mole`, AO by AO: S, T, V and r of the basis are PySCF's `int1e_ovlp`, `…_kin`,
    `…_nuc` and `…_r`.

    Exponents, coefficients and the order of the shells are those that PySCF integrates with, whatever they came from:
    a basis per atom, optimised contractions, Cartesian functions, functions without norm. Ghost atoms have number 0. Of
    an effective core potential `core_electrons` is kept; as everywhere, its semi-local part is in no matrix here.

    Returns:
        The molecule (charge, spin, positions in bohr) and its basis.

    Raises:
        InputError: `mol` is periodic or not built; has l above MAX_L, kappa of spinors, nuclei that are no points or
            have another charge than their element, or shells that do not stand atom by atom.
    """
    if hasattr(mol, "lattice_vectors"):
        raise InputError(f"mol is periodic ({type(mol).__name__}); give a pyscf.gto.Mole, after its build().")
    if not getattr(mol, "_built", False) or len(mol._atom) != mol.natm:  # the latter: charges without atoms
        raise InputError(f"mol is no built molecule ({type(mol).__name__}); give a pyscf.gto.Mole, after its build().")
    numbers, core = _nuclei(mol)
    shells: list[list[Contraction]] = [[] for _ in range(mol.natm)]
    owners = [int(mol.bas_atom(i)) for i in range(mol.nbas)]
    if owners != sorted(owners):
        raise InputError(f"mol has shells on the atoms {shown(owners)}, in this order; sort them (mol._bas) by atom.")
    for i, owner in enumerate(owners):
        shells[owner].append(_contraction(mol, i))
    charge, spin = mol.charge, mol.spin or 0
    basis = assemble_basis(numbers, core, [atom_shells(own) for own in shells], cartesian=bool(mol.cart))
    if basis.nelec(charge) != mol.nelectron:
        raise InputError(
            f"mol has {mol.nelectron} electrons, but its nuclei and charge={charge} make {basis.nelec(charge)}; set "
            "mol.charge, not the number of electrons."
        )
    return Molecule(numbers, np.asarray(mol.atom_coords(unit="Bohr")), charge, spin), basis


def _nuclei(mol: Mole) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers, 0 for ghosts, and electrons in effective cores."""
    from pyscf.gto import mole

    numbers = np.array([mole.charge(mol.atom_symbol(i)) for i in range(mol.natm)], dtype=int)
    charges, models = mol.atom_charges(), mol._atm[:, mole.NUC_MOD_OF]
    for i, (number, charge, model) in enumerate(zip(numbers, charges, models, strict=True)):
        atom = f"atom {i} ({mol.atom_symbol(i)}) of mol"
        if model == mole.NUC_GAUSS:
            raise InputError(f"{atom} has a nucleus of finite size; only points are implemented, leave nucmod out.")
        if mol._pseudo and charge != number:
            raise InputError(f"{atom} has a GTH pseudopotential, whose local part is not −Z/r; use an ECP or none.")
        if model == mole.NUC_FRAC_CHARGE or (charge != number and not (model == mole.NUC_ECP and charge < number)):
            raise InputError(
                f"{atom} has the nuclear charge {charge}, not its element's; build it without, and give charges to "
                "external_potential as nuclear_charges."
            )
    return numbers, (numbers - charges).astype(int)


def _contraction(mol: Mole, shell: int) -> Contraction:
    if mol.bas_kappa(shell):
        raise InputError(f"shell {shell} of mol has kappa = {mol.bas_kappa(shell)} (a spinor); leave kappa out.")
    l = int(mol.bas_angular(shell))
    if l > MAX_L:
        raise InputError(
            f"shell {shell} of mol, on atom {mol.bas_atom(shell)}, has l = {l}; integrals are implemented up to l = "
            f"{MAX_L}."
        )
    exponents = np.array(mol.bas_exp(shell))
    return l, exponents, mol.bas_ctr_coeff(shell) * primitive_norm(l, exponents)[:, None]


def to_pyscf(molecule: Molecule, basis: BasisTable, *, cartesian: bool = False) -> Mole:
    """A built `pyscf.gto.Mole` (bohr, no symmetry) with the exponents and coefficients of `load_basis`.

    Elements for which basis-set-exchange has an effective core potential under the name of the basis get it.

    Raises:
        InputError: as `load_basis`; charge and spin do not fit the electrons outside the cores.
    """
    from pyscf import gto

    elements = {s: element_basis(basis, z) for s, z in zip(molecule.symbols, molecule.numbers.tolist(), strict=True)}
    electrons = sum(z - elements[s][1] for s, z in zip(molecule.symbols, molecule.numbers.tolist(), strict=True))
    electrons -= molecule.charge
    if electrons < abs(molecule.spin) or (electrons - molecule.spin) % 2:
        raise InputError(
            f"charge={molecule.charge} and spin={molecule.spin} do not fit the {electrons} electrons outside the "
            f"effective cores of basis {shown(basis)}; change charge or spin, or take an all-electron basis."
        )
    atoms = [(symbol, position) for symbol, position in zip(molecule.symbols, molecule.positions, strict=True)]
    return gto.M(
        atom=atoms,
        basis={symbol: shells for symbol, (shells, _) in elements.items() if shells},
        ecp={
            symbol: _effective_core(basis_entry(basis, gto.charge(symbol)), gto.charge(symbol))
            for symbol, (_, core) in elements.items()
            if core
        },
        unit="Bohr",
        charge=molecule.charge,
        spin=molecule.spin,
        cart=cartesian,
        verbose=0,
        dump_input=False,
    )


def _effective_core(name: Any, number: int) -> list[Any]:
    """PySCF's form of an ECP: [core electrons, [[l, by power of r from r⁻² on [[exponent, coefficient], …]], …]].

    The local potential, that of the highest l, comes first and has l = −1.
    """
    element = exchange_element(name, number)
    potentials = sorted(element["ecp_potentials"], key=lambda potential: potential["angular_momentum"][0])
    terms = []
    for potential in [potentials[-1], *potentials[:-1]]:
        powers, (coefficients,) = potential["r_exponents"], potential["coefficients"]
        rows = list(zip(powers, map(float, potential["gaussian_exponents"]), map(float, coefficients), strict=True))
        by_power = [[[a, c] for power, a, c in rows if power == n] for n in range(max(powers) + 1)]
        terms.append([potential["angular_momentum"][0] if terms else -1, by_power])
    return [int(element["ecp_electrons"]), terms]


@dataclass(frozen=True)
class DensityReport:
    """How good a predicted density is, by PySCF.

    Attributes:
        energy: total energy functional of the density as it is, hartree.
        energy_error: energy minus the converged one, hartree; ≥ 0 for Hartree–Fock with an idempotent density.
        fock: F rebuilt from the density, (nao, nao), hartree.
        cycles: of an SCF that starts from the density; None where it does not converge.
        default_cycles: of an SCF that starts from PySCF's default guess.
    """

    energy: float
    energy_error: float
    fock: np.ndarray
    cycles: int | None
    default_cycles: int


def density_report(molecule: Molecule, basis: BasisTable, density: np.ndarray, xc: str = "b3lyp") -> DensityReport:
    """Total energy, Fock rebuild and SCF cycles from a density of a closed shell.

    Args:
        molecule: closed shell.
        basis: name of the orbital basis, or a dict as in `load_basis`.
        density: P, (nao, nao), spin-summed, PySCF's AO order, without padding.
        xc: functional; "hf" gives Hartree–Fock.

    Raises:
        InputError: an open shell; a density that is not real and symmetric, or of the wrong shape, or with another
            number of electrons; PySCF does not know the functional.
        RuntimeError: the calculation from PySCF's default guess does not converge.
    """
    mf = mean_field(molecule, basis, xc)
    density = np.asarray(density)
    require_shape("density", density, (mf.mol.nao, mf.mol.nao))
    if np.iscomplexobj(density):
        raise InputError(f"density has dtype {density.dtype}; that of a closed shell without a field is real.")
    require_hermitian("density", "P", density)
    electrons = float(np.sum(density * mf.get_ovlp()))
    if not abs(electrons - mf.mol.nelectron) <= 1e-3:
        raise InputError(f"density holds {electrons:.4f} electrons, not {mf.mol.nelectron}; check basis and order.")
    potential = mf.get_veff(mf.mol, density)
    energy, fock = float(mf.energy_tot(density, vhf=potential)), np.asarray(mf.get_fock(dm=density, vhf=potential))
    mf.kernel(dm0=density)
    fresh = mean_field(molecule, basis, xc)
    fresh.kernel()
    if not fresh.converged:
        raise RuntimeError(f"{xc}/{shown(basis)} of {molecule.formula} did not converge; check the geometry.")
    cycles = int(mf.cycles) if mf.converged else None
    return DensityReport(energy, energy - float(fresh.e_tot), fock, cycles, int(fresh.cycles))


def mean_field(molecule: Molecule, basis: BasisTable, xc: str, unrestricted: bool = False) -> Any:
    """PySCF's RHF, RKS, UHF or UKS object, not run; xc="hf" means Hartree–Fock.

    Raises:
        InputError: an open shell and not `unrestricted`; PySCF does not know the functional; as `to_pyscf`.
    """
    from pyscf import dft, scf

    if molecule.spin and not unrestricted:
        raise InputError(f"spin is {molecule.spin}; these calculations are for closed shells, give spin=0.")
    require_functional(xc)
    mol = to_pyscf(molecule, basis)
    if xc.lower() == "hf":
        return scf.UHF(mol) if unrestricted else scf.RHF(mol)
    return dft.UKS(mol, xc=xc) if unrestricted else dft.RKS(mol, xc=xc)


def require_functional(xc: str) -> None:
    """Raise InputError unless PySCF knows the functional `xc`, or it is "hf"."""
    from pyscf.dft import dft_parser, libxc

    try:
        exchange, terms = libxc.parse_xc(dft_parser.parse_dft(xc)[0])
    except Exception as error:  # PySCF raises many types
        raise InputError(
            f"xc is {xc!r}, which PySCF does not know ({shown(error)}); give a functional such as 'b3lyp', or 'hf'."
        ) from None
    if not terms and not any(exchange):
        raise InputError(f"xc is {xc!r}, no functional at all; give one such as 'b3lyp', or 'hf'.")


def converged(mf: Any, name: str) -> Any:
    """`mf` after its SCF, or its second-order form where only that converges.

    Raises:
        RuntimeError: neither does.
    """
    mf.kernel()
    if not mf.converged:
        mf = mf.newton()
        mf.kernel()
    if not mf.converged:
        raise RuntimeError(f"{name} did not converge; check the geometry.")
    return mf


def harmonic_hessian(molecule: Molecule, basis: BasisTable = "sto-3g") -> tuple[np.ndarray, np.ndarray]:
    """RHF Hessian (natm, natm, 3, 3) in hartree/bohr² and atomic masses (natm,) in dalton, for thermal sampling.

    Raises:
        InputError: an open shell.
        RuntimeError: the calculation does not converge.
    """
    mf = converged(mean_field(molecule, basis, "hf"), f"hf/{shown(basis)} of {molecule.formula}")
    return np.asarray(mf.Hessian().kernel()), np.asarray(mf.mol.atom_mass_list(isotope_avg=True))


SAME_BASIS = 1e-6
"""Of overlaps."""


def initial_guess(model: Ensemble, mol: Mole) -> np.ndarray:
    """The density of a predicted F, with which an SCF starts: `mf.kernel(dm0=initial_guess(model, mol))`.

    Args:
        model: from `vpotjax.io.load_model`, of F or of P.
        mol: a built closed shell. Where its basis is another one than the model's, the occupied orbitals are projected
            on it and orthonormalised.

    Returns:
        P, (nao, nao), spin-summed, in the order of `mol`.

    Raises:
        InputError: the model is one of a property, does not know an element, or `mol` is an open shell; as of
            `from_pyscf`; the predicted F has no gap.
    """
    from pyscf import gto

    molecule, _ = from_pyscf(mol)
    settings = model.settings
    if "orbital" not in settings.bases:
        raise InputError(f"model is one of {settings.target!r}, which has no density; give one of F or P.")
    settings.require(molecule)
    ((_, shape),) = _shapes(*_program_of(model)).groups([molecule], settings.bases, settings.representation.cutoff)
    batch = settings.batch([molecule], shape)
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], batch)
    density = np.asarray(_predicted_density(model, first, potentials(settings, first)), float)
    if not np.isfinite(density).all():
        raise InputError(
            f"the F that the model predicts for {molecule.formula} has no density; start from another one."
        )
    own = to_pyscf(molecule, settings.orbital_basis)
    density = density[: own.nao, : own.nao]
    overlaps = [other.intor("int1e_ovlp") for other in (own, mol)]
    if overlaps[0].shape == overlaps[1].shape and np.abs(overlaps[0] - overlaps[1]).max() < SAME_BASIS:
        return density
    occupied = _natural_orbitals(density, overlaps[0])[:, -(mol.nelectron // 2) :]
    cross = gto.intor_cross("int1e_ovlp", mol, own)
    projected = np.linalg.solve(overlaps[1], cross @ occupied)
    values, vectors = np.linalg.eigh(projected.T @ overlaps[1] @ projected)
    orbitals = projected @ (vectors / np.sqrt(values)) @ vectors.T
    return 2 * orbitals @ orbitals.T


def _program_of(model: Ensemble) -> tuple[Any, Any]:
    """What a compiled prediction depends on beside the molecule."""
    leaves, structure = jax.tree.flatten(model)
    return structure, tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)


@functools.cache
def _shapes(structure: Any, leaves: Any) -> ShapePool:
    """Of the programs that there are for such models: a molecule that fits in one compiles none."""
    return ShapePool()


def _natural_orbitals(density: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Orthonormal columns, the most occupied last."""
    values, vectors = np.linalg.eigh(overlap)
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    return inverse @ np.linalg.eigh(root @ density @ root)[1]


@quick_jit
def _predicted_density(model: Ensemble, molecule: Batch, own: Any) -> jax.Array:
    return model(molecule, own).density
