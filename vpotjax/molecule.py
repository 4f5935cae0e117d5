"""A molecule: atomic numbers, positions in bohr, charge and spin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_lengths, require_shape
from vpotjax._pytree import pytree, static_field
from vpotjax._structure_files import (
    Structure,
    integer,
    iterate_structures,
    read_structures,
    structure_count,
    structure_files,
    structure_of_atoms,
)
from vpotjax._typing import Array
from vpotjax.units import ANGSTROM_TO_BOHR, BOHR_TO_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms

    from vpotjax.basis import Basis

FARTHEST = 1e6  # bohr
MIN_DISTANCE_ANGSTROM = 0.1  # a third of the shortest bond at any pressure; below it a file is wrong


@pytree
class Molecule:
    """Nuclei and electrons.

    Args:
        numbers: (natm,) atomic numbers; 0 is a ghost atom, a place for basis functions without a nucleus.
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
        require_lengths("positions", self.positions)
        object.__setattr__(self, "charge", _integer("charge", self.charge))
        object.__setattr__(self, "spin", _integer("spin", self.spin))
        _check_electrons(int(np.sum(self.numbers)) - self.charge, self.charge, self.spin)
        if is_concrete(self.positions):
            if not isinstance(self.positions, jax.Array) or not np.issubdtype(self.positions.dtype, np.floating):
                object.__setattr__(self, "positions", np.asarray(self.positions, dtype=float))
            _check_positions(self.numbers, np.asarray(self.positions))

    @property
    def natm(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def heavy_atoms(self) -> int:
        """Number of atoms other than hydrogen."""
        return int(np.sum(np.asarray(self.numbers) > 1))

    def nelec(self, basis: Basis) -> Any:
        """Number of electrons that `basis` holds on these atoms: those of effective cores are not in it.

        Args:
            basis: on the same atoms.

        Raises:
            InputError: the basis is on other atoms.
        """
        if is_concrete(self.numbers, basis.numbers) and not np.array_equal(self.numbers, basis.numbers):
            raise InputError(
                f"basis is on atoms {np.asarray(basis.numbers).tolist()}, the molecule has "
                f"{self.numbers.tolist()}; load the basis for these numbers."
            )
        return basis.nelec(self.charge)

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
    def from_ase(atoms: Atoms, charge: int | None = None, spin: int | None = None) -> Molecule:
        """A molecule from `ase.Atoms`; positions are converted from Å.

        Charge and spin are what `atoms` states: in `info` (charge, spin = nα − nβ, multiplicity), by the sums of its
        initial charges and magnetic moments, and by its calculator's results and parameters.

        Args:
            atoms: not periodic.
            charge, spin: where `atoms` states none; by default 0.

        Raises:
            InputError: what is stated contradicts itself or an argument, or has no single meaning; `atoms` is periodic.
        """
        structure = structure_of_atoms(atoms)
        for name, value, own in (("charge", charge, structure.charge), ("spin", spin, structure.spin)):
            if value is not None and _integer(name, value) != own and own is not None:
                raise InputError(
                    f"{name} is {value}, but atoms state {own} (in info, initial charges or magnetic moments, or the "
                    "calculator); leave the argument out, or remove it from the atoms."
                )
        return _molecule(structure, charge or 0, spin or 0)

    @staticmethod
    def from_xyz(path: str | Path, charge: int = 0, spin: int = 0) -> Molecule:
        """The first structure of an (extended) xyz file, whatever its name ends in; others are read, and left out.

        Args and errors: as for `molecules_from_file`.
        """
        return _molecules(path, charge, spin, suffix=".xyz")[0]

    @staticmethod
    def from_file(path: str | Path, charge: int = 0, spin: int = 0) -> Molecule:
        """The first structure of a file, and only the first: `molecules_from_file` gives all.

        Args and errors: as for `molecules_from_file`.
        """
        return molecules_from_file(path, charge, spin)[0]

    def to_ase(self) -> Atoms:
        """`ase.Atoms` with positions in Å, charge and spin in `info`."""
        from ase import Atoms

        positions = np.asarray(self.positions) * BOHR_TO_ANGSTROM
        return Atoms(numbers=self.numbers, positions=positions, info={"charge": self.charge, "spin": self.spin})


def molecules_from_file(path: str | Path, charge: int = 0, spin: int = 0) -> list[Molecule]:
    """Every structure of an xyz, extended xyz, mol, sdf, pdb or gen file, or of ASE's traj, db and json.

    Text files may be packed (.gz, .bz2, .xz). Positions are in Å unless the file says bohr.

    Args:
        path: the name's ending tells the format.
        charge, spin: of structures that state none; what a structure states wins.

    Raises:
        InputError: the file is absent, broken or periodic, says something of charge, spin or units that has no
            single meaning, or holds an impossible molecule; names file, frame and line.
    """
    return _molecules(path, charge, spin)


def iterate_molecules(
    path: str | Path, charge: int = 0, spin: int = 0, left_out: Callable[[str], None] | None = None
) -> Iterator[tuple[str, Molecule]]:
    """Names and molecules of a file, or of all files of a folder, one by one.

    Memory does not grow with their number, except for json and for the names of the files. Of a folder, files with an
    ending that is not read, hidden files and folders are left out; the others come by name. A structure is named by
    `name=` of its extended xyz comment, else by its file and its number from 0, as "water.xyz#0".

    Args:
        path: of a file (see `molecules_from_file`) or a folder.
        charge, spin: of structures that state none; what a structure states wins.
        left_out: is told which structure is no molecule (a charge that its spin contradicts, say) or, in a folder,
            where a file cannot be read further, and the other files follow; default: the first of them is an error.

    Raises:
        InputError: `path` is absent, or a folder without a readable file. While iterating: as `molecules_from_file`,
            after the molecules before the error.
    """
    charge, spin = _integer("charge", charge), _integer("spin", spin)
    files = structure_files(path)
    return _named(files, charge, spin, left_out, files != [Path(path)])


def _named(
    files: list[Path], charge: int, spin: int, left_out: Callable[[str], None] | None, folder: bool
) -> Iterator[tuple[str, Molecule]]:
    for file in files:
        try:
            for i, structure in enumerate(iterate_structures(file)):
                try:
                    molecule = _molecule(structure, charge, spin)
                except InputError as error:
                    if left_out is None:
                        raise
                    left_out(str(error))
                else:
                    yield structure.name or f"{file.name}#{i}", molecule
        except InputError as error:  # the file is broken
            if left_out is None or not folder:
                raise
            left_out(f"{error} (this, and what follows in the file)")


def molecule_count(path: str | Path) -> int | None:
    """How many molecules `iterate_molecules` will yield, where that is cheap to find out, for a progress bar.

    Args:
        path: of a file or a folder.

    Returns:
        None where a file is packed, is json, or is broken.

    Raises:
        InputError: `path` is absent, or a folder without a readable file.
    """
    total = 0
    for file in structure_files(path):
        count = structure_count(file)
        if count is None:
            return None
        total += count
    return total


def _molecules(path: str | Path, charge: int, spin: int, suffix: str | None = None) -> list[Molecule]:
    charge, spin = _integer("charge", charge), _integer("spin", spin)
    return [_molecule(structure, charge, spin) for structure in read_structures(path, suffix)]


def _molecule(structure: Structure, charge: int, spin: int) -> Molecule:
    charge, spin = structure.settled(charge, spin)
    try:
        return Molecule(structure.numbers, structure.positions, charge, spin)
    except InputError as error:
        raise structure.place.error(str(error)) from None


def _integer(name: str, value: Any) -> int:
    number = None if isinstance(value, str) else integer(value)
    if number is None:
        raise InputError(f"{name} is {value!r}; give an integer.")
    return number


def _check_numbers(numbers: np.ndarray) -> None:
    if numbers.ndim != 1 or numbers.size == 0:
        raise InputError(f"numbers has shape {numbers.shape}, expected (natm,) with at least one atom.")
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f"numbers has dtype {numbers.dtype}, expected integers (atomic numbers).")
    if numbers.min() < 0 or numbers.max() > 118 or not numbers.any():
        bad = [*numbers[(numbers < 0) | (numbers > 118)].tolist(), 0][0]
        raise InputError(f"numbers contains {bad}, expected atomic numbers from 1 to 118, or 0 for some ghost atoms.")


def _check_electrons(nelec: int, charge: int, spin: int) -> None:
    if nelec < 0 or abs(spin) > nelec:
        raise InputError(f"charge={charge} and spin={spin} leave {nelec} electrons; use a smaller charge or spin.")
    if (nelec - spin) % 2:
        raise InputError(
            f"charge={charge} and spin={spin} do not fit {nelec} electrons: spin = nα − nβ must be "
            f"{'odd' if nelec % 2 else 'even'}; set spin or change the charge."
        )


def _check_positions(numbers: np.ndarray, positions: np.ndarray) -> None:
    if not np.isfinite(positions).all():
        atom = int(np.argwhere(~np.isfinite(positions))[0, 0])
        raise InputError(f"positions of atom {atom} are {positions[atom]}, expected finite numbers in bohr.")
    if np.abs(positions).max() > FARTHEST:
        atom = int(np.argwhere(np.abs(positions) > FARTHEST)[0, 0])
        raise InputError(
            f"positions of atom {atom} are {positions[atom]}; integrals lose their digits beyond {FARTHEST:.0e} bohr "
            "of the origin, so move the molecule there, or correct them."
        )
    distance = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    np.fill_diagonal(distance, np.inf)
    distance[(numbers == 0) | (numbers == 0)[:, None]] = np.inf  # a ghost may stand anywhere
    if distance.min() < MIN_DISTANCE_ANGSTROM * ANGSTROM_TO_BOHR:
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        raise InputError(
            f"positions of atoms {min(i, j)} and {max(i, j)} are {distance.min() * BOHR_TO_ANGSTROM:.3g} Å apart "
            f"(on top of each other below {MIN_DISTANCE_ANGSTROM} Å); remove one or correct the coordinates."
        )
