"""Eigenproblem, density and observables: against PySCF, and their derivatives at degenerate levels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from pyscf import scf
from pyscf.gto.basis import load

import vpotjax as vp
from tests.molecules import central_difference, g2, pyscf_mole, shared_file
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.interop.pyscf_labels import uncoupled_polarizability

SYMMETRIC = ["CH4", "C6H6", "N2", "C2H2"]


@functools.cache
def hartree_fock(name):
    """PySCF's F, S, r and the calculation; all these molecules have degenerate levels."""
    mole = pyscf_mole(g2(name), "sto-3g")
    mf = scf.RHF(mole).set(conv_tol=1e-13, conv_tol_grad=1e-9).run()
    fock, overlap, position = (jnp.asarray(m) for m in (mf.get_fock(), mf.get_ovlp(), mole.intor("int1e_r")))
    return (fock + fock.T) / 2, overlap, position, mf


@pytest.mark.parametrize("name", SYMMETRIC)
def test_observables_agree_with_pyscf(name):
    fock, overlap, position, mf = hartree_fock(name)
    nelec, molecule = mf.mol.nelectron, g2(name)
    energies, coefficients = vp.eigh(fock, overlap)
    density = vp.density_matrix(fock, overlap, nelec)
    identity = np.eye(len(fock))
    # Exact up to rounding for the eigenproblem; 1e-7 where PySCF's own convergence enters.
    np.testing.assert_allclose(coefficients.T @ overlap @ coefficients, identity, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fock @ coefficients, overlap @ coefficients * energies, rtol=0, atol=1e-10)
    np.testing.assert_allclose(energies, mf.mo_energy, rtol=0, atol=1e-7)
    np.testing.assert_allclose(density, mf.make_rdm1(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(jnp.trace(density @ overlap), nelec, rtol=0, atol=1e-11)
    dipole = vp.dipole(density, position, jnp.asarray(molecule.positions), molecule.numbers)
    np.testing.assert_allclose(dipole, mf.dip_moment(unit="AU", verbose=0), rtol=0, atol=1e-6)
    alpha = vp.polarizability(fock, overlap, position, nelec)
    np.testing.assert_allclose(alpha, uncoupled_polarizability(mf), rtol=0, atol=1e-6)
    gap = mf.mo_energy[nelec // 2] - mf.mo_energy[nelec // 2 - 1]
    np.testing.assert_allclose(vp.homo_lumo_gap(energies, nelec), gap, rtol=0, atol=1e-7)


def losses(nelec, position):
    """Scalars of F and S with random weights, so that no symmetry makes a derivative vanish."""
    rng = np.random.default_rng(1)
    density_weight, dipole_weight, alpha_weight = (rng.standard_normal(s) for s in (position.shape[1:], 3, (3, 3)))

    def density_loss(fock, overlap):
        return jnp.vdot(density_weight, vp.density_matrix(fock, overlap, nelec))

    def dipole_loss(fock, overlap):
        density = vp.density_matrix(fock, overlap, nelec)
        return jnp.vdot(dipole_weight, vp.dipole(density, position, jnp.zeros((1, 3)), jnp.zeros(1)))

    def polarizability_loss(fock, overlap):
        return jnp.vdot(alpha_weight, vp.polarizability(fock, overlap, position, nelec))

    def energy_loss(fock, overlap):
        return jnp.sum(vp.eigh(fock, overlap)[0] ** 3)

    return [density_loss, dipole_loss, polarizability_loss, energy_loss]


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("index", range(4), ids=["density", "dipole", "polarizability", "energies"])
def test_first_derivatives_at_degenerate_levels(name, index):
    fock, overlap, position, mf = hartree_fock(name)
    loss = losses(mf.mol.nelectron, position)[index]
    rng = np.random.default_rng(2)
    change = rng.standard_normal((2, *fock.shape))
    change = 0.05 * (change + change.transpose(0, 2, 1))

    @jax.jit
    def along(t, s):
        return loss(fock + t * change[0], overlap + 0.1 * s * change[1])

    exact = jax.grad(along, argnums=(0, 1))(0.0, 0.0)
    assert min(map(abs, exact)) > 1e-4
    # 1e-6 relative is what a loss needs; the difference quotient itself is good to about 1e-8.
    np.testing.assert_allclose(central_difference(lambda t: along(t, 0.0)), exact[0], rtol=1e-6)
    np.testing.assert_allclose(central_difference(lambda t: along(0.0, t)), exact[1], rtol=1e-6)


@pytest.mark.parametrize("index", range(3), ids=["density", "dipole", "polarizability"])
def test_second_derivatives_of_density_losses(index):
    fock, overlap, position, mf = hartree_fock("CH4")
    loss = losses(mf.mol.nelectron, position)[index]
    change = np.random.default_rng(3).standard_normal(fock.shape)
    first = jax.jit(jax.grad(lambda t: loss(fock + 0.05 * t * (change + change.T), overlap)))
    exact = jax.grad(first)(0.0)
    assert abs(exact) > 1e-4
    np.testing.assert_allclose(central_difference(first), exact, rtol=1e-6)  # as above


def test_polarizability_is_the_response_to_a_field():
    fock, overlap, position, mf = hartree_fock("N2")
    nelec = mf.mol.nelectron

    def dipole(field):
        shifted = fock + jnp.einsum("x,xpq->pq", field, position)
        return -jnp.einsum("xpq,qp->x", position, vp.density_matrix(shifted, overlap, nelec))

    response = jax.jacfwd(dipole)(jnp.zeros(3))
    alpha = vp.polarizability(fock, overlap, position, nelec)
    # F − E·(−r) = F + E·r, so dμ/dE = α; both are exact to rounding.
    np.testing.assert_allclose(response, alpha, rtol=0, atol=1e-10)


def test_gap_without_a_virtual_level_is_nan():
    assert np.isnan(vp.homo_lumo_gap(jnp.array([-1.0, -0.5]), 4))


def test_wrong_shapes_are_named():
    with pytest.raises(vp.InputError, match="overlap has shape"):
        vp.eigh(jnp.eye(3), jnp.eye(4))
    with pytest.raises(vp.InputError, match="position_integrals has shape"):
        vp.polarizability(jnp.eye(3), jnp.eye(3), jnp.zeros((3, 2, 2)), 2)


def dipole_by_numpy(molecule, fock):
    """μ of a Fock matrix with PySCF's integrals and SciPy's eigensolver."""
    mole = to_pyscf(molecule, {symbol: load("sto-3g", symbol) for symbol in set(molecule.symbols)})
    _, coefficients = scipy.linalg.eigh(fock, mole.intor("int1e_ovlp"))
    occupied = coefficients[:, : mole.nelectron // 2]
    electronic = 2 * np.einsum("xpq,pi,qi->x", mole.intor("int1e_r"), occupied, occupied)
    return mole.atom_charges() @ mole.atom_coords() - electronic


def test_labels_of_the_cookbook_are_reproduced():
    data = np.load(shared_file("cookbook_qm7_150.npz"))
    offsets, nao = data["offsets"], data["nao_sto3g"]
    atoms = [slice(offsets[i], offsets[i + 1]) for i in range(len(nao))]
    molecules = [vp.Molecule(data["Z"][a].astype(int), data["R"][a] / 0.529177210903) for a in atoms]
    # PySCF's own table of STO-3G, with which the file was made, has more digits than that of basis-set-exchange.
    table = {symbol: load("sto-3g", symbol) for symbol in ("H", "C", "N", "O")}
    batch = vp.pad_batch(molecules, {"orbital": table})
    size = batch.basis.nao
    bounds = np.cumsum([0, *nao**2])
    focks = np.zeros((len(nao), size, size))
    overlaps = np.zeros_like(focks)
    for i, n in enumerate(nao):
        focks[i, :n, :n] = data["fock_sto3g"][bounds[i] : bounds[i + 1]].reshape(n, n)
        overlaps[i, :n, :n] = data["overlap_sto3g"][bounds[i] : bounds[i + 1]].reshape(n, n)

    @jax.jit
    def observables(arguments):
        molecule, fock = arguments
        basis, mask = molecule.basis, molecule.basis.ao_mask
        overlap = vp.overlap(basis, molecule.positions)
        position = vp.position_integrals(basis, molecule.positions, jnp.zeros(3))
        density = vp.density_matrix(fock, overlap, molecule.nelec, mask)
        return (
            overlap,
            vp.eigh(fock, overlap, mask)[0],
            vp.dipole(density, position, molecule.positions, molecule.numbers),
            vp.polarizability(fock, overlap, position, molecule.nelec, mask),
        )

    results = jax.lax.map(observables, (jax.tree.map(jnp.asarray, batch), jnp.asarray(focks)))
    overlap, energies, dipole, alpha = (np.asarray(r) for r in results)
    levels = np.concatenate([energies[i, :n] for i, n in enumerate(nao)])
    expected = np.array([dipole_by_numpy(m, f[:n, :n]) for m, f, n in zip(molecules, focks, nao, strict=True)])
    # S and ε as precise as the file; α of the same F. The file's dipoles are those of the density before the last
    # F (PySCF itself, from the file's F, differs from them by 6.1e-5), so the outside reference for μ is NumPy.
    np.testing.assert_allclose(overlap, overlaps, rtol=0, atol=1e-9)
    np.testing.assert_allclose(levels, data["eps_sto3g"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(dipole, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(dipole, data["mu_sto3g"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(alpha, data["alpha_uncoupled_sto3g"], rtol=0, atol=1e-6)
