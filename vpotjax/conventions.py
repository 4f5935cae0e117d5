"""Orders and signs of angular functions: the one place that knows them.

The package keeps PySCF's spherical order: p = x, y, z; l ≠ 1 has m = −l … l, real solid harmonics without the
Condon–Shortley phase. `ao_transform` leads to the order of other programs:

- "cp2k": m = −l … l for every l, so p = y, z, x.
- "orca": m = 0, +1, −1, +2, −2 …, and the functions of |m| = 3 and 4 have the opposite sign.
- "psi4": m = 0, +1, −1, +2, −2 …
- "e3nn": harmonics with y as the polar axis. For l = 2 this is no permutation: it mixes z² and x²−y².
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from vpotjax._checks import InputError

AO_ORDERS = ("pyscf", "e3nn", "cp2k", "orca", "psi4")
SHELL_LETTERS = "spdfghi"
OTHER_DIGITS = 1e-5
"""Overlaps that agree to this are of one basis, from tables that round differently."""
PYSCF_FIX = "compute it with to_pyscf, or take the basis from it with from_pyscf (both in vpotjax.interop.pyscf)"

Polynomial = dict[tuple[int, int, int], float]


@functools.cache
def cartesian_powers(l: int) -> np.ndarray:
    """Powers (x, y, z) of the Cartesian functions of one l, (ncart, 3): xx, xy, xz, yy, yz, zz for d."""
    return np.array([(x, y, l - x - y) for x in range(l, -1, -1) for y in range(l - x, -1, -1)])


@functools.cache
def solid_harmonics(l: int) -> np.ndarray:
    """Real solid harmonics r^l Y_lm in monomials, (2l+1, ncart), PySCF's order; ∫Y² dΩ = 1.

    Helgaker, Jørgensen, Olsen, "Molecular Electronic-Structure Theory", section 6.4.
    """
    order = [1, -1, 0] if l == 1 else range(-l, l + 1)
    position = {tuple(powers): i for i, powers in enumerate(cartesian_powers(l).tolist())}
    matrix = np.zeros((2 * l + 1, len(position)))
    for row, m in enumerate(order):
        for powers, coefficient in _solid_harmonic(l, m).items():
            matrix[row, position[powers]] = coefficient
    return matrix


def angular_functions(l: int, cartesian: bool) -> np.ndarray:
    """The functions of a shell in monomials, (nfun, ncart): solid harmonics, or the monomials as PySCF scales them."""
    if not cartesian:
        return solid_harmonics(l)
    scale = math.sqrt((2 * l + 1) / (4 * math.pi)) if l < 2 else 1.0
    return scale * np.eye(len(cartesian_powers(l)))


def function_count(l: int, cartesian: bool = False) -> int:
    """Functions of a shell: 2l + 1 spherical, (l+1)(l+2)/2 Cartesian."""
    return (l + 1) * (l + 2) // 2 if cartesian else 2 * l + 1


def _solid_harmonic(l: int, m: int) -> Polynomial:
    size = abs(m)
    norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - size) / math.factorial(l + size))
    norm *= math.sqrt(2) if m else 1.0
    azimuthal: Polynomial = {}  # Re or Im of (x + iy)^|m|
    for k in range(m < 0, size + 1, 2):
        azimuthal[size - k, k, 0] = math.comb(size, k) * (-1.0) ** (k // 2)
    polar: Polynomial = {}  # Σ_k c_k (x² + y² + z²)^k z^{l−2k−|m|}
    for k in range((l - size) // 2 + 1):
        c = (-1) ** k * 2.0**-l * math.comb(l, k) * math.comb(2 * l - 2 * k, l)
        c *= math.factorial(l - 2 * k) / math.factorial(l - 2 * k - size)
        for i in range(k + 1):
            for j in range(k - i + 1):
                key = (2 * i, 2 * j, 2 * (k - i - j) + l - 2 * k - size)
                polar[key] = polar.get(key, 0.0) + c * math.comb(k, i) * math.comb(k - i, j)
    result: Polynomial = {}
    for (ax, ay, az), a in azimuthal.items():
        for (bx, by, bz), b in polar.items():
            key = (ax + bx, ay + by, az + bz)
            result[key] = result.get(key, 0.0) + norm * a * b
    return result


@functools.cache
def ao_transform(l: int, order: str) -> np.ndarray:
    """Orthogonal U, (2l+1, 2l+1): functions in `order` = U · functions in PySCF's order.

    Raises:
        InputError: `order` is none of AO_ORDERS.
    """
    if order not in AO_ORDERS:
        raise InputError(f"order is {order!r}; give one of {', '.join(AO_ORDERS)}.")
    if order == "pyscf":
        return np.eye(2 * l + 1)
    if order == "e3nn":
        return _polar_axis_y(l)
    pyscf_m = [1, -1, 0] if l == 1 else list(range(-l, l + 1))
    alternating = [0] + [sign * m for m in range(1, l + 1) for sign in (1, -1)]
    target_m = list(range(-l, l + 1)) if order == "cp2k" else alternating
    transform = np.zeros((2 * l + 1, 2 * l + 1))
    for row, m in enumerate(target_m):
        transform[row, pyscf_m.index(m)] = -1.0 if order == "orca" and abs(m) in (3, 4) else 1.0
    return transform


def _polar_axis_y(l: int) -> np.ndarray:
    """Harmonics of (z, x, y), m = −l … l, in terms of those of (x, y, z) in PySCF's order."""
    permuted = np.zeros((2 * l + 1, len(cartesian_powers(l))))
    position = {tuple(powers): i for i, powers in enumerate(cartesian_powers(l).tolist())}
    for row, m in enumerate(range(-l, l + 1)):
        for (first, second, third), coefficient in _solid_harmonic(l, m).items():
            permuted[row, position[second, third, first]] += coefficient  # first = z, second = x, third = y
    return permuted @ np.linalg.pinv(solid_harmonics(l))


@functools.cache
def rotation_matrices(lmax: int, rotation: tuple[tuple[float, ...], ...]) -> tuple[np.ndarray, ...]:
    """Wigner matrices D_l of the real harmonics in PySCF's order, l = 0 … lmax: f_l(R r) = D_l f_l(r).

    Args:
        lmax: highest l.
        rotation: R, orthogonal 3×3 as nested tuples; may include the inversion.
    """
    points = np.random.default_rng(0).standard_normal((4 * (lmax + 1) ** 2, 3))
    rotated = points @ np.array(rotation).T

    def values(l: int, at: np.ndarray) -> np.ndarray:
        return np.prod(at[:, None, :] ** cartesian_powers(l), axis=-1) @ solid_harmonics(l).T

    return tuple(np.linalg.lstsq(values(l, points), values(l, rotated), rcond=None)[0].T for l in range(lmax + 1))


def block_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """The matrix with `blocks` on its diagonal."""
    sizes = [len(b) for b in blocks]
    matrix, start = np.zeros((sum(sizes), sum(sizes))), 0
    for block, size in zip(blocks, sizes, strict=True):
        matrix[start : start + size, start : start + size] = block
        start += size
    return matrix


def reorder_ao(matrix: np.ndarray, shells: Sequence[int], source: str, target: str) -> np.ndarray:
    """An AO matrix (..., nao, nao) in the order `target`, from one in the order `source`.

    Args:
        matrix: operator in the source order.
        shells: l of each shell, in the order of the matrix.
        source, target: of AO_ORDERS.
    """
    nao = sum(2 * l + 1 for l in shells)
    if np.shape(matrix)[-2:] != (nao, nao):
        raise InputError(
            f"matrix has shape {np.shape(matrix)}, but shells={list(shells)} hold {nao} spherical functions."
        )
    change = block_diagonal([ao_transform(l, target) @ ao_transform(l, source).T for l in shells])
    return change @ matrix @ change.T


def matching_ao_order(
    overlap: np.ndarray,
    expected: np.ndarray,
    shells: Sequence[int],
    atoms: Sequence[int] | None = None,
    tolerance: float = 1e-6,
) -> str:
    """The order of AO_ORDERS in which a file's `overlap` equals `expected`; the first one, see `fitting_ao_orders`."""
    return fitting_ao_orders(overlap, expected, shells, atoms, tolerance)[0]


def fitting_ao_orders(
    overlap: np.ndarray,
    expected: np.ndarray,
    shells: Sequence[int],
    atoms: Sequence[int] | None = None,
    tolerance: float = 1e-6,
) -> list[str]:
    """All orders of AO_ORDERS in which a file's `overlap` equals `expected`, the recomputed one in PySCF's order.

    Args:
        overlap, expected: (nao, nao).
        shells: l of each shell, in the order of both.
        atoms: of each shell; with them a message can tell another contraction from another basis.
        tolerance: of each element.

    Raises:
        InputError: none does; names the shells that differ and, where the overlaps tell, why.
    """
    cartesian = sum(function_count(l, cartesian=True) for l in shells)
    if len(overlap) == cartesian > sum(map(function_count, shells)):
        raise InputError(
            f"overlap has shape {np.shape(overlap)}, the size of Cartesian functions; compute the file with spherical "
            "ones."
        )
    differences = {order: reorder_ao(overlap, shells, order, "pyscf") - expected for order in AO_ORDERS}
    if fitting := [order for order, difference in differences.items() if np.abs(difference).max() < tolerance]:
        return fitting
    best = min(differences, key=lambda order: float(np.linalg.norm(differences[order])))
    error = float(np.abs(differences[best]).max())
    differing = _differing_shells(differences[best], shells, max(tolerance, OTHER_DIGITS))
    raise InputError(
        f"overlap differs from the recomputed one in every known AO order (least in {best!r}, by {error:.2g}, "
        f"tolerance {tolerance:.2g}){_names(differing, shells, atoms)}; "
        f"{_reason(differences[best] + expected, expected, shells, atoms, differing)}."
    )


def _differing_shells(difference: np.ndarray, shells: Sequence[int], tolerance: float) -> list[int]:
    """Shells that have to be left out, the one with most faults first, until the others agree among each other."""
    starts = np.cumsum([0, *map(function_count, shells)])[:-1]
    wrong = np.maximum.reduceat(np.maximum.reduceat(np.abs(difference), starts, axis=0), starts, axis=1)
    faults = ~(wrong <= tolerance)
    left_out = []
    while faults.any():
        worst = int(faults.sum(axis=1).argmax())
        faults[worst] = faults[:, worst] = False
        left_out.append(worst)
    return sorted(left_out)


def _names(chosen: Sequence[int], shells: Sequence[int], atoms: Sequence[int] | None) -> str:
    names = [f"{i} ({SHELL_LETTERS[shells[i]]}{'' if atoms is None else f' of atom {atoms[i]}'})" for i in chosen[:4]]
    more = f" and {len(chosen) - len(names)} more" if len(chosen) > len(names) else ""
    return f" at {len(chosen)} of {len(shells)} shells: {', '.join(names)}{more}" if names else ""


def _reason(
    overlap: np.ndarray, expected: np.ndarray, shells: Sequence[int], atoms: Sequence[int] | None, differing: list[int]
) -> str:
    if not np.isfinite(overlap).all():
        return "it is not finite"
    if not differing:
        return (
            "so little comes of other digits, in another table of the same basis or in rounded coordinates: "
            f"{PYSCF_FIX}"
        )
    if atoms is not None and _other_contraction(overlap, expected, shells, atoms, differing):
        return (
            "they are combinations of ours of the same atom and l, another contraction of the same primitives, such as "
            f"PySCF's optimised and basis-set-exchange's general one of cc-pVTZ: {PYSCF_FIX}"
        )
    return "check basis, geometry and units of the file"


def _other_contraction(
    overlap: np.ndarray, expected: np.ndarray, shells: Sequence[int], atoms: Sequence[int], differing: Sequence[int]
) -> bool:
    """Whether `overlap` = A · `expected` · Aᵀ, where A mixes shells of the same atom and l alike for each m.

    A is the identity on the shells that agree, and is fitted to the overlaps of the others with these.
    """
    starts = np.cumsum([0, *map(function_count, shells)])
    places = [np.arange(start, stop) for start, stop in itertools.pairwise(starts)]
    agreeing = [i for i in range(len(shells)) if i not in set(differing)]
    if not agreeing:
        return False
    known = np.concatenate([places[i] for i in agreeing])
    mixing = np.eye(len(expected))
    for i in differing:
        group = [k for k in range(len(shells)) if (shells[k], atoms[k]) == (shells[i], atoms[i])]
        columns = np.stack([expected[np.ix_(places[k], known)].ravel() for k in group], axis=1)
        weights = np.linalg.lstsq(columns, overlap[np.ix_(places[i], known)].ravel(), rcond=1e-10)[0]
        for k, weight in zip(group, weights, strict=True):
            mixing[places[i], places[k]] = weight
    return float(np.abs(mixing @ expected @ mixing.T - overlap).max()) < OTHER_DIGITS
