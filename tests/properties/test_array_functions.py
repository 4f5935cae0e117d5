"""Public array functions × what must hold of each of them: one table, one test for each property.

An entry says how arguments and result transform, by the names of their axes: "xyz" rotates, "ao" and "slot" rotate by
shells, "atom" and "ao" are permuted and padded, "level" is padded; others are only counted.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import central_difference
from tests.properties.array_cases import (
    LAYOUT,
    MOLECULES,
    VALUES,
    Case,
    applied,
    padded,
    permuted,
    plain,
    rotated,
    symmetrised,
)
from vpotjax import losses
from vpotjax.electronic.comparison import eigenbasis_alignment, fock_with_levels, projected_fock
from vpotjax.electronic.multipoles import quadrupole
from vpotjax.electronic.observables import OrbitalSpace, Reference, Solution
from vpotjax.electronic.polarizability import dipole_and_polarizability, polarizability_of
from vpotjax.electronic.purification import purified_density_matrix
from vpotjax.electronic.real_space import electron_density, spin_density
from vpotjax.electronic.spectrum import density_of_states
from vpotjax.operators.blocks import ao_matrix, couple, dense_blocks, pair_blocks, uncouple
from vpotjax.operators.inputs import pair_cutoff
from vpotjax.operators.pairs import from_exchange, to_exchange
from vpotjax.operators.powers import KINDS, lowdin


@dataclasses.dataclass(frozen=True)
class Entry:
    """A function and its arguments, names of VALUES and MASKS or "basis" and "pairs"; how the result transforms."""

    name: str
    function: Callable[..., Any]
    arguments: str
    axes: str = ""
    padding: float | None = 0.0
    """Value of the result on padding; None for any finite one."""

    @property
    def names(self) -> list[str]:
        return self.arguments.split()

    @property
    def floats(self) -> list[int]:
        """Places of the arguments that have derivatives."""
        return [i for i, name in enumerate(self.names) if name in VALUES]

    def of(self, case: Case) -> list[Any]:
        return [case.argument(name) for name in self.names]

    @functools.cached_property
    def derivative(self) -> Callable[..., Any]:
        """Result, and gradient of its sum with weights; infinite levels of padding have none."""

        def value(floats: list[Any], arguments: list[Any]) -> tuple[Any, Any]:
            result = self.function(*self.replaced(arguments, floats))
            weights = np.random.default_rng(0).standard_normal([20] * result.ndim)[tuple(map(slice, result.shape))]
            return jnp.sum(weights * jnp.where(jnp.isfinite(result), result, 0.0)), result

        return jax.jit(jax.value_and_grad(value, has_aux=True))

    def evaluated(self, arguments: list[Any], moved: list[Any] | None = None) -> tuple[Any, Any, list[Any]]:
        """Result, its sum with weights, and the gradient of that; with other numbers where `moved` has them."""
        floats = [jnp.asarray(arguments[i]) for i in self.floats] if moved is None else moved
        (value, result), gradient = self.derivative(floats, arguments)
        return result, value, gradient

    def replaced(self, arguments: list[Any], floats: list[Any]) -> list[Any]:
        new = dict(zip(self.floats, floats, strict=True))
        return [new.get(i, argument) for i, argument in enumerate(arguments)]


def with_space(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of a Solution and what it is compared with."""

    def of(fock, overlap, position, positions, nelec, basis, wrong, other_levels, vector, orbitals, levels):
        mask = jnp.asarray(basis.ao_mask)
        energies = jnp.where(mask, other_levels, 0.0)
        values = {"mo_energies": energies, "dipole": vector, "fock": wrong, "orbitals": orbitals, "levels": levels}
        reference = Reference(values, mask, jnp.sum(jnp.asarray(basis.numbers) > 0), nelec)
        return function(Solution(fock, OrbitalSpace(overlap, position, positions, nelec, basis)), reference)

    return of


LOSSES = {
    "Observed": 2.0 * losses.Observed("mo_energies") + losses.Observed("dipole") + losses.Observed("homo_lumo_gap"),
    "MatrixElements": losses.MatrixElements(scale=0.1),
    "Alignment": losses.Alignment(),
}
SPACE = "fock overlap position positions nelec basis wrong other_levels vector orbitals levels"


def blocks_and_back(matrix, basis, pairs):
    coupled = to_exchange(couple(pair_blocks(matrix, basis, LAYOUT, pairs), LAYOUT), LAYOUT)
    return ao_matrix(uncouple(from_exchange(coupled, LAYOUT), LAYOUT), basis, LAYOUT, pairs)


def all_blocks(matrix, basis, pairs):
    return jnp.swapaxes(dense_blocks(pair_blocks(matrix, basis, LAYOUT, pairs), basis.natm, pairs), 1, 2)


def level_projector(fock, overlap, mask):
    """Orbitals up to their signs."""
    energies, coefficients = vp.eigh(fock, overlap, mask)
    return (coefficients * jnp.tanh(energies)[None, :]) @ coefficients.T


def of_orbitals(which, fock, overlap, position, nelec, mask, positions, charges):
    """Dipole (0) or polarizability (1) at the price of one transformation of r."""
    solved = vp.orbitals(fock, overlap, nelec, mask)
    return dipole_and_polarizability(solved, position, positions, charges)[which]


M, MS = "fock overlap ao_mask", "focks overlap ao_mask"
R, RS = "fock overlap position nelec ao_mask", "focks overlap position nelecs ao_mask"
F, FS = "fock overlap nelec ao_mask", "focks overlap nelecs ao_mask"
PS, PSS = "density overlap basis", "densities overlap basis"
VS, MOMENTS = "potential overlap ao_mask", "positions nuclear_charges"
ELECTRONIC = [
    Entry("eigh, levels", lambda f, s, m: vp.eigh(f, s, m)[0], M, "level", np.inf),
    Entry("eigh, threshold", lambda f, s, m: vp.eigh(f, s, m, threshold=1e-7)[0], M, "level", np.inf),
    Entry("eigh, two spins", lambda f, s, m: vp.eigh(f, s, m)[0], MS, "spin level", np.inf),
    Entry("eigh, orbitals", level_projector, M, "ao ao"),
    Entry("density_matrix", vp.density_matrix, F, "ao ao"),
    Entry("density_matrix, two spins", vp.density_matrix, FS, "spin ao ao"),
    Entry("density_matrix, smearing", functools.partial(vp.density_matrix, smearing=0.2), F, "ao ao"),
    Entry("density_matrix, threshold", functools.partial(vp.density_matrix, threshold=1e-7), F, "ao ao"),
    Entry("purified_density_matrix", purified_density_matrix, F, "ao ao"),
    Entry("orbitals", lambda *x: vp.orbitals(*x, max_occupied=3).density, F, "ao ao"),
    Entry("homo_lumo_gap", vp.homo_lumo_gap, "levels nelec"),
    Entry("homo_lumo_gap, two spins", vp.homo_lumo_gap, "spin_levels nelecs"),
    Entry("density_of_states", lambda e, x: density_of_states(e, x, 0.5), "levels energies", "point"),
    Entry("dipole", vp.dipole, f"density position {MOMENTS}", "xyz"),
    Entry("dipole, two spins", vp.dipole, f"densities position {MOMENTS}", "xyz"),
    Entry("quadrupole", quadrupole, f"density moments {MOMENTS}", "xyz xyz"),
    Entry("polarizability", vp.polarizability, R, "xyz xyz"),
    Entry("polarizability, two spins", vp.polarizability, RS, "xyz xyz"),
    Entry(
        "polarizability_of, iω",
        lambda f, s, r, n, m: polarizability_of(vp.orbitals(f, s, n, m), r, 0.3, imaginary=True),
        R,
        "xyz xyz",
    ),
    Entry("dipole of orbitals", functools.partial(of_orbitals, 0), f"{R} {MOMENTS}", "xyz"),
    Entry("polarizability of orbitals", functools.partial(of_orbitals, 1), f"{RS} {MOMENTS}", "xyz xyz"),
    Entry("mulliken_charges", vp.mulliken_charges, PS, "atom"),
    Entry("lowdin_charges", vp.lowdin_charges, PS, "atom"),
    Entry("mayer_bond_orders", vp.mayer_bond_orders, PS, "atom atom"),
    Entry("mayer_bond_orders, two spins", vp.mayer_bond_orders, PSS, "atom atom"),
    Entry("electron_density", electron_density, "density ao_values", "point"),
    Entry("spin_density", spin_density, "densities ao_values", "point"),
    Entry("fock_with_levels", fock_with_levels, "fock overlap levels ao_mask", "ao ao"),
    Entry("eigenbasis_alignment", eigenbasis_alignment, "fock wrong overlap ao_mask", "ao ao"),
    Entry("projected_fock", projected_fock, "fock overlap density ao_mask", "ao ao"),
]
OPERATORS = [
    *(
        Entry(f"potential_powers, {k}", lambda v, s, m, k=k: vp.potential_powers(v, s, 3, k, m), VS, "power ao ao")
        for k in KINDS
    ),
    Entry("lowdin", lowdin, "position overlap ao_mask", "xyz ao ao"),
    Entry("pair_cutoff", lambda r: pair_cutoff(r, 5.0), "positions", "atom atom", None),
    Entry("pair_blocks", all_blocks, "fock basis pairs", "atom atom slot slot"),
    Entry("couple and uncouple", blocks_and_back, "fock basis pairs", "ao ao"),
]
MATRIX_LOSSES = [
    Entry("gauge_shift", losses.gauge_shift, "fock wrong overlap ao_mask"),
    Entry("matrix_loss", losses.matrix_loss, "fock wrong ao_mask"),
    Entry("matrix_loss, two spins", losses.matrix_loss, "focks wrongs ao_mask"),
    Entry("matrix_loss, gauge", lambda *x: losses.matrix_loss(*x[:3], overlap=x[3]), "fock wrong ao_mask overlap"),
    Entry("orbital_energy_loss", losses.orbital_energy_loss, "levels other_levels level_mask"),
    Entry(
        "orbital_energy_loss, frontier",
        lambda e, r, n, m: losses.orbital_energy_loss(e, r, losses.frontier_levels(n, m)),
        "levels other_levels nelec level_mask",
    ),
    Entry("alignment loss", losses.wavefunction_alignment_loss, "fock orbitals levels level_mask"),
    Entry("density_loss", losses.density_loss, "wrong density overlap"),
    Entry("density_loss, two spins", losses.density_loss, "focks densities overlap"),
    Entry("dipole_loss", losses.dipole_loss, "vector origin"),
    Entry("polarizability_loss", lambda a, b: losses.polarizability_loss(a, b[:, None] * b[None, :]), "tensor origin"),
    Entry("charge_loss", losses.charge_loss, "charges other_charges numbers"),
    Entry("bond_order_loss", losses.bond_order_loss, "bonds other_bonds numbers"),
    *(Entry(name, with_space(loss), SPACE) for name, loss in LOSSES.items()),
]

TABLE = [*ELECTRONIC, *OPERATORS, *MATRIX_LOSSES]
each = pytest.mark.parametrize("entry", TABLE, ids=[entry.name for entry in TABLE])


@pytest.fixture(autouse=True)
def _strict_promotion():
    """No number changes its type unasked, and no array its rank.

    Not in the whole suite: Adam of optax divides by powers of a counter, and integrals broadcast over pairs on purpose.
    """
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def assert_close(actual: Any, expected: Any, digits: float = 1e-11) -> None:
    """To rounding of the largest element."""
    expected = np.asarray(expected)
    size = np.abs(expected, where=np.isfinite(expected), out=np.zeros(expected.shape)).max(initial=1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=digits * size)


@each
def test_jit_and_eager_agree(entry):
    """Of arrays of NumPy, whose values are checked, and of traced ones."""
    arguments = entry.of(plain(0))
    eager = entry.function(*arguments)
    assert np.all(np.isfinite(eager))
    assert np.any(eager)
    assert_close(entry.evaluated(arguments)[0], eager)


@each
def test_vmap_and_loop_agree(entry):
    cases = [entry.of(padded(i)) for i in range(len(MOLECULES))]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *cases)
    together = jax.jit(jax.vmap(entry.function))(*stacked)
    for result, arguments in zip(together, cases, strict=True):
        assert_close(result, entry.evaluated(arguments)[0])


@each
def test_padding_changes_nothing(entry):
    """Neither result nor gradient."""
    (expected, _, gradient), (result, _, padded_gradient) = (entry.evaluated(entry.of(c(0))) for c in (plain, padded))
    assert len(entry.axes.split()) == result.ndim
    real = tuple(map(slice, expected.shape))
    assert_close(result[real], expected)
    outside = np.ones(result.shape, bool)
    outside[real] = False
    values = np.asarray(result)[outside]
    assert np.all(np.isfinite(values) if entry.padding is None else values == entry.padding)
    for one, other in zip(gradient, padded_gradient, strict=True):
        assert np.all(np.isfinite(other))
        if entry.padding is not None:
            assert_close(other[tuple(map(slice, one.shape))], one, 1e-10)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_precision_of_the_arguments_is_kept(entry, dtype):
    arguments = entry.of(plain(0))
    floats = [jnp.asarray(arguments[i], dtype) for i in entry.floats]
    assert jax.eval_shape(entry.function, *entry.replaced(arguments, floats)).dtype == dtype


@each
def test_gradient_agrees_with_finite_differences(entry):
    """In all arguments at once, along a random direction; those of symmetric matrices are symmetric."""
    arguments, rng = entry.of(plain(0)), np.random.default_rng(1)
    starts = [jnp.asarray(arguments[i]) for i in entry.floats]
    steps = [
        0.03 * symmetrised(rng.standard_normal(x.shape), VALUES[entry.names[i]])
        for i, x in zip(entry.floats, starts, strict=True)
    ]

    def along(t):
        return entry.evaluated(arguments, [x + t * step for x, step in zip(starts, steps, strict=True)])[1]

    gradient = entry.evaluated(arguments)[2]
    exact = sum(np.vdot(g, step) for g, step in zip(gradient, steps, strict=True))
    assert abs(exact) > 1e-5
    # Truncation of order step⁴, and rounding of the sum over the step.
    np.testing.assert_allclose(central_difference(along), exact, rtol=1e-7, atol=1e-11 * max(1.0, abs(along(0.0))))


@each
@pytest.mark.parametrize("transformed", [rotated, permuted])
def test_symmetry(entry, transformed):
    """Rotation with inversion, and another order of the atoms."""
    case, changes = transformed()
    expected = applied(entry.evaluated(entry.of(plain(0)))[0], entry.axes, changes)
    assert_close(entry.evaluated(entry.of(case))[0], expected, 1e-10)
