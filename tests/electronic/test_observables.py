"""The table of observables: every entry is the function it stands for, and errors by hand on two molecules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import scf

import vpotjax as vp
from tests.molecules import g2, pyscf_mole
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.observables import DERIVED, OBSERVABLES, DensitySolution, OrbitalSpace, Reference, Solution
from vpotjax.electronic.polarizability import dipole_and_polarizability, polarizability_of
from vpotjax.metrics import error_summary, molecule_errors
from vpotjax.units import HARTREE_TO_EV

WATER = g2("H2O")
PADDING = 2


@functools.cache
def water():
    """PySCF's F of water, its space, and r r; padded by two AOs and an atom."""
    mole = pyscf_mole(WATER, "sto-3g")
    fock = scf.RHF(mole).set(conv_tol=1e-12).run().get_fock()
    shape = vp.batching.batch_shape(vp.pad_batch([g2("CH4")], "sto-3g"))
    one = jax.tree.map(jnp.asarray, vp.pad_batch([WATER], "sto-3g", shape)[0])

    def padded(matrix):
        return jnp.asarray(np.pad(matrix, [(0, 0)] * (matrix.ndim - 2) + [(0, PADDING)] * 2))

    overlap, position = (padded(mole.intor(name)) for name in ("int1e_ovlp", "int1e_r"))
    second = padded(mole.intor("int1e_rr").reshape(3, 3, 7, 7))
    space = OrbitalSpace(overlap, position, one.positions, jnp.asarray(one.nelec), one.basis)
    return padded((fock + fock.T) / 2), space, second


@functools.cache
def observed():
    fock, space, _ = water()
    names = tuple(name for name, o in OBSERVABLES.items() if o.compute is not None)
    return jax.jit(lambda f, s: {n: Solution(f, s).observable(n) for n in names})(fock, space)


def test_every_entry_is_the_function_it_stands_for():
    fock, space, second = water()
    solved = jax.jit(lambda f, s: vp.orbitals(f, s.overlap, s.nelec, s.ao_mask))(fock, space)
    density, charges = solved.density, space.basis.nuclear_charges
    levels = solved.mo_energies[0]
    expected = {
        **dict.fromkeys(("mo_energies", "occupied", "frontier"), levels),
        "homo_lumo_gap": vp.homo_lumo_gap(levels, 10),
        "dipole": vp.dipole(density, space.position, space.positions, charges),
        "quadrupole": quadrupole(density, second, space.positions, charges),
        "polarizability": polarizability_of(solved, space.position),
        "lowdin_charges": vp.lowdin_charges(density, space.overlap, space.basis),
        "mayer_bond_orders": vp.mayer_bond_orders(density, space.overlap, space.basis),
    }
    assert set(observed()) == set(expected) == {*OBSERVABLES} - {"energy"}
    for name, value in expected.items():
        # The same operations, fused apart; r r is PySCF's.
        np.testing.assert_allclose(observed()[name], value, rtol=1e-10, atol=1e-11, err_msg=name)
        assert np.any(value), name


def test_moments_of_orbitals_are_those_of_the_density():
    """Of two spins, with gradients; NaN where r is not symmetric, an error for other shapes."""
    fock, space, _ = water()
    tilted = fock + 0.1 * space.position[2]
    weights = np.arange(12.0).reshape(4, 3)

    def solved(focks):
        return vp.orbitals(focks, space.overlap, np.array([5, 4]), space.ao_mask, max_occupied=5)

    @jax.jit
    @jax.grad
    def together(focks):
        moments = dipole_and_polarizability(solved(focks), space.position, space.positions, charges)
        return jnp.sum(weights * jnp.vstack(moments))

    @jax.jit
    @jax.grad
    def apart(focks):
        orbitals = solved(focks)
        moment = vp.dipole(orbitals.density, space.position, space.positions, charges)
        return jnp.sum(weights * jnp.vstack([moment, polarizability_of(orbitals, space.position)]))

    charges, focks = space.basis.nuclear_charges, jnp.stack([fock, tilted])
    own = dipole_and_polarizability(solved(focks), space.position, space.positions, charges)
    moment = vp.dipole(solved(focks).density, space.position, space.positions, charges)
    np.testing.assert_allclose(own[0], moment, rtol=0, atol=1e-11)
    np.testing.assert_allclose(own[1], polarizability_of(solved(focks), space.position), rtol=0, atol=1e-11)
    np.testing.assert_allclose(together(focks), apart(focks), rtol=0, atol=1e-10)
    skew = jnp.asarray(space.position).at[0, 0, 1].add(1.0)
    assert all(np.isnan(x).all() for x in dipole_and_polarizability(solved(focks), skew, space.positions, charges))
    with pytest.raises(vp.InputError, match="nuclear_charges"):
        dipole_and_polarizability(solved(focks), space.position, space.positions, charges[:2])


@pytest.mark.parametrize("value", [np.inf, np.nan, 1.0])
def test_a_single_wrong_element_is_seen(value):
    """Above the diagonal, which LAPACK does not read: an error where F is known, NaN where it is traced."""
    fock, space, _ = water()
    wrong = jnp.asarray(fock).at[0, 1].set(value)
    with pytest.raises(vp.InputError, match="fock is not symmetric"):
        vp.eigh(wrong, space.overlap, space.ao_mask)
    levels = jax.jit(lambda f: vp.eigh(f, space.overlap, space.ao_mask)[0])(wrong)
    assert np.isnan(levels[np.asarray(space.ao_mask)]).all()


def test_the_table_of_units():
    assert {n for n, o in OBSERVABLES.items() if o.unit == "eV"} == {
        *("mo_energies", "occupied", "frontier", "homo_lumo_gap", "energy")
    }
    for name, o in OBSERVABLES.items():
        assert o.factor == (HARTREE_TO_EV if o.unit == "eV" else 1.0)
        assert o.atomic_unit == ("hartree" if o.unit == "eV" else o.unit)
        assert o.symbol
        assert o.label == ("mo_energies" if name in {*DERIVED, "homo_lumo_gap"} else name)
        assert o.mean_absolute == (o.label == "mo_energies")


def test_what_there_is_not_is_named():
    fock, space, _ = water()
    with pytest.raises(vp.InputError, match="observable is 'energy', which a Fock matrix does not hold"):
        Solution(fock, space).observable("energy")
    with pytest.raises(vp.InputError, match="observable is 'spin'; give one of mo_energies, occupied"):
        Solution(fock, space).observable("spin")
    with pytest.raises(vp.InputError, match=r"labels lack 'dipole' \(they have: mo_energies\); leave μ out"):
        molecule_errors("dipole", np.zeros(3), molecule(0, "mo_energies"))


def test_observables_of_a_density_are_those_of_its_most_occupied_orbitals():
    fock, space, _ = water()
    exact = jax.jit(lambda f, s: Solution(f, s).density)(fock, space)
    noise = np.random.default_rng(0).normal(0, 0.02, exact.shape)
    mask = np.outer(space.ao_mask, space.ao_mask)
    names = ("dipole", "lowdin_charges", "mayer_bond_orders")

    @jax.jit
    def of(matrix, space):
        solution = DensitySolution(matrix, space)
        return solution.density, {name: solution.observable(name) for name in names}

    density, values = of(exact, space)
    np.testing.assert_allclose(density, exact, rtol=0, atol=1e-11)  # rounding
    for name in names:
        np.testing.assert_allclose(values[name], observed()[name], rtol=0, atol=1e-10)
    rough, _ = of(exact + mask * (noise + noise.T), space)
    assert np.abs(rough - exact).max() > 1e-3
    np.testing.assert_allclose(rough @ space.overlap @ rough, 2 * rough, rtol=0, atol=1e-10)
    np.testing.assert_allclose(jnp.sum(rough * space.overlap), 10, rtol=1e-12)
    with pytest.raises(vp.InputError, match="the model predicts P, which has no orbital energies"):
        DensitySolution(exact, space).observable("mo_energies")


# Two molecules: three atoms with six electrons and five levels, and two atoms with four electrons and three levels.
LEVELS = np.array([[-2.0, -1.0, -0.5, 0.5, 1.0], [-1.5, -0.4, 0.6, 0.0, 0.0]])
PREDICTED = np.array([[-2.1, -1.0, -0.3, 0.4, 1.3], [-1.5, -0.6, 0.7, np.inf, np.inf]])
LABELS = {
    "mo_energies": LEVELS,
    "dipole": np.array([[0.0, 0.0, 1.0], [0.0, 3.0, 4.0]]),
    "lowdin_charges": np.array([[0.5, -0.25, -0.25], [0.5, -0.5, 0.0]]),
    "mayer_bond_orders": np.array([np.ones((3, 3)) - np.eye(3), np.pad([[0.0, 2.0], [2.0, 0.0]], (0, 1))]),
}


def molecule(i, *names):
    values = {name: LABELS[name][i] for name in names or LABELS}
    return Reference(values, np.arange(5) < (5, 3)[i], np.array((3, 2)[i]), np.array((6, 4)[i]))


def summary_of(name, predicted):
    """One molecule at a time, and both at once by vmap."""
    single = [molecule_errors(name, predicted[i], molecule(i)) for i in range(2)]
    both = jax.tree.map(lambda *leaves: np.stack(leaves), molecule(0), molecule(1))
    joint = jax.jit(jax.vmap(lambda p, r: molecule_errors(name, p, r)))(predicted, both)
    for i, errors in enumerate(single):
        np.testing.assert_allclose([x[i] for x in joint], errors, rtol=1e-14)  # rounding
    assert error_summary([joint]) == error_summary(single)
    return single, error_summary(single)


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("mo_energies", ([0.1, 0.0, 0.2, 0.1, 0.3], [0.0, 0.2, 0.1])),
        ("occupied", ([0.1, 0.0, 0.2], [0.0, 0.2])),
        ("frontier", ([0.0, 0.2, 0.1, 0.3], [0.0, 0.2, 0.1])),
        ("homo_lumo_gap", ([0.3], [0.3])),
    ],
)
def test_errors_of_levels_by_hand(name, errors):
    gaps = np.array([0.4 + 0.3, 0.7 + 0.6])
    single, summary = summary_of(name, gaps if name == "homo_lumo_gap" else PREDICTED)
    errors = [HARTREE_TO_EV * np.array(e) for e in errors]
    norms = [np.linalg.norm(e) / natm for e, natm in zip(errors, (3, 2), strict=True)]
    for one, e, norm in zip(single, errors, norms, strict=True):
        np.testing.assert_allclose(one, [e.sum(), len(e), norm], rtol=1e-12)  # rounding
    expected = np.concatenate(errors).mean(), np.mean(norms), np.sqrt(np.mean(np.square(norms)))
    np.testing.assert_allclose(dataclasses.astuple(summary), expected, rtol=1e-12)
    assert summary.customary(OBSERVABLES[name]) == summary.mean_absolute


def test_errors_of_dipoles_by_hand():
    _, summary = summary_of("dipole", LABELS["dipole"] + np.array([[0.0, 0.3, 0.0], [0.6, 0.0, -0.8]]))
    np.testing.assert_allclose(summary.mean_absolute, (0.3 + 0.6 + 0.8) / 6, rtol=1e-12)
    np.testing.assert_allclose(summary.mean_norm, (0.1 + 0.5) / 2, rtol=1e-12)
    np.testing.assert_allclose(summary.rms_norm, np.sqrt((0.01 + 0.25) / 2), rtol=1e-12)
    assert summary.customary(OBSERVABLES["dipole"]) == summary.mean_norm


@pytest.mark.parametrize(("name", "counts"), [("lowdin_charges", (3, 2)), ("mayer_bond_orders", (6, 2))])
def test_padded_atoms_are_not_compared(name, counts):
    """Nor is an atom's bond with itself, which is zero by definition."""
    predicted = LABELS[name] + 0.1 * (LABELS[name] != 0)
    single, summary = summary_of(name, predicted)
    assert [int(one.compared) for one in single] == list(counts)
    np.testing.assert_allclose(summary.mean_absolute, 0.1, rtol=1e-12)
    np.testing.assert_allclose(
        summary.mean_norm, np.mean([0.1 * np.sqrt(n) / m for n, m in zip(counts, (3, 2), strict=True)])
    )


def test_molecules_without_a_gap_count_in_none():
    """All levels occupied in one, none in the other: nothing is compared, and nothing is NaN."""
    for nelec in (10, 0):
        full = dataclasses.replace(molecule(0), nelec=np.array(nelec))
        errors = molecule_errors("homo_lumo_gap", np.nan, full)
        assert [float(x) for x in errors] == [0, 0, 0]
    summary = error_summary([errors, molecule_errors("homo_lumo_gap", 1.1, molecule(1))])
    np.testing.assert_allclose(summary.mean_absolute, 0.1 * HARTREE_TO_EV)
    assert np.isnan(error_summary([errors]).mean_absolute)
