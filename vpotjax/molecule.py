"""A molecule: atomic numbers, positions in bohr, charge and spin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.units import ANGSTROM_TO_BOHR, BOHR_TO_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE_ANGSTROM = 0.1  # a third of the shortest bond at any pressure; below it a file is wrong


@pytree
class Molecule:
    """Nuclei and electrons.

    Args:
        numbers: (natm,) atomic numbers, integers ≥ 1.
        positions: (natm, 3) in bohr; may be traced.
        charge: total charge.
        spin: nα − nβ (not the multiplicity).

    Raises:
        InputError: for shapes that do not fit, positions that are not finite, atoms on top of each other,
            or a charge and spin that the number of electrons cannot have.
    """

    numbers: np.ndarray
    positions: Array
    charge: int = static_field(default=0)
    spin: int = static_field(default=0)

    def __post_init__(self) -> None:
        if not is_concrete(self.numbers):
            return
        object.__setattr__(self, "numbers", np.asarray(self.numbers))
        _check_numbers(self.numbers)
        require_shape("positions", self.positions, (len(self.numbers), 3))
        _check_electrons(self.nelec, self.charge, self.spin)
        if is_concrete(self.positions):
            if not isinstance(self.positions, jax.Array):
                object.__setattr__(self, "positions", np.asarray(self.positions, dtype=float))
            _check_positions(np.asarray(self.positions))

    @property
    def natm(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def nelec(self) -> int:
        """Number of electrons: the sum of the atomic numbers minus the charge."""
        return int(np.sum(self.numbers)) - self.charge

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols, one per atom."""
        from ase.data import chemical_symbols

        return [chemical_symbols[z] for z in self.numbers]

    @property
    def formula(self) -> str:
        """Chemical formula in Hill order."""
        return str(self.to_ase().get_chemical_formula(mode="hill"))

    @staticmethod
    def from_ase(atoms: Atoms, charge: int = 0, spin: int = 0) -> Molecule:
        """A molecule from `ase.Atoms`; positions are converted from Å, periodic boundaries are ignored.

        `charge` and `spin` in `atoms.info` win over the arguments.
        """
        charge, spin = (_integer(k, atoms.info.get(k, v)) for k, v in (("charge", charge), ("spin", spin)))
        return Molecule(atoms.numbers, np.asarray(atoms.positions) * ANGSTROM_TO_BOHR, charge, spin)

    @staticmethod
    def from_xyz(path: str | Path, charge: int = 0, spin: int = 0) -> Molecule:
        """The first structure of an (extended) XYZ file, positions in Å.

        Raises:
            InputError: the file is absent, empty, broken, or holds an impossible molecule; names the file.
        """
        return molecules_from_xyz(path, charge, spin)[0]

    def to_ase(self) -> Atoms:
        """`ase.Atoms` with positions in Å, charge and spin in `info`."""
        from ase import Atoms

        positions = np.asarray(self.positions) * BOHR_TO_ANGSTROM
        return Atoms(numbers=self.numbers, positions=positions, info={"charge": self.charge, "spin": self.spin})


def molecules_from_xyz(path: str | Path, charge: int = 0, spin: int = 0) -> list[Molecule]:
    """Every structure of an (extended) XYZ file.

    A frame's own `charge=` and `spin=` in its comment line win over the arguments.
    """
    import ase.io

    try:
        frames: Any = ase.io.read(path, index=":", format="extxyz")
    except FileNotFoundError:
        raise InputError(f"xyz file {str(path)!r} does not exist; check the path.") from None
    except Exception as error:  # the reader raises many types on a broken file; all mean the same here
        raise InputError(
            f"xyz file {str(path)!r} cannot be read ({type(error).__name__}: {error}); expected the number of atoms, a "
            "comment line, then one 'symbol x y z' line in Å per atom."
        ) from None
    if not frames or any(len(frame) == 0 for frame in frames):
        raise InputError(f"xyz file {str(path)!r} holds no atoms; write at least one 'symbol x y z' line.")
    try:
        return [Molecule.from_ase(frame, charge, spin) for frame in frames]
    except InputError as error:
        raise InputError(f"xyz file {str(path)!r}: {error}") from None


def _integer(name: str, value: Any) -> int:
    if isinstance(value, str | bool) or np.ndim(value) or int(value) != value:
        raise InputError(f"{name} is {value!r} ; give an integer.")
    return int(value)


def _check_numbers(numbers: np.ndarray) -> None:
    if numbers.ndim != 1 or numbers.size == 0:
        raise InputError(f"numbers has shape {numbers.shape}, expected (natm,) with at least one atom.")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"numbers has dtype {numbers.dtype}, expected integers (atomic numbers).")
    if numbers.min() < 1 or numbers.max() > 118:
        bad = numbers[(numbers < 1) | (numbers > 118)][0]
        raise InputError(f"numbers contains {bad}, expected atomic numbers from 1 to 118.")


def _check_electrons(nelec: int, charge: int, spin: int) -> None:
    if nelec < 0 or abs(spin) > nelec:
        raise InputError(f"charge={charge} and spin={spin} leave {nelec} electrons; use a smaller charge or spin.")
    if (nelec - spin) % 2:
        raise InputError(
            f"charge={charge} and spin={spin} do not fit {nelec} electrons: spin = nα − nβ must be "
            f"{'odd' if nelec % 2 else 'even'}; set spin or change the charge."
        )


def _check_positions(positions: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError(f"positions of atom {atom} are {positions[atom]}, expected finite numbers in bohr.")
    distance = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    np.fill_diagonal(distance, np.inf)
    if distance.min() < MIN_DISTANCE_ANGSTROM * ANGSTROM_TO_BOHR:
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        raise InputError(
            f"positions of atoms {min(i, j)} and {max(i, j)} are {distance.min() * BOHR_TO_ANGSTROM:.3g} Å apart "
            f"(on top of each other below {MIN_DISTANCE_ANGSTROM} Å); remove one or correct the coordinates."
        )
