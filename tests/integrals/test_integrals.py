"""S, T, V, r against PySCF, and what the equations demand of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import central_difference, every_element, g2, pyscf_mole

OPERATORS = {
    "overlap": (vp.overlap, "int1e_ovlp"),
    "kinetic": (vp.kinetic, "int1e_kin"),
    "external_potential": (vp.external_potential, "int1e_nuc"),
    "position": (lambda basis, positions: vp.position_integrals(basis, positions, jnp.zeros(3)), "int1e_r"),
}
# Float64 rounding: the largest elements are some 1e3 hartree, and libcint itself is good to about 1e-12 of them.
TOLERANCE = 1e-10


def all_operators(basis, positions):
    return {name: function(basis, positions) for name, (function, _) in OPERATORS.items()}


@pytest.mark.parametrize("basis", ["sto-3g", "6-31g", "def2-svp", "def2-tzvp"])
def test_every_element_agrees_with_pyscf(basis):
    molecule = every_element()
    ours = jax.jit(all_operators)(vp.load_basis(basis, molecule.numbers), jnp.asarray(molecule.positions))
    mole = pyscf_mole(molecule, basis)
    for name, (_, integral) in OPERATORS.items():
        reference = mole.intor(integral)
        assert np.abs(reference).max() > 0.5
        np.testing.assert_allclose(ours[name], reference, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(("name", "basis"), [("H2O", "def2-tzvp"), ("C6H6", "def2-svp")])
def test_molecules_agree_with_pyscf(name, basis):
    molecule = g2(name)
    ours = jax.jit(all_operators)(vp.load_basis(basis, molecule.numbers), jnp.asarray(molecule.positions))
    mole = pyscf_mole(molecule, basis)
    for key, (_, integral) in OPERATORS.items():
        np.testing.assert_allclose(ours[key], mole.intor(integral), rtol=0, atol=TOLERANCE, err_msg=key)


@pytest.mark.slow
def test_g_functions_agree_with_pyscf():
    molecule = g2("H2O")
    ours = jax.jit(all_operators)(vp.load_basis("cc-pvqz", molecule.numbers), jnp.asarray(molecule.positions))
    mole = pyscf_mole(molecule, "cc-pvqz")
    for key, (_, integral) in OPERATORS.items():
        np.testing.assert_allclose(ours[key], mole.intor(integral), rtol=0, atol=TOLERANCE, err_msg=key)


def test_terms_per_nucleus():
    molecule = g2("CH3OH")
    basis, positions = vp.load_basis("sto-3g", molecule.numbers), jnp.asarray(molecule.positions)
    terms = vp.nuclear_attraction(basis, positions)
    mole = pyscf_mole(molecule, "sto-3g")
    for atom, z in enumerate(molecule.numbers):
        with mole.with_rinv_at_nucleus(atom):
            np.testing.assert_allclose(terms[atom], -z * mole.intor("int1e_rinv"), rtol=0, atol=TOLERANCE)


def test_fractional_charges_interpolate():
    molecule = g2("H2O")
    basis, positions = vp.load_basis("sto-3g", molecule.numbers), jnp.asarray(molecule.positions)
    charges = jnp.array([7.5, 0.25, 1.0])
    expected = jnp.einsum("a,apq->pq", charges / molecule.numbers, vp.nuclear_attraction(basis, positions))
    # The matrix is linear in the charges: rounding only.
    np.testing.assert_allclose(vp.external_potential(basis, positions, charges), expected, rtol=0, atol=1e-12)


def test_screened_potential_agrees_with_pyscf():
    from pyscf.scf.hf import make_sap

    molecule = g2("CH3CHO")
    basis = vp.load_basis("sto-3g", molecule.numbers)
    fits = {
        symbol: np.stack([basis.screening_exponents[i], basis.screening_charges[i]], axis=1)[
            basis.screening_charges[i] != 0
        ]
        for i, symbol in enumerate(molecule.symbols)
    }
    mole = pyscf_mole(molecule, "sto-3g")
    expected = make_sap(mole, fits) + mole.intor("int1e_nuc")
    ours = vp.screened_potential(basis, jnp.asarray(molecule.positions))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_position_integrals_shift_with_their_origin():
    molecule = g2("H2O")
    basis, positions = vp.load_basis("def2-svp", molecule.numbers), jnp.asarray(molecule.positions)
    origin = jnp.array([0.3, -1.2, 2.0])
    difference = vp.position_integrals(basis, positions, jnp.zeros(3)) - vp.position_integrals(basis, positions, origin)
    expected = origin[:, None, None] * vp.overlap(basis, positions)
    np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-12)  # exact identity: rounding only


@pytest.mark.parametrize("operator", OPERATORS)
def test_position_gradient_agrees_with_finite_differences(operator):
    molecule = g2("CH4")
    function, _ = OPERATORS[operator]
    basis, positions = vp.load_basis("def2-svp", molecule.numbers), jnp.asarray(molecule.positions)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(np.shape(function(basis, positions)))
    direction = rng.standard_normal(positions.shape)

    @jax.jit
    def along(t):
        return jnp.vdot(weights, function(basis, positions + t * direction))

    exact = jax.grad(along)(0.0)
    assert abs(exact) > 0.1
    np.testing.assert_allclose(central_difference(along), exact, rtol=1e-8)  # step⁴ and rounding over step


def test_gradient_in_charges_and_exponents_of_the_hermite_potential():
    from vpotjax.integrals.hermite import hermite_potential

    displacement = jnp.array([0.4, -0.3, 0.9])

    def value(p):
        return jnp.sum(hermite_potential(3, p, displacement) * jnp.arange(1.0, 21.0))

    exact = jax.grad(value)(jnp.asarray(1.3))
    np.testing.assert_allclose(central_difference(lambda t: value(jnp.asarray(1.3 + t))), exact, rtol=1e-8)  # as above
    second = jax.grad(jax.grad(value))(jnp.asarray(1.3))
    np.testing.assert_allclose(central_difference(lambda t: jax.grad(value)(jnp.asarray(1.3 + t))), second, rtol=1e-8)


def test_wrong_shapes_are_named():
    molecule = g2("H2O")
    basis = vp.load_basis("sto-3g", molecule.numbers)
    with pytest.raises(vp.InputError, match=r"positions has shape \(2, 3\), expected \(3, 3\)"):
        vp.overlap(basis, jnp.zeros((2, 3)))
    with pytest.raises(vp.InputError, match="nuclear_charges"):
        vp.external_potential(basis, jnp.asarray(molecule.positions), jnp.ones(2))


def test_single_precision_follows_the_input():
    molecule = g2("H2O")
    basis = vp.load_basis("def2-svp", molecule.numbers)
    positions = jnp.asarray(molecule.positions)
    single = vp.external_potential(basis, positions.astype(jnp.float32))
    assert single.dtype == jnp.float32
    # Float32 rounding, 6e-8, of the largest elements, amplified by the recurrences.
    np.testing.assert_allclose(single, vp.external_potential(basis, positions), rtol=0, atol=1e-5 * 62)
