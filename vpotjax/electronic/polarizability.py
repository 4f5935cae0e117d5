"""Uncoupled polarizability: the response of the dipole to a field at fixed F."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError, require_shape
from vpotjax._typing import Array
from vpotjax.electronic.frames import response
from vpotjax.electronic.occupied import occupied_frame, spin_channels
from vpotjax.electronic.validation import require_electrons, require_matrices, require_positive


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
) -> jax.Array:
    """Uncoupled polarizability α = 4 Σ_ia r_ia ⊗ r_ia Δ/(Δ² − ω²), Δ = ε_a − ε_i, (3, 3) in bohr³.

    Static (ω = 0) by default. It is a closed sum over occupied and virtual spaces, so that its derivatives are free of
    small denominators; with α and β the factor is 2 for each spin.

    Args:
        fock: F, (nao, nao), symmetric, hartree; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
        position_integrals: r, (3, nao, nao), bohr; the origin does not matter.
        nelec: number of electrons, even; for α and β their two numbers. May be traced.
        ao_mask: (nao,) True where an AO is real; default: all.
        frequency: ω in hartree, may be traced; at a real frequency above the gap the sum has poles, without damping.
        imaginary: the frequency is iω: α(iω) = 4 Σ r ⊗ r Δ/(Δ² + ω²), as dispersion coefficients need it.
        threshold: see `eigh`.

    Returns:
        α, symmetric; NaN as `density_matrix`.

    Raises:
        InputError: as `density_matrix`; `imaginary` without a frequency.
    """
    require_matrices(fock, overlap)
    require_shape("position_integrals", position_integrals, (3, *overlap.shape))
    require_positive(overlap, ao_mask, threshold)
    require_electrons(fock, nelec, ao_mask)
    if imaginary and frequency is None:
        raise InputError("imaginary is True, but frequency is None; give the frequency in hartree.")
    shift = None if frequency is None else (1.0 if imaginary else -1.0) * jnp.asarray(frequency) ** 2
    return _polarizability(fock, overlap, position_integrals, nelec, ao_mask, shift, threshold)


@functools.partial(jax.jit, static_argnames="threshold")
def _polarizability(
    fock: Array,
    overlap: Array,
    position_integrals: Array,
    nelec: Array | int,
    ao_mask: Array | None,
    shift: Array | None,
    threshold: float | None,
) -> jax.Array:
    channels, nocc, electrons, closed_shell = spin_channels(fock, nelec)

    def one_spin(fock: Array, nocc: Array) -> jax.Array:
        frame = occupied_frame(fock, overlap, nocc, ao_mask, threshold)
        virtual_occupied = ~frame.occupied[:, None] & frame.occupied[None, :]
        position = frame.coefficients.T @ position_integrals @ frame.coefficients
        position = jnp.where(virtual_occupied, position, 0.0)
        amplitudes = response(frame.within, frame.energies, virtual_occupied, position, shift)
        if shift is not None:
            amplitudes = frame.within @ amplitudes - amplitudes @ frame.within
        alpha = jnp.einsum("xai,yai->xy", position, amplitudes)
        return frame.valid * (alpha + alpha.T) / 2

    return 2 * electrons * closed_shell * jnp.sum(jax.vmap(one_spin)(channels, nocc), axis=0)
