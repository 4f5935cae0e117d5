"""Clebsch–Gordan coefficients of real solid harmonics in the package's order."""

from __future__ import annotations

import functools
import math

import numpy as np


@functools.cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    """C, (2l1+1, 2l2+1, 2l3+1): Σ_m₁m₂ C u_m₁ v_m₂ rotates as l3; orthonormal over (m₁, m₂).

    Zero outside |l1−l2| ≤ l3 ≤ l1+l2.

    Racah's closed formula for complex harmonics (Edmonds, "Angular Momentum in Quantum Mechanics", eq. 3.6.11),
    transformed to real ones; for odd l1+l2+l3 the result is imaginary and i is divided out.
    """
    coefficients = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1), dtype=complex)
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            coefficients[l1 + m1, l2 + m2, l3 + m1 + m2] = _complex_coefficient(l1, m1, l2, m2, l3)
    u1, u2, u3 = (_real_from_complex(l) for l in (l1, l2, l3))
    real = np.einsum("am,bn,ck,mnk->abc", u1.conj(), u2.conj(), u3, coefficients)
    result = real.real if (l1 + l2 + l3) % 2 == 0 else real.imag
    return np.ascontiguousarray(result)


def _complex_coefficient(l1: int, m1: int, l2: int, m2: int, l3: int) -> float:
    """⟨l1 m1 l2 m2 | l3 m1+m2⟩."""
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        return 0.0
    f, m3 = math.factorial, m1 + m2
    triangle = f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3) / f(l1 + l2 + l3 + 1)
    magnetic = f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3)
    total = 0.0
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        below = f(k) * f(l1 + l2 - l3 - k) * f(l1 - m1 - k) * f(l2 + m2 - k) * f(l3 - l2 + m1 + k) * f(l3 - l1 - m2 + k)
        total += (-1) ** k / below
    return math.sqrt((2 * l3 + 1) * triangle * magnetic) * total


def _real_from_complex(l: int) -> np.ndarray:
    """Unitary U: real harmonics (package order) = U · complex harmonics m = −l … l with the Condon–Shortley phase."""
    unitary = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
    for row, m in enumerate([1, -1, 0] if l == 1 else range(-l, l + 1)):
        if m == 0:
            unitary[row, l] = 1
        elif m > 0:
            unitary[row, l + m], unitary[row, l - m] = (-1) ** m / math.sqrt(2), 1 / math.sqrt(2)
        else:
            unitary[row, l - m], unitary[row, l + m] = -1j * (-1) ** m / math.sqrt(2), 1j / math.sqrt(2)
    return unitary
