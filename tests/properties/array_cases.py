"""Arguments of functions of arrays, of small molecules: plain, padded, rotated with inversion, permuted."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

import vpotjax as vp
from tests.molecules import random_rotation, roomy_batch
from vpotjax.batching import pad_arrays
from vpotjax.conventions import block_diagonal, rotation_matrices
from vpotjax.operators.blocks import shell_layout

# H has one shell and O one of each l, so that all code is met at little compile time.
SHELLS = {"O": [[0, [1.2, 1.0]], [1, [0.9, 1.0]], [2, [1.1, 1.0]]], "H": [[0, [0.8, 0.6], [0.3, 0.5]]]}
LAYOUT = shell_layout(SHELLS, [1, 8])
PLACES = np.array([[0.1, 0.2, 1.8], [0.0, -0.1, 0.1], [1.5, 0.4, -0.6]])
MOLECULES = [vp.Molecule(np.array(z), PLACES[: len(z)], charge=c) for z, c in (([1, 8, 1], 0), ([8, 1], -1))]
NELEC, SPINS = (4, 6), ((2, 1), (1, 3))
ROTATION = random_rotation(3)

VALUES = {
    **dict.fromkeys(("fock", "wrong", "overlap", "density", "potential"), "ao ao"),
    **dict.fromkeys(("focks", "wrongs", "densities"), "spin ao ao"),
    **dict.fromkeys(("levels", "other_levels"), "level"),
    "spin_levels": "spin level",
    "orbitals": "ao level",
    "positions": "atom xyz",
    "points": "point xyz",
    "point_charges": "point",
    "widths": "point",
    "energies": "point",
    "ao_values": "point ao",
    "origin": "xyz",
    "position": "xyz ao ao",
    "moments": "xyz xyz ao ao",
    "nuclear_charges": "atom",
    "charges": "atom",
    "other_charges": "atom",
    "bonds": "atom atom",
    "other_bonds": "atom atom",
    "vector": "xyz",
    "tensor": "xyz xyz",
}
"""Floating-point arguments and their axes; see `test_array_functions`."""
MASKS = {"numbers": "atom", "ao_mask": "ao", "level_mask": "level", "nelec": "", "nelecs": "spin"}
FILL = {"levels": np.inf, "other_levels": np.inf, "spin_levels": np.inf}
"""Of padding, where it is not zero."""


def symmetrised(array: Any, axes: str) -> Any:
    return (array + array.swapaxes(-1, -2)) / 2 if axes.endswith(("ao ao", "atom atom")) else array


def random_values(batch: vp.Batch, molecule: vp.Molecule) -> dict[str, np.ndarray]:
    """Arguments of one molecule without padding; F has a gap, S is near one, V attractive, levels ascend."""
    rng, n = np.random.default_rng(molecule.natm), batch.basis.nao
    size = {"ao": n, "level": n, "atom": molecule.natm, "xyz": 3, "point": 4, "spin": 2}
    values = {
        name: symmetrised(rng.standard_normal([size[axis] for axis in axes.split()]), axes)
        for name, axes in VALUES.items()
    }
    steps = np.linspace(-3.0, 3.0, n)
    for name in ("fock", "wrong", "focks", "wrongs"):
        values[name] = np.diag(steps) + 0.1 * values[name]
    for name in ("levels", "other_levels", "spin_levels"):
        values[name] = steps + 0.2 * np.tanh(values[name])
    values["overlap"] = np.eye(n) + 0.02 * values["overlap"]
    values["potential"] = -values["potential"] @ values["potential"] / n
    values["density"] = values["density"] @ values["density"]
    values["densities"] = values["densities"] @ values["densities"]
    values["widths"] = 0.5 + values["widths"] ** 2
    values["positions"] = np.asarray(molecule.positions)
    values["nuclear_charges"] = molecule.numbers - 0.25
    return values


@dataclasses.dataclass(frozen=True)
class Case:
    """Arguments of one molecule: arrays by name, and the basis and pairs that belong to them."""

    batch: vp.Batch
    arrays: dict[str, Any]

    def argument(self, name: str) -> Any:
        return {"basis": self.batch.basis, "pairs": self.batch.pairs}.get(name, self.arrays.get(name))


def case_of(batch: vp.Batch, values: dict[str, np.ndarray], index: int = 0) -> Case:
    """With the masks of a molecule, padded or not, of a batch."""
    mask = np.asarray(batch.basis.ao_mask)
    masks = {"numbers": batch.numbers, "ao_mask": mask, "level_mask": mask}
    return Case(batch, {**values, **masks, "nelec": np.array(NELEC[index]), "nelecs": np.array(SPINS[index])})


@functools.cache
def plain(index: int) -> Case:
    molecule = MOLECULES[index]
    batch = vp.pad_batch([molecule], {"orbital": SHELLS})[0]
    return case_of(batch, random_values(batch, molecule), index)


@functools.cache
def padded(index: int) -> Case:
    """With room for another atom, more shells and more AOs."""
    batch = roomy_batch(MOLECULES, SHELLS)[index]
    size = {"ao": batch.basis.nao, "level": batch.basis.nao, "atom": batch.numbers.shape[-1]}
    values = {}
    for name, axes in VALUES.items():
        array = plain(index).arrays[name]
        shape = tuple(size.get(axis, have) for axis, have in zip(axes.split(), array.shape, strict=True))
        values[name] = pad_arrays([array], shape, FILL.get(name, 0.0))[0]
    return case_of(batch, values, index)


def applied(array: Any, axes: str, changes: dict[str, np.ndarray]) -> np.ndarray:
    """Each axis of a name in `changes` transformed by that matrix."""
    array = np.asarray(array)
    for i, axis in enumerate(axes.split()):
        if axis in changes:
            array = np.moveaxis(np.tensordot(changes[axis], array, (1, i)), 0, i)
    return array


@functools.cache
def rotated() -> tuple[Case, dict[str, np.ndarray]]:
    """The first molecule after rotation and inversion, and what was done to the axes."""
    case, wigner = plain(0), rotation_matrices(2, tuple(map(tuple, ROTATION.tolist())))
    slots = [wigner[l] for l, count in enumerate(LAYOUT.counts) for _ in range(count)]
    shells = [wigner[l] for l in case.batch.basis.shell_angular_momenta()]
    changes = {"xyz": ROTATION, "ao": block_diagonal(shells), "slot": block_diagonal(slots)}
    return case_of(case.batch, {n: applied(case.arrays[n], axes, changes) for n, axes in VALUES.items()}), changes


@functools.cache
def permuted() -> tuple[Case, dict[str, np.ndarray]]:
    """The first molecule with its atoms in another order, and what was done to the axes."""
    case, order = plain(0), [2, 0, 1]
    slices = case.batch.basis.atom_ao_slices()
    aos = np.concatenate([np.arange(*slices[atom]) for atom in order])
    changes = {"atom": np.eye(3)[order], "ao": np.eye(len(aos))[aos]}
    values = {n: applied(case.arrays[n], axes, changes) for n, axes in VALUES.items()}
    molecule = vp.Molecule(MOLECULES[0].numbers[order], values["positions"])
    return case_of(vp.pad_batch([molecule], {"orbital": SHELLS})[0], values), changes
