"""All operators against PySCF, and what the equations demand of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from benchmarks.structures import structure
from tests.integrals.reference import OPERATORS, all_operators, reference, reference_gradient
from tests.molecules import central_difference, every_element, g2, pyscf_mole

# Float64 rounding: the largest elements are some 1e3 hartree, and libcint itself is good to about 1e-12 of them.
TOLERANCE = 1e-10
# S and V cover all code that the operators share; the others are run with the slow tests.
FEW_THEN_ALL = [
    name if name in ("overlap", "external_potential") else pytest.param(name, marks=pytest.mark.slow)
    for name in OPERATORS
]
# s, p and d on one atom: every code path at little compile time
SMALL = {"O": [[0, [7.0, 0.6], [1.2, 0.5]], [1, [1.1, 1.0]], [2, [0.9, 1.0]]], "H": [[0, [0.8, 1.0]], [1, [0.7, 1.0]]]}
SMALLER = {symbol: [shell for shell in shells if shell[0] < 2] for symbol, shells in SMALL.items()}
SYMMETRIC = ["overlap", "kinetic", "external_potential"]
BASES = ["sto-3g", "6-31g**", "def2-svp", "def2-tzvp", "def2-tzvpd", "cc-pvtz", "cc-pvqz"]
STRUCTURES = ["H2O", "C6H6", "aspirin", "C20H42", "SF6", "ferrocene", "HBr", "I2"]


def loaded(molecule, basis, cartesian=False):
    return vp.load_basis(basis, molecule.numbers, cartesian=cartesian), jnp.asarray(molecule.positions)


def symmetric_weights(nao):
    weights = np.random.default_rng(0).standard_normal((nao, nao))
    return (weights + weights.T) / nao


def assert_operators_agree(molecule, basis, cartesian=False):
    ours = jax.jit(all_operators)(*loaded(molecule, basis, cartesian))
    mole = pyscf_mole(molecule, basis, cartesian)
    for name in OPERATORS:
        expected = reference(mole, name)
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("basis", ["sto-3g", pytest.param("def2-svp", marks=pytest.mark.slow)])
def test_every_element_agrees_with_pyscf(basis):
    assert_operators_agree(every_element(), basis)


def test_f_functions_agree_with_pyscf():
    assert_operators_agree(g2("HF"), {"F": [[1, [2.0, 1.0]], [3, [1.4, 1.0]]], "H": [[1, [0.7, 1.0]]]})


def test_cartesian_functions_agree_with_pyscf():
    assert_operators_agree(g2("H2O"), SMALL, cartesian=True)


@pytest.mark.slow
@pytest.mark.parametrize("cartesian", [False, True])
def test_functions_up_to_h_agree_with_pyscf(cartesian):
    high = {"F": [[0, [2.0, 1.0]], [4, [1.1, 1.0]], [5, [1.4, 1.0]]], "H": [[0, [0.5, 1.0]]]}
    assert_operators_agree(g2("HF"), high, cartesian)


@pytest.mark.slow
@pytest.mark.parametrize("basis", BASES)
def test_table_of_molecules_and_bases(basis):
    """Operators and gradients in float64, operators in float32, with one program for all molecules."""
    small = basis in ("sto-3g", "6-31g**", "def2-svp")
    molecules = {name: structure(name) for name in STRUCTURES if name != "C20H42" or small}
    covered = {name: molecule for name, molecule in molecules.items() if covers(basis, molecule)}
    assert len(covered) >= 5
    batch = vp.pad_batch(list(covered.values()), basis)
    compute = jax.jit(all_operators)
    gradients = {
        operator: jax.jit(jax.grad(lambda r, b, w, f=OPERATORS[operator]: jnp.vdot(w, f(b, r))))
        for operator in SYMMETRIC
    }
    for k, (name, molecule) in enumerate(covered.items()):
        own, positions, mole = batch[k].basis, jnp.asarray(batch[k].positions), pyscf_mole(molecule, basis)
        double, single = compute(own, positions), compute(own, positions.astype(jnp.float32))
        nao, where = mole.nao, f"{name} {basis}"
        weights = symmetric_weights(nao)
        padded = np.zeros((own.nao, own.nao))
        padded[:nao, :nao] = weights
        for operator in OPERATORS:
            expected = reference(mole, operator)
            largest = np.abs(expected).max()
            assert single[operator].dtype == jnp.float32
            ours, rough = (values[operator][..., :nao, :nao] for values in (double, single))
            np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE, err_msg=f"{where} {operator}")
            single_error = np.abs(rough - expected).max() / largest
            assert single_error < 2e-5, f"{where} {operator} float32"
            print(where, operator, np.abs(ours - expected).max(), single_error)
        for operator, gradient in gradients.items():
            ours = gradient(positions, own, padded)[: molecule.natm]
            theirs = reference_gradient(mole, operator, weights)
            assert np.abs(theirs).max() > 1e-3
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9, err_msg=f"{where} gradient of {operator}")
            print(where, "gradient", operator, np.abs(ours - theirs).max())


def covers(basis, molecule):
    try:
        vp.load_basis(basis, molecule.numbers)
    except vp.InputError as error:
        if "does not cover" not in str(error):
            raise
        return False
    return True


def test_terms_per_nucleus():
    molecule = g2("CH3OH")
    terms = vp.nuclear_attraction(*loaded(molecule, "sto-3g"))
    mole = pyscf_mole(molecule, "sto-3g")
    for atom, z in enumerate(molecule.numbers):
        with mole.with_rinv_at_nucleus(atom):
            np.testing.assert_allclose(terms[atom], -z * mole.intor("int1e_rinv"), rtol=0, atol=TOLERANCE)


def test_overlap_of_two_bases_and_geometries():
    from pyscf.gto import intor_cross

    first, second = g2("CH3OH"), g2("H2O")
    a, b = vp.load_basis("def2-svp", first.numbers), vp.load_basis("6-31g", second.numbers, cartesian=True)
    ours = vp.cross_overlap(a, b, first.positions, second.positions)
    expected = intor_cross("int1e_ovlp", pyscf_mole(first, "def2-svp"), pyscf_mole(second, "6-31g"))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_fractional_charges_interpolate():
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "sto-3g")
    charges = jnp.array([7.5, 0.25, 1.0])
    expected = jnp.einsum("a,apq->pq", charges / molecule.numbers, vp.nuclear_attraction(basis, positions))
    # The matrix is linear in the charges: rounding only.
    np.testing.assert_allclose(vp.external_potential(basis, positions, charges), expected, rtol=0, atol=1e-12)


def test_effective_core_potentials_enter_as_charges():
    molecule = structure("I2")
    basis, positions = loaded(molecule, "def2-svp")
    np.testing.assert_array_equal(basis.nuclear_charges, [25.0, 25.0])
    expected = pyscf_mole(molecule, "def2-svp").intor("int1e_nuc")
    np.testing.assert_allclose(vp.external_potential(basis, positions), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("omega", [None, 0.4])
@pytest.mark.parametrize("exponent", [None, 1.7])
def test_charges_anywhere(exponent, omega):
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "def2-svp")
    centres = np.array([[0.2, 3.0, -1.0], molecule.positions[0], [9.0, -4.0, 0.1]])
    charges = np.array([0.8, -0.4, 2.0])
    exponents = None if exponent is None else np.full(3, exponent)
    ours = vp.charge_potential(basis, positions, centres, charges, exponents=exponents, omega=omega)
    mole, expected = pyscf_mole(molecule, "def2-svp"), 0.0
    # erf(ω r)/r is the potential of a Gaussian charge of exponent ω²; widths add up.
    width = (0 if exponent is None else 1 / exponent) + (0 if omega is None else 1 / omega**2)
    for centre, charge in zip(centres, charges, strict=True):
        with mole.with_rinv_origin(centre), mole.with_rinv_zeta(1 / width if width else 0):
            expected = expected - charge * mole.intor("int1e_rinv")
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


def test_gradient_in_places_and_charges():
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "sto-3g")
    start = {"centres": jnp.array([[0.2, 3.0, -1.0], [1.0, 0.0, 0.3]]), "charges": jnp.array([0.8, -0.4])}
    start |= {"exponents": jnp.array([0.6, 2.0]), "omega": jnp.asarray(0.7)}
    weights = symmetric_weights(basis.nao)

    def value(arguments):
        return jnp.vdot(weights, vp.charge_potential(basis, positions, **arguments))

    exact = jax.grad(value)(start)
    rng = np.random.default_rng(2)
    for name in start:
        direction = rng.standard_normal(start[name].shape)
        slope = central_difference(lambda t, n=name, d=direction: value(start | {n: start[n] + t * d}))
        assert abs(slope) > 1e-4
        np.testing.assert_allclose(jnp.vdot(exact[name], direction), slope, rtol=1e-7, err_msg=name)  # step⁴


def test_screened_potential_agrees_with_pyscf():
    from pyscf.scf.hf import make_sap

    molecule = g2("CH3CHO")
    basis, positions = loaded(molecule, "sto-3g")
    fits = {
        symbol: np.stack([basis.screening_exponents[i], basis.screening_charges[i]], axis=1)[
            basis.screening_charges[i] != 0
        ]
        for i, symbol in enumerate(molecule.symbols)
    }
    mole = pyscf_mole(molecule, "sto-3g")
    expected = make_sap(mole, fits) + mole.intor("int1e_nuc")
    np.testing.assert_allclose(vp.screened_potential(basis, positions), expected, rtol=0, atol=TOLERANCE)


def test_position_integrals_shift_with_their_origin():
    basis, positions = loaded(g2("H2O"), "def2-svp")
    origin = jnp.array([0.3, -1.2, 2.0])
    difference = vp.position_integrals(basis, positions, jnp.zeros(3)) - vp.position_integrals(basis, positions, origin)
    expected = origin[:, None, None] * vp.overlap(basis, positions)
    np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-12)  # exact identity: rounding only


@pytest.mark.parametrize(
    "operator", [pytest.param(n, marks=pytest.mark.slow) if n == "kinetic" else n for n in SYMMETRIC]
)
def test_position_gradient_agrees_with_pyscf(operator):
    molecule = g2("CH3OH")
    basis, positions = loaded(molecule, "def2-svp")
    weights = symmetric_weights(basis.nao)
    ours = jax.jit(jax.grad(lambda r: jnp.vdot(weights, OPERATORS[operator](basis, r))))(positions)
    expected = reference_gradient(pyscf_mole(molecule, "def2-svp"), operator, weights)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("operator", "basis"),
    [("overlap", SMALLER)] + [pytest.param(name, SMALL, marks=pytest.mark.slow) for name in OPERATORS],
)
def test_derivatives_agree_with_finite_differences(operator, basis):
    molecule = g2("H2O")
    function = OPERATORS[operator]
    basis, positions = loaded(molecule, basis)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(np.shape(function(basis, positions)))
    direction, other = rng.standard_normal((2, *positions.shape))

    def value(r):
        return jnp.vdot(weights, function(basis, r))

    gradient = jax.jit(jax.grad(value))
    first = jnp.vdot(gradient(positions), direction)
    assert abs(first) > 0.01
    values = jax.jit(value)
    numerical = central_difference(lambda t: values(positions + t * direction))
    np.testing.assert_allclose(numerical, first, rtol=1e-8)  # step⁴ and rounding over step
    numerical = central_difference(lambda t: jnp.vdot(gradient(positions + t * direction), other))
    forward = jax.jit(lambda r: jax.jvp(gradient, (r,), (direction,))[1])(positions)
    reverse = jax.jit(jax.grad(lambda r: jnp.vdot(gradient(r), other)))(positions)
    assert abs(numerical) > 0.01
    np.testing.assert_allclose(jnp.vdot(forward, other), numerical, rtol=1e-8)
    np.testing.assert_allclose(jnp.vdot(reverse, direction), numerical, rtol=1e-8)


@pytest.mark.parametrize("operator", FEW_THEN_ALL)
def test_gradient_in_exponents_and_coefficients(operator):
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "sto-3g")
    function = jax.jit(OPERATORS[operator])
    weights = np.random.default_rng(1).standard_normal(np.shape(function(basis, positions)))

    def value(exponents, coefficients):
        shells = dataclasses.replace(basis.shells[0], exponents=exponents, coefficients=coefficients)
        return jnp.vdot(weights, function(dataclasses.replace(basis, shells=(shells, *basis.shells[1:])), positions))

    start = [jnp.asarray(basis.shells[0].exponents), jnp.asarray(basis.shells[0].coefficients)]
    exact = jax.grad(value, argnums=(0, 1))(*start)
    rng = np.random.default_rng(3)
    for number in range(2):
        direction = 0.1 * rng.standard_normal(start[number].shape) * np.asarray(start[number])

        def along(t, number=number, direction=direction):
            return value(*(a + t * direction if k == number else a for k, a in enumerate(start)))

        slope = central_difference(along)
        assert abs(slope) > 1e-4
        np.testing.assert_allclose(jnp.vdot(exact[number], direction), slope, rtol=1e-7)  # step⁴


def test_hermite_potential_derivatives():
    from vpotjax.integrals.hermite import WRITTEN_OUT, hermite_potential

    displacement = (jnp.array(0.4), jnp.array(-0.3), jnp.array(0.9))

    def value(p, order):
        return sum((k + 1) * r for k, r in enumerate(hermite_potential(order, p, displacement)))

    for order in (3, WRITTEN_OUT + 1):
        own = functools.partial(value, order=order)
        values, first, second = (jax.jit(f) for f in (own, jax.grad(own), jax.grad(jax.grad(own))))
        slope = central_difference(lambda t, f=values: f(1.3 + t))
        np.testing.assert_allclose(slope, first(1.3), rtol=1e-8)  # step⁴ and rounding over step
        slope = central_difference(lambda t, f=first: f(1.3 + t))
        np.testing.assert_allclose(slope, second(1.3), rtol=1e-8)


@pytest.mark.parametrize("order", [2, 6])
def test_written_out_and_stacked_recurrences_agree(order):
    from vpotjax.integrals import hermite
    from vpotjax.integrals.boys import boys

    rng = np.random.default_rng(0)
    exponent, displacement = jnp.asarray(rng.uniform(0.1, 9, 50)), tuple(jnp.asarray(rng.uniform(-3, 3, (3, 50))))
    values = boys(order, exponent * sum(x**2 for x in displacement))
    for one, other in zip(
        hermite._written_out(order, exponent, displacement, values),
        hermite._stacked(order, exponent, displacement, values),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)  # the same operations: rounding


@pytest.mark.parametrize("operator", FEW_THEN_ALL)
def test_vmap_and_loop_agree(operator):
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "sto-3g")
    moved = positions + 0.1 * np.random.default_rng(0).standard_normal((3, *positions.shape))
    function = OPERATORS[operator]
    together = jax.vmap(lambda r: function(basis, r))(moved)
    alone = jnp.stack([function(basis, r) for r in moved])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)  # rounding


def test_single_precision():
    basis, positions = loaded(structure("HBr"), "6-31g")  # larger bases are in the slow table
    single, double = (jax.jit(vp.external_potential)(basis, r) for r in (positions.astype(jnp.float32), positions))
    assert single.dtype == jnp.float32
    # Float32 rounding, 6e-8, amplified by the recurrences: see README.
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-5 * np.abs(double).max())


@pytest.mark.slow
def test_single_precision_far_from_the_origin():
    basis, positions = loaded(g2("H2O"), "def2-svp")
    centres, charges = jnp.array([[250.0, -80.0, 3.0], [60.0, 0.0, 0.0]]), jnp.array([1.0, -30.0])
    shifted = positions + jnp.array([30.0, -20.0, 10.0])
    double = vp.charge_potential(basis, shifted, centres, charges)
    single = vp.charge_potential(basis, shifted.astype(jnp.float32), centres, charges)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=0, atol=2e-5 * np.abs(double).max())  # as documented


def test_no_charges_give_zero():
    basis, positions = loaded(g2("H2O"), "sto-3g")
    assert not np.any(vp.charge_potential(basis, positions, np.zeros((0, 3)), np.zeros(0)))


def test_bad_input_is_named():
    molecule = g2("H2O")
    basis, positions = loaded(molecule, "sto-3g")
    with pytest.raises(vp.InputError, match=r"positions has shape \(2, 3\), expected \(3, 3\)"):
        vp.overlap(basis, jnp.zeros((2, 3)))
    with pytest.raises(vp.InputError, match="nuclear_charges has shape"):
        vp.external_potential(basis, positions, jnp.ones(2))
    with pytest.raises(vp.InputError, match=r"charges has shape \(2, 1\)"):
        vp.charge_potential(basis, positions, jnp.zeros((2, 3)), jnp.ones((2, 1)))
    with pytest.raises(vp.InputError, match=r"omega is -0.4, expected positive numbers; for the short-range part"):
        vp.charge_potential(basis, positions, jnp.zeros((1, 3)), jnp.ones(1), omega=-0.4)
    with pytest.raises(vp.InputError, match=r"exponents is \[0.0\]"):
        vp.charge_potential(basis, positions, jnp.zeros((1, 3)), jnp.ones(1), exponents=np.zeros(1))
    with pytest.raises(vp.InputError, match="effective core potentials"):
        vp.screened_potential(*loaded(structure("I2"), "def2-svp"))
    with pytest.raises(vp.InputError, match=r"atom 1 is .*nan"):
        vp.kinetic(basis, positions.at[1, 2].set(jnp.nan))
    with pytest.raises(vp.InputError, match="atoms 0 and 2 at one place"):
        vp.nuclear_attraction(basis, positions.at[2].set(positions[0]))
