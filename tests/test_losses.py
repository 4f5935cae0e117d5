"""Losses and metrics: masks, units, zero at the target."""

import dataclasses

import numpy as np
import pytest

from vpotjax.losses import LossWeights, Targets, observable_loss, variance_weights
from vpotjax.metrics import observable_errors
from vpotjax.units import HARTREE_TO_EV


def targets():
    rng = np.random.default_rng(0)
    mask = np.arange(5) < np.array([[5], [3]])
    levels = np.where(mask, np.sort(rng.standard_normal((2, 5))), 0.0)
    return Targets(
        levels, mask, rng.standard_normal((2, 3)), rng.standard_normal((2, 3, 3)), np.array([4, 2]), np.array([4, 6])
    )


def molecule(t, i):
    return Targets(t.mo_energies[i], t.level_mask[i], t.dipole[i], t.polarizability[i], t.natm[i], t.nelec[i])


def test_loss_is_zero_at_the_target_and_ignores_padding():
    t = molecule(targets(), 1)
    weights = LossWeights(1.0, 1.0, 1.0, 1.0)
    levels = np.where(t.level_mask, t.mo_energies, 1e3)
    assert observable_loss(levels, t.dipole, t.polarizability, t, weights) == 0


def test_loss_is_the_weighted_square_per_atom():
    t = molecule(targets(), 0)
    weights = LossWeights(2.0, 7.0, 3.0, 5.0)
    loss = observable_loss(t.mo_energies + 0.1, t.dipole + 0.2, t.polarizability - 0.3, t, weights)
    expected = (2 * 5 * 0.01 + 3 * 3 * 0.04 + 5 * 9 * 0.09) / 16
    np.testing.assert_allclose(loss, expected, rtol=1e-12)  # rounding


def test_only_errors_of_the_gap_count_for_the_gap():
    t = molecule(targets(), 0)
    weights = LossWeights(0.0, 3.0, 0.0, 0.0)
    shifted = observable_loss(t.mo_energies + 0.5, t.dipole, t.polarizability, t, weights)
    opened = observable_loss(t.mo_energies + 0.2 * (np.arange(5) >= 2), t.dipole, t.polarizability, t, weights)
    np.testing.assert_allclose([shifted, opened], [0.0, 3 * 0.04 / 16], atol=1e-14)  # rounding
    full = dataclasses.replace(t, nelec=10)  # every level occupied: there is no gap to count
    assert observable_loss(t.mo_energies + np.arange(5), t.dipole, t.polarizability, full, weights) == 0


def test_weights_undo_units():
    t = targets()
    scaled = dataclasses.replace(t, dipole=7 * t.dipole)
    plain, other = variance_weights(t), variance_weights(scaled)
    np.testing.assert_allclose(other.dipole, plain.dipole / 49, rtol=1e-12)  # rounding
    assert other.polarizability == plain.polarizability


def test_errors_are_in_the_units_of_the_literature():
    t = targets()
    errors = observable_errors(t.mo_energies + 0.1, t.dipole, t.polarizability + 0.2, t)
    assert errors.mo_energies == pytest.approx(0.1 * HARTREE_TO_EV)
    assert errors.occupied == pytest.approx(0.1 * HARTREE_TO_EV)
    assert errors.gap == pytest.approx(0.0, abs=1e-12)
    assert errors.dipole == 0
    assert errors.polarizability == pytest.approx(np.mean([0.6 / 4, 0.6 / 2]))


def test_a_molecule_without_a_lumo_counts_in_no_gap():
    t = dataclasses.replace(targets(), nelec=np.array([4, 6]))
    changed = np.array(t.mo_energies)
    changed[0, 1] -= 0.1  # the HOMO of the first
    errors = observable_errors(changed, t.dipole, t.polarizability, t)
    assert errors.gap == pytest.approx(0.1 * HARTREE_TO_EV)
