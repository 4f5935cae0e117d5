"""Gaussian basis sets: any name that basis-set-exchange knows, or a dict in PySCF's format."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vpotjax._basis_tables import BasisTable, ShellList, basis_entry, checked_shells, element_basis, symbol_of
from vpotjax._checks import InputError, is_concrete
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.conventions import SHELL_LETTERS, cartesian_powers, function_count

Contraction = tuple[int, np.ndarray, np.ndarray]
"""l, exponents (nprim,) in bohr⁻² and coefficients (nprim, nshl) of unnormalised primitives r^l exp(−α r²) Y_lm."""

MAX_L = 5


@pytree
class Shells:
    """All shells of one angular momentum, with the primitives of one atom shared between its contractions.

    Attributes:
        l: angular momentum.
        atom: (nprim,) atom of each primitive.
        exponents: (nprim,) in bohr⁻²; 1 for padding.
        coefficients: (nshl, nprim) of unnormalised primitives r^l exp(−α r²) Y_lm, such that each shell has
            norm one; zero off the shell's atom and for padding.
    """

    l: int = static_field()
    atom: Array
    exponents: Array
    coefficients: Array


@pytree
class Basis:
    """A basis on given atoms; made by `load_basis`, padded by `pad_batch`.

    Attributes:
        shells: per angular momentum, ascending.
        grouped_index: (nao,) where each AO stands when AOs are sorted by l first.
        ao_mask: (nao,) True where an AO is real, False for padding.
        ao_atom, ao_l, ao_shell, ao_m: (nao,) of each AO: atom, l, number of the shell among those of the same atom
            and l, and component (PySCF's order, from 0); −1 for padding.
        numbers: (natm,) atomic numbers; 0 for padding and for ghost atoms, which may carry functions.
        core_electrons: (natm,) electrons of an effective core potential, where the basis is made for one.
        nuclear_charges: (natm,) atomic numbers minus core electrons; the semi-local part of the potential is not
            included.
        screening_charges, screening_exponents: (natm, nscreen) Gaussian charges that screen the nuclei in
            `screened_potential`; charge 0 for padding.
        cartesian: Cartesian functions (6 d, 10 f, …), ordered and scaled as in PySCF, in place of spherical ones.
    """

    shells: tuple[Shells, ...]
    grouped_index: Array
    ao_mask: Array
    ao_atom: Array
    ao_l: Array
    ao_shell: Array
    ao_m: Array
    numbers: Array
    core_electrons: Array
    nuclear_charges: Array
    screening_charges: Array
    screening_exponents: Array
    cartesian: bool = static_field(default=False)

    @property
    def nao(self) -> int:
        """Number of AOs, padding included."""
        return self.grouped_index.shape[-1]

    @property
    def natm(self) -> int:
        """Number of atoms, padding included."""
        return self.numbers.shape[-1]

    def nelec(self, charge: Any = 0) -> Any:
        """Number of electrons that the basis holds for a total charge: Σ (numbers − core electrons) − charge.

        Of a batch (nbatch,); an int where all is known.
        """
        if is_concrete(self.numbers, self.core_electrons, charge):
            charges = np.asarray(charge)  # an array of JAX would be traced where a traced function closes over it
            if np.any(charges != np.round(charges)):
                raise InputError(f"charge is {charge}; give whole numbers.")
            electrons = np.sum(np.asarray(self.numbers) - np.asarray(self.core_electrons), axis=-1) - charges
            return electrons if np.ndim(electrons) else int(electrons)
        return jnp.sum(jnp.asarray(self.numbers) - self.core_electrons, axis=-1) - charge

    def shell_angular_momenta(self) -> list[int]:
        """l of each shell in AO order, without padding."""
        return np.asarray(self.ao_l)[self._first_of_shells()].tolist()

    def shell_atoms(self) -> list[int]:
        """Atom of each shell in AO order, without padding."""
        return np.asarray(self.ao_atom)[self._first_of_shells()].tolist()

    def _first_of_shells(self) -> np.ndarray:
        return (np.asarray(self.ao_m) == 0) & np.asarray(self.ao_mask)

    def ao_labels(self) -> list[str]:
        """One label per real AO, such as "0 C 2px"."""
        from ase.data import chemical_symbols

        names = {0: [""], 1: ["x", "y", "z"], 2: ["xy", "yz", "z^2", "xz", "x2-y2"]}
        labels = []
        for i in np.flatnonzero(np.asarray(self.ao_mask)):
            atom, l, shell, m = (int(np.asarray(a)[i]) for a in (self.ao_atom, self.ao_l, self.ao_shell, self.ao_m))
            if self.cartesian and l > 1:
                component = "".join(axis * int(n) for axis, n in zip("xyz", cartesian_powers(l)[m], strict=True))
            else:
                component = names[l][m] if l in names else f"{m - l:+d}"
            symbol = chemical_symbols[int(np.asarray(self.numbers)[atom])]
            labels.append(f"{atom} {symbol} {shell + l + 1}{SHELL_LETTERS[l]}{component}")
        return labels

    def atom_ao_slices(self) -> np.ndarray:
        """(atoms, 2) first AO and the one after the last, up to the last atom with a nucleus or functions."""
        atoms = np.asarray(self.ao_atom)[np.asarray(self.ao_mask)]
        count = 1 + int(max(atoms.max(), np.flatnonzero(self.numbers).max(initial=0)))
        return np.stack([np.searchsorted(atoms, range(count), side) for side in ("left", "right")], axis=1)


class AtomShells(NamedTuple):
    """Shells of one atom; made by `atom_shells`.

    Attributes:
        order: l of each shell, in AO order.
        ordinals: of each shell, its number among those of the same l.
        contractions: by l, exponents (nprim,) and coefficients (nshl, nprim) of unnormalised primitives.
    """

    order: tuple[int, ...]
    ordinals: tuple[int, ...]
    contractions: dict[int, tuple[np.ndarray, np.ndarray]]


def load_basis(name_or_dict: BasisTable, numbers: Sequence[int] | np.ndarray, *, cartesian: bool = False) -> Basis:
    """A basis on atoms.

    Heavy elements of the def2 sets come with an effective core potential: `Basis.nuclear_charges` are then the atomic
    numbers minus the core electrons, and the semi-local part of the potential is not included.

    Other programs may know other contractions, and other digits, by the same name: for matrices from PySCF take
    `vpotjax.interop.pyscf.from_pyscf`.

    Args:
        name_or_dict: a name of basis-set-exchange ("def2-SVP"), or a dict from chemical symbols or atomic numbers to
            such names or to shells in PySCF's format. Shells alone have no effective core, so all electrons are
            counted: take the name, or `from_pyscf`, for a basis that is made for one.
        numbers: (natm,) atomic numbers; 0 is a place without functions, unless the dict has shells for "X".
        cartesian: Cartesian functions (6 d, 10 f, …) in place of spherical ones.

    Raises:
        InputError: the name is unknown, an element is not covered, a shell is not in PySCF's format, or l is above
            MAX_L.
    """
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"numbers is {numbers.tolist()}, expected a list of atomic numbers.")
    elements = {z: _element_shells(name_or_dict, z) for z in dict.fromkeys(numbers.tolist())}
    shells, core = zip(*(elements[z] for z in numbers.tolist()), strict=True)
    return assemble_basis(numbers, np.array(core), shells, cartesian=cartesian)


def _element_shells(name_or_dict: BasisTable, number: int) -> tuple[AtomShells, int]:
    entry = basis_entry(name_or_dict, number)
    if isinstance(entry, str):
        return _exchange_shells(entry, number)
    return atom_shells(_normalised(checked_shells(symbol_of(number), entry))), 0


@functools.cache
def _exchange_shells(name: str, number: int) -> tuple[AtomShells, int]:
    shells, core = element_basis(name, number)
    return atom_shells(_normalised(shells)), core


def atom_shells(contractions: Iterable[Contraction]) -> AtomShells:
    """Shells of one atom from contractions in AO order; those of one l share their primitives.

    Raises:
        InputError: l is above MAX_L.
    """
    groups: dict[int, list[Contraction]] = {}
    order: list[int] = []
    for contraction in contractions:
        l, coefficients = contraction[0], contraction[2]
        if l > MAX_L:
            raise InputError(f"basis has l = {l}; integrals are implemented up to l = {MAX_L}.")
        groups.setdefault(l, []).append(contraction)
        order += [l] * coefficients.shape[1]
    ordinals = tuple(order[:i].count(l) for i, l in enumerate(order))
    return AtomShells(tuple(order), ordinals, {l: _shared_primitives(group) for l, group in groups.items()})


def _shared_primitives(group: Sequence[Contraction]) -> tuple[np.ndarray, np.ndarray]:
    """Unique exponents (nprim,), largest first, and coefficients (nshl, nprim)."""
    exponents = np.unique(np.concatenate([own for _, own, _ in group]))[::-1]
    blocks = []
    for _, own, coefficients in group:
        block = np.zeros((coefficients.shape[1], len(exponents)))
        for exponent, row in zip(own, coefficients, strict=True):
            block[:, np.argmax(exponents == exponent)] += row
        blocks.append(block)
    return exponents, np.concatenate(blocks)


def assemble_basis(
    numbers: np.ndarray, core_electrons: np.ndarray, atoms: Sequence[AtomShells], *, cartesian: bool = False
) -> Basis:
    """A basis from the shells of each atom.

    Args:
        numbers: (natm,) atomic numbers, 0 for ghosts.
        core_electrons: (natm,) electrons in effective cores.
        atoms: natm, from `atom_shells`; an atom may have none.
        cartesian: as in `load_basis`.

    Raises:
        InputError: no atom has functions.
    """
    ls = sorted({l for atom in atoms for l in atom.contractions})
    if not ls:
        raise InputError(f"basis has no functions on the atoms {numbers.tolist()}; give some to at least one.")
    layout = _ao_layout(atoms, cartesian)
    charges, exponents = _screening(numbers)
    return Basis(
        shells=tuple(_shells_of(l, atoms) for l in ls),
        **layout,
        ao_mask=np.ones(len(layout["grouped_index"]), dtype=bool),
        numbers=numbers,
        core_electrons=core_electrons,
        nuclear_charges=(numbers - core_electrons).astype(float),
        screening_charges=charges,
        screening_exponents=exponents,
        cartesian=cartesian,
    )


def _screening(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charges and exponents (natm, nscreen) of the Gaussian fits of free atoms; a ghost screens nothing."""
    fits = [element_basis("sap_grasp_small", z)[0][0][1:] if z else [] for z in numbers.tolist()]
    charges, exponents = np.zeros((2, len(fits), max(map(len, fits))))
    exponents += 1.0
    for atom, fit in enumerate(fits):
        if fit:
            exponents[atom, : len(fit)], charges[atom, : len(fit)] = np.array(fit).T
    return charges, exponents


def primitive_norm(l: int, exponent: np.ndarray) -> np.ndarray:
    """N with N² ∫ r^{2l+2} exp(−2α r²) dr = 1."""
    return 1 / np.sqrt(_radial_integral(l, 2 * exponent))


def _radial_integral(l: int, exponent: np.ndarray) -> np.ndarray:
    """∫₀^∞ r^{2l+2} exp(−α r²) dr."""
    return math.gamma(l + 1.5) / (2 * exponent ** (l + 1.5))


def _normalised(shells: ShellList) -> list[Contraction]:
    """Contractions of norm one."""
    contractions = []
    for l, *rows in shells:
        exponents, coefficients = np.array(rows)[:, 0], np.array(rows)[:, 1:]
        coefficients = coefficients * primitive_norm(l, exponents)[:, None]
        metric = _radial_integral(l, exponents[:, None] + exponents[None, :])
        norms = np.sqrt(np.einsum("is,ij,js->s", coefficients, metric, coefficients))
        contractions.append((l, exponents, coefficients / norms))
    return contractions


def _shells_of(l: int, atoms: Sequence[AtomShells]) -> Shells:
    parts = [(i, *atom.contractions[l]) for i, atom in enumerate(atoms) if l in atom.contractions]
    coefficients = np.zeros((sum(len(c) for *_, c in parts), sum(len(e) for _, e, _ in parts)))
    row = column = 0
    for *_, block in parts:
        coefficients[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    atom = np.repeat([i for i, *_ in parts], [len(e) for _, e, _ in parts])
    return Shells(l, atom, np.concatenate([e for _, e, _ in parts]), coefficients)


def _ao_layout(atoms: Sequence[AtomShells], cartesian: bool) -> dict[str, np.ndarray]:
    """Atom, l, shell and component of each AO, and its place when sorted by l (stable)."""
    rows = [
        (atom, l, shell, m)
        for atom, shells in enumerate(atoms)
        for l, shell in zip(shells.order, shells.ordinals, strict=True)
        for m in range(function_count(l, cartesian))
    ]
    atom, l, shell, m = np.array(rows).T
    grouped_index = np.empty(len(rows), dtype=int)
    grouped_index[np.argsort(l, kind="stable")] = np.arange(len(rows))
    return {"grouped_index": grouped_index, "ao_atom": atom, "ao_l": l, "ao_shell": shell, "ao_m": m}
