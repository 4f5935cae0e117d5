"""One eigenproblem, and all that follows from its orbitals: ε, C, P, α share it.

For the density and its response only the occupied and the virtual space matter; for ε and C the levels do. Both are
frames of the same eigenvectors (see `frames`), with different blocks.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._guards import flag, has_inverse, is_hermitian, overlap_is_valid
from vpotjax._numerics import adjoint, spectrum
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.electronic.eigenframes import frame, in_eigenbasis, turned
from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser, real_orbitals
from vpotjax.electronic.spectrum import homo_lumo_gap
from vpotjax.electronic.validation import checked_matrices, require_electrons, require_occupied

CLOSED = {jnp.dtype("float64"): 1e-7, jnp.dtype("float32"): 1e-5}
"""A HOMO–LUMO gap below this part of the largest |ε| is rounding."""
DEGENERATE = 1e-8  # hartree; rotations between levels closer than this are a gauge and get no derivative


@pytree
class Orbitals:
    """Solutions of F C = S C ε; the leading axis of the arrays is the spin, of size 1 for a closed shell.

    Attributes:
        unrestricted: α and β apart.
        max_occupied: no spin has more occupied orbitals; products over occupied orbitals are of this width.
        mo_energies: ε, (nspin, nao), ascending, hartree; infinite for padding and dropped functions, last.
        mo_coefficients: C, (nspin, nao, nao), columns are MOs; zero for padding and dropped functions.
        spaces: like C, but only occupied and virtual spaces are defined; their derivatives need no gap but HOMO–LUMO.
        within: Fock matrices of the spaces, (nspin, nao, nao).
        occupied: (nspin, nao) True for occupied orbitals.
        valid: (nspin,) 1, or NaN for a closed gap, a bad number of electrons, or F or S that are not Hermitian.
    """

    unrestricted: bool = static_field()
    max_occupied: int = static_field()
    mo_energies: Array
    mo_coefficients: Array
    spaces: Array
    within: Array
    occupied: Array
    valid: Array

    @property
    def electrons_per_orbital(self) -> int:
        """1 with α and β apart, else 2."""
        return 1 if self.unrestricted else 2

    @property
    def density(self) -> jax.Array:
        """P, see `density_matrix`."""
        few = slice(self.max_occupied)
        occupied = self.spaces[:, :, few] * self.occupied[:, None, few].astype(self.spaces.dtype)
        factor = self.electrons_per_orbital * jnp.asarray(self.valid)
        density = factor[:, None, None] * (occupied @ adjoint(self.spaces[:, :, few]))
        return density if self.unrestricted else density[0]


def orbitals(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
    *,
    threshold: float | None = None,
    max_occupied: int | None = None,
) -> Orbitals:
    """Orbitals for several observables at the price of one eigenproblem; see `eigh` and `density_matrix`.

    Args:
        fock: F, (nao, nao), symmetric or Hermitian, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        nelec: number of electrons, even; for α and β their two numbers. May be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
        threshold: see `eigh`.
        max_occupied: most occupied orbitals that a spin may have; static. In bases with many more functions, products
            over occupied orbitals cost a fraction then; more electrons give NaN under jit. Default: nao.

    Raises:
        InputError: as `density_matrix`; `max_occupied` is not between 1 and nao, or known to be too few.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask, threshold)
    require_electrons(fock, nelec, ao_mask)
    require_occupied(max_occupied, fock, nelec)
    return solutions(fock, overlap, nelec, ao_mask, threshold, max_occupied)


@functools.partial(jax.jit, static_argnames=("threshold", "max_occupied"))
def solutions(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None,
    threshold: float | None,
    max_occupied: int | None = None,
) -> Orbitals:
    """`orbitals` without checks."""
    most = overlap.shape[-1] if max_occupied is None else max_occupied
    transformation = orthogonaliser(overlap, ao_mask, threshold)
    count = jnp.sum(real_orbitals(transformation))
    channels, nocc, whole = spin_channels(fock, nelec)
    sound = overlap_is_valid(overlap, ao_mask, threshold) & has_inverse(overlap, transformation) & (count > 0)

    def one_spin(fock: jax.Array, nocc: Array) -> tuple[Any, ...]:
        energies, vectors = spectrum(orthogonal_fock(fock, transformation))
        vectors = transformation @ vectors
        occupied = jnp.arange(len(energies)) < nocc
        gap = homo_lumo_gap(energies, 2 * nocc)
        is_open = (gap > CLOSED[energies.dtype] * jnp.max(jnp.abs(energies))) | (nocc == 0) | (nocc == count)
        follower, within = frame(in_eigenbasis(fock, energies, vectors), occupied[:, None] != occupied[None, :])
        spaces = turned(vectors, follower)
        apart = jnp.abs(energies[:, None] - energies[None, :]) > DEGENERATE
        follower, level = frame(within, apart)
        symmetric = flag(is_hermitian(fock), sound).astype(energies.dtype)
        return (
            symmetric * jnp.where(jnp.arange(len(energies)) < count, jnp.real(jnp.diagonal(level)), jnp.inf),
            symmetric * turned(spaces, follower),
            spaces,
            within,
            occupied,
            flag(symmetric == 1, is_open, nocc <= jnp.minimum(count, most), whole).astype(energies.dtype),
        )

    return Orbitals(fock.ndim == 3, most, *jax.vmap(one_spin)(channels, nocc))


def spin_channels(fock: Array, nelec: Array | int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fock matrices (nspin, nao, nao), occupied orbitals (nspin,), and whether those are whole numbers from 0."""
    electrons, channels = jnp.asarray(nelec), jnp.asarray(fock)
    if fock.ndim == 3:
        return channels, electrons, jnp.all((electrons % 1 == 0) & (electrons >= 0))
    return channels[None], electrons[None] // 2, (electrons % 2 == 0) & (electrons >= 0)
