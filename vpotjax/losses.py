"""Losses on matrices and observables of one molecule: pure, masked, error = prediction − target.

Each is a mean of squares over what is real, in the squared unit of its argument; `observable_loss` combines several.
Matrices and levels may have a leading spin axis, α and β; the mean is over both.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._numerics import adjoint
from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.electronic.spectrum import homo_lumo_gap

CONSTANT = 1e-12  # squared atomic units; a variance below it is rounding
SAME_LEVEL = 1e-6  # hartree; stored levels closer than this are one degenerate level


@pytree
class Targets:
    """Reference observables of one molecule (or, with a leading axis, of a batch).

    Attributes:
        mo_energies: (nao,), hartree, of the level of the model that stands at the same place; 0 where there is none.
        level_mask: (nao,) True where both have a level: not for padding, nor for atomic cores where one of the bases
            lacks some of them.
        dipole: (3,), e·bohr.
        polarizability: (3, 3), bohr³, uncoupled.
        natm: () number of atoms.
        nelec: () number of electrons in the basis of the model, even.
    """

    mo_energies: Array
    level_mask: Array
    dipole: Array
    polarizability: Array
    natm: Array
    nelec: Array


@pytree
class LossWeights:
    """Factors of ‖Δ‖²/natm² of each observable: wanted weight over variance of the target.

    That of the HOMO–LUMO gap is relative to the variance of the orbital energies.
    """

    mo_energies: Array | float
    gap: Array | float
    dipole: Array | float
    polarizability: Array | float


def variance_weights(
    targets: Targets, mo_energies: float = 1e4, gap: float = 0.0, dipole: float = 1e3, polarizability: float = 1e2
) -> LossWeights:
    """Weights over the variances of the targets of a batch (Suman et al. 2025, JCTC 21, 6505).

    The variance is the mean over molecules of ‖x − ⟨x⟩‖²/natm²; the mean level is that of all levels. The recipe has no
    term for the gap; with one, HOMO and LUMO count more than other levels.

    Raises:
        InputError: an observable with a weight does not vary, as with one molecule, or one without a dipole.
    """
    natm = np.asarray(targets.natm, float)
    levels, mask = np.asarray(targets.mo_energies), np.asarray(targets.level_mask)
    centred = np.where(mask, levels - levels[mask].mean(), 0.0)

    def over_variance(name: str, weight: float, x: np.ndarray) -> float:
        variance = float(np.mean(np.sum(x.reshape(len(natm), -1) ** 2, axis=1) / natm**2))
        if weight and not variance > CONSTANT:
            raise InputError(
                f"{name} does not vary over the {len(natm)} training molecules; give more of them, or the weight 0."
            )
        return weight / variance if weight else 0.0

    def spread(x: Array) -> np.ndarray:
        values = np.asarray(x)
        return values - values.mean(axis=0)

    return LossWeights(
        over_variance("mo_energies", mo_energies, centred),
        over_variance("gap", gap, centred),
        over_variance("dipole", dipole, spread(targets.dipole)),
        over_variance("polarizability", polarizability, spread(targets.polarizability)),
    )


def observable_loss(
    mo_energies: Array, dipole: Array, polarizability: Array, targets: Targets, weights: LossWeights
) -> jax.Array:
    """Σ_q w_q ‖Δ_q‖²/natm² over ε, gap, μ and α of one molecule, ().

    Args:
        mo_energies: (nao,), hartree.
        dipole: (3,), e·bohr.
        polarizability: (3, 3), bohr³.
        targets: of the same molecule.
        weights: see `variance_weights`.
    """
    levels = jnp.where(targets.level_mask, mo_energies - targets.mo_energies, 0.0)
    predicted, wanted = (
        homo_lumo_gap(e, targets.nelec, targets.level_mask) for e in (mo_energies, targets.mo_energies)
    )
    gap = jnp.where(jnp.isnan(wanted), 0.0, predicted - wanted)  # a molecule without a LUMO
    total = (
        weights.mo_energies * jnp.sum(levels**2)
        + weights.gap * gap**2
        + weights.dipole * jnp.sum((dipole - targets.dipole) ** 2)
        + weights.polarizability * jnp.sum((polarizability - targets.polarizability) ** 2)
    )
    return jnp.asarray(total / targets.natm**2)


def occupied_levels(nelec: Array | int, level_mask: Array) -> jax.Array:
    """(nmo,) True for the occupied of the real levels; (2, nmo) for two numbers of electrons, α and β.

    Raises:
        InputError: one number of electrons that is known and odd.
    """
    return jnp.asarray(level_mask) & (_position(nelec, level_mask) < 0)


def frontier_levels(nelec: Array | int, level_mask: Array, below: int = 1, above: int = 1) -> jax.Array:
    """(nmo,) True for the `below` highest occupied and the `above` lowest virtual of the real levels, or (2, nmo)."""
    distance = _position(nelec, level_mask)
    return jnp.asarray(level_mask) & (distance >= -below) & (distance < above)


def _position(nelec: Array | int, level_mask: Array) -> jax.Array:
    """Of each level counted from the LUMO, for each spin where `nelec` has two numbers."""
    electrons = jnp.asarray(nelec)
    if is_concrete(nelec) and not electrons.ndim and np.asarray(nelec) % 2:
        raise InputError(f"nelec is {nelec}, an open shell; give the numbers of α and β.")
    nocc = electrons[:, None] if electrons.ndim else electrons // 2
    return jnp.arange(jnp.shape(level_mask)[-1]) - nocc


def orbital_energy_loss(mo_energies: Array, reference: Array, level_mask: Array) -> jax.Array:
    """Mean over the masked levels of Δε², hartree².

    Args:
        mo_energies, reference: (nmo,) or (2, nmo), ascending, hartree.
        level_mask: of the same shape, which levels count; see `occupied_levels` and `frontier_levels`.
    """
    require_shape("reference", reference, jnp.shape(mo_energies))
    return _masked_mean(mo_energies - jnp.asarray(reference), level_mask)


def gauge_shift(fock: Array, reference: Array, overlap: Array, ao_mask: Array | None = None) -> jax.Array:
    """μ that minimises ‖F + μS − F_ref‖, (), hartree: the energy zero that a potential leaves open.

    Args:
        fock, reference: F and F_ref, (nao, nao) or (2, nao, nao), α and β with one shift.
        overlap: S, (nao, nao).
        ao_mask: (nao,) True where an AO is real; default: all.
    """
    metric = jnp.where(_pairs(ao_mask, fock), overlap, 0.0)
    metric = jnp.broadcast_to(metric, jnp.shape(fock))
    return jnp.real(jnp.sum(jnp.conj(metric) * (reference - fock))) / jnp.sum(_square(metric))


def matrix_loss(
    matrix: Array, reference: Array, ao_mask: Array | None = None, *, overlap: Array | None = None
) -> jax.Array:
    """Mean over elements of Δ², hartree² for Fock matrices.

    Args:
        matrix, reference: (nao, nao) or (2, nao, nao).
        ao_mask: (nao,) True where an AO is real; default: all.
        overlap: S, (nao, nao): the error up to a multiple of S, see `gauge_shift`.
    """
    require_shape("reference", reference, jnp.shape(matrix))
    error = matrix - jnp.asarray(reference)
    if overlap is not None:
        error = error + gauge_shift(matrix, reference, overlap, ao_mask) * overlap
    return _masked_mean(error, _pairs(ao_mask, matrix))


def wavefunction_alignment_loss(
    fock: Array, reference_coefficients: Array, reference_energies: Array, level_mask: Array, off_diagonal: float = 1.0
) -> jax.Array:
    """Mean over levels of ‖C_refᵀ F C_ref − diag ε_ref‖², hartree²: no eigenproblem of F, no small denominators.

    At a degenerate level diag ε_ref is a multiple of the identity, and with `off_diagonal` = 1 the norm does not change
    when the stored orbitals of the level are rotated. Elements inside a degenerate level keep weight 1 in any case
    (Li et al. 2025, "wavefunction alignment").

    Args:
        fock: F, (nao, nao) or (2, nao, nao), hartree.
        reference_coefficients: C_ref, (nao, nmo) or (2, nao, nmo), zero on padding.
        reference_energies: ε_ref, (nmo,) or (2, nmo), hartree.
        level_mask: (nmo,) or (2, nmo), which levels count.
        off_diagonal: weight of elements between different levels.
    """
    energies, frame = jnp.asarray(reference_energies), jnp.asarray(reference_coefficients)
    mask = jnp.broadcast_to(jnp.asarray(level_mask), energies.shape)
    energies = jnp.where(mask, energies, 0.0)  # those of padding are infinite
    spins, levels = energies.shape[:-1], energies.shape[-1]
    require_shape("fock", fock, (*spins, *jnp.shape(fock)[-2:]))
    require_shape("reference_coefficients", frame, (*spins, jnp.shape(fock)[-1], levels))
    error = adjoint(frame) @ fock @ frame - energies[..., None] * jnp.eye(levels, dtype=energies.dtype)
    same = jnp.abs(energies[..., :, None] - energies[..., None, :]) < SAME_LEVEL
    weights = jnp.where(same, 1.0, off_diagonal) * (mask[..., :, None] & mask[..., None, :])
    return jnp.sum(weights * _square(error)) / jnp.maximum(jnp.sum(mask), 1)


def density_loss(density: Array, reference: Array, overlap: Array) -> jax.Array:
    """tr(ΔP S ΔP S) / nelec_ref, dimensionless: the part of the electrons that is misplaced, in any basis.

    Args:
        density, reference: P, (nao, nao), zero on padding; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
    """
    require_shape("reference", reference, jnp.shape(density))
    misplaced = (density - jnp.asarray(reference)) @ overlap
    electrons = jnp.real(jnp.sum(jnp.asarray(reference) * jnp.conj(overlap)))
    return jnp.real(jnp.sum(misplaced * jnp.swapaxes(misplaced, -1, -2))) / electrons


def dipole_loss(dipole: Array, reference: Array) -> jax.Array:
    """Mean over components of Δμ², (e·bohr)²; both (3,)."""
    return jnp.mean((jnp.asarray(dipole) - reference) ** 2)


def polarizability_loss(polarizability: Array, reference: Array) -> jax.Array:
    """Mean over components of Δα², bohr⁶; both (3, 3)."""
    return jnp.mean((jnp.asarray(polarizability) - reference) ** 2)


def charge_loss(charges: Array, reference: Array, numbers: Array) -> jax.Array:
    """Mean over real atoms of Δq², e².

    Args:
        charges, reference: (natm,), e.
        numbers: (natm,) atomic numbers, 0 for padding.
    """
    return _masked_mean(jnp.asarray(charges) - reference, jnp.asarray(numbers) > 0)


def bond_order_loss(bond_orders: Array, reference: Array, numbers: Array) -> jax.Array:
    """Mean over pairs of real atoms of ΔB², dimensionless.

    Args:
        bond_orders, reference: (natm, natm).
        numbers: (natm,) atomic numbers, 0 for padding.
    """
    real = jnp.asarray(numbers) > 0
    pairs = real[:, None] & real[None, :] & ~jnp.eye(len(real), dtype=bool)
    return _masked_mean(jnp.asarray(bond_orders) - reference, pairs)


def _pairs(ao_mask: Array | None, matrix: Array) -> jax.Array:
    mask = jnp.ones(jnp.shape(matrix)[-1], bool) if ao_mask is None else jnp.asarray(ao_mask)
    return mask[:, None] & mask[None, :]


def _masked_mean(error: Array, mask: Array) -> jax.Array:
    mask = jnp.broadcast_to(jnp.asarray(mask), jnp.shape(error))
    return jnp.sum(_square(jnp.where(mask, error, 0.0))) / jnp.maximum(jnp.sum(mask), 1)


def _square(x: Array) -> jax.Array:
    """|x|², real."""
    return jnp.real(x * jnp.conj(x))
