"""Derivatives at degenerate levels, in F, S and in the geometry, against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.electronic.symmetric import FEW, GEOMETRIES, NAMES, OBSERVABLES, at, batch, hartree_fock, losses
from tests.molecules import central_difference
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.polarizability import polarizability_of
from vpotjax.electronic.real_space import electron_density
from vpotjax.electronic.spectrum import density_of_states
from vpotjax.models.matrix_model import baseline_fock

STEP = 1e-3  # of the directions below, which are about 0.03 hartree or bohr long per element
STATIONARY = {("N2", "Mayer")}  # the bond order of a homonuclear molecule has no first derivative in F


def directions(seed, shape):
    rng = np.random.default_rng(seed)
    matrices = 0.03 * rng.standard_normal((2, *shape))
    return jnp.asarray(matrices)


def symmetric_directions(seed, shape, mask):
    change = directions(seed, shape)
    change = change + jnp.swapaxes(change, -1, -2)
    return change * mask[:, :, None] * mask[:, None, :]


def check(names, value, first, second):
    """Compare derivatives, functions of t or s that give (molecule, observable), with finite differences."""
    exact, mixed = np.asarray(first(0.0)), np.asarray(second(0.0))
    quotient = np.asarray(central_difference(value, STEP))
    mixed_quotient = np.asarray(central_difference(first, STEP))
    wrong = []
    for i, name in enumerate(names):
        for j, observable in enumerate(OBSERVABLES):
            label = f"{observable} of {name}: {exact[i, j]}, {quotient[i, j]}, {mixed[i, j]}, {mixed_quotient[i, j]}"
            # What a training loss needs; the quotients of order step⁴ are good to 1e-8 of the function itself.
            stationary = (name, observable) in STATIONARY
            first_agrees = np.isclose(quotient[i, j], exact[i, j], rtol=1e-6, atol=1e-9 if stationary else 0)
            second_agrees = np.isclose(mixed_quotient[i, j], mixed[i, j], rtol=1e-4, atol=0)
            smallest = min(abs(mixed[i, j]), 1.0 if stationary else abs(exact[i, j]))
            if not (first_agrees and second_agrees and smallest > 1e-5):
                wrong.append(label)
    assert not wrong, "\n".join(wrong)


def per_molecule(function):
    """`function` of one molecule's arrays over the batch, in one program."""
    return lambda *arrays: jax.lax.map(lambda one: function(*one), arrays)


@pytest.mark.parametrize(
    ("what", "geometry", "names"),
    [
        pytest.param("F", "symmetric", FEW, id="F-few"),
        *(pytest.param(w, g, NAMES, marks=pytest.mark.slow, id=f"{w}-{g}") for w in ("F", "S") for g in GEOMETRIES),
    ],
)
def test_derivatives_in_fock_and_overlap(what, geometry, names):
    fock, overlap, position = hartree_fock(geometry, names)
    molecules = batch(geometry, names)
    change, other = symmetric_directions(1, fock.shape, molecules.basis.ao_mask)
    scale = (1.0, 0.0) if what == "F" else (0.0, 0.2)

    def along(t, s):
        moved = t * change + s * other
        return per_molecule(losses)(molecules, fock + scale[0] * moved, overlap + scale[1] * moved, position)

    def first(s):  # reverse mode through the loop over molecules
        return jax.jacrev(along)(0.0, s)

    check(names, jax.jit(lambda t: along(t, 0.0)), jax.jit(first), jax.jit(jax.jacrev(first)))


@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_derivatives_in_positions(geometry):
    """F is the core Hamiltonian plus the screening of free atoms, which rotates with the molecule.

    The first atom of N2 is made unlike the second, or its charges and bond order would not depend on the geometry.
    """
    molecules = batch(geometry)
    unlike = jnp.where(jnp.array([name == "N2" for name in NAMES]), 1.02, 1.0)
    change, other = directions(3, molecules.positions.shape)

    @functools.partial(jax.jit, static_argnums=0)
    def derivative(order, t, s, weights):
        def one(molecule, change, other, unlike):
            scale = jnp.where(molecule.basis.ao_atom == 0, unlike, 1.0)

            def loss(t, s):
                positions = molecule.positions + t * change + s * other
                fock = scale[:, None] * baseline_fock(molecule.basis, positions, "sap") * scale
                position = vp.position_integrals(molecule.basis, positions, jnp.zeros(3))
                return losses(molecule, fock, vp.overlap(molecule.basis, positions), position) @ weights

            first = jax.grad(loss)
            return (loss, first, jax.grad(first, argnums=1))[order](t, s)

        return per_molecule(one)(molecules, change, other, unlike)

    def all_losses(order, t, s):  # one after the other: all at once would take six times the memory
        return jnp.stack([derivative(order, t, s, weights) for weights in jnp.eye(len(OBSERVABLES))], axis=1)

    check(NAMES, lambda t: all_losses(0, t, 0.0), lambda s: all_losses(1, 0.0, s), lambda s: all_losses(2, 0.0, s))


@pytest.mark.parametrize(
    ("name", "level_ends"), [("H3+", [0, 2]), pytest.param("NH3", [0, 1, 3, 4, 5, 7], marks=pytest.mark.slow)]
)
def test_other_observables_in_positions(name, level_ends):
    """Quadrupole, levels, density of states, ρ(r) and α(iω) of a symmetric molecule; ε in squares, level by level."""
    molecule = at(name, "symmetric")
    basis, points = vp.load_basis("sto-3g", molecule.numbers), np.random.default_rng(0).uniform(-2, 2, (7, 3))
    grid, change = np.linspace(-1.5, 1.0, 9), 0.1 * np.random.default_rng(1).standard_normal(molecule.positions.shape)

    @functools.partial(jax.jit, static_argnums=0)
    def derivative(order, t):
        def values(t):
            positions = molecule.positions + t * change
            fock, overlap = baseline_fock(basis, positions, "sap"), vp.overlap(basis, positions)
            solved, levels = vp.orbitals(fock, overlap, molecule.nelec(basis)), vp.eigh(fock, overlap)[0]
            position = vp.position_integrals(basis, positions, jnp.zeros(3))
            second = vp.second_moment_integrals(basis, positions, jnp.zeros(3))
            return {
                "quadrupole": quadrupole(solved.density, second, positions, basis.nuclear_charges),
                "density of states": density_of_states(levels, grid, 0.1),
                "levels": jnp.cumsum(levels**2)[jnp.array(level_ends)],
                "density on points": electron_density(solved.density, vp.ao_values(basis, positions, points)),
                "dynamic polarizability": polarizability_of(solved, position, 0.3, imaginary=True),
            }

        return (values, jax.jacfwd(values), jax.jacrev(values))[order](t)

    forward, reverse = derivative(1, 0.0), derivative(2, 0.0)
    quotients = {what: central_difference(lambda t, w=what: derivative(0, t)[w], STEP) for what in forward}
    for what, quotient in quotients.items():
        assert np.abs(quotient).max() > 1e-3, what
        for exact in (forward[what], reverse[what]):
            np.testing.assert_allclose(exact, quotient, rtol=1e-6, atol=1e-8 * np.abs(quotient).max(), err_msg=what)


def test_polarizability_in_three_ways():
    molecules = batch("symmetric")

    def three(molecule, fock, overlap, position):
        mask, nelec = molecule.basis.ao_mask, molecule.nelec

        def dipole(field):
            shifted = fock + jnp.einsum("x,xpq->pq", field, position)
            density = vp.density_matrix(shifted, overlap, nelec, mask)
            return vp.dipole(density, position, molecule.positions, molecule.basis.nuclear_charges)

        closed = vp.polarizability(fock, overlap, position, nelec, mask)
        finite = [central_difference(lambda t, e=e: dipole(t * e), 2e-4) for e in jnp.eye(3)]
        return closed, jax.jacfwd(dipole)(jnp.zeros(3)), jnp.stack(finite, axis=1)

    closed, forward, finite = jax.jit(per_molecule(three))(molecules, *hartree_fock("symmetric"))
    assert np.all(np.abs(closed).max(axis=(1, 2)) > 1)
    np.testing.assert_allclose(forward, closed, rtol=0, atol=1e-8)
    np.testing.assert_allclose(finite, closed, rtol=0, atol=1e-8)


@functools.cache
def nearly_metallic():
    """F and S of benzene with the LUMOs pulled down to 1e-3 hartree above the HOMOs."""
    index = NAMES.index("C6H6")
    fock, overlap, _ = (array[index] for array in hartree_fock("symmetric"))
    size = int(batch("symmetric").basis.ao_mask[index].sum())
    fock, overlap = fock[:size, :size], overlap[:size, :size]
    energies, coefficients = vp.eigh(fock, overlap)
    lowered = jnp.where(jnp.arange(size) >= 21, energies - energies[21] + energies[20] + 1e-3, energies)
    return overlap @ (coefficients * lowered) @ coefficients.T @ overlap, overlap


@pytest.mark.parametrize("smearing", [5e-4, 5e-3])
def test_smearing_at_a_small_gap(smearing):
    fock, overlap = nearly_metallic()
    fock = (fock + fock.T) / 2
    change = np.random.default_rng(3).standard_normal((2, *fock.shape))
    change = 2e-3 * (change + change.swapaxes(1, 2))
    weights = np.random.default_rng(4).standard_normal(fock.shape)

    @jax.jit
    def along(t):
        density = vp.density_matrix(fock + t * change[0], overlap + t * change[1], 42, smearing=smearing)
        return jnp.sum(weights * density)

    gradient = jax.jit(jax.grad(along))
    exact, second = gradient(0.0), jax.grad(gradient)(0.0)
    assert min(abs(exact), abs(second)) > 1e-3
    step = 1e-3 if smearing > 1e-3 else 1e-4  # the occupations change within kT
    np.testing.assert_allclose(central_difference(along, step), exact, rtol=1e-6)
    np.testing.assert_allclose(central_difference(gradient, step), second, rtol=1e-4)


def test_smearing_gives_fermi_occupations():
    fock, overlap = nearly_metallic()
    fock = (fock + fock.T) / 2
    density = vp.density_matrix(fock, overlap, 42, smearing=2e-3)
    energies, coefficients = vp.eigh(fock, overlap)
    occupations = jnp.diagonal(coefficients.T @ overlap @ density @ overlap @ coefficients)
    frontier = slice(19, 23)  # two HOMOs and two LUMOs; the others are 50 kT away
    ratio = np.log(occupations[frontier] / (2 - occupations[frontier]))
    # ln(f/(1 − f)) = (μ − ε)/kT is a line in ε
    np.testing.assert_allclose(np.diff(ratio), -np.diff(energies[frontier]) / 2e-3, rtol=0, atol=1e-8)
    np.testing.assert_allclose(jnp.trace(density @ overlap), 42, rtol=0, atol=1e-10)
