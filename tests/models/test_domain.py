"""Charges and sizes that a model knows."""

import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.models import Domain

NEUTRAL = [g2("CH4"), g2("C2H6"), g2("H2O")]


def charged(charge):
    """A nucleus, or a hydrogen molecule with a hole."""
    return vp.Molecule([1, 1] if charge == 0 else [1], np.eye(2 if charge == 0 else 1, 3), charge=charge)


@pytest.mark.parametrize(
    ("before", "charges", "expected"),
    [(None, [1], (1,)), ((), [1], (0, 1)), ((-1,), [1, 0], (-1, 0, 1)), ((0,), [0], (0,))],
)
def test_charges_of_a_start_are_kept(before, charges, expected):
    """Of one that does not say, neutral ones."""
    start = None if before is None else Domain(before)
    assert Domain.of(map(charged, charges), start).charges == expected


def test_the_largest_molecule_of_the_training_counts():
    assert Domain.of(NEUTRAL) == Domain((0,), 2, 2)
    assert Domain.of(NEUTRAL, Domain((0,), 5, 9)) == Domain((0,), 2, 2)  # other weights since it knew larger ones
    assert Domain.of([]) == Domain()


@pytest.mark.parametrize(
    ("charges", "charge", "doubted"), [((0,), 0, False), ((0,), 1, True), ((-1, 0), -1, False), ((), 0, False)]
)
def test_charges_that_no_training_molecule_had_are_doubted(charges, charge, doubted):
    molecule = vp.Molecule([8, 1], np.eye(2, 3), charge=charge, spin=(9 - charge) % 2)
    texts = list(Domain(charges).doubts(molecule))
    assert len(texts) == doubted
    assert all(f"charge {charge}, training molecules: " in text for text in texts)


@pytest.mark.parametrize(("size", "checked", "doubted"), [(0, 0, False), (2, 2, False), (1, 1, True), (1, 2, False)])
def test_molecules_beyond_what_was_checked_are_doubted(size, checked, doubted):
    texts = list(Domain((0,), size, checked).doubts(g2("C2H6")))
    assert len(texts) == doubted
    assert all("2 heavy atoms, training molecules have at most 1; errors may be larger" in text for text in texts)
    (text,) = Domain((0,), 1, 2).doubts(g2("C3H8"))
    assert "at most 1, those that show its uncertainties 2; errors" in text


def test_a_ratio_is_at_least_one():
    np.testing.assert_allclose(Domain((0,), 4, 4).ratio(np.array([0, 1, 4, 6])), [1, 1, 1, 1.5])
    assert Domain().ratio(np.array(9)) == 1  # nothing is known
