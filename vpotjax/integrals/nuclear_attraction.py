"""The potential of nuclei: V_μν = ⟨μ|−Σ_C Z_C / |r − R_C||ν⟩ (PySCF's `int1e_nuc`), and its terms per nucleus.

The potentials of all nuclei are summed at the Hermite level, before the AO matrix is assembled.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import require_shape
from vpotjax.basis import Basis
from vpotjax.conventions import cartesian_powers
from vpotjax.integrals.assemble import symmetric_matrices
from vpotjax.integrals.hermite import hermite_expansion, hermite_indices, hermite_potential
from vpotjax.integrals.shell_pairs import PrimitivePairs


def external_potential(basis: Basis, positions: jax.Array, nuclear_charges: jax.Array | None = None) -> jax.Array:
    """V, (nao, nao), hartree, negative.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        nuclear_charges: (natm,), may be fractional and traced; default: those of `basis`.
    """
    charges = basis.nuclear_charges if nuclear_charges is None else nuclear_charges
    require_shape("nuclear_charges", charges, (basis.natm,))
    integrand = functools.partial(_integrand, jnp.asarray(positions), jnp.asarray(charges))
    return symmetric_matrices(integrand, basis, positions)[0]


def nuclear_attraction(basis: Basis, positions: jax.Array) -> jax.Array:
    """The terms of V per nucleus, (natm, nao, nao), hartree, negative; their sum is `external_potential`.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
    """
    charges = jnp.diag(jnp.asarray(basis.nuclear_charges))
    return jax.lax.map(lambda charge: external_potential(basis, positions, charge), charges)


def _integrand(centres: jax.Array, charges: jax.Array, la: int, lb: int, pair: PrimitivePairs) -> jax.Array:
    order, dtype = la + lb, pair.exponent.dtype

    @jax.checkpoint
    def add(total: jax.Array, nucleus: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        centre, charge = nucleus
        potential = hermite_potential(order, pair.exponent, pair.centre - centre[:, None, None])
        return total - charge * potential, None

    empty = jnp.zeros((len(hermite_indices(order)), *pair.exponent.shape), dtype)
    potential, _ = jax.lax.scan(add, empty, (centres.astype(dtype), charges.astype(dtype)))
    return _project(la, lb, hermite_expansion(la, lb, pair), 2 * jnp.pi / pair.exponent * potential)[None]


def _project(la: int, lb: int, expansion: jax.Array, potential: jax.Array) -> jax.Array:
    """Σ_tuv E_t E_u E_v potential_tuv, one direction after the other, (Cartesian a, Cartesian b, ...)."""
    order = la + lb
    cube = jnp.zeros((order + 1, order + 1, order + 1, *potential.shape[1:]), potential.dtype)
    t, u, v = np.array(hermite_indices(order)).T
    cube = cube.at[v, u, t].set(potential)
    powers = _power_pairs(la, lb)
    z, y, x = powers.z, powers.y, powers.x
    along_z = sum(expansion[z[0], z[1], i, 2][:, None, None] * cube[i] for i in range(order + 1))
    along_y = sum(expansion[y[0], y[1], i, 1][:, None] * along_z[powers.y_from_z, i] for i in range(order + 1))
    along_x = sum(expansion[x[0], x[1], i, 0] * along_y[powers.x_from_y, i] for i in range(order + 1))
    return along_x.reshape(len(cartesian_powers(la)), len(cartesian_powers(lb)), *potential.shape[1:])


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
