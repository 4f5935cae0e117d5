"""Labels of other programs: their AO order is found by the overlap, which is made again here, or they are refused."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from vpotjax._basis_tables import exchange_element
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.batching import Batch, buckets, map_batch, pad_batch
from vpotjax.conventions import AO_ORDERS, ao_transform, fitting_ao_orders, function_count, reorder_ao
from vpotjax.integrals.kinetic import kinetic
from vpotjax.integrals.multipole import position_integrals
from vpotjax.integrals.nuclear_attraction import screened_potential
from vpotjax.integrals.overlap import overlap
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule

OF_AOS = ("fock", "overlap", "density", "kinetic", "core_hamiltonian")
"""Labels with two axes of AOs."""
WINDOW, CHUNK, SHAPES = 512, 32, 3
"""Molecules that are in memory, molecules of one call, and programs for all of them."""
TIE = 1e-6
"""Relative; F of two orders that are as far from T + SAP as each other."""


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Molecules of a file of others, whose matrices are in an AO order that is still to be found.

    Attributes:
        path: of the file.
        names: of the molecules; geometries of one molecule share it.
        molecules: all of them.
        bases: names in basis-set-exchange.
        labels: of the molecule at a place, by basis and quantity, in atomic units and the file's AO order.
        left_out: what the file has and is not taken.
        xc: functional that the file is published with; None: it does not say.
        order: of the AOs, that the file is published with, see `Layout`; None: found by the overlap.
        tolerance: of overlaps.
    """

    path: Path
    names: Sequence[str]
    molecules: Sequence[Molecule]
    bases: Sequence[str]
    labels: Callable[[int], dict[str, dict[str, Any]]]
    left_out: Sequence[str] = ()
    xc: str | None = None
    order: str | None = None
    tolerance: float = 1e-6

    def chosen(self, rows: Sequence[int]) -> Foreign:
        """Some of the molecules."""
        names, molecules = [self.names[i] for i in rows], [self.molecules[i] for i in rows]
        return dataclasses.replace(self, names=names, molecules=molecules, labels=lambda i: self.labels(rows[i]))

    def where(self, row: int, basis: str) -> str:
        """What messages on labels begin with."""
        return f"{str(self.path)!r}, molecule {self.names[row]!r}, {basis!r}"


class Layout(NamedTuple):
    """An order of AOs: that of the functions of a shell, of AO_ORDERS, and whether shells are as the basis lists them.

    Most programs sort the shells of an atom by l. ORCA, Psi4 and CP2K keep them as they are listed: 6-31G of carbon is
    s s p s p.
    """

    order: str
    listed: bool = False

    def __str__(self) -> str:
        return f"{self.order}-listed" if self.listed else self.order

    @staticmethod
    def named(text: str) -> Layout:
        """By its text, such as "orca" or "orca-listed"."""
        order, _, listed = text.partition("-")
        if order not in AO_ORDERS or listed not in ("", "listed"):
            raise InputError(
                f"order is {text!r}; give one of {', '.join(AO_ORDERS)}, with '-listed' where shells are as the basis "
                "lists them."
            )
        return Layout(order, bool(listed))


LAYOUTS = [Layout(order, listed) for listed in (False, True) for order in AO_ORDERS]


@functools.cache
def _listed(basis: str, number: int) -> tuple[int, ...]:
    """The place of each shell of an element after sorting by l, in the order of its basis."""
    if not number:
        return ()
    ls: list[int] = []
    for shell in exchange_element(basis, number)["electron_shells"]:
        own = shell["angular_momentum"]
        ls += own if len(own) > 1 else own * len(shell["coefficients"])
    return tuple(np.argsort(np.argsort(ls, kind="stable")).tolist())


def sorted_shells(matrix: np.ndarray, molecule: Molecule, basis: str) -> np.ndarray:
    """A matrix (..., nao, nao) with the shells of each atom sorted by l, from one where they are as the basis lists."""
    shells, start, first, order = load_basis(basis, molecule.numbers).shell_angular_momenta(), 0, 0, []
    for number in molecule.numbers.tolist():
        places = _listed(basis, number)
        sizes = [2 * shells[first + place] + 1 for place in places]
        starts = start + np.cumsum([0, *sizes])
        for j in np.argsort(places):
            order += range(starts[j], starts[j + 1])
        start, first = int(starts[-1]), first + len(places)
    return matrix[..., order, :][..., order]


def in_own_order(matrix: np.ndarray, molecule: Molecule, basis: str, layout: Layout) -> np.ndarray:
    """An AO matrix (..., nao, nao) in PySCF's order, shells sorted by l, from one in the order `layout`."""
    own = sorted_shells(matrix, molecule, basis) if layout.listed else matrix
    return reorder_ao(own, load_basis(basis, molecule.numbers).shell_angular_momenta(), layout.order, "pyscf")


class Integrals:
    """Integrals of molecules in one basis, by few programs: "overlap", "position", and "start", which is T + SAP.

    Args:
        molecules: any number.
        basis: name.
        keys: which of them.
    """

    def __init__(self, molecules: Sequence[Molecule], basis: str, keys: Sequence[str] = ("overlap",)) -> None:
        self.molecules, self.basis = molecules, basis
        self.kinds: dict[int, int] = {}
        self.program, self.shapes = _program(tuple(keys)), []
        for kind, (group, shape) in enumerate(buckets(molecules, basis, SHAPES)):
            self.kinds |= dict.fromkeys(map(int, group), kind)
            self.shapes.append(shape)

    def __call__(self, rows: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
        """Of the molecules at these places, without padding."""
        made: dict[int, dict[str, np.ndarray]] = {}
        for kind, shape in enumerate(self.shapes):
            group = [row for row in rows if self.kinds[row] == kind]
            for start in range(0, len(group), CHUNK):
                own = group[start : start + CHUNK]
                filled = own + own[-1:] * (min(CHUNK, len(self.molecules)) - len(own))
                batch = pad_batch([self.molecules[i] for i in filled], self.basis, shape)
                values = {key: np.asarray(value) for key, value in self.program(batch).items()}
                for place, row in enumerate(own):
                    real = np.flatnonzero(np.asarray(batch.basis.ao_mask)[place])
                    made[row] = {key: value[place][..., real, :][..., real] for key, value in values.items()}
        return made


@functools.cache
def _program(keys: tuple[str, ...]) -> Callable[[Batch], dict[str, jax.Array]]:
    return jax.jit(functools.partial(map_batch, functools.partial(_integrals, keys)))


def _integrals(keys: Sequence[str], one: Batch) -> dict[str, jax.Array]:
    basis, positions = one.basis, one.positions
    makers: dict[str, Callable[[], jax.Array]] = {
        "overlap": lambda: overlap(basis, positions),
        "position": lambda: position_integrals(basis, positions, jnp.zeros(3)),
        "start": lambda: kinetic(basis, positions) + screened_potential(basis, positions),
    }
    return {key: makers[key]() for key in keys}


def found_layout(source: Foreign, order: str | None = None) -> str | None:
    """The order of all matrices of a file; None where it has none.

    Found by the overlaps; without them F has to be nearer to T + SAP, the superposition of atomic potentials, than in
    any other order. Only as many molecules are looked at as tell orders apart. Orders that are the same for the
    functions of the file are joined by "or".

    Args:
        source: the file.
        order: as it is stated; it is taken without a look.

    Raises:
        InputError: an overlap fits in no order (it names the shells that differ); molecules are in different orders;
            orders cannot be told apart.
    """
    stated = order or source.order
    if stated is not None:
        return str(Layout.named(stated))
    elements = sorted({int(z) for molecule in source.molecules for z in molecule.numbers})
    first = [source.labels(row) for row in range(min(WINDOW, len(source.molecules)))]
    bases = [basis for basis in source.bases if any(set(own.get(basis, {})) & set(OF_AOS) for own in first)]
    if not bases:
        return None
    candidates = LAYOUTS
    for row, basis, own, made in _with_integrals(source, ("overlap", "start")):
        if not set(own) & set(OF_AOS):
            continue
        fitting = _fitting(source, row, basis, own, made)
        candidates, before = [c for c in candidates if c in fitting], candidates
        if not candidates:
            raise InputError(
                f"{source.where(row, basis)}: AOs are in the order of {fitting[0]}, but those before in that of "
                f"{before[0]}; take the molecule out."
            )
        if _alike(candidates, bases, elements):
            return _joined(candidates)
    raise InputError(
        f"{str(source.path)!r}: matrices fit in several AO orders, {', '.join(map(str, candidates))}; state the order."
    )


def _joined(candidates: Sequence[Layout]) -> str:
    plain = [c for c in candidates if not c.listed] or candidates
    return "pyscf" if Layout("pyscf") in plain else " or ".join(map(str, plain))


def _alike(candidates: Sequence[Layout], bases: Sequence[str], elements: Sequence[int]) -> bool:
    """Whether layouts are one for all functions of some elements."""
    functions = [load_basis(basis, [z]) for basis in bases for z in elements]
    ls = {l for own in functions for l in own.shell_angular_momenta()}
    orders = {c.order for c in candidates}
    same = all(np.allclose(ao_transform(l, a), ao_transform(l, b)) for l in ls for a in orders for b in orders)
    mixed = len({c.listed for c in candidates}) > 1
    return same and not (mixed and any(list(_listed(b, z)) != sorted(_listed(b, z)) for b in bases for z in elements))


def _with_integrals(
    source: Foreign, keys: Sequence[str]
) -> Iterator[tuple[int, str, dict[str, Any], dict[str, np.ndarray]]]:
    """Place, basis, labels and integrals of each molecule; integrals only where there are matrices.

    T + SAP, the dearest of them, is made only for files without overlaps.
    """
    programs: dict[str, Integrals] = {}
    for start in range(0, len(source.molecules), WINDOW):
        rows = range(start, min(start + WINDOW, len(source.molecules)))
        window = {row: source.labels(row) for row in rows}
        for basis in source.bases:
            with_matrices = [row for row in rows if set(window[row].get(basis, {})) & set(OF_AOS)]
            for row in with_matrices:
                _require_sizes(source, row, basis, window[row][basis])
            made: dict[int, dict[str, np.ndarray]] = {}
            if with_matrices:
                if basis not in programs:
                    bare = any("overlap" not in window[row][basis] for row in with_matrices)
                    own = tuple(key for key in keys if key != "start" or bare)
                    programs[basis] = Integrals(source.molecules, basis, own)
                made = programs[basis](with_matrices)
            for row in rows:
                yield row, basis, window[row].get(basis, {}), made.get(row, {})


def _require_sizes(source: Foreign, row: int, basis: str, labels: Mapping[str, Any]) -> None:
    for key in [key for key in OF_AOS if key in labels]:
        require_size(source.where(row, basis), key, np.shape(labels[key]), source.molecules[row], basis)


def require_size(where: str, key: str, shape: tuple[int, ...], molecule: Molecule, basis: str) -> None:
    """Raise InputError unless the last two axes are of all functions; Cartesian ones are named."""
    functions = load_basis(basis, molecule.numbers)
    if shape[-2:] == (functions.nao, functions.nao):
        return
    cartesian = sum(function_count(l, cartesian=True) for l in functions.shell_angular_momenta())
    why = "which Cartesian ones would fit; compute it with spherical ones" if shape[-1:] == (cartesian,) else ""
    why = why or "state the basis that it is of"
    raise InputError(f"{where}: {key} has shape {shape}, but {basis!r} has {functions.nao} functions; {why}.")


def _fitting(
    source: Foreign, row: int, basis: str, labels: Mapping[str, Any], made: Mapping[str, np.ndarray]
) -> list[Layout]:
    """All layouts in which the matrices of a molecule can be."""
    molecule = source.molecules[row]
    if "overlap" in labels:
        found, where = np.asarray(labels["overlap"], float), source.where(row, basis)
        return fitting_layouts(where, molecule, basis, found, made["overlap"], source.tolerance)
    if "fock" not in labels or "start" not in made:
        raise InputError(
            f"{source.where(row, basis)}: without an overlap the AO order cannot be found; state the order, or add "
            "overlap."
        )
    focks = np.asarray(labels["fock"], float)
    errors = [np.linalg.norm(in_own_order(focks, molecule, basis, layout) - made["start"]) for layout in LAYOUTS]
    return [layout for layout, error in zip(LAYOUTS, errors, strict=True) if error <= (1 + TIE) * min(errors)]


def fitting_layouts(
    where: str, molecule: Molecule, basis: str, found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-6
) -> list[Layout]:
    """All layouts in which an overlap equals the one that is made here.

    Raises:
        InputError: in none; names the shells that differ.
    """
    require_size(where, "overlap", found.shape, molecule, basis)
    functions = load_basis(basis, molecule.numbers)
    shells, atoms = functions.shell_angular_momenta(), functions.shell_atoms()
    layouts: list[Layout] = []
    refusals = []
    for listed, matrix in ((False, found), (True, sorted_shells(found, molecule, basis))):
        try:
            orders = fitting_ao_orders(matrix, expected, shells, atoms, tolerance)
        except InputError as error:
            refusals.append(str(error))
        else:
            layouts += [Layout(order, listed) for order in orders]
    if not layouts:
        raise InputError(f"{where}: {refusals[0]}")
    return layouts


def converted(source: Foreign, layout: str | None) -> Iterator[Sample]:
    """Samples for training in the order of the file, every matrix checked.

    Where there is F of a closed shell, what follows from it is added: overlap, levels, dipole, and uncoupled
    polarizability.

    Args:
        source: the file.
        layout: of `found_layout`; None: no matrices.

    Raises:
        InputError: the matrices of a molecule are not in this order; names the molecule and the shells that differ.
    """
    own_layout = None if layout is None else Layout.named(layout.split(" or ")[0])
    whole: dict[int, dict[str, dict[str, Any]]] = {}
    for row, basis, labels, made in _with_integrals(source, ("overlap", "position", "start")):
        own = dict(labels)
        if made and own_layout is not None:
            fitting = _fitting(source, row, basis, labels, made)
            if own_layout not in fitting:
                by = "overlap is" if "overlap" in labels else "fock, by its distance from T + SAP, is"
                raise InputError(
                    f"{source.where(row, basis)}: order is stated to be {str(own_layout)!r}, but the {by} in that of "
                    f"{str(fitting[0])!r}."
                )
            molecule = source.molecules[row]
            for key in [key for key in OF_AOS if key in own]:
                own[key] = in_own_order(np.asarray(own[key], float), molecule, basis, own_layout)
            own["overlap"] = made["overlap"]  # that of the file may be in single precision
            if "fock" in own and own["fock"].ndim == 2 and not molecule.spin:
                own = _following(own["fock"], molecule, basis, made) | own
        whole.setdefault(row, {})[basis] = own
        if len(whole[row]) == len(source.bases):
            filled = {name: values for name, values in whole.pop(row).items() if values}
            yield Sample(source.names[row], "train", source.molecules[row], filled)


def _following(
    fock: np.ndarray, molecule: Molecule, basis: str, made: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What F of a closed shell decides."""
    functions = load_basis(basis, molecule.numbers)
    levels, orbitals = scipy.linalg.eigh(fock, made["overlap"])
    occupied = np.arange(len(levels)) < molecule.nelec(functions) // 2
    density = 2 * orbitals[:, occupied] @ orbitals[:, occupied].T
    charges = np.asarray(functions.nuclear_charges)
    moment = charges @ molecule.positions - np.einsum("xpq,qp->x", made["position"], density)
    mixed = np.einsum("xpq,pi,qa->xia", made["position"], orbitals[:, occupied], orbitals[:, ~occupied], optimize=True)
    gaps = levels[None, ~occupied] - levels[occupied, None]
    alpha = 4 * np.einsum("xia,yia->xy", mixed / gaps, mixed)
    return {"mo_energies": levels, "dipole": moment, "polarizability": (alpha + alpha.T) / 2}
