"""Losses on matrices and single observables, and metrics that do not depend on a choice of degenerate orbitals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.electronic.symmetric import NAMES, hartree_fock
from vpotjax import losses
from vpotjax.metrics import level_errors, matrix_error, subspace_overlap
from vpotjax.units import HARTREE_TO_EV


@pytest.fixture(scope="module")
def benzene():
    index = NAMES.index("C6H6")
    return tuple(a[index][..., :36, :36] for a in hartree_fock("symmetric"))[:2]


def turned(coefficients, first, angle=0.7):
    """Orbitals `first` and the next, rotated into each other."""
    block = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return coefficients.at[:, first : first + 2].set(coefficients[:, first : first + 2] @ block)


def test_gauge_shift_is_the_best_multiple_of_the_overlap(benzene):
    fock, overlap = benzene
    noise = np.random.default_rng(0).standard_normal(fock.shape)
    reference = fock + 0.3 * overlap + 1e-3 * (noise + noise.T)
    loss = losses.matrix_loss(fock, reference, overlap=overlap)
    shift = losses.gauge_shift(fock, reference, overlap)
    assert abs(shift - 0.3) < 1e-2
    for step in (-1e-3, 1e-3):
        assert losses.matrix_loss(fock + (shift + step) * overlap, reference) > loss
    assert losses.matrix_loss(fock, fock + 0.3 * overlap, overlap=overlap) < 1e-25
    mask = jnp.arange(40) < 36
    padded = [jnp.pad(m, (0, 4), constant_values=7.0) for m in (fock, reference, overlap)]
    np.testing.assert_allclose(losses.matrix_loss(*padded[:2], mask, overlap=padded[2]), loss, rtol=1e-10)


def test_wavefunction_alignment_respects_degenerate_levels(benzene):
    fock, overlap = benzene
    energies, coefficients = vp.eigh(fock, overlap)
    mask = jnp.ones(36, bool)
    assert losses.wavefunction_alignment_loss(fock, coefficients, energies, mask) < 1e-20
    noise = np.random.default_rng(1).standard_normal(fock.shape)
    wrong = fock + 0.05 * (noise + noise.T)
    homo = 19
    assert abs(energies[homo] - energies[homo + 1]) < 1e-6  # the degenerate pair
    loss = losses.wavefunction_alignment_loss(wrong, coefficients, energies, mask)
    again = losses.wavefunction_alignment_loss(wrong, turned(coefficients, homo), energies, mask)
    np.testing.assert_allclose(again, loss, rtol=1e-9)
    mixed = losses.wavefunction_alignment_loss(wrong, turned(coefficients, homo - 3), energies, mask)
    assert abs(mixed / loss - 1) > 1e-4  # not a degenerate pair
    few = jnp.arange(36) < 21
    occupied = losses.wavefunction_alignment_loss(wrong, coefficients, energies, few, off_diagonal=0.0)
    within = coefficients.T @ wrong @ coefficients - jnp.diag(energies)
    same = np.abs(energies[:, None] - energies[None, :])[:21, :21] < 1e-6
    np.testing.assert_allclose(occupied, np.sum(np.where(same, within[:21, :21], 0) ** 2) / 21, rtol=1e-10)


def test_levels():
    mask = jnp.arange(6) < 5
    np.testing.assert_array_equal(losses.occupied_levels(6, mask), [1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(losses.frontier_levels(6, mask), [0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(losses.frontier_levels(6, mask, 2, 3), [0, 1, 1, 1, 1, 0])
    reference = jnp.array([-2.0, -1.0, -0.5, 0.5, 1.0, 0.0])
    value = losses.orbital_energy_loss(reference + 0.1, reference, losses.occupied_levels(6, mask))
    np.testing.assert_allclose(value, 0.01, rtol=1e-12)
    predicted = np.array([-2.1, -1.0, -0.5, 0.1, 0.5])
    errors = level_errors(predicted, np.asarray(reference[:5]), 6)
    np.testing.assert_allclose(
        [errors.occupied, errors.virtual, errors.gap],
        np.array([0.1 / 3, 0.45, -0.4]) * HARTREE_TO_EV,
        rtol=1e-12,
    )
    assert errors.intruders == 1
    assert np.isnan(level_errors(predicted, np.asarray(reference[:5]), 10).gap)


def test_density_measures(benzene):
    fock, overlap = benzene
    density = vp.density_matrix(fock, overlap, 42)
    _, coefficients = vp.eigh(fock, overlap)
    swapped = coefficients[:, jnp.r_[jnp.arange(20), 21]]  # one electron pair in the LUMO
    other = 2 * swapped @ swapped.T
    np.testing.assert_allclose(subspace_overlap(density, density, overlap), 1.0, rtol=1e-12)
    np.testing.assert_allclose(subspace_overlap(other, density, overlap), 20 / 21, rtol=1e-10)
    # ΔP holds −2 and +2 electrons: tr(ΔP S ΔP S) = 8
    np.testing.assert_allclose(losses.density_loss(other, density, overlap), 8 / 42, rtol=1e-10)
    np.testing.assert_allclose(matrix_error(fock + 1e-6, fock), 1.0, rtol=1e-6)


def test_losses_of_observables_ignore_padding():
    numbers = np.array([6, 1, 0])
    charges, reference = jnp.array([0.1, -0.1, 9.0]), jnp.zeros(3)
    np.testing.assert_allclose(losses.charge_loss(charges, reference, numbers), 0.01, rtol=1e-12)
    orders = jnp.full((3, 3), 0.5)
    np.testing.assert_allclose(losses.bond_order_loss(orders, jnp.zeros((3, 3)), numbers), 0.25, rtol=1e-12)
    np.testing.assert_allclose(losses.dipole_loss(jnp.ones(3), jnp.zeros(3)), 1.0)
    np.testing.assert_allclose(losses.polarizability_loss(2 * jnp.eye(3), jnp.zeros((3, 3))), 4 / 3, rtol=1e-12)
    for function in (losses.orbital_energy_loss, losses.matrix_loss, losses.density_loss):
        with pytest.raises(vp.InputError, match="reference has shape"):
            function(jnp.zeros((2, 2)), jnp.zeros((3, 3)), jnp.ones(2, bool))


def test_gradients_of_losses_are_finite_at_the_target(benzene):
    fock, overlap = benzene
    density = vp.density_matrix(fock, overlap, 42)

    def loss(fock):
        return losses.density_loss(vp.density_matrix(fock, overlap, 42), density, overlap)

    gradient = jax.grad(loss)(fock)
    assert np.all(np.isfinite(gradient))
    assert np.abs(gradient).max() < 1e-10


def test_two_spins():
    """The means over both spins, each as if alone; the gap is that of both together."""
    rng = np.random.default_rng(4)
    overlap = jnp.eye(6) + 0.1 * jnp.ones((6, 6))
    focks, wrong = (x + x.transpose(0, 2, 1) for x in rng.standard_normal((2, 2, 6, 6)))
    energies, coefficients = vp.eigh(focks, overlap)
    mask, nelec = jnp.ones((2, 6), bool), jnp.array([3, 1])

    def means(function, *arguments):
        return np.mean([function(*(a[i] for a in arguments)) for i in (0, 1)])

    np.testing.assert_allclose(losses.matrix_loss(wrong, focks), means(losses.matrix_loss, wrong, focks))
    arguments = (wrong, coefficients, energies, mask)
    both = losses.wavefunction_alignment_loss(*arguments)
    np.testing.assert_allclose(both, means(losses.wavefunction_alignment_loss, *arguments))
    np.testing.assert_allclose(losses.gauge_shift(focks - 0.3 * overlap, focks, overlap), 0.3)
    densities, others = (vp.density_matrix(f, overlap, nelec) for f in (focks, wrong))
    misplaced = [np.trace((a - b) @ overlap @ (a - b) @ overlap) for a, b in zip(densities, others, strict=True)]
    np.testing.assert_allclose(losses.density_loss(others, densities, overlap), sum(misplaced) / 4)
    occupied, frontier = losses.occupied_levels(nelec, mask), losses.frontier_levels(nelec, mask)
    np.testing.assert_array_equal(occupied.sum(axis=1), nelec)
    np.testing.assert_array_equal(np.argwhere(frontier), [[0, 2], [0, 3], [1, 0], [1, 1]])
    levels = vp.eigh(wrong, overlap)[0]
    expected = np.sum(np.where(occupied, levels - energies, 0.0) ** 2) / 4
    np.testing.assert_allclose(losses.orbital_energy_loss(levels, energies, occupied), expected)
    gap = min(energies[0, 3], energies[1, 1]) - max(energies[0, 2], energies[1, 0])
    np.testing.assert_allclose(vp.homo_lumo_gap(energies, nelec), gap)
