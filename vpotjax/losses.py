"""Losses on matrices and observables of one molecule as functions: pure, masked, error = prediction − target.

Each is a mean of squares over what is real, in the squared unit of its argument. Matrices and levels may have a leading
spin axis, α and β; the mean is over both. Objects that add, for training, come last:
`3e5 * Observed("mo_energies") + Observed("dipole")`. A term is any callable of a prediction and its reference, so a
function of a user's is one; a weight is a number, or a function of the progress of the training (0 to 1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._numerics import adjoint
from vpotjax._typing import Array
from vpotjax.electronic.observables import Reference, known_observable, plain_difference
from vpotjax.metrics import label_of

CONSTANT = 1e-12  # squared atomic units; a variance below it is rounding
SAME_LEVEL = 1e-6  # hartree; stored levels closer than this are one degenerate level


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
    weights = jnp.where(same, 1.0, off_diagonal)
    real = mask[..., :, None] & mask[..., None, :]
    squares = _square(error)
    return jnp.sum(jnp.where(real, weights * squares, 0.0)) / _count(mask, squares.dtype)


def density_loss(density: Array, reference: Array, overlap: Array) -> jax.Array:
    """tr(ΔP S ΔP S) / nelec_ref, dimensionless: the part of the electrons that is misplaced, in any basis.

    Args:
        density, reference: P, (nao, nao), zero on padding; or (2, nao, nao), α and β.
        overlap: S, (nao, nao).
    """
    require_shape("reference", reference, jnp.shape(density))
    misplaced = (density - jnp.asarray(reference)) @ overlap
    metric = jnp.broadcast_to(jnp.conj(overlap), jnp.shape(reference))
    electrons = jnp.real(jnp.sum(jnp.asarray(reference) * metric))
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
    squares = _square(jnp.where(mask, error, 0.0))
    return jnp.sum(squares) / _count(mask, squares.dtype)


def _count(mask: Array, dtype: jnp.dtype) -> jax.Array:
    """Of True, at least one."""
    return jnp.maximum(jnp.sum(mask), 1).astype(dtype)


def _square(x: Array) -> jax.Array:
    """|x|², real."""
    return jnp.real(x * jnp.conj(x))


Weight = float | Callable[[Any], Any]


class Predicted(Protocol):
    """What a loss sees of a prediction; `Solution` is one. Losses of matrices need `matrix`, `density` and `space`."""

    matrix: Any
    space: Any

    @property
    def density(self) -> Any:
        """P."""

    def observable(self, name: str) -> Any:
        """In atomic units."""


class Loss:
    """A loss of one molecule; `loss + loss` and `weight * loss` are losses."""

    needs: frozenset[str] = frozenset()
    """What `Reference.values` must hold that follows from the reference F: "fock", "density", "orbitals", "levels"."""

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """() for one molecule."""
        raise NotImplementedError

    def fitted(self, references: Sequence[Reference]) -> Loss:
        """The loss with what it takes from training molecules, in batches, such as variances."""
        return self

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """What is measured, without weights and scales, by name; (), in squared atomic units.

        ‖Δ‖²/natm² of observables; of "fock" the mean over elements of Δ², of "density" misplaced electrons, of
        "alignment" the mean over levels. Functions of a user's are not among them.
        """
        return {}

    def __add__(self, other: Loss | Callable[..., Any]) -> Loss:
        return Sum((*_terms(self), *_terms(other)))

    def __radd__(self, other: Callable[..., Any]) -> Loss:
        return Sum((*_terms(other), *_terms(self)))

    def __rmul__(self, weight: Weight) -> Loss:
        return Weighted(weight, self)


def _terms(loss: Any) -> tuple[Loss, ...]:
    if isinstance(loss, Sum):
        return loss.terms
    if loss == 0:  # where the builtin `sum` starts
        return ()
    if not callable(loss):
        raise InputError(f"a term of the loss is {loss!r}; add losses, or functions of prediction and reference.")
    return (loss,) if isinstance(loss, Loss) else (Custom(loss),)


def from_to(start: float, end: float, until: float = 1.0) -> Callable[[Any], Any]:
    """A weight that goes linearly from `start` to `end` at the share `until` of the training, then stays."""
    return lambda progress: start + (end - start) * jnp.minimum(progress / until, 1.0)


@dataclasses.dataclass(frozen=True)
class Sum(Loss):
    """Of several losses."""

    terms: tuple[Loss, ...]

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of all terms."""
        return frozenset().union(*(term.needs for term in self.terms))

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """The sum."""
        values = [term(predicted, reference, progress) for term in self.terms]
        return sum(values[1:], start=values[0])

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """Of all terms."""
        parts = [term.squared_errors(predicted, reference) for term in self.terms]
        return {key: value for part in parts for key, value in part.items()}

    def fitted(self, references: Sequence[Reference]) -> Loss:
        """With all terms fitted."""
        return Sum(tuple(term.fitted(references) for term in self.terms))


@dataclasses.dataclass(frozen=True)
class Weighted(Loss):
    """A loss times a number, or times a function of the progress."""

    weight: Weight
    term: Loss

    def __post_init__(self) -> None:
        if not callable(self.weight) and not 0 <= self.weight < float("inf"):
            raise InputError(f"weight of {self.term} is {self.weight}; give 0 or a positive number, or a function.")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the term."""
        return self.term.needs

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """The product."""
        weight = self.weight(progress) if callable(self.weight) else self.weight
        return weight * self.term(predicted, reference, progress)

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """Of the term."""
        return self.term.squared_errors(predicted, reference)

    def fitted(self, references: Sequence[Reference]) -> Loss:
        """With the term fitted, unless it has no weight."""
        if not callable(self.weight) and self.weight == 0:
            return self
        return dataclasses.replace(self, term=self.term.fitted(references))


@dataclasses.dataclass(frozen=True)
class Custom(Loss):
    """A function of prediction and reference, of a user's."""

    function: Callable[[Any, Reference], Any]

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """What the function returns."""
        return jnp.asarray(self.function(predicted, reference))


@dataclasses.dataclass(frozen=True)
class Observed(Loss):
    """‖Δ‖²/natm² of an observable over its variance among the training molecules (Suman et al. 2025, JCTC 21, 6505).

    The variance is the mean over molecules of ‖x − ⟨x⟩‖²/natm²; for all that is compared in orbital energies, the gap
    included, it is that of all levels about their mean.

    Attributes:
        name: of `vpotjax.electronic.observables.OBSERVABLES`.
        variance: from `fitted`.
    """

    name: str
    variance: float = 1.0

    def __post_init__(self) -> None:
        known_observable(self.name)

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """See the class."""
        observable = known_observable(self.name)
        error = observable.difference(predicted.observable(self.name), label_of(observable, reference), reference)
        natm = jnp.asarray(reference.natm).astype(error.dtype)
        return jnp.sum(error**2) / (natm**2 * self.variance)

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """By the observable's name."""
        return {self.name: self(predicted, reference) * self.variance}

    def fitted(self, references: Sequence[Reference]) -> Loss:
        """With the variance.

        Raises:
            InputError: the observable does not vary, as with one molecule, or the labels lack it.
        """
        observable = known_observable(self.name)
        values = [np.asarray(label_of(observable, r)) for r in references]
        natm = np.concatenate([np.asarray(r.natm) for r in references])
        if observable.label == "mo_energies":
            masks = [np.asarray(r.level_mask) for r in references]
            mean = np.concatenate([x[m] for x, m in zip(values, masks, strict=True)]).mean()
            squares = [np.sum(np.where(m, x - mean, 0.0) ** 2, axis=1) for x, m in zip(values, masks, strict=True)]
        else:
            same = observable.difference is plain_difference  # else of atoms, over which a mean has no meaning
            mean = sum(x.sum(axis=0) for x in values) / len(natm) if same else 0.0
            squares = [np.sum((x - mean).reshape(len(x), -1) ** 2, axis=1) for x in values]
        variance = float(np.mean(np.concatenate(squares) / natm**2))
        if not variance > CONSTANT:
            raise InputError(
                f"{self.name} does not vary over the {len(natm)} training molecules; give more, or the weight 0."
            )
        return dataclasses.replace(self, variance=variance)


@dataclasses.dataclass(frozen=True)
class MatrixElements(Loss):
    """Mean square of the elements of F, or of misplaced electrons of P, against the reference.

    Attributes:
        target: "fock" or "density".
        scale: size of an element's error that counts as one.
    """

    target: str = "fock"
    scale: float = 1.0

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The matrix."""
        return frozenset({self.target})

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """See `matrix_loss` and `density_loss`."""
        space, wanted = predicted.space, reference.values[self.target]
        if self.target == "density":
            return density_loss(predicted.matrix, wanted, space.overlap) / self.scale**2
        return matrix_loss(predicted.matrix, wanted, space.ao_mask) / self.scale**2

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """By the matrix."""
        return {self.target: self(predicted, reference) * self.scale**2}


@dataclasses.dataclass(frozen=True)
class ElectronDensity(Loss):
    """The share of the electrons that the density of a predicted F misplaces, see `density_loss`."""

    needs = frozenset({"density"})

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """See the class."""
        return density_loss(predicted.density, reference.values["density"], predicted.space.overlap)

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """Under "misplaced"."""
        return {"misplaced": self(predicted, reference)}


@dataclasses.dataclass(frozen=True)
class Alignment(Loss):
    """See `wavefunction_alignment_loss`: with the orbitals of the reference F an error of the orbital energies.

    Attributes:
        scale: size of an element's error that counts as one.
    """

    scale: float = 1.0
    needs = frozenset({"orbitals", "levels"})

    def __call__(self, predicted: Predicted, reference: Reference, progress: Array | float = 1.0) -> jax.Array:
        """See the class."""
        values, mask = reference.values, predicted.space.ao_mask
        coefficients, energies = values["orbitals"], values["levels"]
        return wavefunction_alignment_loss(predicted.matrix, coefficients, energies, mask) / self.scale**2

    def squared_errors(self, predicted: Predicted, reference: Reference) -> dict[str, jax.Array]:
        """Under "alignment"."""
        return {"alignment": self(predicted, reference) * self.scale**2}
