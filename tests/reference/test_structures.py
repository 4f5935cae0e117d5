"""Molecules of ASE, and thermal displacements against the analytic harmonic ensemble."""

import itertools

import numpy as np
import pytest

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.molecule import Molecule
from vpotjax.reference.structures import MIN_WAVENUMBER, ase_molecules, thermal_displacements
from vpotjax.units import DALTON_TO_ELECTRON_MASS, HARTREE_TO_KELVIN, HARTREE_TO_WAVENUMBER


@pytest.fixture(scope="module")
def molecules():
    return ase_molecules()


def fingerprint(molecule):
    """Numbers that no rotation, translation or order of atoms changes: eigenvalues of the Coulomb matrix."""
    z = molecule.numbers
    distance = np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=-1)
    np.fill_diagonal(distance, 1.0)
    matrix = np.outer(z, z) / distance
    np.fill_diagonal(matrix, 0.5 * z**2.4)
    return np.sort(np.linalg.eigvalsh(matrix))


def test_many_closed_shells(molecules):
    assert len(molecules) >= 60
    for name, molecule in molecules.items():
        assert molecule.spin == molecule.charge == int(molecule.numbers.sum()) % 2 == 0, name
        assert set(molecule.numbers.tolist()) <= {1, 6, 7, 8}, name
        assert np.sum(molecule.numbers > 1) <= 7, name
        assert molecule.natm >= 2, name
    sizes = [(int(np.sum(m.numbers > 1)), m.natm) for m in molecules.values()]
    assert sizes == sorted(sizes)


def test_radicals_and_triplets_are_left_out(molecules):
    assert not {"OH", "CH3", "NO", "O2", "CH2_s3B1d"} & set(molecules)
    assert {"H2O", "CH4", "C6H6", "CO2", "CH2_s1A1d"} <= set(molecules)


def test_all_distinct(molecules):
    marks = {name: fingerprint(molecule) for name, molecule in molecules.items()}
    for (one, a), (other, b) in itertools.combinations(marks.items(), 2):
        # One bond stretched by 0.1 Å moves an eigenvalue by more than 0.01.
        assert len(a) != len(b) or np.abs(a - b).max() > 1e-2, (one, other)


def test_elements_and_size_are_respected(molecules):
    hydrocarbons = ase_molecules(("H", "C"), max_heavy=3)
    assert {"CH4", "C3H8", "C2H2"} <= set(hydrocarbons)
    for name, molecule in hydrocarbons.items():
        assert set(molecule.numbers.tolist()) <= {1, 6}
        assert np.sum(molecule.numbers > 1) <= 3
        assert name in molecules
    assert "SO2" in ase_molecules(("S", "O"))


COUNT = 20000


def diatomic(wavenumber):
    """CO along a slanted axis: molecule, Hessian of one spring, masses, axis, ω and the reduced mass."""
    axis = np.array([1.0, 2.0, -2.0]) / 3
    molecule = Molecule(np.array([6, 8]), np.stack([0 * axis, 2.13 * axis]) + 5.0)
    masses = np.array([12.011, 15.999])
    reduced = masses.prod() / masses.sum() * DALTON_TO_ELECTRON_MASS
    frequency = wavenumber / HARTREE_TO_WAVENUMBER
    sign = np.array([[1, -1], [-1, 1]])
    hessian = reduced * frequency**2 * sign[:, :, None, None] * np.outer(axis, axis)
    return molecule, hessian, masses, axis, frequency, reduced


@pytest.mark.parametrize("temperature", [0.0, 300.0, 3000.0])
@pytest.mark.parametrize("wavenumber", [2170.0, 400.0, 50.0])
def test_stretch_of_a_diatomic_is_the_analytic_ensemble(wavenumber, temperature):
    molecule, hessian, masses, axis, _, reduced = diatomic(wavenumber)
    drawn = thermal_displacements(molecule, hessian, masses, COUNT, temperature, seed=1)
    assert drawn.shape == (COUNT, 2, 3)
    bond = drawn[:, 1] - drawn[:, 0]
    stretch = bond @ axis - 2.13
    frequency = max(wavenumber, MIN_WAVENUMBER) / HARTREE_TO_WAVENUMBER  # softer modes count as this one
    thermal = 1 / np.tanh(frequency * HARTREE_TO_KELVIN / (2 * temperature)) if temperature else 1.0
    variance = thermal / (2 * reduced * frequency)  # ħ/(2μω) coth(ħω/2kT)
    # Standard errors of mean and variance of n normal numbers: σ/√n and σ²√(2/n); five of them are beyond chance.
    assert abs(stretch.mean()) < 5 * np.sqrt(variance / COUNT)
    assert stretch.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / COUNT))
    np.testing.assert_allclose(bond, np.outer(bond @ axis, axis), atol=1e-10)  # no other mode moves; rounding


def water():
    """Water with any positive definite Hessian."""
    matrix = np.random.default_rng(3).standard_normal((9, 9))
    hessian = (matrix @ matrix.T * 0.02 + 0.1 * np.eye(9)).reshape(3, 3, 3, 3).transpose(0, 2, 1, 3)
    return g2("H2O"), hessian, np.array([15.999, 1.008, 1.008])


def test_no_translation_and_no_rotation():
    molecule, hessian, masses = water()
    displacement = thermal_displacements(molecule, hessian, masses, 50, 300.0, seed=2) - molecule.positions
    assert np.abs(displacement).max() > 0.01
    weighted = masses[:, None] * displacement
    centred = molecule.positions - masses @ molecule.positions / masses.sum()
    np.testing.assert_allclose(weighted.sum(axis=1), 0, atol=1e-12)  # rounding of numbers of order 1
    np.testing.assert_allclose(np.cross(centred, weighted).sum(axis=1), 0, atol=1e-12)  # Eckart's condition


def test_covariance_of_a_polyatomic_at_zero_temperature():
    molecule, hessian, masses = water()
    drawn = thermal_displacements(molecule, hessian, masses, COUNT, 0.0, seed=4) - molecule.positions
    root = np.repeat(np.sqrt(masses * DALTON_TO_ELECTRON_MASS), 3)
    weighted = drawn.reshape(COUNT, 9) * root
    flat = hessian.transpose(0, 2, 1, 3).reshape(9, 9) / np.outer(root, root)
    # ½ (P H P)^{−1/2} on the internal space, whose projector P is that of the sample itself.
    values, vectors = np.linalg.eigh(np.cov(weighted.T))
    internal = vectors[:, values > 1e-8 * values[-1]]
    assert internal.shape == (9, 3)
    frequencies, modes = np.linalg.eigh(internal.T @ flat @ internal)
    expected = np.diag(0.5 / np.sqrt(frequencies))
    sample = np.cov((weighted @ internal @ modes).T)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # Standard error of a covariance: at most √(2/n) of the product of the two deviations.
    np.testing.assert_allclose(sample / scale, expected / scale, atol=5 * np.sqrt(2 / COUNT))


def test_the_seed_decides():
    first, again, other = (thermal_displacements(*water(), 5, 300.0, seed=s) for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_negative_temperature():
    with pytest.raises(InputError, match=r"temperature is -1\.0 K; give a value ≥ 0"):
        thermal_displacements(*water(), 1, -1.0, seed=0)
