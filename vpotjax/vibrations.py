"""Normal modes, and what derivatives of dipole and polarizability say about them: infrared and Raman intensities.

Derivatives in the geometry are those of the package: `jax.jacfwd` through integrals, network and eigenproblem, as in
`vpotjax.models.derivatives`. The Hessian, which needs an energy, comes from a reference calculation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array as JaxArray

from vpotjax._checks import InputError, require_shape
from vpotjax._typing import Array
from vpotjax.units import BOHR_TO_ANGSTROM, DALTON_TO_ELECTRON_MASS, HARTREE_TO_WAVENUMBER

KM_PER_MOL = 974.88011
"""N_A e² / (12 ε₀ c² u) in km/mol: the integrated absorption where dμ/dQ is 1 e/√dalton (CODATA 2018)."""


class NormalModes(NamedTuple):
    """Of a molecule, without translations and rotations; from low to high.

    Attributes:
        squares: (modes,) ω² in (hartree/ħ)², negative where the geometry is no minimum.
        displacements: (modes, natm, 3) dR/dQ in 1/√dalton, of normal coordinates Q in bohr·√dalton.
    """

    squares: np.ndarray
    displacements: np.ndarray

    @property
    def wavenumbers(self) -> np.ndarray:
        """(modes,) in cm⁻¹; imaginary ones as negative numbers."""
        return np.sign(self.squares) * np.sqrt(np.abs(self.squares)) * HARTREE_TO_WAVENUMBER


def normal_modes(positions: np.ndarray, hessian: np.ndarray, masses: np.ndarray) -> NormalModes:
    """Eigenvectors of the mass-weighted Hessian in the space of internal displacements (Wilson, Decius, Cross 1955).

    Args:
        positions: (natm, 3), bohr; need not be a stationary point.
        hessian: (natm, natm, 3, 3), hartree/bohr², as PySCF has it.
        masses: (natm,), dalton.

    Raises:
        InputError: other shapes, or a mass that is not positive.
    """
    natm = len(positions)
    require_shape("positions", positions, (natm, 3))
    require_shape("hessian", hessian, (natm, natm, 3, 3))
    require_shape("masses", masses, (natm,))
    if not np.all(np.asarray(masses) > 0):
        raise InputError(f"masses is {np.asarray(masses)}; give positive numbers, in dalton.")
    root = np.repeat(np.sqrt(masses), 3)
    weighted = np.asarray(hessian).transpose(0, 2, 1, 3).reshape(3 * natm, 3 * natm) / np.outer(root, root)
    internal = _internal_space(np.asarray(positions), root)
    squares, modes = np.linalg.eigh(internal.T @ weighted @ internal)
    displacements = ((internal @ modes) / root[:, None]).T.reshape(-1, natm, 3)
    return NormalModes(squares / DALTON_TO_ELECTRON_MASS, displacements)


def _internal_space(positions: np.ndarray, root_mass: np.ndarray) -> np.ndarray:
    """Orthonormal basis of mass-weighted displacements without translation and rotation."""
    natm = len(positions)
    translations = np.tile(np.eye(3), (natm, 1))
    centred = positions - np.average(positions, axis=0, weights=root_mass[::3] ** 2)
    rotations = np.cross(np.eye(3)[None], centred[:, None]).transpose(0, 2, 1).reshape(3 * natm, 3)
    rigid = np.hstack([translations, rotations]) * root_mass[:, None]
    left, singular, _ = np.linalg.svd(rigid, full_matrices=True)
    rank = int(np.sum(singular > 1e-6 * singular[0]))
    return left[:, rank:]


def infrared_intensities(dipole_derivatives: Array, displacements: Array) -> JaxArray:
    """Integrated absorptions N_A/(12 ε₀ c²) |dμ/dQ|², (modes,), km/mol, in the double-harmonic approximation.

    Args:
        dipole_derivatives: dμ/dR, (3, natm, 3), e.
        displacements: of `NormalModes`, (modes, natm, 3).
    """
    along = jnp.einsum("xai,kai->kx", jnp.asarray(dipole_derivatives), jnp.asarray(displacements))
    return KM_PER_MOL * jnp.sum(along**2, axis=-1)


def raman_activities(polarizability_derivatives: Array, displacements: Array) -> JaxArray:
    """Activities 45 a'² + 7 γ'², (modes,), Å⁴/dalton (Wilson, Decius, Cross 1955, section 3-7).

    a' is the mean of the diagonal of dα/dQ, γ'² its anisotropy ½ Σ_{x<y} (α'_xx − α'_yy)² + 3 Σ_{x<y} α'_xy².

    Args:
        polarizability_derivatives: dα/dR, (3, 3, natm, 3), bohr²; of the α that is meant, see `vpotjax.polarizability`.
        displacements: of `NormalModes`, (modes, natm, 3).
    """
    along = jnp.einsum("xyai,kai->kxy", jnp.asarray(polarizability_derivatives), jnp.asarray(displacements))
    mean = jnp.trace(along, axis1=-2, axis2=-1) / 3
    deviator = along - mean[:, None, None] * jnp.eye(3)
    anisotropy = 1.5 * jnp.sum(deviator**2, axis=(-2, -1))
    return BOHR_TO_ANGSTROM**4 * (45 * mean**2 + 7 * anisotropy)
