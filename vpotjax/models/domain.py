"""Of which molecules a model can know anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.bonds import neighbours
from vpotjax.molecule import Molecule

NEUTRAL = (0,)
LONE, OFTEN = "H()", 0.25  # a share of the molecules
NEARLY_ALL = 0.95  # of the training molecules
NAMED = 3  # kinds of atoms that are bonded unlike all of the training


class Domain(NamedTuple):
    """Charges, sizes and bonds of the molecules whose labels made a model; a molecule's size is its number of heavy
    atoms, which are all but hydrogen.

    Attributes:
        charges: of the training molecules, ascending; none where they are not known. What a model sees of a molecule
            does not depend on its charge.
        size: of the training, up to which scale and floor of a calibration say what uncertainties are; 0 where it is
            not known. It is that of the largest training molecule, but where few of these (5 %) are larger than all
            the others and than the molecules held out: those few do not show errors of their size.
        checked: of the largest molecule by whose errors uncertainties were fitted, and at least `size`.
        bonds: what atoms of the training molecules are bonded to, see `vpotjax.bonds.neighbours`; none where that is
            not known. An atom with other neighbours, as of a zwitterion or at the end of a stretched bond, may be in
            the range of the features where errors are of eV all the same. Hydrogen without a bond counts if it is in
            more than a quarter of the molecules: thermal displacements make some.
    """

    charges: tuple[int, ...] = ()
    size: int = 0
    checked: int = 0
    bonds: tuple[str, ...] = ()

    @staticmethod
    def of(molecules: Iterable[Molecule], before: Domain | None = None, held_out: Iterable[Molecule] = ()) -> Domain:
        """Of training molecules.

        Args:
            molecules: of the training.
            before: that of the model from which the training started. Its charges and bonds are known still, and no
                bonds are where it does not say; how good what it knew of larger molecules is after the training,
                nothing shows.
            held_out: by whose errors scale and floor of the uncertainties are fitted, as validation molecules; without
                any the size is that of the largest.
        """
        charges = set() if before is None else set(before.charges or NEUTRAL)
        seen, sizes = Counter[str](), list[int]()
        for molecule in molecules:
            charges.add(int(molecule.charge))
            sizes.append(molecule.heavy_atoms)
            seen.update(set(neighbours(molecule)))
        bonds = {own for own, often in seen.items() if own != LONE or often > OFTEN * len(sizes)}
        if before is not None:
            bonds = bonds.union(before.bonds) if before.bonds else set()
        size = max(sizes, default=0)
        if shown := max((own.heavy_atoms for own in held_out), default=0):
            usual = sorted(sizes)[: math.ceil(NEARLY_ALL * len(sizes))]
            size = min(size, max(shown, *usual[-1:]))
        return Domain(tuple(sorted(charges)), size, size, tuple(sorted(bonds)))

    def ratio(self, heavy_atoms: Array) -> jax.Array:
        """How many times larger than the training's size one is, at least 1; 1 where that is not known.

        Args:
            heavy_atoms: (...) numbers of them.
        """
        return jnp.maximum(jnp.asarray(heavy_atoms) / self.size, 1.0) if self.size else jnp.ones(())

    def foreign(self, charge: int) -> bool:
        """Whether no training molecule had that charge; where none is known, they were neutral."""
        return charge not in (self.charges or NEUTRAL)

    def doubts(self, molecule: Molecule) -> Iterator[str]:
        """Why a prediction is not to be trusted, in words."""
        if self.foreign(molecule.charge):
            known = ", ".join(map(str, self.charges)) or "not known"
            yield (
                f"charge {molecule.charge}, training molecules: {known}; the model sees nuclei alone, levels may be "
                "off by many eV"
            )
        if self.size and molecule.heavy_atoms > self.checked:
            fitted = f", uncertainties fitted for up to {self.checked}" if self.checked > self.size else ""
            yield (
                f"{molecule.heavy_atoms} heavy atoms, trained for up to {self.size}{fitted}; errors may be larger than "
                "uncertainties say"
            )
        yield from self._unlike_bonds(molecule)

    def _unlike_bonds(self, molecule: Molecule) -> Iterator[str]:
        known, unlike = frozenset(self.bonds), dict[str, list[str]]()
        for i, own in enumerate(neighbours(molecule) if known else ()):
            if own not in known:
                unlike.setdefault(own, []).append(str(i))
        for own, atoms in [*unlike.items()][:NAMED]:
            symbol, to = own[:-1].split("(")
            bonds = f"bonded to {to.replace(',', ', ')}" if to else "without a bond"
            yield (
                f"atom{'s' * (len(atoms) > 1)} {', '.join(atoms)} ({symbol}) {bonds}, by distance, unlike those of the "
                "training molecules; errors may be larger than uncertainties say"
            )
        if len(unlike) > NAMED:
            yield f"{len(unlike) - NAMED} more kinds of atoms bonded unlike those of the training molecules"
