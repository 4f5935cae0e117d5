"""Infrared and Raman intensities: against PySCF's integrals and finite differences, published values, symmetry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.io.samples import GATED, random_model
from tests.molecules import g2, pyscf_mole, random_rotation
from vpotjax.models.derivatives import geometric_derivatives
from vpotjax.vibrations import infrared_intensities, normal_modes, raman_activities

BASIS = "6-31g"


@functools.cache
def hessian(name):
    """RHF/STO-3G, PySCF's."""
    from pyscf import scf
    from pyscf.hessian import rhf

    mf = scf.RHF(pyscf_mole(g2(name), "sto-3g")).run(conv_tol=1e-12)
    return rhf.Hessian(mf).kernel()


def modes_of(name, molecule=None):
    molecule = molecule or g2(name)
    return normal_modes(molecule.positions, hessian(name), molecule.to_ase().get_masses())


def analytic(molecule):
    """μ and α of F = T + SAP by the package, as a function of the positions."""
    basis = vp.load_basis(BASIS, molecule.numbers)

    def observables(positions):
        fock = vp.kinetic(basis, positions) + vp.screened_potential(basis, positions)
        r = vp.position_integrals(basis, positions, jnp.zeros(3))
        overlap, nelec = vp.overlap(basis, positions), molecule.nelec(basis)
        density = vp.density_matrix(fock, overlap, nelec)
        mu = vp.dipole(density, r, positions, basis.nuclear_charges)
        return mu, vp.polarizability(fock, overlap, r, nelec)

    return observables


def by_pyscf(molecule):
    """The same from PySCF's integrals and LAPACK."""
    from pyscf.scf.hf import make_sap
    from scipy.linalg import eigh

    basis = vp.load_basis(BASIS, molecule.numbers)
    fits = {}
    for i, symbol in enumerate(molecule.symbols):
        rows = np.stack([basis.screening_exponents[i], basis.screening_charges[i]], axis=1)
        fits[symbol] = rows[basis.screening_charges[i] != 0]

    def observables(positions):
        mole = pyscf_mole(vp.Molecule(molecule.numbers, positions), BASIS)
        fock = mole.intor("int1e_kin") + mole.intor("int1e_nuc") + make_sap(mole, fits)
        energies, orbitals = eigh(fock, mole.intor("int1e_ovlp"))
        nocc = mole.nelectron // 2
        r = np.einsum("xpq,pi,qj->xij", mole.intor("int1e_r"), orbitals, orbitals)
        mu = mole.atom_charges() @ positions - 2 * np.einsum("xii->x", r[:, :nocc, :nocc])
        gaps = energies[nocc:] - energies[:nocc, None]
        ov = r[:, :nocc, nocc:]
        return mu, 4 * np.einsum("xia,yia,ia->xy", ov, ov, 1 / gaps)

    return observables


def test_intensities_of_water_agree_with_finite_differences_of_pyscf():
    molecule, modes = g2("H2O"), modes_of("H2O")
    exact = jax.jit(jax.jacfwd(analytic(molecule)))(jnp.asarray(molecule.positions))
    function, step = by_pyscf(molecule), 2e-3
    slopes = ([], [])
    for displacement in modes.displacements:  # five points: the error falls with step⁴
        values = [function(molecule.positions + t * step * displacement) for t in (-2, -1, 1, 2)]
        for slope, (a, b, c, d) in zip(slopes, zip(*values, strict=True), strict=True):
            slope.append((a - 8 * b + 8 * c - d) / (12 * step))
    along = (np.stack(slopes[0]).T[:, None, :], np.stack(slopes[1]).transpose(1, 2, 0)[:, :, None, :])
    unit = np.eye(3)[:, None, :]  # the modes as if each were one coordinate of one atom
    wanted = infrared_intensities(along[0], unit), raman_activities(along[1], unit)
    found = (
        infrared_intensities(exact[0], modes.displacements),
        raman_activities(exact[1], modes.displacements),
    )
    for own, other in zip(found, wanted, strict=True):
        assert own.max() > 1
        np.testing.assert_allclose(own, other, rtol=1e-6)  # of the difference quotient


def test_normal_modes_of_water_and_of_a_linear_molecule():
    water, modes = g2("H2O"), modes_of("H2O")
    assert modes.displacements.shape == (3, 3, 3)
    # RHF/STO-3G at its minimum: 2170, 4140, 4391 cm⁻¹ (Hehre et al. 1986); G2's geometry is MP2's
    np.testing.assert_allclose(modes.wavenumbers, [2170, 4140, 4391], rtol=0.06)
    masses = water.to_ase().get_masses()
    gram = np.einsum("kai,a,lai->kl", modes.displacements, masses, modes.displacements)
    np.testing.assert_allclose(gram, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.einsum("kai,a->ki", modes.displacements, masses), 0, atol=1e-10)
    momenta = np.einsum("kai,a->kai", modes.displacements, masses)
    np.testing.assert_allclose(np.cross(water.positions, momenta).sum(axis=1), 0, atol=1e-9)
    assert len(modes_of("N2").squares) == 1


def test_intensities_do_not_depend_on_the_orientation():
    rng, rotation, modes = np.random.default_rng(0), random_rotation(), modes_of("H2O").displacements
    mu, alpha = rng.standard_normal((3, 3, 3)), rng.standard_normal((3, 3, 3, 3))
    alpha = alpha + alpha.transpose(1, 0, 2, 3)
    turned = np.einsum("ij,kaj->kai", rotation, modes)
    mu_turned = np.einsum("xy,ij,yaj->xai", rotation, rotation, mu)
    alpha_turned = np.einsum("xu,yv,ij,uvaj->xyai", rotation, rotation, rotation, alpha)
    np.testing.assert_allclose(infrared_intensities(mu_turned, turned), infrared_intensities(mu, modes), rtol=1e-10)
    np.testing.assert_allclose(raman_activities(alpha_turned, turned), raman_activities(alpha, modes), rtol=1e-10)
    # of an isotropic α' and of a traceless one
    own = np.einsum("xy,ai->xyai", np.eye(3), np.eye(1, 3)), np.einsum("xy,ai->xyai", np.diag([1, -1, 0]), np.eye(1, 3))
    unit = np.eye(3)[:1, None, :]
    bohr = 0.529177210903
    assert raman_activities(own[0], unit)[0] == pytest.approx(45 * bohr**4)
    assert raman_activities(own[1], unit)[0] == pytest.approx(7 * 3 * bohr**4)


@pytest.mark.slow
def test_derivatives_of_a_model_are_those_of_its_predictions():
    model, molecule = random_model(GATED), g2("H2O")
    found = geometric_derivatives(model, molecule)
    direction = np.random.default_rng(0).standard_normal(molecule.positions.shape)

    def along(t):
        batch = model.settings.batch([vp.Molecule(molecule.numbers, molecule.positions + t * direction)])
        solution = model(jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], batch))
        return {name: np.asarray(solution.observable(name)) for name in found}

    step = 1e-3
    values = [along(t * step) for t in (-2, -1, 1, 2)]
    for name, derivative in found.items():
        a, b, c, d = (own[name] for own in values)
        slope = np.einsum("...ai,ai->...", derivative, direction)
        assert np.abs(slope).max() > 1e-3
        np.testing.assert_allclose(slope, (a - 8 * b + 8 * c - d) / (12 * step), atol=1e-6 * np.abs(slope).max())


def test_bad_input_is_named():
    with pytest.raises(vp.InputError, match="hessian has shape"):
        normal_modes(np.zeros((2, 3)), np.zeros((6, 6)), np.ones(2))
    with pytest.raises(vp.InputError, match=r"masses is .*; give positive numbers, in dalton"):
        normal_modes(np.zeros((2, 3)), np.zeros((2, 2, 3, 3)), np.zeros(2))
