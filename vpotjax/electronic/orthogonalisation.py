"""Orthonormal combinations of AOs: X with Xᴴ S X = 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from vpotjax._numerics import adjoint, inverse_cholesky, inverse_square_root, spectrum, unit_padding
from vpotjax._typing import Array
from vpotjax.electronic.eigenframes import frame, in_eigenbasis, turned


def orthogonaliser(overlap: Array, ao_mask: Array | None = None, threshold: float | None = None) -> jax.Array:
    """X, (nao, nao), with Xᴴ S X = 1 on the real functions; columns of padding and of dropped functions are zero.

    Without `threshold` X = L⁻ᴴ with S = L Lᴴ: it costs a fraction of an eigenproblem. With it, canonical
    orthogonalisation: X = U s^{−1/2} without the eigenvalues s < threshold (Löwdin 1970,
    doi:10.1016/S0065-3276(08)60339-1). X follows S up to rotations among its columns, which no observable depends on.
    """
    padded = unit_padding(overlap, ao_mask)
    if threshold is None:
        matrix = adjoint(inverse_cholesky(padded))
    else:
        if ao_mask is not None:  # so that padding is dropped, too, and its columns are zero to the last bit
            real = jnp.asarray(ao_mask, bool)
            padded = jnp.where(real[:, None] & real[None, :], padded, 0.0)
        values, vectors = spectrum(padded)
        kept = values >= threshold
        follower, within = frame(in_eigenbasis(padded, values, vectors), kept[:, None] != kept[None, :])
        root = inverse_square_root(unit_padding(within, kept))
        columns = kept[None, :].astype(padded.dtype)
        matrix = (turned(vectors, follower) * columns) @ (root * columns)
    return matrix if ao_mask is None else matrix * jnp.asarray(ao_mask)[:, None].astype(matrix.dtype)


def orthogonal_fock(fock: Array, transformation: Array, margin: Array | float = 0.0) -> jax.Array:
    """Xᴴ F X, (nao, nao), with the zero columns of X above the spectrum by more than 1 + `margin` hartree."""
    matrix = adjoint(transformation) @ fock @ transformation
    matrix = (matrix + adjoint(matrix)) / 2
    # Above every level by Gershgorin's theorem, yet of their size, so that no digits are lost.
    bound = stop_gradient(jnp.max(jnp.sum(jnp.abs(matrix), axis=1)))
    missing = ~real_orbitals(transformation)
    return matrix + jnp.diag(jnp.where(missing, bound + 1.0 + margin, 0.0))


def real_orbitals(coefficients: Array) -> jax.Array:
    """(nmo,) True for orbitals that are neither padding nor dropped as linearly dependent."""
    return jnp.any(coefficients != 0, axis=-2)
