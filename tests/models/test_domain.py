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


def alkane(carbons):
    """As a molecule of so many heavy atoms; where they are does not matter here."""
    return vp.Molecule([6] * carbons, np.arange(carbons)[:, None] * np.array([0.0, 0.0, 3.0]))


@pytest.mark.parametrize(
    ("few", "held_out", "size"),
    [
        (5, (3, 4), 4),  # of a hundred: nothing shows the errors of nine heavy atoms
        (5, (2,), 4),  # fewer atoms held out than usual in the training
        (5, (3, 7), 7),
        (5, (9,), 9),
        (5, (12,), 9),  # larger than all of the training
        (6, (3, 4), 9),
        (5, (), 9),  # nothing says that uncertainties are of other molecules
    ],
)
def test_few_large_training_molecules_do_not_make_the_size_of_the_training(few, held_out, size):
    molecules = [alkane(9)] * few + [alkane(4)] * 50 + [alkane(3)] * (50 - few)
    domain = Domain.of(molecules, held_out=map(alkane, held_out))
    assert (domain.size, domain.checked) == (size, size)


@pytest.mark.parametrize(("size", "checked", "doubted"), [(0, 0, False), (2, 2, False), (1, 1, True), (1, 2, False)])
def test_molecules_beyond_what_was_checked_are_doubted(size, checked, doubted):
    texts = list(Domain((0,), size, checked).doubts(g2("C2H6")))
    assert len(texts) == doubted
    assert all("2 heavy atoms, trained for up to 1; errors may be larger" in text for text in texts)
    (text,) = Domain((0,), 1, 2).doubts(g2("C3H8"))
    assert "up to 1, uncertainties fitted for up to 2; errors" in text


def stretched(molecule, by):
    """The halves above and below the middle of the z axis moved apart, bohr."""
    positions = np.asarray(molecule.positions)
    return vp.Molecule(molecule.numbers, positions + by / 2 * np.sign(positions[:, 2:]) * np.eye(3)[2])


def test_atoms_with_other_neighbours_are_doubted():
    """A bond that breaks, a proton elsewhere; not what vibrates, and nothing where no bonds are known."""
    ethane, domain = g2("C2H6"), Domain.of([g2("CH3COOH"), g2("C2H6")])
    assert not [*domain.doubts(ethane)]
    moved = np.where(np.arange(8)[:, None] % 2, 0.1, -0.1) * np.eye(3)[np.arange(8) % 3]
    assert not [*domain.doubts(vp.Molecule(ethane.numbers, ethane.positions + moved))]
    (text,) = domain.doubts(stretched(ethane, 3.0))
    assert text.startswith("atoms 0, 1 (C) bonded to H, H, H, by distance, unlike those of the training molecules; ")
    assert not [*Domain((0,), 2, 2).doubts(stretched(ethane, 3.0))]
    (text,) = domain._replace(checked=9).doubts(g2("H2CO"))
    assert text.startswith("atom 1 (C) bonded to H, H, O, by distance")
    four = vp.Molecule([1, 6, 7, 8], 9.0 * np.arange(12).reshape(4, 3), spin=0)
    *named, more = domain._replace(checked=9).doubts(four)
    assert [text.split(",")[0] for text in named] == [f"atom {i} ({s}) without a bond" for i, s in enumerate("HCN")]
    assert more == "1 more kinds of atoms bonded unlike those of the training molecules"


def test_bonds_are_those_of_isomers_atoms_and_starts():
    isomers = [g2(name) for name in ("bicyclobutane", "butadiene", "methylenecyclopropane", "2-butyne", "cyclobutene")]
    domain = Domain.of(isomers)
    assert not [text for own in isomers for text in domain.doubts(own)]
    neon = vp.Molecule([10], np.zeros((1, 3)))
    assert Domain.of([neon, g2("H2O")]).bonds == ("H(O)", "Ne()", "O(H,H)")
    start = Domain.of([g2("NH3")])
    assert Domain.of([g2("H2O")], start).bonds == ("H(N)", "H(O)", "N(H,H,H)", "O(H,H)")
    assert Domain.of([g2("H2O")], start._replace(bonds=())).bonds == ()  # an older one, which does not say


def test_a_hydrogen_that_a_displacement_took_away_is_none_of_a_kind():
    lost = vp.Molecule([1, 1], 9.0 * np.eye(2, 3))
    assert "H()" not in Domain.of([lost] + [g2("CH4")] * 4).bonds
    assert "H()" in Domain.of([lost, *[g2("CH4")] * 2]).bonds  # of a curve of dissociation


def test_a_ratio_is_at_least_one():
    np.testing.assert_allclose(Domain((0,), 4, 4).ratio(np.array([0, 1, 4, 6])), [1, 1, 1, 1.5])
    assert Domain().ratio(np.array(9)) == 1  # nothing is known
