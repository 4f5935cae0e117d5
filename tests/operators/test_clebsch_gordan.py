"""Clebsch–Gordan coefficients: orthogonality, equivariance, and e3nn's."""

import itertools
import warnings

import numpy as np
import pytest

from tests.molecules import random_rotation
from vpotjax.conventions import ao_transform, rotation_matrices
from vpotjax.operators.clebsch_gordan import clebsch_gordan

PAIRS = list(itertools.product(range(4), repeat=2))
TOLERANCE = 1e-12  # sums of at most 49 products of numbers up to 1


def triangle(l1, l2):
    return range(abs(l1 - l2), l1 + l2 + 1)


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_all_together_are_orthogonal(l1, l2):
    size = (2 * l1 + 1) * (2 * l2 + 1)
    change = np.concatenate([clebsch_gordan(l1, l2, l3).reshape(size, -1) for l3 in triangle(l1, l2)], axis=1)
    assert change.shape == (size, size)
    np.testing.assert_allclose(change.T @ change, np.eye(size), atol=TOLERANCE)


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_coupling_commutes_with_rotations(l1, l2):
    rotation = random_rotation(4)  # improper
    d = rotation_matrices(6, tuple(map(tuple, rotation)))
    for l3 in triangle(l1, l2):
        coupling = clebsch_gordan(l1, l2, l3)
        rotated = np.einsum("am,bn,abk->mnk", d[l1], d[l2], coupling)
        parity = (-1) ** (l1 + l2 + l3)  # of the product over that of l3: the inversion's part of the rotation
        expected = parity * np.einsum("mnj,kj->mnk", coupling, d[l3])
        np.testing.assert_allclose(rotated, expected, atol=TOLERANCE)
        if l3:
            assert np.abs(rotated - coupling).max() > 0.01


@pytest.mark.parametrize(("l1", "l2", "l3"), [(0, 0, 1), (1, 1, 3), (2, 0, 1), (3, 1, 1), (1, 3, 5)])
def test_zero_outside_the_triangle(l1, l2, l3):
    assert clebsch_gordan(l1, l2, l3).shape == (2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1)
    assert not np.any(clebsch_gordan(l1, l2, l3))


@pytest.mark.parametrize(("l1", "l2"), PAIRS)
def test_agrees_with_e3nn(l1, l2):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e3nn_jax's own use of deprecated JAX names
        import e3nn_jax

        theirs = {l3: np.asarray(e3nn_jax.clebsch_gordan(l1, l2, l3)) for l3 in triangle(l1, l2)}
    u1, u2 = (ao_transform(l, "e3nn") for l in (l1, l2))
    for l3, other in theirs.items():
        ours = np.einsum("am,bn,ck,mnk->abc", u1, u2, ao_transform(l3, "e3nn"), clebsch_gordan(l1, l2, l3))
        other = other * np.sqrt(2 * l3 + 1) / np.linalg.norm(other)
        # Schur's lemma leaves a sign; 1e-6 because e3nn_jax computes its table in part in single precision.
        np.testing.assert_allclose(ours, np.sign(np.vdot(ours, other)) * other, atol=TOLERANCE)
