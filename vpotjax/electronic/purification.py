"""The density matrix from matrix products alone: no eigensolver, no factorisation.

S^{−1/2} by the coupled Newton–Schulz iteration (Higham 2008, doi:10.1137/1.9780898717778, section 6.7), the projector
on the occupied space by second-order trace-correcting purification (Niklasson 2002, doi:10.1103/PhysRevB.66.155115).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._guards import flag, is_hermitian, overlap_is_valid
from vpotjax._numerics import adjoint, unit_padding
from vpotjax._typing import Array
from vpotjax.electronic.orbitals import spin_channels
from vpotjax.electronic.validation import checked_matrices, require_electrons


def purified_density_matrix(
    fock: Array,
    overlap: Array,
    nelec: Array | int,
    ao_mask: Array | None = None,
    *,
    root_steps: int = 40,
    steps: int = 60,
) -> jax.Array:
    """P as `density_matrix`, by matrix products: for accelerators and large batches.

    Its derivatives are those of the iteration, which converge with it. The number of steps needed grows with the
    logarithms of the condition number of S and of the width of the spectrum over the gap.

    Args:
        fock, overlap, nelec, ao_mask: as `density_matrix`.
        root_steps: iterations for S^{−1/2}; 40 serve for condition numbers up to 1e8.
        steps: purification steps; 60 serve for gaps down to 1e-5 of the width of the spectrum.

    Returns:
        As `density_matrix`; NaN also where the steps did not suffice.

    Raises:
        InputError: as `density_matrix`.
    """
    fock, overlap = checked_matrices(fock, overlap, ao_mask)
    require_electrons(fock, nelec, ao_mask)
    return _purified(fock, overlap, nelec, ao_mask, root_steps, steps)


@functools.partial(jax.jit, static_argnames=("root_steps", "steps"))
def _purified(
    fock: Array, overlap: Array, nelec: Array | int, ao_mask: Array | None, root_steps: int, steps: int
) -> jax.Array:
    channels, nocc, whole = spin_channels(fock, nelec)
    root, orthonormal = _inverse_root(unit_padding(overlap, ao_mask), root_steps)
    sound = overlap_is_valid(overlap, ao_mask, None)  # positive where the iteration converges
    real = jnp.ones(fock.shape[-1], bool) if ao_mask is None else jnp.asarray(ao_mask, bool)

    def one_spin(fock: Array, nocc: jax.Array) -> jax.Array:
        matrix = root @ jnp.where(real[:, None] & real[None, :], fock, 0.0) @ root
        projector, idempotent = _projector((matrix + adjoint(matrix)) / 2, nocc, real, steps)
        valid = flag(orthonormal, idempotent, is_hermitian(fock), sound, whole, nocc <= jnp.sum(real))
        return valid.astype(jnp.finfo(fock.dtype).dtype) * (root @ projector @ root)

    density = jnp.asarray((1 if fock.ndim == 3 else 2) * jax.vmap(one_spin)(channels, nocc))
    return density if fock.ndim == 3 else density[0]


def _converged(error: jax.Array) -> jax.Array:
    return error < 1e2 * jnp.finfo(error.dtype).eps ** 0.75


def _inverse_root(overlap: Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """S^{−1/2}, and whether the iteration has converged."""
    identity = jnp.eye(len(overlap), dtype=overlap.dtype)
    scale = stop_gradient(jnp.max(jnp.sum(jnp.abs(overlap), axis=1)))

    def step(pair: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        root, inverse = pair
        correction = 1.5 * identity - 0.5 * inverse @ root
        return (root @ correction, correction @ inverse), None

    (_, inverse), _ = jax.lax.scan(step, (jnp.asarray(overlap / scale), identity), None, length=steps)
    inverse = (inverse + adjoint(inverse)) / 2 / jnp.sqrt(scale)
    error = jnp.max(jnp.abs(inverse @ overlap @ inverse - identity))
    return inverse, _converged(error)


def _projector(matrix: jax.Array, nocc: jax.Array, real: Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Projector on the lowest `nocc` eigenvectors of the real part, and whether it is one."""
    diagonal = jnp.real(jnp.diagonal(matrix))
    nocc = nocc.astype(diagonal.dtype)
    radius = jnp.sum(jnp.abs(matrix), axis=1) - jnp.abs(diagonal)
    top = stop_gradient(jnp.max(jnp.where(real, diagonal + radius, -jnp.inf)))
    bottom = stop_gradient(jnp.min(jnp.where(real, diagonal - radius, jnp.inf)))
    margin = 0.01 * jnp.maximum(top - bottom, 0.1)  # or the start is 0 or 1 where no or all orbitals are occupied
    top, bottom = top + margin, bottom - margin
    start = (top * jnp.diag(real.astype(matrix.dtype)) - matrix) / (top - bottom)

    def step(projector: jax.Array, even: jax.Array) -> tuple[jax.Array, None]:
        square = projector @ projector
        trace, trace_square = jnp.real(jnp.trace(projector)), jnp.real(jnp.trace(square))
        lower, higher = jnp.abs(trace_square - nocc), jnp.abs(2 * trace - trace_square - nocc)
        # converged: alternate, or the same step doubles one block of the tangent each time
        done = lower + higher < 1e2 * len(projector) * jnp.finfo(trace.dtype).eps
        contract = jnp.where(done, even, lower < higher)
        return jnp.where(contract, square, 2 * projector - square), None

    projector, _ = jax.lax.scan(step, start, jnp.arange(steps) % 2 == 0)
    projector = (projector + adjoint(projector)) / 2
    error = jnp.max(jnp.abs(projector @ projector - projector)) + jnp.abs(jnp.real(jnp.trace(projector)) - nocc)
    return projector, _converged(error)
