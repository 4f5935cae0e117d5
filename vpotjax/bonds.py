"""Which atoms of a molecule are bonded, by their distances."""

from __future__ import annotations

import numpy as np

from vpotjax._typing import Array
from vpotjax.molecule import Molecule
from vpotjax.units import BOHR_TO_ANGSTROM

TOLERANCE = 1.15  # atoms closer than this times the sum of their covalent radii are bonded
HYDROGEN = 0.5  # Å, more than its covalent radius: its bonds vibrate the most, and nothing else is near


def bonded(numbers: Array, positions: Array) -> np.ndarray:
    """Whether each two atoms are bonded, (natm, natm); radii are those of Cordero et al. 2008
    (doi:10.1039/B801115J), as ASE has them, but for hydrogen.

    Args:
        numbers: (natm,) nuclear charges.
        positions: (natm, 3) bohr.
    """
    from ase.data import covalent_radii
    from scipy.spatial.distance import cdist

    numbers = np.asarray(numbers, int)
    radii = TOLERANCE / BOHR_TO_ANGSTROM * np.where(numbers == 1, HYDROGEN, covalent_radii[numbers])
    close = cdist(np.asarray(positions), np.asarray(positions)) < radii[:, None] + radii
    np.fill_diagonal(close, val=False)
    return close


def neighbours(molecule: Molecule) -> list[str]:
    """Of each atom its element and those it is bonded to in alphabetical order, as "C(C,H,H,H)"."""
    symbols = np.array(molecule.symbols)
    rows = bonded(molecule.numbers, molecule.positions)
    return [f"{own}({','.join(sorted(symbols[row]))})" for own, row in zip(symbols, rows, strict=True)]
