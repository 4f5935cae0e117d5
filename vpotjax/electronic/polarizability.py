"""Uncoupled polarizability: the response of the dipole to a field at fixed F."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._guards import flag, floating_array, is_hermitian, require_hermitian
from vpotjax._numerics import adjoint
from vpotjax._typing import Array
from vpotjax.electronic.eigenframes import response
from vpotjax.electronic.multipoles import nuclei
from vpotjax.electronic.orbitals import Orbitals, solutions
from vpotjax.electronic.validation import checked_matrices, require_electrons, require_occupied


def polarizability(
    fock: Array,
    overlap: Array,
    position_integrals: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
    *,
    frequency: Array | float | None = None,
    imaginary: bool = False,
    threshold: float | None = None,
    max_occupied: int | None = None,
) -> jax.Array:
    """Uncoupled polarizability α = 4 Σ_ia r_ia ⊗ r_ia Δ/(Δ² − ω²), Δ = ε_a − ε_i, (3, 3) in bohr³.

    Static (ω = 0) by default. It is a closed sum over occupied and virtual spaces, so that its derivatives are free of
    small denominators; with α and β the factor is 2 for each spin.

    Args:
        fock: F, (nao, nao), symmetric or Hermitian, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        position_integrals: r, (3, nao, nao), symmetric or Hermitian, bohr; the origin does not matter.
        nelec: number of electrons, even; for α and β their two numbers. May be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
        frequency: ω in hartree, may be traced; at a real frequency above the gap the sum has poles, without damping.
        imaginary: the frequency is iω: α(iω) = 4 Σ r ⊗ r Δ/(Δ² + ω²), as dispersion coefficients need it.
        threshold, max_occupied: see `orbitals`.

    Returns:
        α, symmetric; NaN as `density_matrix`.

    Raises:
        InputError: as `density_matrix`; `imaginary` without a frequency.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask, threshold)
    position_integrals = floating_array("position_integrals", position_integrals)
    require_shape("position_integrals", position_integrals, (3, *overlap.shape))
    require_electrons(fock, nelec, ao_mask)
    require_hermitian("position_integrals", "r", position_integrals)
    if frequency is not None:
        _require_frequency(frequency)
    if imaginary and frequency is None:
        raise InputError("imaginary is True, but frequency is None; give the frequency in hartree.")
    require_occupied(max_occupied, fock, nelec)
    solved = solutions(fock, overlap, nelec, ao_mask, threshold, max_occupied)
    return polarizability_of(solved, position_integrals, frequency, imaginary)


def _require_frequency(frequency: Array | float) -> None:
    if jnp.iscomplexobj(frequency) or jnp.ndim(frequency) or (is_concrete(frequency) and not np.isfinite(frequency)):
        raise InputError(
            f"frequency is {frequency}; give one real number, with imaginary=True for α(iω), and several by vmap."
        )


@functools.partial(jax.jit, static_argnames="imaginary")
def polarizability_of(
    orbitals: Orbitals,
    position_integrals: Array,
    frequency: Array | float | None = None,
    imaginary: bool = False,
) -> jax.Array:
    """`polarizability` of given orbitals, (3, 3) in bohr³.

    Args:
        orbitals: from `orbitals`.
        position_integrals, frequency, imaginary: as `polarizability`.
    """
    return _polarizability(orbitals, *_position_elements(orbitals, position_integrals), frequency, imaginary)


@jax.jit
def dipole_and_polarizability(
    orbitals: Orbitals, position_integrals: Array, positions: Array, nuclear_charges: Array
) -> tuple[jax.Array, jax.Array]:
    """`dipole`, (3,) in e·bohr, and `polarizability`, (3, 3) in bohr³, of given orbitals: one transformation of r.

    Args:
        orbitals: from `orbitals`.
        position_integrals, positions, nuclear_charges: as `dipole`.

    Raises:
        InputError: other shapes.
    """
    require_shape("position_integrals", position_integrals, (3, *jnp.shape(orbitals.spaces)[1:]))
    places, charges = nuclei(positions, nuclear_charges)
    elements, symmetric = _position_elements(orbitals, position_integrals)
    square = elements[:, :, : orbitals.max_occupied]
    diagonal = jnp.real(jnp.diagonal(square, axis1=-2, axis2=-1))
    weights = orbitals.electrons_per_orbital * jnp.asarray(orbitals.valid)[:, None] * symmetric
    occupied = weights * jnp.asarray(orbitals.occupied)[:, : orbitals.max_occupied].astype(diagonal.dtype)
    return charges @ places - jnp.einsum("sxi,si->x", diagonal, occupied), _polarizability(
        orbitals, elements, symmetric
    )


def _position_elements(orbitals: Orbitals, position_integrals: Array) -> tuple[jax.Array, jax.Array]:
    """Cᴴ r C, (nspin, 3, nao, max_occupied), with occupied columns; and a factor: NaN where r is not Hermitian."""
    operator, spaces = jnp.asarray(position_integrals), jnp.asarray(orbitals.spaces)
    elements = jax.vmap(lambda c: adjoint(c) @ (operator @ c[:, : orbitals.max_occupied]))(spaces)
    return elements, flag(is_hermitian(operator)).astype(jnp.finfo(elements.dtype).dtype)


def _polarizability(
    orbitals: Orbitals,
    elements: jax.Array,
    symmetric: jax.Array,
    frequency: Array | float | None = None,
    imaginary: bool = False,
) -> jax.Array:
    few = slice(orbitals.max_occupied)
    shift = None if frequency is None else (1.0 if imaginary else -1.0) * jnp.asarray(frequency) ** 2

    def one_spin(elements: jax.Array, within: Array, occupied: Array, valid: Array) -> jax.Array:
        virtual_occupied = ~occupied[:, None] & occupied[None, few]
        position = jnp.where(virtual_occupied, elements, 0.0)
        amplitudes = response(within, virtual_occupied, position, shift)
        if shift is not None:
            amplitudes = within @ amplitudes - amplitudes @ within[few, few]
        alpha = jnp.real(jnp.einsum("xai,yai->xy", jnp.conj(position), amplitudes))
        return jnp.asarray(valid * (alpha + alpha.T) / 2)

    per_spin = jax.vmap(one_spin)(elements, orbitals.within, orbitals.occupied, orbitals.valid)
    return 2 * orbitals.electrons_per_orbital * symmetric * jnp.sum(per_spin, axis=0)
