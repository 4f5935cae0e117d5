"""Uncertainties: fitted to errors that are drawn with a known width, shared by elements, and counted."""

import numpy as np
import pytest
from scipy.optimize import minimize

from vpotjax.metrics import MoleculeErrors, error_summary
from vpotjax.models import Calibration, Domain
from vpotjax.train.evaluate import Evaluation
from vpotjax.train.report import calibration_text, coverage_text, error_rows, growth_text
from vpotjax.train.uncertainty import (
    STEEPEST,
    _known,
    checked,
    coverage,
    errors_and_uncertainties,
    fitted_calibration,
    fitted_growth_and_jump,
    fitted_scale_and_floor,
    with_growth,
)
from vpotjax.train.uncertainty import with_calibration as calibrated
from vpotjax.units import HARTREE_TO_EV


@pytest.mark.parametrize(("scale", "floor"), [(2.5, 1.5), (4.0, 0.0), (1.0, 1.0)])
def test_scale_and_floor_are_those_that_errors_were_drawn_with(scale, floor):
    rng = np.random.default_rng(0)
    spreads = rng.lognormal(0.0, 0.7, 20000)
    errors = np.abs(rng.normal(size=20000)) * np.hypot(scale * spreads, floor)
    for unit in (1.0, 1e-6):
        found = fitted_scale_and_floor(unit * errors, unit * spreads)
        np.testing.assert_allclose(found, (scale, unit * floor), rtol=0.05, atol=0.2 * unit)
    alone = fitted_scale_and_floor(errors, 0 * spreads)
    np.testing.assert_allclose(alone[1], np.sqrt(np.mean(errors**2)), rtol=1e-3)  # of one network: the rms error


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_molecules_and_errors_of_zero_give_finite_numbers(count):
    for errors, spreads in ((np.ones(count), np.full(count, 0.1)), (np.zeros(count), np.ones(count))):
        scale, floor = fitted_scale_and_floor(errors, spreads)
        assert 1 <= scale < 100
        assert 0 <= floor <= 1.001


def test_a_spread_of_rounding_says_nothing():
    """Of networks that stayed where they started, and differ where the error is large."""
    errors = np.random.default_rng(0).lognormal(0.0, 0.7, 50)
    scale, floor = fitted_scale_and_floor(errors, 1e-6 * errors)
    assert scale <= 10
    np.testing.assert_allclose(floor, np.sqrt(np.mean(errors**2)), rtol=1e-3)


def test_disagreement_is_never_taken_away():
    """Networks that agree where the error is large: the fit alone would want a scale below 1."""
    scale, floor = fitted_scale_and_floor(np.array([1.0, 1.0, 0.1, 0.1]), np.array([0.1, 0.1, 2.0, 2.0]))
    assert scale == 1
    assert floor < 1


def evaluation(errors, uncertainties, natm, compared):
    """Of molecules with errors of the elements, by observable."""
    norms = {name: np.linalg.norm(e, axis=1) / natm for name, e in errors.items()}
    own = {n: MoleculeErrors(np.abs(e).sum(axis=1), compared[n], norms[n]) for n, e in errors.items()}
    spreads = {name: np.linalg.norm(u, axis=1) / natm for name, u in uncertainties.items()}
    return Evaluation(tuple("abc"), {}, norms, spreads, {}, own, natm, np.zeros(3), HEAVY)


NATM, HEAVY = np.array([2, 5, 10]), np.array([1, 2, 8])
DOMAIN = Domain((0,), 8, 8)
COMPARED = {"dipole": np.full(3, 3), "mo_energies": np.array([4, 4, 4]), "homo_lumo_gap": np.array([1, 1, 0])}


def example():
    rng = np.random.default_rng(0)
    errors = {"dipole": rng.normal(size=(3, 3)), "mo_energies": rng.normal(size=(3, 4))}
    errors["homo_lumo_gap"] = np.array([[1.0], [3.0], [0.0]])  # the last has none
    spreads = {"dipole": np.abs(rng.normal(size=(3, 3))), "mo_energies": np.abs(rng.normal(size=(3, 4)))}
    spreads["homo_lumo_gap"] = np.ones((3, 1))
    return errors, spreads, evaluation(errors, spreads, NATM, COMPARED)


def test_the_evaluation_of_a_calibrated_model_needs_no_other_program():
    """Norms over elements, against those of the elements' own uncertainties."""
    _, spreads, raw = example()
    calibration = {name: Calibration(np.asarray(1.5), np.asarray(0.2)) for name in ("dipole", "mo_energies")}
    found = calibrated(raw, calibration, DOMAIN)
    factor = {"dipole": 1.0, "mo_energies": HARTREE_TO_EV}
    for name, own in calibration.items():
        for i, natm in enumerate(NATM):
            each = own.uncertainty(name, spreads[name][i] / factor[name], natm) * factor[name]
            np.testing.assert_allclose(np.linalg.norm(each) / natm, found.uncertainties[name][i], rtol=1e-6)
    np.testing.assert_array_equal(found.uncertainties["homo_lumo_gap"], raw.uncertainties["homo_lumo_gap"])
    alone = calibrated(raw._replace(uncertainties={}), calibration, DOMAIN).uncertainties
    np.testing.assert_allclose(alone["dipole"], 0.2)  # per atom
    np.testing.assert_allclose(alone["mo_energies"] * NATM / 2, 0.2 * HARTREE_TO_EV)  # of each of four levels


def test_larger_molecules_have_larger_uncertainties():
    """The evaluation's, against that of the elements; with three molecules of the training's size, and more."""
    _, spreads, raw = example()
    own, domain = Calibration(*map(np.asarray, (1.5, 0.2, 2.0, 3.0))), Domain((0,), 2, 2)
    found, factor = calibrated(raw, {"mo_energies": own}, domain).uncertainties["mo_energies"], HARTREE_TO_EV
    for i, (natm, ratio) in enumerate(zip(NATM, (1, 1, 4), strict=True)):
        each = own.uncertainty("mo_energies", spreads["mo_energies"][i] / factor, natm, ratio) * factor
        np.testing.assert_allclose(np.linalg.norm(each) / natm, found[i], rtol=1e-6)
        flat = Calibration(own.scale, own.floor)
        flat = flat.uncertainty("mo_energies", spreads["mo_energies"][i] / factor, natm, ratio)
        np.testing.assert_allclose(each, (3 * ratio**2 if ratio > 1 else 1) * flat * factor, rtol=1e-6)


@pytest.mark.parametrize(("growth", "jump"), [(0.0, 1.0), (0.5, 1.0), (2.0, 1.3), (0.0, 4.0)])
def test_growth_and_jump_are_those_with_which_errors_were_drawn(growth, jump):
    rng = np.random.default_rng(0)
    ratios = rng.uniform(1.1, 3.0, 20000)
    found = fitted_growth_and_jump(rng.normal(size=20000) * jump * ratios**growth, ratios)
    np.testing.assert_allclose(found, (growth, jump), atol=0.06)


def test_growth_and_jump_are_the_most_likely_of_all():
    """Against a minimisation in both, of errors that neither describes."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ratios = rng.uniform(1.1, 3.0, 8)
        deviates, logarithms = 2 * rng.normal(size=8) * (1 + ratios**2) / 3, np.log(ratios)

        def loss(x, deviates=deviates, logarithms=logarithms):
            width = x[1] + x[0] * logarithms
            return np.mean((deviates * np.exp(-width)) ** 2 / 2 + width)

        best = minimize(loss, [0.5, 0.5], method="L-BFGS-B", bounds=[(0.0, STEEPEST), (0.0, None)], tol=1e-14)
        growth, jump = fitted_growth_and_jump(deviates, ratios)
        assert loss([growth, np.log(jump)]) <= best.fun + 1e-7


def test_larger_molecules_of_one_size_show_a_jump():
    deviates = np.array([0.3, 2.0, 5.0, 1.0, 0.1])
    growth, jump = fitted_growth_and_jump(deviates, np.full(5, 8 / 7))
    assert growth == 0
    np.testing.assert_allclose(jump, np.sqrt(np.mean(deviates**2)))
    assert fitted_growth_and_jump(deviates / 9, np.full(5, 8 / 7)) == (0.0, 1.0)
    assert fitted_growth_and_jump(np.full(5, 1.005), np.full(5, 8 / 7)) == (0.0, 1.0)  # next to nothing
    ratios = np.linspace(1.1, 3.0, 50)
    assert fitted_growth_and_jump(ratios**9, ratios)[0] == STEEPEST


def drawn(sizes, growth, seed=0):
    """Gaps of molecules of so many heavy atoms, with errors that grow from the second heavy atom on."""
    rng, sizes = np.random.default_rng(seed), np.asarray(sizes)
    errors = rng.normal(size=len(sizes)) * 0.3 * np.maximum(sizes / 2, 1) ** growth
    natm = np.full(len(sizes), 4)
    own = MoleculeErrors(np.abs(errors), np.ones(len(sizes), int), np.abs(errors) / natm)
    names = tuple(map(str, range(len(sizes))))
    nothing = {"homo_lumo_gap": np.zeros(len(sizes))}
    return Evaluation(
        names, {}, {"homo_lumo_gap": own.norm}, nothing, {}, {"homo_lumo_gap": own}, natm, 0 * natm, sizes
    )


def test_scale_and_floor_come_from_the_size_of_the_training_growth_from_beyond():
    domain, mixed = Domain((0,), 2, 2), drawn([1, 2] * 2000 + [4, 6] * 2000, 1.5)
    (own,) = fitted_calibration(mixed, domain).values()
    np.testing.assert_allclose(own.floor * HARTREE_TO_EV, 0.3, rtol=0.05)
    np.testing.assert_allclose(own.growth, 1.5, atol=0.1)
    np.testing.assert_allclose(own.jump, 1.0, atol=0.1)
    assert checked(domain, mixed) == Domain((0,), 2, 6)
    assert 0.6 < coverage(calibrated(mixed, {"homo_lumo_gap": own}, domain), "homo_lumo_gap")[0] < 0.75
    again = with_growth({"homo_lumo_gap": own._replace(growth=np.asarray(3.0))}, mixed, domain)["homo_lumo_gap"]
    np.testing.assert_allclose(again.growth, own.growth, rtol=1e-6)  # what it was does not matter


@pytest.mark.parametrize(
    ("sizes", "most"), [([1, 2, 2, 4, 4], 2), ([4] * 9, 4), ([1] * 9, 2), ([4, 4], 4), ([1] + [4] * 9, 4)]
)
def test_too_few_of_either_size_show_no_growth(sizes, most):
    """All give the floor then; of one small molecule it would be an accident."""
    domain, own = Domain((0,), 2, 2), drawn(sizes, 1.0)
    (found,) = fitted_calibration(own, domain).values()
    assert not found.grows
    np.testing.assert_allclose(found.floor * HARTREE_TO_EV, np.sqrt(np.mean(own.errors["homo_lumo_gap"].absolute ** 2)))
    assert checked(domain._replace(checked=9), own).checked == most  # of another calibration before
    unknown = fitted_calibration(own, Domain())["homo_lumo_gap"]
    assert (unknown.grows, checked(Domain(), own)) == (False, Domain())


def test_geometries_of_one_molecule_and_what_cannot_be_compared_show_no_growth():
    domain, mixed = Domain((0,), 2, 2), drawn([1] * 9 + [4] * 9, 3.0)
    one = mixed._replace(names=tuple("abcdefghi") + ("same",) * 9)
    lost = mixed.errors["homo_lumo_gap"]._replace(compared=np.array([1] * 13 + [0] * 5))
    for own in (one, mixed._replace(errors={"homo_lumo_gap": lost})):
        assert not fitted_calibration(own, domain)["homo_lumo_gap"].grows
        assert checked(domain, own) == domain
    assert fitted_calibration(mixed, domain)["homo_lumo_gap"].jump > 4


def test_a_zero_by_symmetry_says_nothing_of_an_uncertainty():
    """In labels and networks what rounding leaves, of which the ratio is anything."""
    domain, mixed = Domain((0,), 2, 2), drawn([2] * 50 + [4] * 50, 1.0)
    own = mixed.errors["homo_lumo_gap"]
    zeros = np.isin(np.arange(100), (0, 1, 99))
    rounded = own._replace(norm=np.where(zeros, 1e-6, own.norm))
    some = mixed._replace(errors={"homo_lumo_gap": rounded}, norms={"homo_lumo_gap": rounded.norm})
    lost = mixed._replace(errors={"homo_lumo_gap": own._replace(compared=np.where(zeros, 0, own.compared))})
    found, expected = (fitted_calibration(each, domain)["homo_lumo_gap"] for each in (some, lost))
    assert found == expected
    far = own._replace(norm=np.where(np.arange(100) == 3, 1e3, own.norm), compared=np.ones(100, int))
    odd = mixed._replace(errors={"homo_lumo_gap": far}, norms={"homo_lumo_gap": far.norm})
    assert _known(odd, "homo_lumo_gap").sum() > 95  # whatever one molecule is


def test_errors_that_do_not_grow_have_a_growth_of_zero():
    domain, shrinking = Domain((0,), 2, 2), drawn([2] * 50 + [4] * 50, -1.0)
    own = fitted_calibration(shrinking, domain)
    assert not own["homo_lumo_gap"].grows
    assert growth_text(own, domain) is None


def test_what_is_not_evaluated_keeps_its_calibration():
    domain, mixed = Domain((0,), 2, 2), drawn([4] * 900, 1.5)
    other = Calibration(*map(np.asarray, (1.0, 0.3 / HARTREE_TO_EV, 0.7)))
    found = with_growth({"homo_lumo_gap": other, "dipole": other}, mixed, domain)
    assert found["dipole"] is other
    np.testing.assert_allclose(found["homo_lumo_gap"].jump, 2**1.5, rtol=0.1)  # all are of one size
    assert "dipole" not in calibrated(mixed, found, domain).uncertainties
    assert with_growth({"dipole": other}, drawn([1] * 9, 1.5), domain) == {"dipole": other}
    found["homo_lumo_gap"] = other._replace(growth=np.asarray(STEEPEST), jump=np.asarray(1.5))
    found["polarizability"] = other._replace(growth=np.zeros(()), jump=np.asarray(1.25))
    text = growth_text(found, domain._replace(checked=4)) or ""
    assert text.startswith("Uncertainties of n > 2 heavy atoms are multiplied: ")
    for part in ("gap by 1.5 (n/2)^4 (or more)", "μ by (n/2)^0.7", "α by 1.2", "; fitted up to n = 4"):
        assert part in text
    assert growth_text({"dipole": other._replace(growth=np.zeros(()))}, domain) is None


def test_what_grows_with_the_molecule_is_calibrated_per_atom():
    own = Calibration(np.asarray(2.0), np.asarray(0.3))
    alpha = own.uncertainty("polarizability", np.zeros((3, 3)), 7)
    np.testing.assert_allclose(np.linalg.norm(alpha), 7 * 0.3, rtol=1e-6)
    for name, shape in (
        ("mo_energies", 5),
        ("homo_lumo_gap", ()),
        ("lowdin_charges", 4),
        ("mayer_bond_orders", (4, 4)),
    ):
        np.testing.assert_allclose(own.uncertainty(name, np.full(shape, 0.2), 7), np.hypot(0.4, 0.3), rtol=1e-6)
    np.testing.assert_allclose(own.uncertainty("energy", np.zeros(()), 7), 7 * 0.3, rtol=1e-6)


def test_molecules_within_their_uncertainty_are_counted():
    _, _, raw = example()
    assert coverage(raw, "homo_lumo_gap") == (0.5, 0.5)  # 1 ≤ 1, 3 > 2; the third has nothing to compare
    errors, uncertainties = errors_and_uncertainties(raw, "homo_lumo_gap")
    np.testing.assert_allclose(errors, [1, 3])
    np.testing.assert_allclose(uncertainties, [1, 1])
    row = {"homo_lumo_gap_within": 0.5, "homo_lumo_gap_within_2": 0.9, "dipole": 1.0}
    assert (coverage_text(row) or "").endswith(": gap 50 and 90 %")
    assert coverage_text({"dipole": 1.0, "homo_lumo_gap_within": np.nan}) is None


def test_what_cannot_be_compared_has_no_calibration_and_failures_are_counted():
    errors, spreads, _ = example()
    errors["dipole"][:] = np.nan  # HOMO and LUMO have the same energy
    raw = evaluation(errors, spreads, NATM, {**COMPARED, "homo_lumo_gap": np.zeros(3)})
    calibration = fitted_calibration(raw, DOMAIN)
    assert calibration.keys() == {"mo_energies"}
    assert coverage(raw, "dipole") == (0, 0)
    assert np.isnan(coverage(raw, "homo_lumo_gap")).all()
    assert calibration_text({}, 3, several=True) is None


def test_a_fit_to_molecules_holds_for_them_and_is_told():
    _, _, raw = example()
    calibration = fitted_calibration(raw, DOMAIN)
    within = calibrated(raw, calibration, DOMAIN)
    for name in raw.norms:
        errors, uncertainties = errors_and_uncertainties(within, name)
        assert 0.3 < np.sqrt(np.mean((errors / uncertainties) ** 2)) < 1.1  # 1, but for the bound of the scale
    text = calibration_text(calibration, 3, several=True)
    assert text.startswith("Uncertainties by 3 validation geometries")
    assert "per atom and " in text
    assert " spreads" not in calibration_text(calibration, 3, several=False)
    assert not {"dipole_within", "dipole_uncertainty"} & _row(raw._replace(uncertainties={})).keys()
    assert {"dipole_within", "dipole_within_2", "dipole_uncertainty"} <= _row(within).keys()


def _row(own):
    summary = {name: error_summary([errors]) for name, errors in own.errors.items()}
    (row,) = error_rows({"it": own._replace(summary=summary)})
    return row


def test_an_unknown_observable_is_named():
    with pytest.raises(ValueError, match="observable is 'spin'"):
        Calibration(np.ones(()), np.ones(())).uncertainty("spin", np.ones(3), 3)
