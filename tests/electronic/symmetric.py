"""Molecules with degenerate levels, as one padded batch, at and near their symmetric geometries."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from pyscf import scf

import vpotjax as vp
from tests.molecules import g2, pyscf_mole, random_rotation
from vpotjax.electronic.polarizability import dipole_and_polarizability
from vpotjax.electronic.populations import lowdin_charges, mayer_bond_orders, mulliken_charges
from vpotjax.units import ANGSTROM_TO_BOHR

NAMES = ("CH4", "NH3", "C6H6", "C2H2", "N2", "allene", "neopentane", "SF6", "cyclopropane", "BF3", "H3+")
FEW = ("CH4", "NH3", "N2", "H3+")
"""Levels of two and three orbitals, at a quarter of the size."""
_G2 = {"allene": "C3H4_D2d", "neopentane": "C5H12", "cyclopropane": "C3H6_D3h"}
GEOMETRIES = ["symmetric", "rotated", "1e-9 bohr away", "1e-6 bohr away"]
OBSERVABLES = ["P", "dipole", "polarizability", "Mulliken", "Löwdin", "Mayer"]


def molecule(name: str) -> vp.Molecule:
    """At its symmetric geometry."""
    if name == "SF6":
        bonds = 1.56 * ANGSTROM_TO_BOHR * np.concatenate([np.eye(3), -np.eye(3)])
        return vp.Molecule(np.array([16, *[9] * 6]), np.concatenate([np.zeros((1, 3)), bonds]))
    if name == "H3+":
        angles = 2 * np.pi / 3 * np.arange(3)
        return vp.Molecule(np.ones(3, int), np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1), charge=1)
    if name == "neopentane":
        return _neopentane()
    return g2(_G2.get(name, name))


def _neopentane() -> vp.Molecule:
    """T_d: each CH3 staggered against the other bonds of the central atom."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    places, numbers = [np.zeros(3)], [6]
    for i, axis in enumerate(corners):
        carbon = 1.54 * axis
        places, numbers = [*places, carbon], [*numbers, 6]
        for other in np.delete(corners, i, axis=0):
            across = other - axis * (axis @ other)
            direction = axis / 3 - across / np.linalg.norm(across) * np.sqrt(8) / 3
            places, numbers = [*places, carbon + 1.09 * direction], [*numbers, 1]
    return vp.Molecule(np.array(numbers), np.array(places) * ANGSTROM_TO_BOHR)


def at(name: str, geometry: str) -> vp.Molecule:
    """One of `GEOMETRIES`."""
    exact = molecule(name)
    rng = np.random.default_rng(len(name))
    positions = exact.positions
    if geometry == "rotated":
        positions = positions @ random_rotation(len(name))
    elif geometry != "symmetric":
        positions = positions + float(geometry.split(maxsplit=1)[0]) * rng.uniform(-1, 1, positions.shape)
    return vp.Molecule(exact.numbers, positions, charge=exact.charge)


@functools.cache
def batch(geometry: str, names: tuple[str, ...] = NAMES) -> vp.Batch:
    return jax.tree.map(jnp.asarray, vp.pad_batch([at(name, geometry) for name in names], "sto-3g"))


@functools.cache
def hartree_fock(geometry: str, names: tuple[str, ...] = NAMES) -> tuple[jax.Array, ...]:
    """PySCF's F, S and r of the whole batch, padded with zeros."""
    size = batch(geometry, names).basis.nao
    padded = []
    for name in names:
        mole = pyscf_mole(at(name, geometry), "sto-3g")
        mf = scf.RHF(mole).set(conv_tol=1e-12, conv_tol_grad=1e-8).run()
        fock = mf.get_fock()
        gap = [(0, size - mole.nao)] * 2
        position = np.pad(mole.intor("int1e_r"), [(0, 0), *gap])
        padded.append((np.pad((fock + fock.T) / 2, gap), np.pad(mf.get_ovlp(), gap), position))
    return tuple(jnp.asarray(np.stack(parts)) for parts in zip(*padded, strict=True))


def losses(molecule: vp.Batch, fock: jax.Array, overlap: jax.Array, position: jax.Array) -> jax.Array:
    """(6,) scalars of F, S, r, one per `OBSERVABLES`, with random weights, so that no symmetry makes them vanish."""
    basis = molecule.basis
    orbitals = vp.orbitals(fock, overlap, molecule.nelec, basis.ao_mask)
    density = orbitals.density
    values = [
        density,
        *dipole_and_polarizability(orbitals, position, molecule.positions, basis.nuclear_charges),
        mulliken_charges(density, overlap, basis),
        lowdin_charges(density, overlap, basis),
        mayer_bond_orders(density, overlap, basis),
    ]
    weights = [np.random.default_rng(i).uniform(0.5, 1.5, v.shape) for i, v in enumerate(values)]
    signs = [np.random.default_rng(10 + i).choice([-1.0, 1.0], v.shape) for i, v in enumerate(values)]
    # Squares too: a linear function of charges or bond orders may be constant for a molecule of one kind of atoms.
    return jnp.stack([jnp.sum(w * s * v + 0.3 * w * v**2) for w, s, v in zip(weights, signs, values, strict=True)])
