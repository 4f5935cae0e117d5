"""Closed-form fit of the linear part of the network to Fock matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from vpotjax.operators.blocks import Coupled

REGULARISERS = tuple(10.0**k for k in range(-8, 1))


def ridge_weights(
    x: Coupled, y: Coupled, kinds: np.ndarray, kind_count: int, validation: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """W of F_c = Σ_k W_kc x_k for every kind of pair and irrep, by least squares with a penalty λ n ‖W‖².

    λ is chosen per irrep by the error on the samples of `validation`; the final fit uses the others, as the choice did.

    Args:
        x: normalised features by irrep, (nbatch, natm, natm, channels, 2λ+1).
        y: coupled blocks of the target, (nbatch, natm, natm, channels, 2λ+1).
        kinds: (nbatch, natm, natm).
        kind_count: number of kinds.
        validation: (nbatch,) True for samples that choose λ.

    Returns:
        weights by parameter name, (kinds, channels of x, channels of y), and the chosen λ by irrep.
    """
    held_out = np.broadcast_to(validation[:, None, None], kinds.shape)
    weights, chosen = {}, {}
    for irrep in y:
        features, targets = np.asarray(x[irrep]), np.asarray(y[irrep])
        errors = np.zeros(len(REGULARISERS))
        candidates = np.zeros((len(REGULARISERS), kind_count, features.shape[-2], targets.shape[-2]))
        for kind in range(kind_count):
            fit = _rows(features, targets, (kinds == kind) & ~held_out)
            check = _rows(features, targets, (kinds == kind) & held_out)
            for i, solution in enumerate(_solutions(*fit)):
                candidates[i, kind] = solution
                errors[i] += np.sum((check[0] @ solution - check[1]) ** 2)
        best = int(errors.argmin())
        weights[f"linear_{irrep}"], chosen[str(irrep)] = candidates[best], REGULARISERS[best]
    return weights, chosen


def _rows(features: np.ndarray, targets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(samples · components, channels) of both sides."""
    x, y = (np.swapaxes(a[chosen], 1, 2) for a in (features, targets))
    return x.reshape(-1, features.shape[-2]), y.reshape(-1, targets.shape[-2])


def _solutions(x: np.ndarray, y: np.ndarray) -> Any:
    """One (channels of x, channels of y) for each regulariser, from one eigendecomposition."""
    if not len(x):
        return [np.zeros((x.shape[1], y.shape[1]))] * len(REGULARISERS)
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    projected = vectors.T @ (x.T @ y) / len(x)
    return [vectors @ (projected / (np.maximum(values, 0) + r)[:, None]) for r in REGULARISERS]
