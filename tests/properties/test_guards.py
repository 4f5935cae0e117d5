"""What raises where values are known gives NaN where they are traced: one table of guards, each in both modes.

Each row: what is checked, a function of one array (or number), a good value, bad ones, and the message for known ones.
The functions are compiled for both at once by vmap: the good one is not touched by the bad one beside it.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.electronic.comparison import projected_fock
from vpotjax.electronic.purification import purified_density_matrix
from vpotjax.electronic.spectrum import density_of_states
from vpotjax.operators.blocks import pair_blocks, shell_layout

RNG = np.random.default_rng(0)


def symmetric(*shape):
    matrix = RNG.standard_normal(shape)
    return matrix + np.swapaxes(matrix, -1, -2)


FOCK = np.diag([-2.0, -1.0, 1.0, 2.0]) + 0.05 * symmetric(4, 4)
OVERLAP = np.eye(4) + 0.02 * symmetric(4, 4)
POSITION = symmetric(3, 4, 4)
SKEW = np.zeros((4, 4))
SKEW[0, 1] = 0.1
NEGATIVE = np.diag([1.0, 1.0, 1.0, -0.5])


def singular():
    """Overlaps of rank 3 up to rounding, in which the last pivot of a factorisation is noise of either sign."""
    rows = RNG.standard_normal((4, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    overlap = rows @ rows.T
    np.fill_diagonal(overlap, 1.0)
    return overlap


SINGULAR = [singular() for _ in range(20)]

HYDROGEN = vp.Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.4]]))
SMALL = {"H": [[0, [0.8, 1.0]], [1, [0.7, 1.0]]]}
BASIS = vp.load_basis(SMALL, HYDROGEN.numbers)
SQUARE = np.eye(8) + 0.02 * symmetric(8, 8)
SQUARE_SKEW = SQUARE + 0.1 * np.eye(8, k=1)
LISTS = vp.significant_pairs(BASIS, HYDROGEN.positions)
TOGETHER = np.zeros((2, 3))
LOST = np.array([[0, 0, 0], [0, 0, np.inf]])
CENTRE = np.array([[0.0, 0.0, 3.0]])


def with_charges(charges):
    """BASIS with an effective core, as seen by the screened potential."""
    return dataclasses.replace(BASIS, nuclear_charges=charges)


def smeared(value):
    return vp.density_matrix(FOCK, OVERLAP, 4, smearing=value)


def unrestricted(value):
    return vp.density_matrix(jnp.stack([FOCK, FOCK]), OVERLAP, value)


GUARDS = {
    "eigh, F": (lambda f: vp.eigh(f, OVERLAP), FOCK, [FOCK + SKEW, FOCK * np.nan], "fock is not symmetric"),
    "eigh, S": (lambda s: vp.eigh(FOCK, s), OVERLAP, [OVERLAP + SKEW], "overlap is not symmetric"),
    "eigh, positive S": (lambda s: vp.eigh(FOCK, s), OVERLAP, [NEGATIVE], "not positive definite"),
    "eigh, threshold": (
        lambda s: vp.eigh(FOCK, s, threshold=1e-7)[0],
        OVERLAP,
        [NEGATIVE, OVERLAP + SKEW],
        "not positive definite|not symmetric",
    ),
    "singular S": (
        lambda s: vp.density_matrix(FOCK, s, 4),
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "singular S, α": (
        lambda s: vp.polarizability(FOCK, s, POSITION, 4),
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "singular S, projection": (
        lambda s: projected_fock(FOCK, s, OVERLAP[:, :2]),
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "singular S, smearing": (
        lambda s: vp.density_matrix(FOCK, s, 4, smearing=0.01),
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "singular S, powers": (
        lambda s: vp.potential_powers(FOCK, s, 2, "metric")[1],
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "singular S, Löwdin powers": (
        lambda s: vp.potential_powers(FOCK, s, 2, "lowdin"),
        OVERLAP,
        SINGULAR,
        "not positive definite",
    ),
    "density, F": (lambda f: vp.density_matrix(f, OVERLAP, 4), FOCK, [FOCK + SKEW], "fock is not symmetric"),
    "density, S": (
        lambda s: vp.density_matrix(FOCK, s, 4),
        OVERLAP,
        [OVERLAP + SKEW, NEGATIVE],
        "overlap is not (symmetric|positive)",
    ),
    "density, electrons": (
        lambda n: vp.density_matrix(FOCK, OVERLAP, n),
        4.0,
        [3.0, -2.0, 10.0, 4.5],
        "nelec is .*(open shell|hold 0 to 8|whole)",
    ),
    "density, α and β": (unrestricted, np.array([2.0, 1.0]), [np.array([2.5, 1.0]), np.array([2.0, -1.0])], "nelec is"),
    "density, smearing": (smeared, 0.01, [0.0, -0.01], "smearing is"),
    "density, electrons, smearing": (
        lambda n: vp.density_matrix(FOCK, OVERLAP, n, smearing=0.01),
        4.0,
        [3.0, -2.0, 10.0],
        "nelec is",
    ),
    "purification": (
        lambda f: purified_density_matrix(f, OVERLAP, 4),
        FOCK,
        [FOCK + SKEW],
        "fock is not symmetric",
    ),
    "purification, S": (
        lambda s: purified_density_matrix(FOCK, s, 4),
        OVERLAP,
        [OVERLAP + SKEW, NEGATIVE],
        "overlap is not",
    ),
    "purification, electrons": (
        lambda n: purified_density_matrix(FOCK, OVERLAP, n),
        4.0,
        [3.0, -2.0, 10.0],
        "nelec is",
    ),
    "polarizability": (
        lambda f: vp.polarizability(f, OVERLAP, POSITION, 4),
        FOCK,
        [FOCK + SKEW],
        "fock is not symmetric",
    ),
    "polarizability, electrons": (
        lambda n: vp.polarizability(FOCK, OVERLAP, POSITION, n),
        4.0,
        [5.0, 10.0, -2.0],
        "nelec is",
    ),
    "polarizability, r": (
        lambda r: vp.polarizability(FOCK, OVERLAP, r, 4),
        POSITION,
        [POSITION + SKEW],
        "position_integrals is not symmetric",
    ),
    "dipole, r": (
        lambda r: vp.dipole(FOCK, r, np.zeros((1, 3)), np.ones(1)),
        POSITION,
        [POSITION + SKEW],
        "position_integrals is not symmetric",
    ),
    "dipole, P": (
        lambda p: vp.dipole(p, POSITION, np.zeros((1, 3)), np.ones(1)),
        FOCK,
        [FOCK + SKEW],
        "density is not symmetric",
    ),
    "Mulliken, S": (lambda s: vp.mulliken_charges(SQUARE, s, BASIS), SQUARE, [SQUARE_SKEW], "overlap is not symmetric"),
    "Löwdin, S": (
        lambda s: vp.lowdin_charges(SQUARE, s, BASIS),
        SQUARE,
        [SQUARE_SKEW, SQUARE - 2 * np.eye(8)],
        "overlap is not (symmetric|positive)",
    ),
    "Mayer, P": (lambda p: vp.mayer_bond_orders(p, SQUARE, BASIS), SQUARE, [SQUARE_SKEW], "density is not symmetric"),
    "projected F": (lambda f: projected_fock(f, OVERLAP, OVERLAP[:, :2]), FOCK, [FOCK + SKEW], "fock is not symmetric"),
    "gap, electrons": (
        lambda n: vp.homo_lumo_gap(jnp.array([-1.0, -0.5, 0.2]), n),
        2.0,
        [3.0, -2.0],
        "nelec is",
    ),
    "density of states": (
        lambda width: density_of_states(jnp.array([-1.0, 0.2]), jnp.array([0.0, 1.0]), width),
        0.1,
        [0.0, -0.1],
        "width is",
    ),
    "overlap, places": (lambda r: vp.overlap(BASIS, r), HYDROGEN.positions, [TOGETHER, LOST], "at one place|finite"),
    "cross overlap, places": (
        lambda r: vp.cross_overlap(BASIS, BASIS, HYDROGEN.positions, r),
        HYDROGEN.positions,
        [TOGETHER, LOST],
        "at one place|finite",
    ),
    "potential, places": (
        lambda r: vp.external_potential(BASIS, r),
        HYDROGEN.positions,
        [TOGETHER, LOST],
        "at one place|finite",
    ),
    "pair lists, places": (
        lambda r: vp.overlap(BASIS, r, pairs=LISTS),
        HYDROGEN.positions,
        [HYDROGEN.positions + 0.2],
        "pairs were made for positions that differ by up to 0.2 bohr",
    ),
    "gap, order": (
        lambda e: vp.homo_lumo_gap(e, 2),
        np.array([-1.0, 0.2, 0.3]),
        [np.array([0.3, 0.2, -1.0])],
        "not in ascending order",
    ),
    "occupied bound": (
        lambda n: vp.orbitals(FOCK, OVERLAP, n, max_occupied=2).density,
        4.0,
        [6.0],
        "max_occupied is 2, but 3",
    ),
    "AO values, places": (
        lambda r: vp.ao_values(BASIS, r, CENTRE),
        HYDROGEN.positions,
        [TOGETHER, LOST],
        "at one place|finite",
    ),
    "Gaussian charges": (
        lambda a: vp.charge_potential(BASIS, HYDROGEN.positions, CENTRE, jnp.ones(1), exponents=a),
        np.ones(1),
        [np.zeros(1), -np.ones(1)],
        "exponents is",
    ),
    "range separation": (
        lambda w: vp.charge_potential(BASIS, HYDROGEN.positions, CENTRE, jnp.ones(1), omega=w),
        0.4,
        [0.0, -0.4],
        "omega is",
    ),
    "screened potential, effective core": (
        lambda z: vp.screened_potential(with_charges(z), HYDROGEN.positions),
        np.array([1.0, 1.0]),
        [np.array([1.0, 0.5])],
        "all electrons of the free atoms would screen",
    ),
    "powers of V": (
        lambda v: vp.potential_powers(v, OVERLAP, 2, "metric"),
        FOCK,
        [FOCK + SKEW],
        "potential is not symmetric",
    ),
    "powers of V, S": (
        lambda s: vp.potential_powers(FOCK, s, 2, "metric")[1],  # the first power is V, whatever S
        OVERLAP,
        [OVERLAP + SKEW, NEGATIVE],
        "overlap is not",
    ),
    "Löwdin powers of V, S": (
        lambda s: vp.potential_powers(FOCK, s, 2, "lowdin"),
        OVERLAP,
        [OVERLAP + SKEW, NEGATIVE],
        "overlap is not",
    ),
    "blocks, shells": (
        lambda shell: pair_blocks(jnp.ones((8, 8)), dataclasses.replace(BASIS, ao_shell=shell), LAYOUT, PAIRS),
        BASIS.ao_shell,
        [BASIS.ao_shell + 1],
        "more shells than layout",
    ),
}
LAYOUT, PAIRS = shell_layout(SMALL, [1]), vp.pad_batch([HYDROGEN], "sto-3g")[0].pairs


@pytest.mark.parametrize("name", GUARDS)
def test_known_values_raise_and_traced_ones_give_nan(name):
    function, good, bad, message = GUARDS[name]
    for value in bad:
        with pytest.raises(vp.InputError, match=message):
            function(value)
    results = jax.tree.leaves(jax.jit(jax.vmap(function))(jnp.stack([jnp.asarray(v) for v in (good, *bad)])))
    expected = jax.tree.leaves(function(good))
    for result, reference in zip(results, expected, strict=True):
        assert np.all(np.isfinite(reference))
        np.testing.assert_allclose(result[0], reference, rtol=1e-11, atol=1e-12)  # rounding
        assert np.all(np.isnan(result[1:])), name


def test_nearly_singular_overlaps_are_named():
    """Two nearly equal functions: the lowest eigenvalue of S is 1e-13, and tr PS loses digits."""
    overlap = np.eye(4)
    overlap[0, 1] = overlap[1, 0] = 1 - 1e-13
    with pytest.warns(vp.PrecisionWarning, match="lowest eigenvalue of overlap is 1.0e-13.*give a threshold"):
        vp.density_matrix(FOCK, overlap, 4)
    with pytest.warns(vp.PrecisionWarning):
        vp.potential_powers(FOCK, overlap, 2, "metric")
    vp.density_matrix(FOCK, overlap, 4, threshold=1e-7)  # no warning, which would be an error here


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "bool", "object"])
def test_types_that_lapack_does_not_know_are_named(dtype):
    with pytest.raises(vp.InputError, match=f"fock has dtype {dtype}; give float32"):
        vp.eigh(FOCK.astype(jnp.bfloat16 if dtype == "bfloat16" else dtype), OVERLAP)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vp.eigh(FOCK, OVERLAP, threshold=0.0), "threshold is 0.0; give a small positive number"),
        (lambda: vp.eigh(FOCK, OVERLAP, threshold=np.nan), "threshold is nan"),
        (lambda: vp.eigh(FOCK, OVERLAP, threshold=10.0), "threshold is 10.0, above all eigenvalues"),
        (lambda: vp.polarizability(FOCK, OVERLAP, POSITION, 4, frequency=0.1j), "frequency is 0.1j; give one real"),
        (lambda: vp.potential_powers(5 * np.eye(2), np.eye(2), 1, "rational"), "eigenvalue of 4 hartree or more"),
        (lambda: vp.homo_lumo_gap(np.zeros((3, 5)), np.array([2, 2, 2])), "molecules of a batch by vmap"),
        (lambda: vp.homo_lumo_gap(np.zeros((2, 5)), np.array([2, 2, 2])), "nelec has shape"),
        (lambda: vp.homo_lumo_gap(np.zeros(5), 2, np.ones(4, bool)), "level_mask has shape"),
        (lambda: vp.mulliken_charges(SQUARE, SQUARE[0], BASIS), "overlap has shape"),
        (lambda: vp.lowdin_charges(FOCK, OVERLAP, BASIS), "density has shape"),
        (lambda: vp.polarizability(FOCK, OVERLAP, POSITION, 4, frequency=np.nan), "frequency is nan"),
        (lambda: vp.polarizability(FOCK, OVERLAP, POSITION, 4, frequency=np.ones(2)), "several by vmap"),
        (lambda: vp.polarizability(FOCK, OVERLAP, POSITION, 4, max_occupied=1), "max_occupied is 1, but 2"),
        (lambda: vp.overlap(BASIS, jnp.zeros((2, 3), jnp.bfloat16)), "positions has dtype bfloat16"),
        (lambda: vp.overlap(BASIS, 1j * HYDROGEN.positions), "positions has dtype complex128"),
        (lambda: vp.Molecule(HYDROGEN.numbers, 1j * HYDROGEN.positions), "positions has dtype complex128"),
        (lambda: vp.Molecule(HYDROGEN.numbers, 1e8 * HYDROGEN.positions), "integrals lose their digits"),
        (lambda: vp.Molecule(HYDROGEN.numbers, [["a", 0, 0]] * 2), "positions has dtype"),
        (lambda: vp.pad_batch(HYDROGEN, "sto-3g"), "put one into a list"),
        (lambda: vp.pad_batch(["water.xyz"], "sto-3g"), "put one into a list"),
        (lambda: vp.significant_pairs(BASIS, HYDROGEN.positions, capacity=1), "capacity is 1; give the .capacity"),
        (lambda: vp.load_basis({"O1": "def2-svp", "O": "sto-3g"}, [8]), "key 'O1', which is no chemical symbol"),
        (lambda: BASIS.nelec(0.5), "charge is 0.5; give whole numbers"),
    ],
)
def test_arguments_without_a_meaning_are_named(call, message):
    with pytest.raises(vp.InputError, match=message):
        call()


def test_masks_of_integers_are_masks():
    padded = np.pad(FOCK, (0, 2)), np.pad(OVERLAP, (0, 2))
    mask = np.array([1, 1, 1, 1, 0, 0])
    for function in (vp.eigh, jax.jit(vp.eigh)):
        np.testing.assert_allclose(function(*padded, mask)[0][:4], vp.eigh(FOCK, OVERLAP)[0], rtol=0, atol=1e-13)


def test_positions_of_integers_are_lengths():
    """Fractional charges are not cut to integers beside them."""
    arguments = FOCK, POSITION, np.array([[0, 0, 0], [0, 1, -1]])
    plain = vp.dipole(arguments[0], arguments[1], arguments[2].astype(float), np.array([7.5, 0.5]))
    np.testing.assert_array_equal(vp.dipole(*arguments, np.array([7.5, 0.5])), plain)
    assert vp.Molecule(np.array([1, 1]), jnp.array([[0, 0, 0], [0, 0, 1]])).positions.dtype == float


def test_lists_and_integers_are_numbers():
    diagonal = [[-2, 0], [0, 1]]
    energies, _ = vp.eigh(diagonal, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(energies, [-2, 1])
    np.testing.assert_array_equal(vp.density_matrix(diagonal, np.eye(2), 2), [[2, 0], [0, 0]])
    with pytest.raises(vp.InputError, match="fock is no array"):
        vp.eigh([[1, 0], [0]], np.eye(2))
    with pytest.raises(vp.InputError, match="nelec is <bound method"):
        vp.density_matrix(FOCK, OVERLAP, g2("H2").nelec)
