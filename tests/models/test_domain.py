"""Charges, sizes and bonds that a model knows."""

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
    bonds = ("C(C,H,H,H)", "C(H,H,H,H)", "H(C)", "H(O)", "O(H,H)")
    assert Domain.of(NEUTRAL) == Domain((0,), 2, 2, bonds)
    before = Domain((0,), 5, 9, ("H(H)",))
    assert Domain.of(NEUTRAL, before) == Domain((0,), 2, 2, (*bonds[:3], "H(H)", *bonds[3:]))  # of size others know
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


def test_atoms_with_other_neighbours_are_doubted():
    """A bond that breaks; not what vibrates, and nothing where none are known."""
    ethane = g2("C2H6")
    domain = Domain.of([g2("CH3COOH"), ethane])
    assert not [*domain.doubts(g2("C2H6"))]
    moved = np.where(np.arange(8)[:, None] % 2, 0.1, -0.1) * np.eye(3)[np.arange(8) % 3]
    assert not [*domain.doubts(vp.Molecule(ethane.numbers, ethane.positions + moved))]
    ends = np.where(ethane.positions[:, 2:] > 0, 1.0, -1.0) * np.eye(3)[2]
    stretched = [*domain.doubts(vp.Molecule(ethane.numbers, ethane.positions + 1.5 * ends))]
    assert [text.split(",")[0] for text in stretched] == [f"atom {i} (C) is bonded to H" for i in (0, 1)]
    assert "H, H, H, no such atom is in the training molecules" in stretched[0]
    assert not [*Domain((0,), 2, 2).doubts(vp.Molecule(ethane.numbers, ethane.positions + 1.5 * ends))]
    broken = vp.Molecule(ethane.numbers, ethane.positions + 1.5 * ends)
    assert "C(H,H,H)" not in Domain.of([ethane] * 3 + [broken]).bonds  # an accident
    assert "C(H,H,H)" in Domain.of([ethane] * 2 + [broken]).bonds
    lost = vp.Molecule(ethane.numbers, ethane.positions + 9.0 * np.eye(8)[:, [7]] * np.eye(3)[0])
    assert "H()" not in Domain.of([lost] + [g2("CH4")] * 4).bonds
    assert "H()" in Domain.of([lost] + [g2("CH4")] * 2).bonds
    apart = vp.Molecule([1, 1] * 3, 9.0 * np.arange(18).reshape(6, 3))
    *named, more = domain._replace(size=0).doubts(apart)
    assert [text.split(",")[0] for text in named] == [f"atom {i} (H) is bonded to none" for i in range(3)]
    assert more == "3 more atoms bonded as none of the training molecules"


def test_a_ratio_is_at_least_one():
    np.testing.assert_allclose(Domain((0,), 4, 4).ratio(np.array([0, 1, 4, 6])), [1, 1, 1, 1.5])
    assert Domain().ratio(np.array(9)) == 1  # nothing is known
