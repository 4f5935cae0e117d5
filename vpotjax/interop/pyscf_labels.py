"""Labels by PySCF: what can be stored of a converged calculation, and how it was made."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vpotjax._basis_tables import BasisTable, basis_entry, element_basis, shown
from vpotjax._checks import InputError
from vpotjax.interop.pyscf import converged, mean_field
from vpotjax.molecule import Molecule

CONVERGENCE = 1e-10  # hartree
AUXILIARY = "with the auxiliary basis that PySCF takes for the name of the orbital basis"
OBSERVED = ("energy", "mo_energies", "dipole", "polarizability")
"""What is stored unless something else is asked for."""


def uncoupled_polarizability(mf: Any) -> np.ndarray:
    """α = 4 Σ_ia r_ia ⊗ r_ia / (ε_a − ε_i), (3, 3) in bohr³, of a converged closed-shell calculation.

    Raises:
        InputError: `mf` is not converged, or its occupations are not 0 and 2.
    """
    if not mf.converged or np.ndim(mf.mo_occ) != 1 or not np.isin(mf.mo_occ, (0, 2)).all():
        raise InputError(
            f"mf ({type(mf).__name__}, converged={mf.converged}) is no converged closed shell, the formula is for "
            "those; give a converged RHF or RKS without smearing."
        )
    occupied = mf.mo_occ > 0
    position = mf.mol.intor_symmetric("int1e_r")
    transition = np.einsum("xpq,pi,qa->xia", position, mf.mo_coeff[:, occupied], mf.mo_coeff[:, ~occupied])
    gaps = mf.mo_energy[None, ~occupied] - mf.mo_energy[occupied, None]
    return 4 * np.einsum("xia,yia->xy", transition / gaps, transition)


@dataclasses.dataclass(frozen=True)
class Calculation:
    """A converged one, restricted or unrestricted, and its matrices; of the latter α and β on a leading axis.

    Attributes:
        mf: PySCF's object; its levels and orbitals are those of `fock`.
        fock, overlap: (nao, nao), F of the converged density.
        iterations: densities and the Fock matrices made of them, in order, where they were asked for.
    """

    mf: Any
    fock: np.ndarray
    overlap: np.ndarray
    iterations: Sequence[tuple[np.ndarray, np.ndarray]]

    @functools.cached_property
    def density(self) -> np.ndarray:
        """P, (nao, nao) or (2, nao, nao)."""
        return np.asarray(self.mf.make_rdm1())

    @property
    def total_density(self) -> np.ndarray:
        """Of both spins, (nao, nao)."""
        return self.density if self.density.ndim == 2 else self.density.sum(axis=0)

    @property
    def charges(self) -> np.ndarray:
        """Of the nuclei outside effective cores, (natm,)."""
        return np.asarray(self.mf.mol.atom_charges(), float)

    @property
    def members(self) -> np.ndarray:
        """(natm, nao) 1 where an AO is on an atom."""
        ranges = self.mf.mol.aoslice_by_atom()[:, 2:]
        place = np.arange(self.mf.mol.nao)
        return ((place >= ranges[:, :1]) & (place < ranges[:, 1:])).astype(float)

    def spins(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Levels, orbitals and occupations of each spin; of a closed shell once."""
        mf = self.mf
        if np.ndim(mf.mo_occ) == 1:
            return [(mf.mo_energy, mf.mo_coeff, mf.mo_occ)]
        return list(zip(mf.mo_energy, mf.mo_coeff, mf.mo_occ, strict=True))


def _uncoupled(own: Calculation) -> np.ndarray:
    if np.ndim(own.mf.mo_occ) == 1:
        return uncoupled_polarizability(own.mf)
    position, total = own.mf.mol.intor_symmetric("int1e_r"), np.zeros((3, 3))
    for energies, orbitals, occupations in own.spins():
        occupied = occupations > 0
        transition = np.einsum("xpq,pi,qa->xia", position, orbitals[:, occupied], orbitals[:, ~occupied])
        gaps = energies[None, ~occupied] - energies[occupied, None]
        total += 2 * np.einsum("xia,yia->xy", transition / gaps, transition)
    return total


def _coupled(own: Calculation) -> np.ndarray:
    """−dμ/dE with relaxed orbitals: coupled perturbed Hartree–Fock or Kohn–Sham equations."""
    from pyscf.scf import cphf, ucphf

    mf = own.mf
    position = mf.mol.intor_symmetric("int1e_r")
    spins = own.spins()
    parts = [(c[:, o > 0], c[:, o == 0]) for _, c, o in spins]
    right = [np.einsum("xpq,pa,qi->xai", position, virtual, occupied) for occupied, virtual in parts]
    factor = 2 if len(spins) == 1 else 1
    response = mf.gen_response(hermi=1)
    sizes = [r[0].size for r in right]

    def induced(flat: np.ndarray) -> np.ndarray:
        """Change of F between virtual and occupied orbitals by orbital changes, (any number, rotations)."""
        blocks = np.split(flat.reshape(-1, sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
        densities = []
        for block, (occupied, virtual) in zip(blocks, parts, strict=True):
            change = block.reshape(-1, virtual.shape[1], occupied.shape[1])
            half = factor * np.einsum("pa,xai,qi->xpq", virtual, change, occupied)
            densities.append(half + half.transpose(0, 2, 1))
        potential = response(densities[0] if len(spins) == 1 else np.stack(densities))
        potentials = [potential] if len(spins) == 1 else list(potential)
        changes = [
            np.einsum("xpq,pa,qi->xai", v, virtual, occupied).reshape(len(v), -1)
            for v, (occupied, virtual) in zip(potentials, parts, strict=True)
        ]
        return np.concatenate(changes, axis=1)

    options = {"max_cycle": 50, "tol": 1e-9}
    if len(spins) == 1:
        solved = [cphf.solve(induced, spins[0][0], spins[0][2], right[0], **options)[0]]
    else:
        energies, occupations = ([s[i] for s in spins] for i in (0, 2))
        solved = ucphf.solve(induced, energies, occupations, right, **options)[0]
    shares = [np.einsum("xai,yai->xy", r, u.reshape(r.shape)) for r, u in zip(right, solved, strict=True)]
    return -2.0 * factor * np.sum(np.stack(shares), axis=0)


def _mulliken(own: Calculation) -> np.ndarray:
    return own.charges - own.members @ np.einsum("pq,qp->p", own.total_density, own.overlap)


def _lowdin(own: Calculation) -> np.ndarray:
    values, vectors = np.linalg.eigh(own.overlap)
    root = (vectors * np.sqrt(values)) @ vectors.T
    return own.charges - own.members @ np.einsum("pq,qr,rp->p", root, own.total_density, root)


def _mayer(own: Calculation) -> np.ndarray:
    products = own.density @ own.overlap
    orders = products * np.swapaxes(products, -1, -2)
    if orders.ndim == 3:
        orders = 2 * orders.sum(axis=0)
    bonds = own.members @ orders @ own.members.T
    return bonds - np.diag(np.diag(bonds))


def _quadrupole(own: Calculation) -> np.ndarray:
    mol = own.mf.mol
    second = mol.intor("int1e_rr").reshape(3, 3, mol.nao, mol.nao)
    places = mol.atom_coords()
    moments = np.einsum("a,ax,ay->xy", own.charges, places, places)
    moments -= np.einsum("xypq,qp->xy", second, own.total_density)
    return (3 * moments - np.trace(moments) * np.eye(3)) / 2


QUANTITIES: Mapping[str, Callable[[Calculation], Any]] = {
    "energy": lambda own: own.mf.e_tot,
    "mo_energies": lambda own: own.mf.mo_energy,
    "dipole": lambda own: own.mf.dip_moment(dm=own.density, unit="AU", verbose=0),
    "quadrupole": _quadrupole,
    "polarizability": _uncoupled,
    "coupled_polarizability": _coupled,
    "mulliken_charges": _mulliken,
    "lowdin_charges": _lowdin,
    "mayer_bond_orders": _mayer,
    "forces": lambda own: -own.mf.nuc_grad_method().set(verbose=0).kernel(),
    "fock": lambda own: own.fock,
    "overlap": lambda own: own.overlap,
    "density": lambda own: own.density,
    "kinetic": lambda own: own.mf.mol.intor_symmetric("int1e_kin"),
    "core_hamiltonian": lambda own: own.mf.get_hcore(),
    "orbitals": lambda own: own.mf.mo_coeff,
    "scf_densities": lambda own: np.stack([density for density, _ in own.iterations]),
    "scf_focks": lambda own: np.stack([fock for _, fock in own.iterations]),
}
"""What can be stored, in atomic units: dipole and quadrupole (traceless) about the origin of the coordinates,
polarizability without and with the response of F, orbitals as columns of C, and of every iteration of the SCF the
density and the Fock matrix made of it."""
OF_ITERATIONS = ("scf_densities", "scf_focks")


def require_quantities(name: str, quantities: Iterable[str]) -> None:
    """Raise InputError unless all of `quantities`, the argument `name`, can be stored."""
    if unknown := [key for key in quantities if key not in QUANTITIES]:
        raise InputError(f"{name} has {unknown[0]!r}; give some of {', '.join(QUANTITIES)}.")


def reference_labels(
    molecule: Molecule,
    basis: BasisTable,
    xc: str = "b3lyp",
    *,
    quantities: Sequence[str] = OBSERVED,
    density_fit: bool = False,
    grid_level: int = 3,
    unrestricted: bool = False,
) -> dict[str, np.ndarray]:
    """Kohn–Sham labels; xc="hf" gives Hartree–Fock. Open shells are unrestricted.

    Args:
        molecule: of any charge and spin.
        basis: a name, or a dict as in `load_basis`.
        xc: functional, by PySCF's name.
        quantities: of QUANTITIES.
        density_fit: with the auxiliary basis that PySCF takes for one of this name.
        grid_level: of PySCF, 0 to 9.
        unrestricted: closed shells too.

    Returns:
        The quantities, in PySCF's AO order. Levels, orbitals and all that follows are those of the F that is stored.

    Raises:
        InputError: PySCF does not know the functional; a quantity is none of QUANTITIES.
        RuntimeError: the calculation does not converge, even with the second-order solver.
    """
    require_quantities("quantities", quantities)
    mf = mean_field(molecule, basis, xc, unrestricted or bool(molecule.spin))
    if hasattr(mf, "grids"):
        mf.grids.level = grid_level
    if density_fit:
        mf = mf.density_fit(auxbasis=auxiliary_basis(mf.mol, basis, xc))
        mf.with_df.build()  # or PySCF integrates anew for every Coulomb matrix when there is no exchange
    mf.conv_tol = CONVERGENCE
    iterations: list[tuple[np.ndarray, np.ndarray]] = []
    if set(quantities) & set(OF_ITERATIONS):
        mf.callback = _recorder(iterations)
    return labels_of(converged(mf, f"{xc}/{shown(basis)} of {molecule.formula}"), quantities, iterations)


def auxiliary_basis(mol: Any, basis: BasisTable, xc: str) -> Any:
    """What PySCF fits densities with where the basis is given by its name: "def2-svp" has one made for it.

    Args:
        mol: built of exponents and coefficients, which PySCF does not know by name.
        basis: a name, or names and shells by element.
        xc: functional, or "hf".
    """
    from pyscf import df, gto
    from pyscf.df.addons import predefined_auxbasis

    named, symbols = mol.copy(), {mol.atom_pure_symbol(i) for i in range(mol.natm)}
    if isinstance(basis, str):
        named.basis = basis
        found = predefined_auxbasis(named, basis, "HF" if xc.lower() == "hf" else xc)
        if found is None:
            return df.make_auxbasis(named)
        functions = df.aug_etb(mol)  # where the table lacks an element, at which PySCF would end
        own = {symbol: _tabulated(found, symbol) for symbol in symbols}
        return functions | {symbol: shells for symbol, shells in own.items() if shells is not None}
    entries = {symbol: basis_entry(basis, gto.charge(symbol)) for symbol in symbols}
    named.basis = {symbol: entry if isinstance(entry, str) else mol._basis[symbol] for symbol, entry in entries.items()}
    return df.make_auxbasis(named)


@functools.cache
def _tabulated(name: str, symbol: str) -> Any:
    """What PySCF has of an element under the name of a basis; None where it has nothing."""
    from pyscf import gto
    from pyscf.gto.basis import BasisNotFoundError

    def load() -> Any:
        try:
            return gto.basis.load(name, symbol)
        except BasisNotFoundError:
            return None

    with ThreadPoolExecutor(1) as thread:  # its error would keep the frames that called it, and the SCF in them
        return thread.submit(load).result()


def labels_of(
    mf: Any, quantities: Sequence[str] = OBSERVED, iterations: Sequence[tuple[np.ndarray, np.ndarray]] = ()
) -> dict[str, np.ndarray]:
    """Labels of a converged calculation that is there: RHF, RKS, UHF or UKS.

    Levels and orbitals of `mf` become those of its F, for PySCF's last F is built after its last ε and C.

    Args:
        mf: PySCF's object.
        quantities: of QUANTITIES.
        iterations: densities and Fock matrices of the SCF, see `Calculation`.

    Raises:
        InputError: `mf` is not converged, complex, restricted open-shell or periodic; a quantity is none of QUANTITIES.
    """
    require_quantities("quantities", quantities)
    if len(iterations) == 0 and (lacking := set(quantities) & set(OF_ITERATIONS)):
        raise InputError(f"quantities has {min(lacking)!r}, but mf keeps no iterations; use reference_labels.")
    occupations = np.asarray(mf.mo_occ if mf.mo_occ is not None else [])
    shell = (occupations.ndim == 1 and np.isin(occupations, (0, 2)).all()) or np.isin(occupations, (0, 1)).all()
    if not mf.converged or not shell or hasattr(mf, "kpt") or np.iscomplexobj(mf.mo_coeff):
        raise InputError(
            f"mf is {type(mf).__name__} with converged={mf.converged}; give a real, converged RHF, RKS, UHF or UKS of "
            "a molecule, with whole occupations."
        )
    fock, overlap = np.asarray(mf.get_fock()), np.asarray(mf.get_ovlp())
    mf.mo_energy, mf.mo_coeff = mf.eig(fock, overlap)
    own = Calculation(mf, fock, overlap, iterations)
    return {key: np.asarray(QUANTITIES[key](own)) for key in quantities}


def _recorder(iterations: list[tuple[np.ndarray, np.ndarray]]) -> Callable[[dict[str, Any]], None]:
    """A callback of PySCF's SCF, at whose call `dm` is new and `vhf` is made of it."""

    def record(state: dict[str, Any]) -> None:
        iterations.append((np.array(state["dm"]), np.asarray(state["h1e"] + state["vhf"])))

    return record


def method_description(
    basis: BasisTable,
    xc: str,
    elements: Iterable[int],
    *,
    density_fit: bool = False,
    grid_level: int = 3,
    unrestricted: bool = False,
) -> dict[str, Any]:
    """How `reference_labels` makes labels, as JSON can hold it: two files with equal descriptions have equal labels.

    The functional is given by the numbers and factors of its parts in libxc and its share of exact exchange: names are
    ambiguous, B3LYP has one of two correlation functionals (VWN5 or VWN-RPA). The basis is given by its exponents and
    coefficients.
    """
    import pyscf

    own: dict[str, Any] = {"program": "PySCF", "version": pyscf.__version__}
    if xc.lower() != "hf":
        own["grid_level"] = grid_level
    return {
        **stated_method(xc, basis, elements),
        **own,
        "reference": "unrestricted" if unrestricted else "restricted, of open shells unrestricted",
        "density_fitting": AUXILIARY if density_fit else None,
        "convergence_hartree": CONVERGENCE,
    }


def stated_method(xc: str, basis: BasisTable, elements: Iterable[int]) -> dict[str, Any]:
    """What is known of labels of any program: the functional, and the functions that the basis has here.

    The functional has its definition where PySCF is installed and knows it.
    """
    functions = {}
    for z in sorted({int(z) for z in elements} - {0}):
        shells, core = element_basis(basis, z)
        rows = [[int(l), *np.asarray(primitives, float).tolist()] for l, *primitives in shells]
        functions[str(z)] = {"core_electrons": core, "shells": rows}
    stated = {"xc": xc, "basis": shown(basis), "ao_order": "pyscf", "units": "atomic units"}
    return stated | _definition(xc) | {"basis_functions": functions}


def _definition(xc: str) -> dict[str, Any]:
    """Of a functional, by its parts in libxc."""
    try:
        from pyscf.dft import dft_parser, libxc
    except ImportError:
        return {}
    if xc.lower() == "hf":
        return {}
    try:
        name, _, dispersion = dft_parser.parse_dft(xc)
        _, terms = libxc.parse_xc(name)
        return {
            "functional": [[int(number), float(factor)] for number, factor in terms],
            "exact_exchange": float(libxc.hybrid_coeff(name)),
            "range_separation": [float(x) for x in libxc.rsh_coeff(name)],
            "dispersion": str(dispersion) if dispersion else None,
            "libxc_version": str(libxc.__version__),
        }
    except (KeyError, ValueError, NotImplementedError):  # a name of another program's
        return {}
