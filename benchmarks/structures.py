"""Molecules that benchmarks and tests share."""

from __future__ import annotations

import io

import numpy as np
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.io import read

from vpotjax.molecule import Molecule

_ASPIRIN = """21
aspirin, minimum of the MMFF94 force field from SMILES CC(=O)Oc1ccccc1C(=O)O
C 3.403773 0.554328 0.055171
C 2.043928 0.139118 0.531220
O 1.689379 0.144080 1.703130
O 1.288360 -0.265870 -0.563568
C -0.028437 -0.584662 -0.218989
C -0.328237 -1.942419 -0.067410
C -1.628959 -2.330425 0.247766
C -2.625932 -1.367087 0.398262
C -2.326724 -0.011368 0.227262
C -1.022044 0.396766 -0.091408
C -0.703218 1.833352 -0.303091
O 0.360873 2.305193 -0.658958
O -1.756333 2.637294 -0.059211
H 3.923900 -0.305428 -0.374101
H 3.984378 0.930016 0.902534
H 3.310878 1.356169 -0.681670
H 0.448981 -2.692201 -0.185748
H -1.865912 -3.383598 0.378171
H -3.640546 -1.670069 0.646979
H -3.124400 0.719025 0.342852
H -1.403708 3.537784 -0.218829
"""


def structure(name: str) -> Molecule:
    """One of "aspirin", "C20H42", "SF6", "ferrocene", "HBr", "I2", or a molecule of the G2 set."""
    made = {
        "aspirin": lambda: read(io.StringIO(_ASPIRIN), format="xyz"),
        "C20H42": lambda: alkane(20),
        "SF6": _sulfur_hexafluoride,
        "ferrocene": _ferrocene,
        "HBr": lambda: Atoms("HBr", [(0, 0, 0), (0, 0, 1.414)]),
        "I2": lambda: Atoms("I2", [(0, 0, 0), (0, 0, 2.666)]),
    }
    return Molecule.from_ase(made[name]() if name in made else ase_molecule(name))


def alkane(carbons: int) -> Atoms:
    """The all-trans chain C_n H_2n+2 with standard bond lengths and angles."""
    ccc, hch, cc, ch = np.deg2rad(112.5), np.deg2rad(107.0), 1.53, 1.095
    along, aside = np.sin(ccc / 2), np.cos(ccc / 2)
    chain = np.array([[i * cc * along, 0.0, (i % 2) * cc * aside] for i in range(carbons)])
    outward = np.where(np.arange(carbons) % 2, 1.0, -1.0)[:, None] * [0.0, 0.0, 1.0]
    across = np.array([0.0, np.sin(hch / 2), 0.0])
    hydrogens = [chain + ch * (sign * across + np.cos(hch / 2) * outward) for sign in (1, -1)]
    ends = [
        chain[end] + ch * (direction * along * np.array([1.0, 0.0, 0.0]) - aside * outward[end])
        for end, direction in ((0, -1), (-1, 1))
    ]
    return Atoms(f"C{carbons}H{2 * carbons + 2}", np.concatenate([chain, *hydrogens, np.array(ends)]))


def _sulfur_hexafluoride() -> Atoms:
    axes = 1.561 * np.concatenate([np.eye(3), -np.eye(3)])
    return Atoms("SF6", np.concatenate([np.zeros((1, 3)), axes]))


def _ferrocene() -> Atoms:
    """Eclipsed rings, at the gas-phase distances Fe–C 2.064, C–C 1.440 and C–H 1.08 Å."""
    angles = 2 * np.pi * np.arange(5) / 5
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(5)], axis=1)
    carbon = 1.440 / (2 * np.sin(np.pi / 5))
    height = np.array([0.0, 0.0, np.sqrt(2.064**2 - carbon**2)])
    places = [[np.zeros(3)], *(radius * ring + sign * height for radius in (carbon, carbon + 1.08) for sign in (1, -1))]
    return Atoms("FeC10H10", np.concatenate(places))
