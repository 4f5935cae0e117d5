"""Losses that add: by hand on two molecules, with weights, schedules, and functions of a user."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from vpotjax import losses
from vpotjax.electronic.observables import Reference
from vpotjax.losses import Alignment, Custom, ElectronDensity, MatrixElements, Observed, Sum, Weighted, from_to

# Three atoms with four electrons and five levels, and two atoms with two electrons and three levels.
NATM, MASK = np.array([3, 2]), np.arange(5) < np.array([[5], [3]])
LEVELS = np.array([[-3.0, -1.0, 0.0, 1.0, 2.0], [-2.0, 1.0, 2.0, 0.0, 0.0]])
DIPOLES = np.array([[0.0, 0.0, 1.0], [0.0, 2.0, 3.0]])
ENERGIES = np.array([-10.0, -4.0])
CHARGES = np.array([[0.6, -0.3, -0.3], [0.4, -0.4, 0.0]])


def batch():
    values = {"mo_energies": LEVELS, "dipole": DIPOLES, "energy": ENERGIES, "lowdin_charges": CHARGES}
    return Reference(values, MASK, NATM, np.array([4, 2]))


def molecule(i):
    return jax.tree.map(lambda x: x[i], batch())


@dataclasses.dataclass
class Predicted:
    """Observables by name, as a `Solution` has them."""

    values: dict

    def observable(self, name):
        return self.values[name]


def close(i, **changes):
    """The reference's own values plus changes; levels of padding are infinite, as `eigh` makes them."""
    values = {name: x + changes.get(name, 0.0) for name, x in molecule(i).values.items()}
    values["mo_energies"] = np.where(MASK[i], values["mo_energies"], np.inf)
    return Predicted({**values, **dict.fromkeys(("occupied", "frontier"), values["mo_energies"])})


NAMES = ("mo_energies", "occupied", "frontier", "dipole", "energy", "lowdin_charges")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("i", [0, 1])
def test_loss_is_zero_at_the_target_and_so_is_its_gradient(name, i):
    loss, reference, at = Observed(name), molecule(i), close(i).values[name]
    value, gradient = jax.value_and_grad(lambda x: loss(Predicted({name: x}), reference))(jnp.asarray(at))
    assert value == 0
    assert not np.any(gradient)


def test_loss_is_the_square_per_atom_over_the_variance():
    predicted = close(1, mo_energies=0.1, dipole=np.array([0.0, 0.3, -0.4]), energy=0.5)
    reference, variance = molecule(1), {"variance": 0.2}
    expected = {
        "mo_energies": 3 * 0.01,  # padding has no part
        "occupied": 0.01,
        "frontier": 3 * 0.01,  # one occupied, two virtual ones
        "dipole": 0.25,
        "energy": 0.25,
    }
    for name, value in expected.items():
        loss = Observed(name, **variance)(predicted, reference)
        np.testing.assert_allclose(loss, value / (2**2 * 0.2), rtol=1e-12)  # rounding


def test_only_errors_of_the_gap_count_for_the_gap():
    loss, reference = Observed("homo_lumo_gap"), molecule(0)
    np.testing.assert_allclose(loss(Predicted({"homo_lumo_gap": 1.2}), reference), 0.2**2 / 9, rtol=1e-12)
    full = dataclasses.replace(reference, nelec=np.array(10))  # every level occupied: there is no gap to count
    assert loss(Predicted({"homo_lumo_gap": np.nan}), full) == 0


def test_variances_by_hand():
    mean = (-3 - 1 + 0 + 1 + 2 - 2 + 1 + 2) / 8  # of all eight levels
    levels = (np.sum((LEVELS[0] - mean) ** 2) / 9 + np.sum((LEVELS[1, :3] - mean) ** 2) / 4) / 2
    # mean (0, 1, 2): squares 0 + 1 + 1 on both sides
    expected = {
        **dict.fromkeys(("mo_energies", "occupied", "frontier", "homo_lumo_gap"), levels),
        "dipole": (2 / 9 + 2 / 4) / 2,
        "energy": (9 / 9 + 9 / 4) / 2,
    }
    one_batch, two_batches = [batch()], [jax.tree.map(lambda x, i=i: x[i : i + 1], batch()) for i in (0, 1)]
    for name, value in expected.items():
        for references in (one_batch, two_batches):
            np.testing.assert_allclose(Observed(name).fitted(references).variance, value, rtol=1e-12)  # rounding
    wider = dataclasses.replace(batch(), values={"lowdin_charges": np.pad(CHARGES, ((0, 0), (0, 4)))})
    charges = Observed("lowdin_charges").fitted([wider]).variance  # about zero: atoms have no common order
    np.testing.assert_allclose(charges, (0.54 / 9 + 0.32 / 4) / 2, rtol=1e-12)


def test_variances_undo_units():
    scaled = dataclasses.replace(batch(), values={"dipole": 7 * DIPOLES})
    ours = Observed("dipole").fitted([batch()])(close(0, dipole=0.1), molecule(0))
    wanted = Reference({"dipole": 7 * DIPOLES[0]}, MASK[0], NATM[0], np.array(4))
    theirs = Observed("dipole").fitted([scaled])(Predicted({"dipole": 7 * (DIPOLES[0] + 0.1)}), wanted)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)  # rounding


def test_what_does_not_vary_is_named():
    single = jax.tree.map(lambda x: x[:1], batch())
    with pytest.raises(vp.InputError, match="dipole does not vary over the 1 training molecules"):
        Observed("dipole").fitted([single])
    with pytest.raises(vp.InputError, match="labels lack 'polarizability'"):
        Observed("polarizability").fitted([batch()])
    with pytest.raises(vp.InputError, match="observable is 'spin'"):
        Observed("spin")


def test_sums_and_weights():
    reference, predicted = molecule(1), close(1, mo_energies=0.1, dipole=0.2)
    a, b = Observed("mo_energies"), Observed("dipole")
    values = [float(loss(predicted, reference)) for loss in (a, b)]
    np.testing.assert_allclose(values, [0.03 / 4, 0.12 / 4], rtol=1e-12)
    both = 3e5 * a + b
    assert both == Sum((Weighted(3e5, a), b))
    np.testing.assert_allclose(both(predicted, reference), 3e5 * values[0] + values[1], rtol=1e-12)
    assert len((both + b).terms) == len((b + both).terms) == 3
    nested = 0.5 * (both + np.float64(2) * b)
    expected = 0.5 * (3e5 * values[0] + 3 * values[1])
    np.testing.assert_allclose(nested(predicted, reference), expected, rtol=1e-12)
    fitted = nested.fitted([batch()])
    variances = [Observed(name).fitted([batch()]).variance for name in ("mo_energies", "dipole")]
    expected = 0.5 * (3e5 * values[0] / variances[0] + 3 * values[1] / variances[1])
    np.testing.assert_allclose(fitted(predicted, reference), expected, rtol=1e-12)
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(vp.InputError, match=r"weight of Observed.* give 0 or a positive number"):
            weight * a


def test_schedules():
    loss = from_to(1.0, 0.0, until=0.5) * Observed("dipole") + (lambda progress: progress**2) * Observed("energy")
    predicted, reference = close(1, dipole=0.2, energy=0.4), molecule(1)
    dipole, energy = 0.12 / 4, 0.16 / 4

    @jax.jit
    def at(progress):
        return loss(predicted, reference, progress)

    for progress, share in ((0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (1.0, 0.0)):
        np.testing.assert_allclose(at(progress), share * dipole + progress**2 * energy, rtol=1e-12)  # rounding
    np.testing.assert_allclose(loss(predicted, reference), energy, rtol=1e-12)  # the end of the training by default


def test_functions_of_a_user():
    def charge_on_the_first_atom(predicted, reference):
        return (predicted.observable("lowdin_charges")[0] - reference.values["lowdin_charges"][0]) ** 2

    predicted, reference, dipole = close(0, lowdin_charges=0.1, dipole=0.3), molecule(0), Observed("dipole")
    for loss in (
        dipole + charge_on_the_first_atom,
        charge_on_the_first_atom + dipole,
        Custom(charge_on_the_first_atom) + dipole,
    ):
        assert not loss.needs
        np.testing.assert_allclose(loss(predicted, reference), 0.27 / 9 + 0.01, rtol=1e-12)  # rounding
        assert loss.fitted([batch()])(predicted, reference) > 0
    tenfold = 10 * Custom(charge_on_the_first_atom)
    np.testing.assert_allclose(tenfold(predicted, reference), 0.1, rtol=1e-12)


def test_losses_of_matrices_are_those_of_the_functions():
    rng = np.random.default_rng(0)
    fock, wanted = (x + x.T for x in rng.standard_normal((2, 5, 5)))
    overlap, mask = np.eye(5) + 0.01 * np.ones((5, 5)), np.arange(5) < 4
    space = types.SimpleNamespace(overlap=overlap, ao_mask=mask)
    predicted = types.SimpleNamespace(matrix=fock, density=3 * np.eye(5), space=space)
    levels, orbitals = vp.eigh(wanted, overlap)
    values = {"fock": wanted, "density": 2 * np.eye(5), "orbitals": orbitals, "levels": levels}
    reference = Reference(values, mask, np.array(3), np.array(4))
    cases = {
        MatrixElements(scale=0.1): 100 * losses.matrix_loss(fock, wanted, mask),
        MatrixElements("density"): losses.density_loss(fock, 2 * np.eye(5), overlap),
        ElectronDensity(): losses.density_loss(3 * np.eye(5), 2 * np.eye(5), overlap),
        Alignment(scale=10.0): 0.01 * losses.wavefunction_alignment_loss(fock, orbitals, levels, mask),
    }
    for loss, expected in cases.items():
        np.testing.assert_allclose(loss(predicted, reference), expected, rtol=1e-12)  # rounding
        assert expected > 0
        assert (2.0 * loss).needs == loss.needs
    assert (Observed("dipole") + 2.0 * Alignment()).needs == {"orbitals", "levels"}
    assert (MatrixElements() + ElectronDensity()).needs == {"fock", "density"}


def test_squared_errors_are_the_terms_without_weight_and_variance():
    """A sum of weighted terms by hand; a function of a user's is left out."""
    natm = np.array(2)
    reference = Reference({"dipole": np.array([1.0, 0.0, 0.0])}, np.ones(1, bool), natm, natm)

    class Predicted:
        def observable(self, name):
            return jnp.array([1.0, 0.6, -0.8])

    loss = 7.0 * Observed("dipole", variance=3.0) + (lambda predicted, own: jnp.ones(()))
    errors = loss.squared_errors(Predicted(), reference)
    assert set(errors) == {"dipole"}
    np.testing.assert_allclose(errors["dipole"], 1.0 / 4)
