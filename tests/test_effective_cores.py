"""Bases with effective core potentials: the electrons that they hold, everywhere, against PySCF with the ECP."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyscf import scf

import vpotjax as vp
from vpotjax.electronic.comparison import fock_with_levels
from vpotjax.electronic.observables import Reference
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.io.sample import Sample
from vpotjax.metrics import error_summary, molecule_errors
from vpotjax.models import MatrixSettings
from vpotjax.operators.representation import Representation
from vpotjax.train.samples import partners
from vpotjax.units import HARTREE_TO_EV

HI = vp.Molecule(np.array([53, 1]), np.array([[0.1, 0.0, 0.0], [0.0, 0.0, 3.04]]))


@pytest.fixture(scope="module")
def hartree_fock():
    mf = scf.RHF(to_pyscf(HI, "def2-svp")).set(conv_tol=1e-12).run()
    assert mf.mol.nelectron == 26
    return mf


def test_electrons_belong_to_molecule_and_basis():
    for basis, nelec in (("def2-svp", 26), ("sto-3g", 54)):
        assert HI.nelec(vp.load_basis(basis, HI.numbers)) == nelec
        assert vp.pad_batch([HI], basis).nelec.tolist() == [nelec]
    both = vp.pad_batch(
        [HI, vp.Molecule(HI.numbers, HI.positions, charge=2)], {"potential": "sto-3g", "orbital": "def2-svp"}
    )
    assert both.nelec.tolist() == [26, 24]
    assert jax.jit(lambda one: one.nelec)(jax.tree.map(jnp.asarray, both[1])) == 24
    known = jax.tree.map(jnp.asarray, both[1])  # arrays of JAX that a traced function closes over
    assert jax.jit(lambda x: x * known.nelec)(1.0) == 24
    representation = Representation((1, 53), "def2-svp", ("overlap", "external"), 1)
    settings = MatrixSettings(representation, orbital_basis="def2-svp", baseline="zero")
    assert settings.batch([HI]).nelec.tolist() == [26]
    with pytest.raises(vp.InputError, match=r"basis is on atoms \[1, 1\], the molecule has \[53, 1\]"):
        HI.nelec(vp.load_basis("sto-3g", [1, 1]))


def test_observables_agree_with_pyscf(hartree_fock):
    mol, basis, positions = hartree_fock.mol, vp.load_basis("def2-svp", HI.numbers), jnp.asarray(HI.positions)
    fock, overlap = np.asarray(hartree_fock.get_fock()), vp.overlap(basis, positions)
    nelec = HI.nelec(basis)
    solved = vp.orbitals((fock + fock.T) / 2, overlap, nelec)
    mu = vp.dipole(
        solved.density, vp.position_integrals(basis, positions, jnp.zeros(3)), positions, basis.nuclear_charges
    )
    # PySCF's convergence; all-electron counting gave −26.66 e·bohr, 462.6 eV and charges that sum to −28
    np.testing.assert_allclose(mu, hartree_fock.dip_moment(unit="AU", verbose=0), rtol=0, atol=1e-6)
    gap = hartree_fock.mo_energy[13] - hartree_fock.mo_energy[12]
    np.testing.assert_allclose(vp.homo_lumo_gap(solved.mo_energies[0], nelec), gap, rtol=0, atol=1e-7)
    assert 10 < gap * HARTREE_TO_EV < 16
    for charges in (vp.lowdin_charges, vp.mulliken_charges):
        np.testing.assert_allclose(jnp.sum(charges(solved.density, overlap, basis)), 0.0, atol=1e-10)
    pyscf_charges = hartree_fock.mulliken_pop(verbose=0)[1]
    np.testing.assert_allclose(vp.mulliken_charges(solved.density, overlap, basis), pyscf_charges, rtol=0, atol=1e-6)
    assert mol.nelectron == nelec


def labels_of(molecule, basis):
    mf = scf.RHF(to_pyscf(molecule, basis)).run(conv_tol=1e-9)
    return {"mo_energies": mf.mo_energy, "dipole": np.ones(3), "polarizability": np.eye(3)}


CF3I = vp.Molecule(
    np.array([6, 53, 9, 9, 9]),
    np.array([[0, 0, 0], [0, 0, 4.05], [2.36, 0, -0.87], [-1.18, 2.04, -0.87], [-1.18, -2.04, -0.87]]),
)


@pytest.mark.parametrize("molecule", [HI, CF3I], ids=["HI", "CF3I"])
def test_levels_of_bases_with_different_cores_meet_at_the_homo(molecule):
    """STO-3G has 14 levels more, and in CF3I the 1s levels of fluorine lie below the 3d level of iodine among them."""
    levels = {basis: labels_of(molecule, basis) for basis in ("sto-3g", "def2-svp")}
    sample = Sample("iodide", "train", molecule, levels)
    own, large = (levels[basis]["mo_energies"] for basis in ("sto-3g", "def2-svp"))
    targets, mask, nelec = partners(sample, "def2-svp", "sto-3g", "sto-3g")
    nocc = nelec // 2
    assert nelec == sum(molecule.numbers)
    assert targets.shape == mask.shape == own.shape
    cores = 18 + int(np.sum(molecule.numbers > 1)) - 1  # [Kr] of iodine, 1s of the others
    assert np.flatnonzero(mask).tolist() == list(range(cores, min(len(own), 14 + len(large))))
    np.testing.assert_array_equal(targets[cores:], large[cores - 14 : len(own) - 14])
    assert not targets[:cores].any()
    assert targets[nocc - 1] == large[nocc - 15]  # the HOMOs
    # occupied partners are the same levels: STO-3G is off by less than a hartree there
    assert np.abs(own - targets)[cores:nocc].max() < 1
    # only partners count in errors
    reference = Reference({"mo_energies": targets}, mask, np.array(molecule.natm), np.array(nelec))
    predicted = np.where(mask, targets + 0.1, 1e3)
    for name in ("mo_energies", "occupied", "frontier"):
        error = error_summary([molecule_errors(name, predicted, reference)]).mean_absolute
        assert error == pytest.approx(0.1 * HARTREE_TO_EV)
    gap = vp.homo_lumo_gap(targets, nelec, mask)
    assert error_summary([molecule_errors("homo_lumo_gap", gap, reference)]).mean_absolute == pytest.approx(0, abs=1e-9)
    # the other way round the small basis lacks the core
    turned, exists, electrons = partners(sample, "sto-3g", "def2-svp", "def2-svp")
    assert electrons == nelec - 28
    assert turned[nocc - 15] == own[nocc - 1]
    assert not exists[: cores - 14].any()
    assert exists[cores - 14 : nocc - 14].all()
    wrong = {**levels, "def2-svp": {**levels["def2-svp"], "mo_energies": large - 5.0}}
    with pytest.raises(vp.InputError, match=r"'iodide': level \d+ is .* another effective core"):
        partners(Sample("iodide", "train", molecule, wrong), "def2-svp", "sto-3g", "sto-3g")


def test_levels_without_a_partner_keep_their_energies():
    fock, overlap = np.diag([-3.0, -1.0, 0.5]), np.eye(3)
    changed = fock_with_levels(fock, overlap, np.array([0.0, -2.0, 0.7]), None, np.array([False, True, True]))
    np.testing.assert_allclose(np.diag(changed), [-3.0, -2.0, 0.7], rtol=0, atol=1e-14)


def test_gap_is_that_of_real_levels_only():
    """Padding, functions dropped by a threshold, and a molecule without virtual or without occupied levels."""
    water = vp.Molecule(np.array([8, 1, 1]), np.array([[0, 0, 0.0], [0, 1.4, 1.1], [0, -1.4, 1.1]]))
    helium = vp.Molecule(np.array([2]), np.zeros((1, 3)))
    stripped = vp.Molecule(np.array([1, 1]), np.array([[0, 0, 0.0], [0, 0, 1.4]]), charge=2)
    batch = jax.tree.map(jnp.asarray, vp.pad_batch([water, helium, stripped], "sto-3g"))

    def gap(one):
        mask = one.basis.ao_mask
        fock = vp.kinetic(one.basis, one.positions) + vp.external_potential(one.basis, one.positions)
        levels, _ = vp.eigh(fock, vp.overlap(one.basis, one.positions), mask)
        return vp.homo_lumo_gap(levels, one.nelec), jnp.sum(jnp.isfinite(levels)) == jnp.sum(mask)

    gaps, complete = jax.jit(jax.vmap(gap))(batch)
    assert np.isnan(gaps).tolist() == [False, True, True]
    assert complete.all()
    overlap = np.eye(3)
    overlap[0, 1] = overlap[1, 0] = 1 - 1e-9
    levels, _ = vp.eigh(np.diag([-1.0, -1.0, 0.5]), overlap, threshold=1e-7)
    assert np.isfinite(levels).tolist() == [True, True, False]
    assert np.isnan(vp.homo_lumo_gap(levels, 4))
    assert np.isfinite(vp.homo_lumo_gap(levels, 2))
