"""Second derivatives at special points: atoms on axes, planes and the origin, points on a nucleus, equal exponents,
zero charges, arguments at a switch-over, distances at the cutoff, degenerate levels, zero errors.

Against PySCF for AOs, else against central differences of first derivatives, which are taken at points of no symmetry.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import vpotjax as vp
from tests.molecules import central_difference, g2, pyscf_mole
from vpotjax import losses
from vpotjax.electronic.comparison import eigenbasis_alignment, fock_with_levels, projected_fock
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.observables import Reference
from vpotjax.electronic.purification import purified_density_matrix
from vpotjax.electronic.real_space import electron_density
from vpotjax.electronic.spectrum import density_of_states
from vpotjax.integrals.boys import boys
from vpotjax.models import MatrixSettings
from vpotjax.nn import MatrixPower
from vpotjax.nn.operator_products import unit_norm
from vpotjax.operators.blocks import ao_matrix, couple, pair_blocks, shell_layout, uncouple
from vpotjax.operators.inputs import cutoff_function, operator_matrices, pair_cutoff
from vpotjax.operators.pairs import from_exchange, to_exchange
from vpotjax.operators.representation import Representation

NUMBERS = np.array([1, 8, 1])
LINE = np.array([[0, 0, -1.8], [0, 0, 0], [0, 0, 1.8]])
NEAR = np.array([[0, 0.2, 0.9], [0, 0, 0], [0, 0, 1.8], [0, 0, 0.9], [0.3, 0, 0], [0.5, 0.4, 0]])  # points of the line
SHELLS = {"O": [[0, [0.8, 1.0]], [1, [0.8, 1.0]]], "H": [[0, [0.8, 1.0]]]}
LARGE_SHELLS = {"O": [*SHELLS["O"], [2, [1.1, 1.0]]], "H": [*SHELLS["H"], [1, [0.8, 1.0]]]}
BASIS, LARGE = (vp.load_basis(shells, NUMBERS) for shells in (SHELLS, LARGE_SHELLS))
LAYOUT, PAIRS = shell_layout(SHELLS, NUMBERS), vp.pad_batch([vp.Molecule(NUMBERS, LINE)], "sto-3g")[0].pairs
ONE_S, ONE_P = (vp.load_basis({"H": [[l, [0.5, 1.0]]]}, [1]) for l in (0, 1))

UNIT = np.eye(BASIS.nao)
LEVELS = np.array([-1.0, -1.0, 0.5, 0.5, 0.5, 1.0])
LEVEL_MASK = np.ones(6, bool)
APART = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
TERMS = dict(zip(("mo_energies", "homo_lumo_gap", "dipole", "polarizability"), (1.0, 2.0, 3.0, 4.0), strict=True))
REFERENCE = Reference(
    {"mo_energies": APART, "dipole": np.zeros(3), "polarizability": np.zeros((3, 3))},
    LEVEL_MASK,
    np.array(3),
    np.array(4),
)
POSITION = np.random.default_rng(0).standard_normal((3, 6, 6))


def symmetric(matrix):
    return (matrix + jnp.swapaxes(matrix, -1, -2)) / 2


def of_symmetric(function, count=2, **keywords):
    """`function` of the symmetric parts of its first `count` arguments."""
    return lambda *x: function(*map(symmetric, x[:count]), *x[count:], **keywords)


def density(nelec, **keywords):
    return of_symmetric(lambda f, s: vp.density_matrix(f, s, nelec, **keywords))


def polarizability(**keywords):
    return of_symmetric(lambda f, s, r, w: vp.polarizability(f, s, r, 4, frequency=w, **keywords), 3)


def boys_in_a_loop(order):
    """Reverse mode through the loop differentiates the body of the function a second time, not its rule."""

    def add(total, vector):
        return total + boys(order, vector @ vector), None

    return lambda vectors: jax.lax.scan(add, jnp.zeros(order + 1), vectors)[0]


def blocks_and_irreps(matrix):
    blocks = pair_blocks(matrix * matrix, BASIS, LAYOUT, PAIRS)
    coupled = to_exchange(couple(blocks, LAYOUT), LAYOUT)
    return coupled, uncouple(from_exchange(coupled, LAYOUT), LAYOUT), ao_matrix(blocks, BASIS, LAYOUT, PAIRS)


def charge_at(basis):
    return lambda place: vp.charge_potential(basis, jnp.zeros((1, 3)), place, jnp.ones(1))


def powers(kind):
    return of_symmetric(lambda v, s: vp.potential_powers(v, s, 3, kind))


def with_exponents(operator):
    """`operator` as a function of positions, exponents and coefficients."""

    def function(positions, exponents, coefficients):
        new = [
            dataclasses.replace(shells, exponents=a, coefficients=jnp.where(shells.coefficients == 0, 0.0, c))
            for shells, a, c in zip(BASIS.shells, exponents, coefficients, strict=True)
        ]
        return operator(dataclasses.replace(BASIS, shells=tuple(new)), positions)

    return function


SETTINGS = MatrixSettings(
    Representation((1, 8), "sto-3g", power_order=2, power_kinds=("metric", "lowdin"), cutoff=5.0), MatrixPower()
)


def gaussian_charges(positions, places, charges, exponents, omega):
    return vp.charge_potential(BASIS, positions, places, charges, exponents=exponents, omega=omega)


def operators_with_cutoff(positions):
    return list(operator_matrices(BASIS, positions, ("external", "own_nuclei"), 3.6).values())


class Predicted:
    """Observables by name, as a `Solution` has them."""

    def __init__(self, energies, dipole, alpha):
        gap = vp.homo_lumo_gap(energies, 4)
        self.values = dict(zip(TERMS, (energies, gap, dipole, alpha), strict=True))

    def observable(self, name):
        return self.values[name]


def observables(*values):
    loss = losses.Sum(tuple(weight * losses.Observed(name) for name, weight in TERMS.items()))
    return loss(Predicted(*values), REFERENCE)


def alignment_loss(fock, coefficients, energies):
    return losses.wavefunction_alignment_loss(fock, coefficients, energies, LEVEL_MASK)


def geometry(positions):
    """Of the line as one molecule of a batch: a padding atom stands on the nucleus at the origin."""
    batch = SETTINGS.batch([vp.Molecule(NUMBERS, LINE), g2("H2O2")])[0]
    padded = jnp.zeros(batch.positions.shape).at[:3].set(positions)
    result = SETTINGS.geometry(jax.tree.map(jnp.asarray, dataclasses.replace(batch, positions=padded)))
    features, space = result.features, result.space
    return features.values, features.operators, result.baseline, result.frame, space.overlap, space.position


def case(name, function, *arguments, step=1e-3, marks=()):
    return pytest.param(function, arguments, step, id=name, marks=marks)


def slow(*arguments, **keywords):
    return case(*arguments, **keywords, marks=pytest.mark.slow)


EXPONENTS = tuple(shells.exponents for shells in BASIS.shells)
COEFFICIENTS = tuple(shells.coefficients for shells in BASIS.shells)
PLACES = np.array([[0, 0, 0], [0, 0, 1.8], [0, 0, 0.9], [0, 0, 0]])  # on nuclei, between them, twice at one place
CHARGES = np.array([0.0, 1.0, -1.0, 0.5])
SWITCH_OVERS = {0: [1.0, 2.0, 0.0], 1: [1.0, 2.0, 0.0], 2: [1.0, 1.0, 2.0]}  # of order + 1: |x|² = 5, 5, 6
KINKED = 3e-7  # step where the third derivative jumps, so that the quotient has an error of order step
CASES = [
    *(case(f"Boys function {m}", boys_in_a_loop(m), np.array([x, [0, 0, 0]])) for m, x in SWITCH_OVERS.items()),
    case("cutoff function", cutoff_function, np.array([0, 1, 2.99, 3, 5]), 3.0, step=KINKED),
    case("cutoff at a distance", lambda r: pair_cutoff(r, 3.6), LINE, step=KINKED),
    case("cutoff and padding", lambda r: pair_cutoff(jnp.concatenate([r, jnp.zeros((2, 3))]), 5.0), LINE, step=KINKED),
    case("AO values", lambda r, p: vp.ao_values(LARGE, r, p), LINE, NEAR),
    case("overlap", with_exponents(vp.overlap), LINE, EXPONENTS, COEFFICIENTS),
    case("charge on s", charge_at(ONE_S), np.zeros((1, 3))),
    case("charge near s", charge_at(ONE_S), np.array([[1.0, 2.0, 0.0]])),
    case("charge on p", charge_at(ONE_P), np.zeros((1, 3))),
    slow("overlap with d", lambda r: vp.overlap(LARGE, r), LINE),
    slow("cross overlap", lambda r, q: vp.cross_overlap(BASIS, BASIS, r, q), LINE, LINE),
    slow("kinetic", with_exponents(vp.kinetic), LINE, EXPONENTS, COEFFICIENTS),
    slow("momentum", lambda r: vp.momentum_integrals(BASIS, r), LINE),
    slow("position", lambda r, o: vp.position_integrals(BASIS, r, o), LINE, np.zeros(3)),
    slow("second moments", lambda r, o: vp.second_moment_integrals(BASIS, r, o), LINE, np.zeros(3)),
    slow("potential", lambda r, z: vp.external_potential(BASIS, r, z), LINE, np.array([1.0, 8.0, 0.0])),
    slow("potential, exponents", with_exponents(vp.external_potential), LINE, EXPONENTS, COEFFICIENTS),
    slow("terms of nuclei", lambda r: vp.nuclear_attraction(BASIS, r), LINE),
    slow("screened potential", lambda r: vp.screened_potential(BASIS, r), LINE, step=3e-4),
    slow("point charges", lambda r, c, q: vp.charge_potential(BASIS, r, c, q), LINE, PLACES, CHARGES),
    slow("Gaussian charges", gaussian_charges, LINE, PLACES, CHARGES, np.array([0.8, 0.8, 1.0, 2.0]), 0.5),
    slow("operators with a cutoff", operators_with_cutoff, LINE, step=1e-6),
    slow("model", geometry, LINE, step=3e-4),
    case("powers, raw", powers("raw"), -UNIT, UNIT),
    case("powers, metric", powers("metric"), -UNIT, UNIT),
    case("powers, Löwdin", powers("lowdin"), 0 * UNIT, UNIT),
    slow("powers, rational", powers("rational"), -UNIT, UNIT),
    case("blocks", blocks_and_irreps, 0 * UNIT),
    case("norm of blocks", unit_norm, np.ones((1, 2, 2, 2, 2))),
    case("density", density(4), np.diag(LEVELS), UNIT),
    case("density, all occupied", density(12), np.diag(LEVELS), UNIT),
    case("density, smeared", density(6, smearing=0.3), np.diag(LEVELS), UNIT),
    case("density, purified", of_symmetric(lambda f, s: purified_density_matrix(f, s, 4)), np.diag(LEVELS), UNIT),
    slow("density, purified, all", of_symmetric(lambda f, s: purified_density_matrix(f, s, 12)), np.diag(LEVELS), UNIT),
    slow("density, threshold", density(4, threshold=1e-7), np.diag(LEVELS), UNIT),
    slow("density, smeared, F = 0", density(6, smearing=0.3), 0 * UNIT, UNIT),
    case("polarizability", polarizability(), np.diag(LEVELS), UNIT, POSITION, 0.0),
    slow("polarizability, iω", polarizability(imaginary=True), np.diag(LEVELS), UNIT, POSITION, 0.0),
    case("levels", of_symmetric(lambda f, s: vp.eigh(f, s)[0]), np.diag(APART), UNIT),
    slow("gap", of_symmetric(lambda f, s: vp.homo_lumo_gap(vp.eigh(f, s)[0], 4)), np.diag(APART), UNIT),
    case("density of states", density_of_states, LEVELS, np.array([-1.0, 0.0, 0.5]), 0.3),
    slow("levels of others", of_symmetric(fock_with_levels), np.diag(APART), UNIT, LEVELS),
    slow("aligned", of_symmetric(eigenbasis_alignment, 3), np.diag(APART), np.diag(APART), UNIT),
    slow("projected", of_symmetric(projected_fock), np.diag(LEVELS), UNIT, UNIT[:, :2]),
    case("Mulliken charges", of_symmetric(lambda p, s: vp.mulliken_charges(p, s, BASIS)), 0 * UNIT, UNIT),
    case("Löwdin charges", of_symmetric(lambda p, s: vp.lowdin_charges(p, s, BASIS)), 0 * UNIT, UNIT),
    case("bond orders", of_symmetric(lambda p, s: vp.mayer_bond_orders(p, s, BASIS)), 0 * UNIT, UNIT),
    case("dipole", of_symmetric(vp.dipole), 0 * UNIT, 0 * POSITION, 0 * LINE, np.zeros(3)),
    case("quadrupole", of_symmetric(quadrupole), 0 * UNIT, np.zeros((3, 3, 6, 6)), 0 * LINE, np.zeros(3)),
    case("electron density", electron_density, 0 * UNIT, np.ones((2, 6))),
    case("observables", observables, APART, np.zeros(3), np.zeros((3, 3))),
    case("level loss", lambda e, r: losses.orbital_energy_loss(e, r, LEVEL_MASK), LEVELS, LEVELS),
    case("gauge", losses.gauge_shift, UNIT, UNIT, UNIT),
    case("matrix loss", lambda f, r, s: losses.matrix_loss(f, r, overlap=s), UNIT, UNIT, UNIT),
    case("alignment loss", alignment_loss, np.diag(LEVELS), UNIT, LEVELS),
    case("density loss", losses.density_loss, UNIT, UNIT, UNIT),
    case("dipole loss", losses.dipole_loss, np.zeros(3), np.zeros(3)),
    case("polarizability loss", losses.polarizability_loss, np.zeros((3, 3)), np.zeros((3, 3))),
    case("charge loss", lambda q, r: losses.charge_loss(q, r, NUMBERS), np.zeros(3), np.zeros(3)),
    case("bond order loss", lambda b, r: losses.bond_order_loss(b, r, NUMBERS), np.zeros((3, 3)), np.zeros((3, 3))),
]


@pytest.mark.parametrize(("function", "arguments", "step"), CASES)
def test_derivatives_agree_with_finite_differences(function, arguments, step):
    """Of a sum of the results with random weights, in all arguments at once; forward and reverse mode over reverse."""
    start, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, float), arguments))
    rng = np.random.default_rng(0)
    shape = jax.eval_shape(lambda x: ravel_pytree(function(*unravel(x)))[0], start).shape
    weights, direction = rng.standard_normal(shape), 0.1 * rng.standard_normal(start.shape)

    def value(x):
        return jnp.vdot(weights, ravel_pytree(function(*unravel(x)))[0])

    def along(t):
        return jax.value_and_grad(value)(start + t * direction)

    first = jax.jit(along)
    forward = jax.jit(jax.jacfwd(lambda t: along(t)[1]))(0.0)
    reverse = jax.jit(jax.grad(lambda x: jax.grad(value)(x) @ direction))(start)
    gradient, quotient = first(0.0)[1] @ direction, central_difference(lambda t: first(t)[0], step)
    second = central_difference(lambda t: first(t)[1], step)
    size = np.abs(second).max()
    assert size > 1e-5
    # Truncation of order step⁴ (step where a third derivative jumps), rounding over step; zeros count by the largest.
    np.testing.assert_allclose(gradient, quotient, rtol=1e-6, atol=1e-8 * size)
    for exact in (forward, reverse):
        np.testing.assert_allclose(exact, second, rtol=0, atol=1e-6 * size)


HYDROXYL = vp.Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.8]]), spin=1)


@pytest.mark.parametrize("cartesian", [False, True])
def test_third_derivatives_of_aos_agree_with_pyscf(cartesian):
    """At the points of NEAR, where up to three components of the distance from a nucleus are zero."""
    basis = vp.load_basis("def2-svp", HYDROXYL.numbers, cartesian=cartesian)
    kind = "cart" if cartesian else "sph"
    expected = pyscf_mole(HYDROXYL, "def2-svp", cartesian).eval_gto(f"GTOval_{kind}_deriv3", NEAR)

    def aos(point):
        return vp.ao_values(basis, HYDROXYL.positions, point[None])[0]

    derivatives, start = [aos], 0
    for _ in range(3):
        derivatives.append(jax.jacfwd(derivatives[-1]))
    results = jax.jit(jax.vmap(lambda point: tuple(f(point) for f in derivatives)))(jnp.asarray(NEAR))
    for order, result in enumerate(results):
        for index in itertools.combinations_with_replacement(range(3), order):
            ours = result[(..., *index)]
            np.testing.assert_allclose(ours, expected[start], rtol=1e-10, atol=1e-9, err_msg=f"{index}")  # rounding
            start += 1
    assert start == len(expected)


def test_laplacian_of_a_density_agrees_with_pyscf():
    basis = vp.load_basis("def2-svp", HYDROXYL.numbers)
    matrix = symmetric(np.random.default_rng(0).standard_normal((basis.nao, basis.nao)))
    ao = pyscf_mole(HYDROXYL, "def2-svp").eval_gto("GTOval_sph_deriv2", NEAR)
    expected = 2 * np.einsum("pq,gp,gq->g", matrix, ao[0], ao[4] + ao[7] + ao[9])
    expected += 2 * np.einsum("pq,xgp,xgq->g", matrix, ao[1:4], ao[1:4])

    def rho(point):
        return electron_density(matrix, vp.ao_values(basis, HYDROXYL.positions, point[None]))[0]

    ours = jax.jit(jax.vmap(lambda point: jnp.trace(jax.hessian(rho)(point))))(jnp.asarray(NEAR))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(ours, expected, rtol=1e-10)  # rounding


def test_the_cutoff_ends_without_slope_and_curvature():
    """1 − 10x³ + 15x⁴ − 6x⁵ by hand: f″ = −60x + 180x² − 120x³ over the squared cutoff."""
    x = jnp.array([0.0, 0.25, 0.5, 1.0, 1.5])
    second = jax.vmap(jax.grad(jax.grad(lambda d: cutoff_function(d, 2.0))))(2 * x)
    np.testing.assert_allclose(second, np.array([0, -5.625, 0, 0, 0]) / 4, atol=1e-14)  # rounding
