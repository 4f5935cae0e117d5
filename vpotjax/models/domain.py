"""Of which molecules a model can know anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.molecule import Molecule

NEUTRAL = (0,)


class Domain(NamedTuple):
    """Charges and sizes of the molecules whose labels made a model; a molecule's size is its number of heavy atoms,
    which are all but hydrogen.

    Attributes:
        charges: of the training molecules, ascending; none where they are not known. What a model sees of a molecule
            does not depend on its charge.
        size: of the largest training molecule; 0 where it is not known.
        checked: of the largest molecule by whose errors uncertainties were fitted, and at least `size`.
    """

    charges: tuple[int, ...] = ()
    size: int = 0
    checked: int = 0

    @staticmethod
    def of(molecules: Iterable[Molecule], before: Domain | None = None) -> Domain:
        """Of training molecules.

        Args:
            molecules: of the training.
            before: that of the model from which the training started. Its charges are known still; how good what it
                knew of larger molecules is after the training, nothing shows.
        """
        charges, size = set() if before is None else set(before.charges or NEUTRAL), 0
        for molecule in molecules:
            charges.add(int(molecule.charge))
            size = max(size, molecule.heavy_atoms)
        return Domain(tuple(sorted(charges)), size, size)

    def ratio(self, heavy_atoms: Array) -> jax.Array:
        """How many times larger than the largest training molecule one is, at least 1; 1 where that has no size."""
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
            fitted = f", those that show its uncertainties {self.checked}" if self.checked > self.size else ""
            yield (
                f"{molecule.heavy_atoms} heavy atoms, training molecules have at most {self.size}{fitted}; errors may "
                "be larger than uncertainties say"
            )
