"""Spins, thresholds, padding, purification, observables and bad input of the electronic layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from ase.build import molecule as ase_molecule
from pyscf import scf

import vpotjax as vp
from tests.electronic.symmetric import NAMES, at, batch, hartree_fock
from tests.molecules import central_difference, g2, pyscf_mole
from vpotjax.electronic.comparison import eigenbasis_alignment, fock_with_levels, projected_fock
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.polarizability import polarizability_of
from vpotjax.electronic.purification import purified_density_matrix
from vpotjax.electronic.real_space import electron_density, spin_density
from vpotjax.electronic.spectrum import density_of_states
from vpotjax.models.matrix_model import baseline_fock
from vpotjax.units import ANGSTROM_TO_BOHR


def methyl():
    """The methyl radical, and its UHF: F, S, r, nelec and the calculation."""
    atoms = ase_molecule("CH3")
    molecule = vp.Molecule(atoms.numbers, atoms.positions * ANGSTROM_TO_BOHR, spin=1)
    mole = pyscf_mole(molecule, "sto-3g")
    mf = scf.UHF(mole).set(conv_tol=1e-12, conv_tol_grad=1e-8).run()
    return molecule, np.asarray(mf.get_fock()), mf.get_ovlp(), mole.intor("int1e_r"), np.array(mole.nelec), mf


def test_two_spins_agree_with_pyscf():
    molecule, fock, overlap, position, nelec, mf = methyl()
    basis = vp.load_basis("sto-3g", molecule.numbers)
    density = vp.density_matrix(fock, overlap, nelec)
    expected = np.asarray(mf.make_rdm1())
    # 1e-6: PySCF's last density belongs to the Fock matrix before the last one.
    np.testing.assert_allclose(density, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(vp.eigh(fock, overlap)[0], mf.mo_energy, rtol=0, atol=1e-6)
    dipole = vp.dipole(density, position, jnp.asarray(molecule.positions), molecule.numbers)
    np.testing.assert_allclose(dipole, mf.dip_moment(unit="AU", verbose=0), rtol=0, atol=1e-6)
    charges = vp.mulliken_charges(density, overlap, basis)
    np.testing.assert_allclose(charges, mf.mulliken_pop(verbose=0)[1], rtol=0, atol=1e-6)
    alpha = 0.0
    for i in (0, 1):
        occupied, virtual = mf.mo_coeff[i][:, : nelec[i]], mf.mo_coeff[i][:, nelec[i] :]
        transition = np.einsum("xpq,pi,qa->xia", position, occupied, virtual)
        gaps = mf.mo_energy[i][None, nelec[i] :] - mf.mo_energy[i][: nelec[i], None]
        alpha += 2 * np.einsum("xia,yia->xy", transition / gaps, transition)
    np.testing.assert_allclose(vp.polarizability(fock, overlap, position, nelec), alpha, rtol=0, atol=1e-5)
    points = np.random.default_rng(0).uniform(-3, 3, (40, 3))
    values = mf.mol.eval_gto("GTOval_sph", points)
    spin = np.einsum("gp,pq,gq->g", values, expected[0] - expected[1], values)
    ours = vp.ao_values(basis, molecule.positions, points)
    np.testing.assert_allclose(spin_density(density, ours), spin, rtol=0, atol=1e-6)
    purified = purified_density_matrix(fock, overlap, nelec)
    np.testing.assert_allclose(purified, density, rtol=0, atol=1e-8)


def test_equal_spins_are_the_closed_shell():
    fock, overlap, position = (array[0] for array in hartree_fock("symmetric"))
    basis = batch("symmetric").basis
    basis, mask = jax.tree.map(lambda a: a[0], basis), basis.ao_mask[0]
    both, nelec = jnp.stack([fock, fock]), np.array([5, 5])

    @jax.jit
    def observed(fock, nelec):
        density = vp.density_matrix(fock, overlap, nelec, mask)
        smeared = vp.density_matrix(fock, overlap, nelec, mask, smearing=0.1)
        functions = (vp.mayer_bond_orders, vp.mulliken_charges, vp.lowdin_charges)
        return (
            density.reshape(-1, *overlap.shape).sum(axis=0),
            smeared.reshape(-1, *overlap.shape).sum(axis=0),
            vp.polarizability(fock, overlap, position, nelec, mask),
            *(function(density, overlap, basis) for function in functions),
        )

    for a, b in zip(observed(both, nelec), observed(fock, 10), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)  # rounding


def test_charges_bond_orders_and_moments_agree_with_pyscf():
    molecule = g2("CH3OH")
    mole = pyscf_mole(molecule, "def2-svp")
    mf = scf.RHF(mole).set(conv_tol=1e-12).run()
    density, overlap = mf.make_rdm1(), mf.get_ovlp()
    basis = vp.load_basis("def2-svp", molecule.numbers)
    exact = {"rtol": 0, "atol": 1e-9}  # the same density on both sides
    np.testing.assert_allclose(vp.mulliken_charges(density, overlap, basis), mf.mulliken_pop(verbose=0)[1], **exact)
    root = scipy.linalg.sqrtm(overlap).real
    populations = np.diagonal(root @ density @ root)
    charges = [z - populations[a:b].sum() for z, (a, b) in zip(molecule.numbers, basis.atom_ao_slices(), strict=True)]
    np.testing.assert_allclose(vp.lowdin_charges(density, overlap, basis), charges, **exact)
    products = density @ overlap
    slices = [slice(a, b) for a, b in basis.atom_ao_slices()]
    orders = [[np.sum(products[a, b] * products[b, a].T) if a != b else 0.0 for b in slices] for a in slices]
    np.testing.assert_allclose(vp.mayer_bond_orders(density, overlap, basis), orders, **exact)
    assert orders[0][1] > 0.8  # C–O
    positions = jnp.asarray(molecule.positions)
    second = vp.second_moment_integrals(basis, positions, jnp.zeros(3))
    ours = quadrupole(density, second, positions, basis.nuclear_charges)
    rr = np.einsum("xypq,qp->xy", mole.intor("int1e_rr").reshape(3, 3, *overlap.shape), density)
    moments = np.einsum("a,ax,ay->xy", molecule.numbers, molecule.positions, molecule.positions) - rr
    np.testing.assert_allclose(ours, 1.5 * moments - 0.5 * np.trace(moments) * np.eye(3), rtol=0, atol=1e-8)
    points = np.random.default_rng(0).uniform(-3, 3, (40, 3))
    values = mole.eval_gto("GTOval_sph", points)
    np.testing.assert_allclose(
        electron_density(density, vp.ao_values(basis, positions, points)),
        np.einsum("gp,pq,gq->g", values, density, values),
        **exact,
    )


@pytest.mark.parametrize("cartesian", [False, True])
def test_ao_values_agree_with_pyscf(cartesian):
    molecule = g2("CH3OH")
    basis = vp.load_basis("cc-pvqz", molecule.numbers, cartesian=cartesian)
    points = np.random.default_rng(1).uniform(-4, 4, (50, 3))
    name = "GTOval_cart" if cartesian else "GTOval_sph"
    expected = pyscf_mole(molecule, "cc-pvqz", cartesian).eval_gto(name, points)
    np.testing.assert_allclose(vp.ao_values(basis, molecule.positions, points), expected, rtol=0, atol=1e-12)


def test_frequency_dependent_polarizability():
    fock, overlap, position = (array[NAMES.index("NH3")][..., :8, :8] for array in hartree_fock("symmetric"))
    energies, coefficients = vp.eigh(fock, overlap)
    transition = jnp.einsum("xpq,pi,qa->xia", position, coefficients[:, :5], coefficients[:, 5:])
    gaps = energies[None, 5:] - energies[:5, None]
    for frequency, imaginary in ((0.1, False), (0.3, True), (2.0, True)):
        sign = 1 if imaginary else -1
        expected = 4 * jnp.einsum("xia,yia->xy", transition * gaps / (gaps**2 + sign * frequency**2), transition)
        ours = vp.polarizability(fock, overlap, position, 10, frequency=frequency, imaginary=imaginary)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)  # rounding
    static = vp.polarizability(fock, overlap, position, 10)
    np.testing.assert_allclose(vp.polarizability(fock, overlap, position, 10, frequency=0.0), static, atol=1e-11)
    slope = jax.grad(lambda w: jnp.sum(vp.polarizability(fock, overlap, position, 10, frequency=w)))(0.2)
    quotient = central_difference(
        lambda t: jnp.sum(vp.polarizability(fock, overlap, position, 10, frequency=0.2 + t)), 1e-3
    )
    np.testing.assert_allclose(slope, quotient, rtol=1e-8)


def test_a_bound_on_occupied_orbitals_changes_nothing():
    """Values and gradients, to rounding; more electrons than the bound holds are flagged."""
    fock, overlap, position = (array[NAMES.index("NH3")][..., :8, :8] for array in hartree_fock("rotated"))
    weights = np.random.default_rng(0).standard_normal((8, 8))

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.value_and_grad, has_aux=True)
    def of(fock, bound):
        solved = vp.orbitals(fock, overlap, 10, max_occupied=bound)
        moving = polarizability_of(solved, position, 0.1)
        return jnp.sum(moving**2) + jnp.vdot(weights, solved.density), (solved.density, moving)

    ((value, aux), gradient), ((bounded, bounded_aux), bounded_gradient) = of(fock, None), of(fock, 6)
    assert np.abs(gradient).max() > 0.1
    for a, b in zip((bounded, *bounded_aux, bounded_gradient), (value, *aux, gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())))
    bounded = jax.jit(lambda n: vp.polarizability(fock, overlap, position, n, max_occupied=4))
    assert np.all(np.isnan(bounded(10)))
    with pytest.raises(vp.InputError, match="max_occupied is 4, but 5"):
        vp.polarizability(fock, overlap, position, 10, max_occupied=4)
    with pytest.raises(vp.InputError, match="max_occupied is 9, with 8 AOs"):
        vp.orbitals(fock, overlap, 10, max_occupied=9)


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def all_observables(matrices, one):
    """Gradient of a function of all observables, and these."""
    fock, overlap, position = matrices
    nelec, mask = one.nelec, one.basis.ao_mask
    orbitals = vp.orbitals(fock, overlap, nelec, mask)
    density = orbitals.density
    values = [
        jnp.where(mask, orbitals.mo_energies[0], 0.0),
        density,
        vp.dipole(density, position, one.positions, one.basis.nuclear_charges),
        polarizability_of(orbitals, position),
        vp.mulliken_charges(density, overlap, one.basis),
        vp.lowdin_charges(density, overlap, one.basis),
        vp.mayer_bond_orders(density, overlap, one.basis),
        vp.density_matrix(fock, overlap, nelec, mask, smearing=0.05),
        purified_density_matrix(fock, overlap, nelec, mask),
    ]
    return sum(jnp.sum(jnp.sin(v)) for v in values), values


@pytest.mark.parametrize("name", ["CH4", *(pytest.param(name, marks=pytest.mark.slow) for name in ("N2", "H3+"))])
def test_padding_changes_no_observable(name):
    """Alone and among larger molecules at degenerate levels, values and gradients, to rounding."""
    index = NAMES.index(name)
    padded = jax.tree.map(lambda a: a[index], batch("rotated"))
    molecule = at(name, "rotated")
    natm, n = molecule.natm, int(padded.basis.ao_mask.sum())
    alone = jax.tree.map(lambda a: jnp.asarray(a)[0], vp.pad_batch([molecule], "sto-3g"))
    whole = tuple(a[index] for a in hartree_fock("rotated"))
    small = tuple(a[..., :n, :n] for a in whole)
    (gradient, values), (gradient_alone, values_alone) = all_observables(whole, padded), all_observables(small, alone)
    for a, b in zip(values, values_alone, strict=True):
        cut = tuple(slice(size if size in (natm, n) else None) for size in b.shape)
        np.testing.assert_allclose(a[cut], b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())))
    for a, b in zip(gradient, gradient_alone, strict=True):
        np.testing.assert_allclose(a[..., :n, :n], b, rtol=0, atol=1e-12 * max(1.0, float(jnp.abs(b).max())))
        assert not np.any(a[..., n:, :])


def test_linear_dependence():
    """A function that occurs twice is dropped; the observables are those without it."""
    fock, overlap, position = (array[0][..., :9, :9] for array in hartree_fock("symmetric"))
    twice = np.append(np.arange(9), 4)
    large = [array[..., twice, :][..., twice] for array in (fock, overlap, position)]
    small, merged = vp.orbitals(fock, overlap, 10), vp.orbitals(large[0], large[1], 10, threshold=1e-8)
    np.testing.assert_allclose(merged.mo_energies[0, :9], small.mo_energies[0], rtol=0, atol=1e-10)
    assert not np.any(merged.mo_coefficients[0, :, 9])
    alpha = polarizability_of(small, position)
    np.testing.assert_allclose(polarizability_of(merged, large[2]), alpha, rtol=0, atol=1e-9)
    with pytest.raises(vp.InputError, match="overlap is not positive definite"):
        vp.eigh(large[0], large[1])

    weights = np.random.default_rng(0).standard_normal(large[0].shape)
    change = np.random.default_rng(1).standard_normal((10, 10))
    change = 0.02 * (change + change.T)

    def loss(t):  # S moves inside the space of the nine functions, as it does when atoms move
        matrix = np.eye(10) + t * np.pad(change[:9, :9], (0, 1))
        spread = np.eye(9)[twice]
        metric = spread @ (matrix[:9, :9] @ overlap @ matrix[:9, :9].T) @ spread.T
        return jnp.sum(weights * vp.density_matrix(large[0] + t * change, metric, 10, threshold=1e-8))

    np.testing.assert_allclose(jax.grad(loss)(0.0), central_difference(loss), rtol=1e-6)


def test_levels_and_projection():
    molecule = g2("H2O")
    positions = jnp.asarray(molecule.positions)
    small, large = (vp.load_basis(name, molecule.numbers) for name in ("sto-3g", "6-31g"))
    focks = [jax.jit(baseline_fock, static_argnums=2)(b, positions, "sap") for b in (small, large)]
    overlaps = [jax.jit(vp.overlap)(b, positions) for b in (small, large)]
    projected = projected_fock(focks[1], overlaps[1], jax.jit(vp.cross_overlap)(large, small, positions))
    lowest = vp.eigh(focks[1], overlaps[1])[0][: small.nao]
    inside = vp.eigh(projected, overlaps[0])[0]
    assert np.all(inside[:6] > lowest[:6])
    effective = fock_with_levels(focks[0], overlaps[0], lowest)
    np.testing.assert_allclose(vp.eigh(effective, overlaps[0])[0], lowest, rtol=0, atol=1e-10)
    aligned = eigenbasis_alignment(effective, focks[0], overlaps[0])
    np.testing.assert_allclose(aligned, effective, rtol=0, atol=1e-10)
    states = density_of_states(lowest, jnp.linspace(-25, 5, 6001), 0.05)
    np.testing.assert_allclose(jnp.sum(states) * 0.005, small.nao, rtol=1e-6)  # every level lies on the grid


def test_bad_input_is_named_and_flagged():
    fock, overlap, position = (array[0][..., :9, :9] for array in hartree_fock("symmetric"))
    skew = fock.at[0, 1].add(0.1)
    cases = [
        (vp.density_matrix, (skew, overlap, 10), "fock is not symmetric"),
        (lambda f, s, n: vp.polarizability(f, s, position, n), (fock, overlap - 0.5 * jnp.eye(9), 10), "not positive"),
        (vp.density_matrix, (fock, overlap, 20), "9 orbitals hold 0 to 18"),
        (lambda f, s, n: vp.orbitals(f, s, n).density, (fock, overlap, 9), "open shell"),
        (purified_density_matrix, (skew, overlap, 10), "fock is not symmetric"),
    ]
    for function, arguments, message in cases:
        with pytest.raises(vp.InputError, match=message):
            function(*arguments)
        assert np.all(np.isnan(jax.jit(function)(*arguments))), message
    with pytest.raises(vp.InputError, match="smearing"):
        vp.density_matrix(fock, overlap, 10, smearing=0.0)
    with pytest.raises(vp.InputError, match="frequency"):
        vp.polarizability(fock, overlap, position, 10, imaginary=True)
    with pytest.raises(vp.InputError, match="nelec has shape"):
        vp.density_matrix(jnp.stack([fock, fock]), overlap, 10)


def test_a_closed_gap_is_flagged():
    fock, overlap, _ = (array[NAMES.index("C6H6")][..., :36, :36] for array in hartree_fock("symmetric"))
    assert np.all(np.isfinite(vp.density_matrix(fock, overlap, 42)))
    assert np.all(np.isnan(vp.density_matrix(fock, overlap, 40)))  # half of the HOMO pair
    assert np.all(np.isnan(purified_density_matrix(fock, overlap, 40)))
    assert np.all(np.isfinite(vp.density_matrix(fock, overlap, 40, smearing=0.01)))


def test_float32():
    fock, overlap, position = (array[0][..., :9, :9] for array in hartree_fock("symmetric"))
    single = [a.astype("float32") for a in (fock, overlap, position)]
    orbitals = vp.orbitals(*single[:2], 10)
    exact = vp.orbitals(fock, overlap, 10)
    assert orbitals.density.dtype == jnp.float32
    np.testing.assert_allclose(orbitals.density, exact.density, rtol=0, atol=2e-5)  # 1e-5 and the condition of S
    alpha = polarizability_of(exact, position)
    np.testing.assert_allclose(polarizability_of(orbitals, single[2]), alpha, rtol=0, atol=1e-5 * float(alpha.max()))


def test_padding_is_dropped_with_a_threshold():
    """Its columns are zero to the last bit, so that its levels, which are zero, are none."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 4, 4))
    fock, overlap = (
        np.diag([-1.0, 2.0, 4.0, 5.0]) + 0.1 * (noise[0] + noise[0].T),
        np.eye(4) + 0.05 * noise[1] @ noise[1].T,
    )
    wide = [np.pad(x, ((0, 2), (0, 2))) for x in (fock, overlap)]
    mask = np.arange(6) < 4
    energies, _ = vp.eigh(*wide, mask, threshold=1e-7)
    np.testing.assert_allclose(energies[:4], vp.eigh(fock, overlap)[0], atol=1e-12)
    assert np.isposinf(energies[4:]).all()
    density = vp.density_matrix(*wide, 4, mask, threshold=1e-7)
    assert float(np.sum(density * wide[1])) == pytest.approx(4.0, abs=1e-10)
