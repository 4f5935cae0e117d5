"""Gaussian basis sets: any name that basis-set-exchange knows, or a dict in PySCF's format."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.conventions import SHELL_LETTERS, cartesian_powers, function_count

ShellList = Sequence[Sequence[Any]]
"""PySCF's format: [[l, [exponent, coefficient, ...], ...], ...]; coefficients of normalised primitives."""

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
        numbers: (natm,) atomic numbers; 0 for padding.
        nuclear_charges: (natm,) atomic numbers minus the electrons of an effective core potential, where the basis
            is made for one; the semi-local part of the potential is not included.
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

    def shell_angular_momenta(self) -> list[int]:
        """l of each shell in AO order, without padding."""
        first = (np.asarray(self.ao_m) == 0) & np.asarray(self.ao_mask)
        return [int(l) for l in np.asarray(self.ao_l)[first]]

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
        """(natm, 2) first AO of each real atom and the one after its last."""
        atoms = np.asarray(self.ao_atom)[np.asarray(self.ao_mask)]
        count = int(np.sum(np.asarray(self.numbers) > 0))
        return np.stack([np.searchsorted(atoms, range(count), side) for side in ("left", "right")], axis=1)


def load_basis(
    name_or_dict: str | Mapping[str, str | ShellList], numbers: Sequence[int] | np.ndarray, *, cartesian: bool = False
) -> Basis:
    """A basis on atoms.

    Heavy elements of the def2 sets come with an effective core potential: `Basis.nuclear_charges` are then the atomic
    numbers minus the core electrons, and the semi-local part of the potential is not included.

    Args:
        name_or_dict: a name of basis-set-exchange ("def2-SVP"), or a dict from chemical symbols to such names or to
            shells in PySCF's format.
        numbers: (natm,) atomic numbers.
        cartesian: Cartesian functions (6 d, 10 f, …) in place of spherical ones.

    Raises:
        InputError: the name is unknown, an element is not covered, or l is above MAX_L.
    """
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"numbers is {numbers.tolist()}, expected a list of atomic numbers.")
    data = {int(z): element_basis(name_or_dict, int(z)) for z in dict.fromkeys(numbers.tolist())}
    lmax = max(l for shells, _ in data.values() for l, *_ in shells)
    groups = [_shells_of(l, numbers, {z: shells for z, (shells, _) in data.items()}) for l in range(lmax + 1)]
    element_shells = {z: [int(s[0]) for s in shells for _ in s[1][1:]] for z, (shells, _) in data.items()}
    layout = _ao_layout(numbers, element_shells, cartesian)
    core = np.array([data[z][1] for z in numbers.tolist()])
    charges, exponents = _screening(numbers)
    return Basis(
        shells=tuple(group for group in groups if len(group.coefficients)),
        **layout,
        ao_mask=np.ones(len(layout["grouped_index"]), dtype=bool),
        numbers=numbers,
        nuclear_charges=(numbers - core).astype(float),
        screening_charges=charges,
        screening_exponents=exponents,
        cartesian=cartesian,
    )


def element_basis(name_or_dict: str | Mapping[str, str | ShellList], number: int) -> tuple[ShellList, int]:
    """Shells of one element in PySCF's format, sorted by l, and the number of core electrons of its ECP."""
    from ase.data import chemical_symbols

    if not 1 <= number < len(chemical_symbols):
        raise InputError(f"numbers contains {number}, expected atomic numbers from 1 to {len(chemical_symbols) - 1}.")
    symbol = chemical_symbols[number]
    if isinstance(name_or_dict, str):
        return _exchange_basis(name_or_dict, number)
    if symbol not in name_or_dict:
        raise InputError(f"basis has no entry for {symbol}; it covers {', '.join(name_or_dict)}: add {symbol!r}.")
    entry = name_or_dict[symbol]
    if isinstance(entry, str):
        return _exchange_basis(entry, number)
    if not entry:
        raise InputError(f"basis has no shells for {symbol}; give at least one, [l, [exponent, coefficient], ...].")
    for shell in entry:
        _check_shell(symbol, shell)
    return sorted(entry, key=lambda shell: shell[0]), 0


def _check_shell(symbol: str, shell: Sequence[Any]) -> None:
    l, rows = shell[0], shell[1:]
    form = "[l, [exponent, coefficient, ...], ...]"
    if not rows or not all(isinstance(row, Sequence) and len(row) == len(rows[0]) > 1 for row in rows):
        raise InputError(f"basis of {symbol} has the shell {list(shell)}; its form is {form}, with rows of one length.")
    exponents, coefficients = np.array(rows, dtype=float)[:, 0], np.array(rows, dtype=float)[:, 1:]
    merged = [coefficients[exponents == exponent].sum(axis=0) for exponent in np.unique(exponents)]
    if not (np.isfinite(rows).all() and (exponents > 0).all() and np.any(merged, axis=0).all()):
        raise InputError(
            f"basis of {symbol}, l = {l}, has the shell {list(shell)}; exponents have to be positive, and contractions "
            "must not vanish."
        )


@functools.cache
def _exchange_basis(name: str, number: int) -> tuple[ShellList, int]:
    import basis_set_exchange as bse
    from ase.data import chemical_symbols

    if name.lower() not in (known.lower() for known in bse.get_all_basis_names()):
        import difflib

        known = {n.lower(): n for n in bse.get_all_basis_names()}
        near = [known[n] for n in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"basis {name!r} is not known to basis-set-exchange{hint}")
    try:
        element = bse.get_basis(name, elements=[number])["elements"][str(number)]
    except KeyError:
        covered = [chemical_symbols[int(z)] for z in bse.get_basis(name)["elements"]]
        raise InputError(
            f"basis {name!r} does not cover {chemical_symbols[number]}; it covers {', '.join(covered)}: choose another."
        ) from None
    shells: list[list[Any]] = []
    for shell in element["electron_shells"]:
        exponents = [float(x) for x in shell["exponents"]]
        columns = [[float(x) for x in column] for column in shell["coefficients"]]
        ls = shell["angular_momentum"]
        if len(ls) == 1:
            shells.append([ls[0], *([e, *c] for e, *c in zip(exponents, *columns, strict=True))])
        else:  # one column per l, as in Pople's SP shells
            shells += [
                [l, *([e, c] for e, c in zip(exponents, column, strict=True))]
                for l, column in zip(ls, columns, strict=True)
            ]
    return sorted(shells, key=lambda shell: shell[0]), int(element.get("ecp_electrons", 0))


def _screening(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charges and exponents (natm, nscreen) of the Gaussian fits of free atoms."""
    fits = [_exchange_basis("sap_grasp_small", z)[0][0][1:] for z in numbers.tolist()]
    charges, exponents = np.zeros((2, len(fits), max(map(len, fits))))
    exponents += 1.0
    for atom, fit in enumerate(fits):
        exponents[atom, : len(fit)], charges[atom, : len(fit)] = np.array(fit).T
    return charges, exponents


def primitive_norm(l: int, exponent: np.ndarray) -> np.ndarray:
    """N with N² ∫ r^{2l+2} exp(−2α r²) dr = 1."""
    return 1 / np.sqrt(_radial_integral(l, 2 * exponent))


def _radial_integral(l: int, exponent: np.ndarray) -> np.ndarray:
    """∫₀^∞ r^{2l+2} exp(−α r²) dr."""
    return math.gamma(l + 1.5) / (2 * exponent ** (l + 1.5))


def _contractions(l: int, shells: ShellList) -> tuple[np.ndarray, np.ndarray]:
    """Unique exponents (nprim,) of one l and normalised coefficients (nshl, nprim)."""
    chosen = [shell for shell in shells if shell[0] == l]
    exponents = np.array(sorted({row[0] for shell in chosen for row in shell[1:]}, reverse=True))
    rows = []
    for shell in chosen:
        for column in range(1, len(shell[1])):
            row = np.zeros(len(exponents))
            for primitive in shell[1:]:
                row[np.argmax(exponents == primitive[0])] += primitive[column]
            rows.append(row)
    coefficients = np.array(rows).reshape(len(rows), len(exponents)) * primitive_norm(l, exponents)
    metric = _radial_integral(l, exponents[:, None] + exponents[None, :])
    norms = np.sqrt(np.einsum("si,ij,sj->s", coefficients, metric, coefficients))
    return exponents, coefficients / norms[:, None]


def _shells_of(l: int, numbers: np.ndarray, data: Mapping[int, ShellList]) -> Shells:
    if l > MAX_L:
        raise InputError(f"basis has l = {l}; integrals are implemented up to l = {MAX_L}.")
    elements = {z: _contractions(l, shells) for z, shells in data.items()}
    parts = [elements[z] for z in numbers.tolist()]
    coefficients = np.zeros((sum(len(c) for _, c in parts), sum(len(e) for e, _ in parts)))
    row = column = 0
    for _, block in parts:
        coefficients[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    atom = np.repeat(np.arange(len(numbers)), [len(e) for e, _ in parts])
    return Shells(l, atom, np.concatenate([e for e, _ in parts]), coefficients)


def _ao_layout(
    numbers: np.ndarray, element_shells: Mapping[int, Sequence[int]], cartesian: bool
) -> dict[str, np.ndarray]:
    """Atom, l, shell and component of each AO, and its place when sorted by l (stable)."""
    rows = [
        (atom, l, element_shells[z][:i].count(l), m)
        for atom, z in enumerate(numbers.tolist())
        for i, l in enumerate(element_shells[z])
        for m in range(function_count(l, cartesian))
    ]
    atom, l, shell, m = np.array(rows).T
    grouped_index = np.empty(len(rows), dtype=int)
    grouped_index[np.argsort(l, kind="stable")] = np.arange(len(rows))
    return {"grouped_index": grouped_index, "ao_atom": atom, "ao_l": l, "ao_shell": shell, "ao_m": m}
