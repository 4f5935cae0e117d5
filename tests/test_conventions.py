"""Orders and signs of angular functions against PySCF, e3nn, SciPy and the published lists of other programs."""

import itertools
import math
import warnings

import numpy as np
import pytest
from pyscf import gto
from scipy.special import sph_harm_y

import vpotjax as vp
from tests.molecules import g2, pyscf_mole, random_rotation
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.conventions import (
    AO_ORDERS,
    ao_transform,
    cartesian_powers,
    matching_ao_order,
    reorder_ao,
    rotation_matrices,
    solid_harmonics,
)

LS = range(5)
POINTS = np.random.default_rng(0).standard_normal((40, 3))
# Polynomials of degree 4 at points of length about 1: a few roundings of numbers of order 10.
TOLERANCE = 1e-12

# c0, c1, s1, ... are cos and sin functions of m = 0, +1, −1, ... without the Condon–Shortley phase; "-" is the sign.
# ORCA: theochem/iodata, formats/molden.py (`_fix_obasis_orca`), and p in the order of its JSON files, z, x, y;
# Psi4: 0, 1+, 1−, 2+, 2−, ... (its manual, prog_blas; unless compiled for another order);
# CP2K: m = −l ... l, so p = y, z, x (aobasis/orbital_symbols.F).
ALTERNATING = {
    1: "c0 c1 s1",
    2: "c0 c1 s1 c2 s2",
    3: "c0 c1 s1 c2 s2 c3 s3",
    4: "c0 c1 s1 c2 s2 c3 s3 c4 s4",
}
PUBLISHED = {
    "pyscf": {1: "c1 s1 c0", 2: "s2 s1 c0 c1 c2", 3: "s3 s2 s1 c0 c1 c2 c3", 4: "s4 s3 s2 s1 c0 c1 c2 c3 c4"},
    "cp2k": {1: "s1 c0 c1", 2: "s2 s1 c0 c1 c2", 3: "s3 s2 s1 c0 c1 c2 c3", 4: "s4 s3 s2 s1 c0 c1 c2 c3 c4"},
    "psi4": ALTERNATING,
    "orca": ALTERNATING | {3: "c0 c1 s1 c2 s2 -c3 -s3", 4: "c0 c1 s1 c2 s2 -c3 -s3 -c4 -s4"},
}


def harmonics(l, points):
    """r^l Y_lm in PySCF's order, (npoints, 2l+1)."""
    return np.prod(points[:, None, :] ** cartesian_powers(l), axis=-1) @ solid_harmonics(l).T


def scipy_harmonic(l, label, points):
    """One real solid harmonic by its label, from SciPy's complex ones."""
    sign, kind, m = (-1.0 if label.startswith("-") else 1.0), *label.removeprefix("-")
    r = np.linalg.norm(points, axis=1)
    value = sph_harm_y(l, int(m), np.arccos(points[:, 2] / r), np.arctan2(points[:, 1], points[:, 0]))
    part = value.real if kind == "c" else value.imag
    return sign * r**l * part * ((-1) ** int(m) * math.sqrt(2) if int(m) else 1.0)


def as_tuple(rotation):
    return tuple(map(tuple, rotation))


@pytest.mark.parametrize("order", AO_ORDERS)
@pytest.mark.parametrize("l", LS)
def test_transform_is_orthogonal(l, order):
    transform = ao_transform(l, order)
    np.testing.assert_allclose(transform @ transform.T, np.eye(2 * l + 1), atol=TOLERANCE)


@pytest.mark.parametrize("l", LS)
def test_harmonics_agree_with_pyscf(l):
    exponent = 0.7
    mole = gto.M(atom="He 0 0 0", basis={"He": [[l, [exponent, 1.0]]]}, verbose=0)
    radial = math.sqrt(2 * (2 * exponent) ** (l + 1.5) / math.gamma(l + 1.5)) * np.exp(-exponent * np.sum(POINTS**2, 1))
    np.testing.assert_allclose(
        harmonics(l, POINTS) * radial[:, None], mole.eval_gto("GTOval_sph", POINTS), atol=TOLERANCE
    )


@pytest.mark.parametrize("l", LS)
def test_e3nn_order_agrees_with_e3nn(l):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e3nn_jax's own use of deprecated JAX names
        import e3nn_jax

        irreps = f"{l}{'eo'[l % 2]}"
        expected = e3nn_jax.spherical_harmonics(irreps, POINTS, normalize=False, normalization="component").array
    ours = harmonics(l, POINTS) @ ao_transform(l, "e3nn").T
    # Their squares sum to 2l+1 on the unit sphere, ours to (2l+1)/4π.
    np.testing.assert_allclose(math.sqrt(4 * math.pi) * ours, expected, atol=10 * TOLERANCE)


@pytest.mark.parametrize("order", PUBLISHED)
@pytest.mark.parametrize("l", range(1, 5))
def test_order_is_the_published_list(l, order):
    ours = harmonics(l, POINTS) @ ao_transform(l, order).T
    expected = [scipy_harmonic(l, label, POINTS) for label in PUBLISHED[order][l].split()]
    np.testing.assert_allclose(ours, np.stack(expected, axis=1), atol=10 * TOLERANCE)  # SciPy goes through angles


def test_unknown_order():
    with pytest.raises(InputError, match=r"order is 'molpro'; give one of pyscf, "):
        ao_transform(2, "molpro")


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(AO_ORDERS, 2)))
def test_reorder_round_trip(source, target):
    shells = [0, 1, 4, 2, 1, 3]
    size = sum(2 * l + 1 for l in shells)
    matrix = np.random.default_rng(1).standard_normal((2, size, size))
    there = reorder_ao(matrix, shells, source, target)
    assert np.abs(there - matrix).max() > 0.1
    np.testing.assert_allclose(reorder_ao(there, shells, target, source), matrix, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(there, axis=(1, 2)), np.linalg.norm(matrix, axis=(1, 2)), rtol=TOLERANCE)


def test_reorder_checks_the_size():
    with pytest.raises(InputError, match=r"matrix has shape \(3, 3\), but shells=\[0, 1\] hold 4"):
        reorder_ao(np.eye(3), [0, 1], "pyscf", "cp2k")


@pytest.fixture(scope="module", params=["def2-svp", "def2-tzvp"])
def low_symmetry_overlap(request):
    """PySCF's overlap of a molecule turned to no axis, its shells, and another geometry's overlap."""
    molecule = g2("CH3OH")
    turned = molecule.positions @ random_rotation(3).T
    shells = load_basis(request.param, molecule.numbers).shell_angular_momenta()
    overlaps = [
        pyscf_mole(type(molecule)(molecule.numbers, positions), request.param).intor("int1e_ovlp")
        for positions in (turned, turned + np.random.default_rng(2).normal(0, 0.01, turned.shape))
    ]
    return shells, *overlaps


@pytest.mark.parametrize("order", AO_ORDERS)
def test_order_of_an_overlap_is_recognised(low_symmetry_overlap, order):
    shells, overlap, _ = low_symmetry_overlap
    found = matching_ao_order(reorder_ao(overlap, shells, "pyscf", order), overlap, shells)
    same = {"orca", "psi4"} if max(shells) < 3 else {order}  # these two differ from f on
    assert found == order or {found, order} == same


def test_overlap_of_another_geometry_is_refused(low_symmetry_overlap):
    shells, overlap, other = low_symmetry_overlap
    with pytest.raises(InputError, match=r"least in 'pyscf'.*check basis, geometry and units"):
        matching_ao_order(other, overlap, shells)


def water(scale=1.0):
    return vp.Molecule(g2("H2O").numbers, scale * g2("H2O").positions @ random_rotation(3).T)


def both_overlaps(basis, molecule):
    """PySCF's with its own table of the basis, that with ours, and shells and atoms of ours."""
    atoms = list(zip(molecule.symbols, molecule.positions, strict=True))
    own = gto.M(atom=atoms, basis=basis, unit="Bohr", verbose=0).intor("int1e_ovlp")
    ours = load_basis(basis, molecule.numbers)
    expected = pyscf_mole(molecule, basis).intor("int1e_ovlp")
    return own, expected, ours.shell_angular_momenta(), ours.shell_atoms()


@pytest.mark.parametrize("order", ["pyscf", "orca"])
@pytest.mark.parametrize("basis", ["cc-pvdz", "cc-pvtz"])
def test_other_contractions_are_named(basis, order):
    own, expected, shells, atoms = both_overlaps(basis, water())
    assert np.abs(own - expected).max() > 0.1
    own = reorder_ao(own, shells, "pyscf", order)
    pattern = r"at 5 of \d+ shells: 0 \(s of atom 0\), 1 \(s of atom 0\), .*another contraction.*from_pyscf"
    with pytest.raises(InputError, match=pattern):
        matching_ao_order(own, expected, shells, atoms)
    with pytest.raises(InputError, match=r"0 \(s\), 1 \(s\), .*check basis, geometry and units"):
        matching_ao_order(own, expected, shells)


def test_other_digits_are_named():
    own, expected, shells, atoms = both_overlaps("6-31g**", water())
    assert 1e-8 < np.abs(own - expected).max() < 1e-6
    assert matching_ao_order(own, expected, shells, atoms) == "pyscf"
    with pytest.raises(InputError, match=r"tolerance 1e-09\); so little comes of other digits.*from_pyscf"):
        matching_ao_order(own, expected, shells, atoms, tolerance=1e-9)


@pytest.mark.parametrize("basis", ["sto-3g", "def2-svp", "cc-pvtz"])
def test_another_geometry_is_no_other_contraction(basis):
    _, expected, shells, atoms = both_overlaps(basis, water())
    for scale in (1.0001, 1.1, 0.529177):
        _, other, _, _ = both_overlaps(basis, water(scale))
        with pytest.raises(InputError, match=r"of atom 1\).*check basis, geometry and units"):
            matching_ao_order(other, expected, shells, atoms)


def test_another_basis_is_no_other_contraction():
    """6-31G and 3-21G have shells of the same l."""
    molecule = water()
    ours, other = load_basis("6-31g", molecule.numbers), load_basis("3-21g", molecule.numbers)
    shells = ours.shell_angular_momenta()
    assert shells == other.shell_angular_momenta()
    overlaps = [pyscf_mole(molecule, name).intor("int1e_ovlp") for name in ("3-21g", "6-31g")]
    with pytest.raises(InputError, match="check basis, geometry and units"):
        matching_ao_order(*overlaps, shells, ours.shell_atoms())


def test_overlaps_that_are_none_are_named():
    _, expected, shells, atoms = both_overlaps("6-31g*", water())
    with pytest.raises(InputError, match="it is not finite"):
        matching_ao_order(np.full_like(expected, np.nan), expected, shells, atoms)
    cartesian = pyscf_mole(water(), "6-31g*", cartesian=True).intor("int1e_ovlp")
    with pytest.raises(InputError, match=r"overlap has shape \(19, 19\), the size of Cartesian functions"):
        matching_ao_order(cartesian, expected, shells, atoms)


def test_rotation_matrices_are_a_representation():
    first, second = random_rotation(1), random_rotation(2)  # both improper
    product, d1, d2 = (rotation_matrices(4, as_tuple(r)) for r in (first @ second, first, second))
    for l in LS:
        np.testing.assert_allclose(product[l], d1[l] @ d2[l], atol=TOLERANCE)
        np.testing.assert_allclose(d1[l] @ d1[l].T, np.eye(2 * l + 1), atol=TOLERANCE)
        np.testing.assert_allclose(harmonics(l, POINTS @ first.T), harmonics(l, POINTS) @ d1[l].T, atol=10 * TOLERANCE)
        if l:
            assert np.abs(d1[l] @ d2[l] - d2[l] @ d1[l]).max() > 0.01


def test_parity_of_the_inversion():
    for l, matrix in enumerate(rotation_matrices(4, as_tuple(-np.eye(3)))):
        np.testing.assert_allclose(matrix, (-1) ** l * np.eye(2 * l + 1), atol=TOLERANCE)
