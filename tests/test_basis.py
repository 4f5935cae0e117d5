"""Bases against PySCF's own tables, and what is refused."""

import numpy as np
import pytest
from pyscf import gto
from scipy.integrate import quad

from tests.molecules import every_element, g2
from vpotjax._checks import InputError
from vpotjax.basis import load_basis
from vpotjax.integrals.overlap import overlap


def mole_of(molecule, basis):
    """PySCF's molecule with PySCF's own version of the basis."""
    atoms = list(zip(molecule.symbols, molecule.positions, strict=True))
    return gto.M(atom=atoms, basis=basis, charge=molecule.charge, unit="Bohr", verbose=0)


@pytest.mark.parametrize("name", ["sto-3g", "6-31g", "def2-svp", "def2-tzvp", "cc-pvtz"])
def test_ao_order_agrees_with_pyscf(name):
    molecule = every_element()
    basis, mole = load_basis(name, molecule.numbers), mole_of(molecule, name)
    labels = mole.ao_labels(fmt=None)
    assert basis.nao == mole.nao > 100
    assert basis.ao_atom.tolist() == [atom for atom, *_ in labels]
    assert ["spdfg"[l] for l in basis.ao_l] == [shell[-1] for _, _, shell, _ in labels]
    assert basis.ao_labels() == [f"{atom} {symbol} {shell}{m}" for atom, symbol, shell, m in labels]
    assert basis.atom_ao_slices().tolist() == mole.aoslice_by_atom()[:, 2:].tolist()
    assert basis.shell_angular_momenta() == [
        int(mole.bas_angular(i)) for i in range(mole.nbas) for _ in range(mole.bas_nctr(i))
    ]


@pytest.mark.parametrize("name", ["sto-3g", "def2-tzvp", "cc-pvtz"])
def test_labels_are_unique(name):
    molecule = g2("C6H6")
    labels = load_basis(name, molecule.numbers).ao_labels()
    assert len(set(labels)) == len(labels)


def test_names_ignore_case():
    assert load_basis("DEF2-svp", [8]).ao_labels() == load_basis("def2-SVP", [8]).ao_labels()


def test_shells_in_pyscf_format():
    molecule = g2("CH3OH")
    table = {symbol: gto.basis.load("sto-3g", symbol) for symbol in set(molecule.symbols)}
    ours = overlap(load_basis(table, molecule.numbers), molecule.positions)
    # The same exponents and coefficients on both sides: rounding of numbers up to 1.
    np.testing.assert_allclose(ours, mole_of(molecule, table).intor("int1e_ovlp"), atol=1e-12)


def test_unsorted_shells_are_sorted_by_l():
    p, s = [1, [0.8, 1.0]], [0, [0.5, 1.0], [2.0, 0.3]]
    basis = load_basis({"H": [p, s]}, [1])
    assert basis.ao_labels() == ["0 H 1s", "0 H 2px", "0 H 2py", "0 H 2pz"]


def test_one_basis_per_element():
    molecule = g2("CH3OH")
    mixed = {"H": "sto-3g", "C": "def2-svp", "O": [[0, [1.0, 1.0]], [2, [0.7, 1.0]]]}
    basis, mole = load_basis(mixed, molecule.numbers), mole_of(molecule, mixed)
    assert basis.ao_labels() == [f"{atom} {symbol} {shell}{m}" for atom, symbol, shell, m in mole.ao_labels(fmt=None)]


def test_general_contractions_share_primitives():
    basis = load_basis("cc-pvtz", [6])
    shapes = {shells.l: shells.coefficients.shape for shells in basis.shells}
    # (10s5p2d1f) → [4s3p2d1f], Dunning 1989, doi:10.1063/1.456153
    assert shapes == {0: (4, 10), 1: (3, 5), 2: (2, 2), 3: (1, 1)}
    for shells in basis.shells:
        assert len(set(shells.exponents.tolist())) == len(shells.exponents)


@pytest.mark.parametrize("name", ["6-31g", "cc-pvtz"])
def test_shells_have_norm_one(name):
    for shells in load_basis(name, [8]).shells:
        for coefficients in shells.coefficients:

            def density(r, coefficients=coefficients, shells=shells):
                return (r ** (shells.l + 1) * coefficients @ np.exp(-shells.exponents * r**2)) ** 2

            norm = quad(density, 0, 0.3, limit=200)[0] + quad(density, 0.3, 30, limit=200)[0]
            assert norm == pytest.approx(1.0, abs=1e-7)  # SciPy's default accuracy, 1.5e-8, in two parts


def test_core_potential_reduces_the_charge():
    basis = load_basis("def2-svp", [53, 1])
    assert basis.nuclear_charges.tolist() == [25.0, 1.0]  # 28 electrons in the core of iodine
    assert basis.numbers.tolist() == [53, 1]
    assert (
        mole_of(g2("H2"), "def2-svp").nao // 2
        + gto.M(atom="I", basis="def2-svp", ecp="def2-svp", spin=1, verbose=0).nao
        == basis.nao
    )


def test_all_electron_bases_keep_the_charge():
    assert load_basis("def2-svp", [26, 8]).nuclear_charges.tolist() == [26.0, 8.0]


@pytest.mark.parametrize(
    ("basis", "numbers", "message"),
    [
        ("def2-svpp", [1], "basis 'def2-svpp' is not known.*did you mean .*def2-SVP"),
        ("st0-3g", [1], "basis 'st0-3g' is not known.*did you mean .*STO-3G"),
        ("@@@@", [1], "basis '@@@@' is not known to basis-set-exchange"),
        ("6-31g", [79], "basis '6-31g' does not cover Au; it covers H, .*: choose another"),
        ({"H": "sto-3g"}, [8, 1, 1], "basis has no entry for O; it covers H: add 'O'"),
        ({"H": "sto-4h"}, [1], "basis 'sto-4h' is not known"),
        ({"H": [[6, [1.0, 1.0]]]}, [1], "basis has l = 6; integrals are implemented up to l = 5"),
        ("cc-pv6z", [8], "basis has l = 6"),
        ("LANL2DZ ECP", [53], "basis 'LANL2DZ ECP' has no functions for I, only an effective core potential"),
        ({"H": "def2-ecp", 53: "def2-ECP"}, [53], "basis 'def2-ECP' has no functions for I"),
        (None, [1], "basis is None; give a name, or a dict"),
        (["sto-3g"], [1], r"basis is \['sto-3g'\]; give a name, or a dict"),
        ({"H": "sto-3g", 1: "def2-svp"}, [1], "basis has entries for both 'H' and 1; keep one"),
        ({8: "sto-3g"}, [1], "basis has no entry for H; it covers 8: add 'H'"),
        ("H S\n 1.0 1.0", [1], r"basis 'H S\\n 1.0 1.0' is not known"),
        ("sto-3g", [-1], "numbers contains -1"),
        ("sto-3g", [119], "numbers contains 119"),
        ("sto-3g", [0, 0], r"basis has no functions on the atoms \[0, 0\]"),
    ],
)
def test_bad_bases_are_refused(basis, numbers, message):
    with pytest.raises(InputError, match=message) as caught:
        load_basis(basis, numbers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shell",
    [
        [0, [1.0, 0.0]],
        [0, [-1.0, 1.0]],
        [0, [1.0, 1.0], [1.0, -1.0]],
        [0, 1, [1.0, 1.0]],  # kappa of a spinor
        [0],
        [0, [1.0]],
        [0, [1.0, 1.0], [2.0, 1.0, 1.0]],
        [0, [1.0, np.nan]],
        [0, [1.0, None]],
        [0, [1.0, 1j]],
        [0, ["one", 1.0]],
        [0, "12"],
        [0, np.ones((30, 2))],
        [0, [[1.0, 1.0], [2.0, 1.0]]],
        ["S", [1.0, 1.0]],
        [1.0, [1.0, 1.0]],
        [True, [1.0, 1.0]],
        [-1, [1.0, 1.0]],
        [[0, [1.0, 1.0]]],
        [],
        0,
        None,
        "sto-3g",
    ],
)
def test_bad_shells_are_named(shell):
    with pytest.raises(InputError, match=r"basis of H.*(form|positive|spinor)") as caught:
        load_basis({"H": [shell]}, [1])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("entry", [None, [], 0, 1.5, {"s": [1.0]}, np.ones((2, 2)), [0, [1.0, 1.0]]])
def test_bad_entries_are_named(entry):
    with pytest.raises(InputError, match=r"basis of H (is|has the shell).*form|give a name") as caught:
        load_basis({"H": entry}, [1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shells",
    [
        [(0, ("1.0D+01", "2.0d-01"), ("3.", "1.0E0"))],
        [[0, np.array([10.0, 0.2]), np.array([3.0, 1.0])]],
        [[np.int64(0), 0, [10, 0.2], [3, 1]]],  # kappa = 0: no spinor
    ],
)
def test_other_forms_of_numbers_are_read(shells):
    table = {"H": [[0, [10.0, 0.2], [3.0, 1.0]]]}
    expected = mole_of(g2("H2"), table).intor("int1e_ovlp")
    positions = g2("H2").positions
    # The same exponents and coefficients on both sides.
    np.testing.assert_allclose(overlap(load_basis({"H": shells}, [1, 1]), positions), expected, rtol=0, atol=1e-12)


def test_atomic_numbers_as_keys():
    by_number = load_basis({1: "sto-3g", np.int64(8): "def2-svp"}, [8, 1])
    by_symbol = load_basis({"H": "sto-3g", "O": "def2-svp"}, [8, 1])
    assert by_number.ao_labels() == by_symbol.ao_labels()
    for ours, others in zip(by_number.shells, by_symbol.shells, strict=True):
        np.testing.assert_array_equal(ours.coefficients, others.coefficients)


def test_places_without_a_nucleus():
    """0 has no functions by name, those of "X" in a dict, and screens nothing."""
    basis = load_basis("sto-3g", [0, 1])
    assert basis.ao_labels() == ["1 H 1s"]
    assert basis.atom_ao_slices().tolist() == [[0, 0], [0, 1]]
    basis = load_basis({"H": "sto-3g", "X": [[1, [1.0, 1.0]]]}, [0, 1])
    assert basis.ao_labels() == ["0 X 2px", "0 X 2py", "0 X 2pz", "1 H 1s"]
    assert basis.nuclear_charges.tolist() == [0.0, 1.0]
    assert basis.shell_atoms() == [0, 1]
    assert not basis.screening_charges[0].any()
    assert basis.screening_charges[1].any()
