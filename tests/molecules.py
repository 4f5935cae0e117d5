"""Molecules and outside references that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule as ase_molecule

from vpotjax.batching import Batch, batch_shape, pad_batch
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.molecule import Molecule

SHARED = Path(__file__).parents[2] / "shared" / "data"


def g2(name: str) -> Molecule:
    """A molecule of the G2 set."""
    return Molecule.from_ase(ase_molecule(name))


def distorted(name: str, seed: int, size: float = 0.1) -> Molecule:
    """A molecule of the G2 set with every coordinate moved at random, by `size` bohr on average."""
    molecule = g2(name)
    moved = molecule.positions + np.random.default_rng(seed).normal(0, size, (molecule.natm, 3))
    return Molecule(molecule.numbers, moved)


def every_element() -> Molecule:
    """H to Cl and iron, each once, at places without symmetry, neighbours 2 to 4 bohr apart."""
    numbers = np.array([*range(1, 18), 26])
    grid = np.stack(np.meshgrid(range(3), range(3), range(2), indexing="ij"), axis=-1).reshape(-1, 3)
    jitter = np.random.default_rng(5).uniform(-0.4, 0.4, grid.shape)
    return Molecule(numbers, 2.6 * (grid + jitter), charge=1)


def pyscf_mole(molecule: Molecule, basis: str, cartesian: bool = False):
    """PySCF's molecule with our exponents and coefficients."""
    return to_pyscf(molecule, basis, cartesian=cartesian)


def shared_file(name: str) -> Path:
    """A file of the shared data; skips the test where it is absent."""
    if not (SHARED / name).exists():
        pytest.skip(f"shared data {name} is not on this machine")
    return SHARED / name


def roomy_batch(group: Sequence[Molecule], basis: str | dict) -> Batch:
    """A batch with room for one more atom, one more shell of each l and four more AOs than any molecule needs."""
    tight = batch_shape(pad_batch(group, {"orbital": basis}))
    sizes = dict(tight.bases)["orbital"]
    nshl, nprim = tuple(n + 1 for n in sizes.nshl), tuple(n + 2 for n in sizes.nprim)
    sizes = sizes._replace(nao=sizes.nao + 4, nshl=nshl, nprim=nprim)
    shape = tight._replace(natm=tight.natm + 1, bases=(("orbital", sizes),), npair=tight.npair + 3)
    return pad_batch(group, {"orbital": basis}, shape)


def random_rotation(seed: int = 0) -> np.ndarray:
    """An orthogonal 3×3 matrix with determinant −1: rotation and inversion."""
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return -q * np.sign(np.linalg.det(q))


def central_difference(function, step: float = 1e-3):
    """Derivative of a function of one number at 0, error of order step⁴."""
    ahead, behind = (function(step) - function(-step)), (function(2 * step) - function(-2 * step))
    return (8 * ahead - behind) / (12 * step)
