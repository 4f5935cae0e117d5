"""The potential of nuclei: V_μν = ⟨μ|−Σ_C Z_C / |r − R_C||ν⟩ (PySCF's `int1e_nuc`), its terms per nucleus, and its
screened form.

The potentials of all charges are summed at the Hermite level, before the AO matrix is assembled.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import require_shape
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.assemble import symmetric_matrices
from vpotjax.integrals.hermite import hermite_expansion, hermite_indices, hermite_potential
from vpotjax.integrals.shell_pairs import PrimitivePairs


@jax.jit
def external_potential(basis: Basis, positions: Array, nuclear_charges: Array | None = None) -> jax.Array:
    """V, (nao, nao), hartree, negative.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        nuclear_charges: (natm,), may be fractional and traced; default: those of `basis`.
    """
    charges = basis.nuclear_charges if nuclear_charges is None else nuclear_charges
    require_shape("nuclear_charges", charges, (basis.natm,))
    return _charge_potential(basis, positions, jnp.asarray(positions), jnp.asarray(charges))


@jax.jit
def nuclear_attraction(basis: Basis, positions: Array) -> jax.Array:
    """The terms of V per nucleus, (natm, nao, nao), hartree, negative; their sum is `external_potential`.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
    """
    charges = jnp.diag(jnp.asarray(basis.nuclear_charges))
    return jax.lax.map(lambda charge: external_potential(basis, positions, charge), charges)


@jax.jit
def screened_potential(basis: Basis, positions: Array) -> jax.Array:
    """Superposition of atomic potentials: nuclei screened by the electrons of free atoms, (nao, nao), hartree.

    The screening is a sum of Gaussian charges per atom (Lehtola, Visscher, Engel 2020, doi:10.1063/5.0004046, the fit
    "sap_grasp_small" of basis-set-exchange). With the kinetic energy it is a Fock matrix that needs no density
    (Lehtola 2019, doi:10.1021/acs.jctc.8b01089). All-electron bases only.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
    """
    charges, exponents = jnp.asarray(basis.screening_charges), jnp.asarray(basis.screening_exponents)
    centres = jnp.repeat(jnp.asarray(positions), charges.shape[-1], axis=0)
    screening = _charge_potential(basis, positions, centres, charges.ravel(), exponents.ravel())
    return external_potential(basis, positions) + screening


def _charge_potential(
    basis: Basis,
    positions: Array,
    centres: Array,
    charges: Array,
    exponents: Array | None = None,
) -> jax.Array:
    """Potential energy of an electron in the field of charges: points, or normalised Gaussians of `exponents`."""
    positions = jnp.asarray(positions)
    dtype = positions.dtype if jnp.issubdtype(positions.dtype, jnp.floating) else float
    width = jnp.zeros(len(charges), dtype) if exponents is None else 1 / exponents.astype(dtype)
    sources = tuple(jnp.asarray(x, dtype) for x in (centres, charges, width))
    return symmetric_matrices(functools.partial(_integrand, sources), basis, positions)[0]


def _integrand(sources: tuple[jax.Array, ...], la: int, lb: int, pair: PrimitivePairs) -> jax.Array:
    order, dtype = la + lb, pair.exponent.dtype

    @jax.checkpoint
    def add(total: Array, source: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        # Two Gaussians of exponents p and α repel like one of pα/(p + α) and a point; 1/α = 0 is a point charge.
        centre, charge, width = source
        scale = 1 / (1 + pair.exponent * width)
        potential = hermite_potential(order, pair.exponent * scale, pair.centre - centre[:, None, None])
        return total - charge * jnp.sqrt(scale) * potential, None

    empty = jnp.zeros((len(hermite_indices(order)), *pair.exponent.shape), dtype)
    potential, _ = jax.lax.scan(add, empty, sources)
    return _project(la, lb, hermite_expansion(la, lb, pair), 2 * jnp.pi / pair.exponent * potential)[None]


def _project(la: int, lb: int, expansion: Array, potential: Array) -> jax.Array:
    """Σ_tuv E_t E_u E_v potential_tuv, one direction after the other, (Cartesian a, Cartesian b, ...)."""
    order = la + lb
    cube = jnp.zeros((order + 1, order + 1, order + 1, *potential.shape[1:]), potential.dtype)
    t, u, v = np.array(hermite_indices(order)).T
    cube = cube.at[v, u, t].set(potential)
    powers = _power_pairs(la, lb)
    z, y, x = powers.z, powers.y, powers.x
    steps = range(order + 1)
    along_z = _sum(expansion[z[0], z[1], i, 2][:, None, None] * cube[i] for i in steps)
    along_y = _sum(expansion[y[0], y[1], i, 1][:, None] * along_z[powers.y_from_z, i] for i in steps)
    along_x = _sum(expansion[x[0], x[1], i, 0] * along_y[powers.x_from_y, i] for i in steps)
    return along_x.reshape(len(cartesian_powers(la)), len(cartesian_powers(lb)), *potential.shape[1:])


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


class _PowerPairs(NamedTuple):
    """Powers (a, b) that occur along z, along y and z, along all three, and where each continues a shorter one."""

    z: np.ndarray
    y: np.ndarray
    y_from_z: np.ndarray
    x: np.ndarray
    x_from_y: np.ndarray


@functools.cache
def _power_pairs(la: int, lb: int) -> _PowerPairs:
    all_pairs = [(a, b) for a in cartesian_powers(la).tolist() for b in cartesian_powers(lb).tolist()]
    along_z = sorted({(a[2], b[2]) for a, b in all_pairs})
    along_y = sorted({(a[2], b[2], a[1], b[1]) for a, b in all_pairs})
    return _PowerPairs(
        z=np.array(along_z).T,
        y=np.array([key[2:] for key in along_y]).T,
        y_from_z=np.array([along_z.index(key[:2]) for key in along_y]),
        x=np.array([(a[0], b[0]) for a, b in all_pairs]).T,
        x_from_y=np.array([along_y.index((a[2], b[2], a[1], b[1])) for a, b in all_pairs]),
    )
