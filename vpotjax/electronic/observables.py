"""Observables of a Fock matrix as a table: what is computed, how it is compared, in which unit it is shown.

| name | what | label |
|---|---|---|
| mo_energies | ε, all levels that both bases have | mo_energies |
| occupied, frontier | ε of occupied levels; of the two highest occupied and the two lowest virtual ones | mo_energies |
| homo_lumo_gap | ε_LUMO − ε_HOMO | mo_energies |
| dipole, quadrupole | μ, Q about the origin of the coordinates | the same |
| polarizability | α, uncoupled | the same |
| lowdin_charges, mayer_bond_orders | q, B | the same |
| energy | of models of properties only: F holds none | the same |

An entry here, with its label in the data set, is all that a new observable needs: losses, metrics, reports, plots,
predictions and the command line go by this table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.electronic.density import density_matrix
from vpotjax.electronic.multipoles import dipole, quadrupole
from vpotjax.electronic.orbitals import Orbitals, orbitals
from vpotjax.electronic.polarizability import dipole_and_polarizability
from vpotjax.electronic.populations import lowdin_charges, mayer_bond_orders
from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.integrals.multipole import second_moment_integrals
from vpotjax.units import HARTREE_TO_EV


@pytree
class OrbitalSpace:
    """What observables need of a molecule beside F.

    Attributes:
        overlap: S, (nao, nao).
        position: r about the origin of the coordinates, (3, nao, nao), bohr.
        positions: (natm, 3), bohr.
        nelec: () electrons that the basis holds.
        basis: of F.
    """

    overlap: Array
    position: Array
    positions: Array
    nelec: Array
    basis: Basis

    @property
    def ao_mask(self) -> jax.Array:
        """(nao,) True where an AO is real."""
        return jnp.asarray(self.basis.ao_mask)


@pytree
class Reference:
    """Labels of one molecule, to compare with.

    Attributes:
        values: by label, such as "mo_energies" (nao,), 0 where there is none, "dipole" (3,); also "fock" and "density",
            (nao, nao), where a loss needs them.
        level_mask: (nao,) True where levels are compared: both bases have one, and so has the small basis of the
        labels. natm: () number of atoms.
        nelec: () number of electrons in the basis of the model, even.
    """

    values: Mapping[str, Array]
    level_mask: Array
    natm: Array
    nelec: Array


class Solution:
    """Observables of one Fock matrix; what several of them share, the eigenproblem first of all, is computed once."""

    def __init__(self, fock: Array, space: OrbitalSpace, max_occupied: int | None = None) -> None:
        self.matrix, self.space, self.max_occupied = fock, space, max_occupied

    @functools.cached_property
    def orbitals(self) -> Orbitals:
        """See `vpotjax.orbitals`."""
        space = self.space
        return orbitals(self.matrix, space.overlap, space.nelec, space.ao_mask, max_occupied=self.max_occupied)

    @functools.cached_property
    def density(self) -> jax.Array:
        """P, (nao, nao)."""
        return self.orbitals.density

    @functools.cached_property
    def mo_energies(self) -> jax.Array:
        """ε, (nao,), infinite for padding."""
        return jnp.asarray(self.orbitals.mo_energies)[0]

    @functools.cached_property
    def _moments(self) -> tuple[jax.Array, jax.Array]:
        space = self.space
        return dipole_and_polarizability(self.orbitals, space.position, space.positions, space.basis.nuclear_charges)

    @property
    def dipole(self) -> jax.Array:
        """μ, (3,), e·bohr."""
        return self._moments[0]

    @property
    def polarizability(self) -> jax.Array:
        """α, (3, 3), bohr³."""
        return self._moments[1]

    def observable(self, name: str) -> jax.Array:
        """By its name in OBSERVABLES, in atomic units.

        Raises:
            InputError: there is no such observable of a Fock matrix.
        """
        compute = known_observable(name).compute
        if compute is None:
            raise InputError(f"observable is {name!r}, which a Fock matrix does not hold; train a model of a property.")
        return compute(self)


class DensitySolution(Solution):
    """Of a predicted P: observables of the density of its most occupied natural orbitals, which is idempotent."""

    @functools.cached_property
    def orbitals(self) -> Orbitals:
        """A density has no orbital energies."""
        raise InputError("the model predicts P, which has no orbital energies; train one whose target is 'fock'.")

    @functools.cached_property
    def density(self) -> jax.Array:
        """P, (nao, nao), with tr PS = nelec and PSP = 2P."""
        space = self.space
        occupation = space.overlap @ self.matrix @ space.overlap
        return density_matrix(-occupation, space.overlap, space.nelec, space.ao_mask)

    @property
    def dipole(self) -> jax.Array:
        """μ, (3,), e·bohr."""
        return dipole(self.density, self.space.position, self.space.positions, self.space.basis.nuclear_charges)


def _register(kind: type[Solution]) -> None:
    """As a pytree, so that a model goes through jit and vmap; what was computed is not carried along."""
    jax.tree_util.register_pytree_node(
        kind, lambda s: ((s.matrix, s.space), s.max_occupied), lambda most, parts: kind(*parts, most)
    )


_register(Solution)
_register(DensitySolution)
Difference = Callable[[Any, Array, Reference], jax.Array]


def plain_difference(predicted: Array, wanted: Array, _: Reference) -> jax.Array:
    """Of observables that have one shape in all molecules."""
    return jnp.asarray(predicted) - wanted


def _of_atoms(predicted: Array, wanted: Array, reference: Reference) -> jax.Array:
    """Of real atoms, which come first, or of pairs of two of them; 0 for others."""
    real = jnp.arange(jnp.shape(wanted)[-1]) < reference.natm
    if jnp.ndim(wanted) == 2:
        real = real[:, None] & real[None, :] & ~jnp.eye(len(real), dtype=bool)
    return jnp.where(real, jnp.where(real, predicted, 0.0) - wanted, 0.0)


def _levels(chosen: Callable[[jax.Array], jax.Array]) -> Difference:
    """Differences of the levels whose places, counted from the LUMO, are chosen; 0 for others."""

    def difference(predicted: Array, wanted: Array, reference: Reference) -> jax.Array:
        place = jnp.arange(jnp.shape(wanted)[-1]) - jnp.asarray(reference.nelec) // 2
        mask = jnp.asarray(reference.level_mask) & chosen(place)
        return jnp.where(mask, jnp.where(mask, predicted, 0.0) - wanted, 0.0)

    return difference


def _gap(predicted: Array, wanted: Array, reference: Reference) -> jax.Array:
    """Of a molecule without HOMO or LUMO zero."""
    gap = homo_lumo_gap(wanted, reference.nelec, reference.level_mask)
    return jnp.where(jnp.isnan(gap), 0.0, predicted - jnp.where(jnp.isnan(gap), 0.0, gap))


@dataclass(frozen=True)
class Observable:
    """One row of the table.

    Attributes:
        label: under which data sets hold it.
        symbol, unit: to print; "ε", "eV".
        atomic_unit: of the numbers.
        factor: from that to `unit`.
        compute: from a `Solution`; None where F does not hold it.
        difference: predicted − reference with zeros where there is nothing to compare.
        axes: what the axes of the array count: "orbital", "atom" (both padded in a batch) or "xyz".
        of_density: whether a predicted P holds it.
        mean_absolute: whether the customary error is the mean |Δ|, as of levels, or ‖Δ‖ over the number of atoms.
    """

    label: str
    symbol: str
    unit: str
    atomic_unit: str
    compute: Callable[[Solution], jax.Array] | None
    factor: float = 1.0
    difference: Difference = plain_difference
    mean_absolute: bool = False
    axes: tuple[str, ...] = ()
    of_density: bool = False

    @property
    def extensive(self) -> bool:
        """Whether it grows with the molecule: not levels, nor what single atoms and bonds have."""
        return not (self.mean_absolute or {"orbital", "atom"} & {*self.axes})


def _quadrupole(solution: Solution) -> jax.Array:
    space = solution.space
    second = second_moment_integrals(space.basis, space.positions, jnp.zeros(3, solution.density.dtype))
    return quadrupole(solution.density, second, space.positions, space.basis.nuclear_charges)


def _all(place: jax.Array) -> jax.Array:
    return jnp.ones_like(place, bool)


def _ev(symbol: str, difference: Difference, compute: Callable[[Solution], jax.Array] | None = None) -> Observable:
    """Of orbital energies, in eV: all of them, or what `compute` makes of them."""
    axes = () if compute else ("orbital",)
    compute = compute or (lambda solution: solution.mo_energies)
    return Observable("mo_energies", symbol, "eV", "hartree", compute, HARTREE_TO_EV, difference, True, axes)


OBSERVABLES: Mapping[str, Observable] = {
    "mo_energies": _ev("ε", _levels(_all)),
    "occupied": _ev("ε occ.", _levels(lambda place: place < 0)),
    "frontier": _ev("ε frontier", _levels(lambda place: (place >= -2) & (place < 2))),
    "homo_lumo_gap": _ev("gap", _gap, lambda s: homo_lumo_gap(s.mo_energies, s.space.nelec)),
    "dipole": Observable("dipole", "μ", "e·bohr", "e·bohr", lambda s: s.dipole, axes=("xyz",), of_density=True),
    "quadrupole": Observable(
        "quadrupole", "Q", "e·bohr²", "e·bohr²", _quadrupole, axes=("xyz", "xyz"), of_density=True
    ),
    "polarizability": Observable(
        "polarizability", "α", "bohr³", "bohr³", lambda s: s.polarizability, axes=("xyz", "xyz")
    ),
    "lowdin_charges": Observable(
        "lowdin_charges",
        "q",
        "e",
        "e",
        lambda s: lowdin_charges(s.density, s.space.overlap, s.space.basis),
        difference=_of_atoms,
        axes=("atom",),
        of_density=True,
    ),
    "mayer_bond_orders": Observable(
        "mayer_bond_orders",
        "B",
        "",
        "",
        lambda s: mayer_bond_orders(s.density, s.space.overlap, s.space.basis),
        difference=_of_atoms,
        axes=("atom", "atom"),
        of_density=True,
    ),
    "energy": Observable("energy", "E", "eV", "hartree", None, HARTREE_TO_EV),
}
DERIVED = {"occupied", "frontier"}
"""Parts of another observable: compared, but not predicted apart."""


def known_observable(name: str) -> Observable:
    """The entry of that name.

    Raises:
        InputError: there is none.
    """
    if name not in OBSERVABLES:
        raise InputError(f"observable is {name!r}; give one of {', '.join(OBSERVABLES)}.")
    return OBSERVABLES[name]
