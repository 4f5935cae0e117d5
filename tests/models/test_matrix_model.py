"""The whole chain: symmetry of observables, padding, derivatives, far molecules, what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.models.random_models import (
    NETWORKS,
    POWER,
    REPRESENTATION,
    SETTINGS,
    SPECIES,
    distorted,
    evaluate,
    example,
    geometry_of,
    matrix_of,
    random_model,
    together,
    training,
)
from tests.molecules import central_difference, g2, random_rotation
from vpotjax.conventions import block_diagonal
from vpotjax.models import MatrixSettings
from vpotjax.models.linear_map import weight_masks
from vpotjax.operators.representation import Representation

GATED = dataclasses.replace(SETTINGS, network=NETWORKS["gated"])
TOLERANCE = 1e-10  # rounding of float64, amplified by the whitening of nearly parallel features


@jax.jit
def observables_of(model, geometry):
    """F and what follows from it."""
    prepared = model.prepared(geometry)
    solution = model.settings.solution(model.matrix(prepared), prepared.space)
    names = ("mo_energies", "homo_lumo_gap", "dipole", "polarizability")
    return solution.matrix, {name: solution.observable(name) for name in names}


def observe(molecule):
    """Of one molecule, levels without those of padding."""
    matrix, values = observables_of(random_model(GATED), geometry_of(GATED, molecule))
    values["mo_energies"] = values["mo_energies"][: vp.load_basis("sto-3g", molecule.numbers).nao]
    return np.asarray(matrix), {name: np.asarray(x) for name, x in values.items()}


def test_observables_rotate_with_the_molecule():
    """Rotation with inversion, translation and permutation at once, of a neutral molecule."""
    molecule, rotation = distorted("HCOOH", 7), random_rotation()
    order = np.random.default_rng(1).permutation(molecule.natm)
    moved = (molecule.positions @ rotation.T + np.array([1.0, -2.0, 0.5]))[order]
    (matrix, before), (other, after) = observe(molecule), observe(vp.Molecule(molecule.numbers[order], moved))
    assert np.abs(other - matrix).max() > 1e-2
    assert np.abs(after["dipole"] - before["dipole"]).max() > 1e-3
    expected = before | {
        "dipole": rotation @ before["dipole"],
        "polarizability": rotation @ before["polarizability"] @ rotation.T,
    }
    for name, value in expected.items():
        assert np.all(np.isfinite(value))
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=TOLERANCE, err_msg=name)  # 1/gap of errors of F


def test_frames_and_operators_are_made_where_they_are_needed():
    """Checked on shapes alone; `geometry_of` of the other tests makes both."""
    one = example(SETTINGS, g2("H2O"))
    for frame, network in (("ao", "gated"), ("lowdin", "matrix-power")):
        settings = dataclasses.replace(SETTINGS, frame=frame, network=NETWORKS[network])
        geometry = jax.eval_shape(settings.geometry, one)
        assert (geometry.frame is None) == (frame == "ao")
        assert (geometry.features.operators is None) == (network == "gated")


def test_weights_are_where_symmetry_allows_them():
    """One kind of pair and one irrep by hand: two elements, then on site."""
    masks = weight_masks(2, 2, 3, (1, 2))
    assert masks.astype(int).tolist() == [
        *[[[1, 0, 0], [1, 0, 0], [0, 0, 0]]] * 2,
        [[1, 0, 0], [1, 0, 0], [0, 1, 1]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
        [[1, 0, 0], [1, 0, 0], [0, 1, 1]],
    ]


LOSS_WEIGHTS = np.random.default_rng(3).standard_normal((3, 3))


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=(1, 2))
def loss(settings, positions, weights, one):
    """A scalar of all observables, and its gradients in positions and in the weights of linear map and network."""
    linear, params = weights
    model = dataclasses.replace(random_model(settings), linear=linear, params=params)
    solution = model(dataclasses.replace(one, positions=positions))
    energies = jnp.where(one.bases["orbital"].ao_mask, solution.mo_energies, 0.0)
    others = [jnp.vdot(LOSS_WEIGHTS[0], solution.observable("dipole"))]
    others.append(jnp.vdot(LOSS_WEIGHTS, solution.observable("polarizability")))
    return jnp.sum(energies**3) + sum(others)


def gradient_of(settings, one):
    model = random_model(settings)
    return loss(settings, one.positions, (model.linear, model.params), one)


def agrees_with_finite_differences(settings, molecule, step):
    """In all positions and all weights, along two random directions."""
    one, model, rng = example(settings, molecule), random_model(settings), np.random.default_rng(4)
    weights = (model.linear, model.params)
    changes = jax.tree.map(lambda x: 0.1 * rng.standard_normal(np.shape(x)) * np.abs(x), weights)
    shift = rng.standard_normal(one.positions.shape)

    def along(t, u):
        changed = jax.tree.map(lambda x, c: x + u * c, weights, changes)
        return loss(settings, one.positions + t * shift, changed, one)[0]

    _, (in_positions, in_weights) = gradient_of(settings, one)
    pairs = zip(jax.tree.leaves(in_weights), jax.tree.leaves(changes), strict=True)
    exact = np.vdot(in_positions, shift), sum(np.vdot(g, c) for g, c in pairs)
    assert min(abs(float(e)) for e in exact) > 1e-3
    # 1e-6 is what AD against finite differences must reach; the quotient itself is good to about 1e-8.
    np.testing.assert_allclose(central_difference(lambda t: along(t, 0.0), step), exact[0], rtol=1e-6)
    np.testing.assert_allclose(central_difference(lambda t: along(0.0, t), 10 * step), exact[1], rtol=1e-6)


def test_chain_agrees_with_finite_differences():
    """Through integrals, powers, whitening, network and eigenproblem, at degenerate levels and between equal atoms."""
    agrees_with_finite_differences(GATED, g2("CH4"), 1e-4)


def test_chain_is_what_its_parts_are():
    """The geometry is computed once in training; the result is that of the chain in one piece."""
    molecule = g2("CH4")
    _, values = observe(molecule)
    others = np.vdot(LOSS_WEIGHTS[0], values["dipole"]) + np.vdot(LOSS_WEIGHTS, values["polarizability"])
    expected = np.sum(values["mo_energies"] ** 3) + others
    np.testing.assert_allclose(gradient_of(GATED, example(GATED, molecule))[0], expected, rtol=1e-10)  # fused apart


@pytest.mark.slow
def test_chain_of_products_agrees_with_finite_differences():
    """Through hidden operators, the cutoff and the normalisation, with a pair of atoms at the cutoff's edge."""
    representation = Representation(SPECIES, "sto-3g", ("external",), 2, ("rational",), 2.89)
    network = dataclasses.replace(POWER, layers=1, coupling=True)
    settings = dataclasses.replace(SETTINGS, representation=representation, network=network)
    water = g2("H2O")
    assert 2.88 < np.linalg.norm(water.positions[1] - water.positions[2]) < 2.89
    # A small step, for the cutoff's edge and the soft norms of small blocks vary fast; rounding over step is 1e-8.
    agrees_with_finite_differences(settings, water, 1e-5)


@pytest.mark.parametrize("name", ["H2", pytest.param("H2O", marks=pytest.mark.slow)])
def test_padded_equals_unpadded_in_values_and_gradients(name):
    molecule = distorted(name)
    results = [gradient_of(GATED, example(GATED, molecule, padded)) for padded in (False, True)]
    (value, (in_positions, in_weights)), (padded, (padded_positions, padded_weights)) = results
    assert np.abs(in_positions).max() > 1e-2
    np.testing.assert_allclose(padded, value, rtol=1e-11)  # another order of summation
    # the same, through S⁻¹
    np.testing.assert_allclose(padded_positions[: molecule.natm], in_positions, rtol=1e-7, atol=1e-8)
    assert not np.any(padded_positions[molecule.natm :])
    for a, b in zip(jax.tree.leaves(in_weights), jax.tree.leaves(padded_weights), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-7 * max(1.0, np.abs(a).max()))


def levels(matrix, molecule):
    """By NumPy, of F without padding."""
    basis = vp.load_basis("sto-3g", molecule.numbers)
    inverse = np.linalg.inv(np.linalg.cholesky(vp.overlap(basis, molecule.positions)))
    return np.linalg.eigvalsh(inverse @ matrix @ inverse.T)


CUT = dataclasses.replace(
    SETTINGS,
    network=POWER,
    representation=dataclasses.replace(REPRESENTATION, inputs=("overlap", "external"), cutoff=7.0),
)


@pytest.mark.parametrize("settings", [GATED, CUT], ids=["screened", "bare nuclei, cut off"])
def test_far_molecules_are_independent(settings):
    """Screened nuclei are neutral, so that nothing reaches from one to the other; bare ones need the cutoff."""
    parts = water, methane = g2("H2O"), g2("CH4")
    model, far = random_model(settings), together(water, methane, 100.0)
    alone = [evaluate(model, m) for m in parts]
    whole = evaluate(model, far)
    tolerance = TOLERANCE * np.abs(whole).max()
    np.testing.assert_allclose(whole, block_diagonal(alone), rtol=0, atol=tolerance)
    separate = np.sort(np.concatenate([levels(f, m) for f, m in zip(alone, parts, strict=True)]))
    np.testing.assert_allclose(levels(whole, far), separate, rtol=0, atol=10 * tolerance)  # times ‖S⁻¹‖
    near = evaluate(model, together(water, methane, 6.0))
    assert np.abs(near - whole).max() > 1e-3


def test_the_list_of_pairs_shrinks_with_the_cutoff():
    """Pairs beyond it have no part in F, though products reach from one of their atoms to the other."""
    uncut = dataclasses.replace(CUT, representation=dataclasses.replace(CUT.representation, cutoff=None))
    assert example(CUT, together(g2("H2O"), g2("CH4"), 100.0)).pairs.mask.sum() == 6 + 15
    close = together(g2("H2O"), g2("CH4"), 5.0)
    distances = np.linalg.norm(close.positions[:, None] - close.positions[None], axis=-1)[np.triu_indices(8, 1)]
    short, whole = example(CUT, close), example(uncut, close)
    assert whole.pairs.mask.sum() == 36
    assert short.pairs.mask.sum() == 8 + np.sum(distances <= 7.0) < 36
    ours, expected = (matrix_of(random_model(CUT), geometry_of(CUT, one)) for one in (short, whole))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)  # order of summation


@pytest.mark.parametrize(
    ("molecule", "message"),
    [
        (g2("HCl"), r"contains the elements \[17\], the model knows \[1, 6, 8\]"),
        (vp.Molecule(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 2.3]]), spin=2), "O2 has spin 2; .* closed shells"),
        (
            vp.Molecule(np.array([8]), np.zeros((1, 3)), charge=-4),
            "O with charge -4 has 12 electrons, .* 0 to 10",
        ),
    ],
)
def test_molecules_that_do_not_fit_are_named(molecule, message):
    with pytest.raises(vp.InputError, match=message):
        SETTINGS.batch([molecule])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "energy"}, "target is 'energy'; give one of fock, density"),
        ({"frame": "mo"}, "frame is 'mo'"),
        ({"baseline": "none"}, "baseline is 'none'; give one of sap, core, zero"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"orbital_basis": "def2-svp"}, r"'6-31g' has no blocks of the irreps .* of the target"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(vp.InputError, match=message):
        dataclasses.replace(SETTINGS, **changes)


def test_effective_cores_have_no_screened_baseline():
    representation = Representation((1, 53), "def2-svp", ("external",), 1)
    MatrixSettings(representation, orbital_basis="def2-svp", baseline="core")
    with pytest.raises(vp.InputError, match=r"baseline has 'sap', but 'def2-svp' has effective cores"):
        MatrixSettings(representation, orbital_basis="def2-svp")


def test_pairs_unlike_all_of_the_training_set_fall_back_on_the_baseline():
    """A linear map extrapolates without bound: squeezed water would have levels of kilohartrees."""
    model, water = random_model(GATED), g2("H2O")
    squeezed = vp.Molecule(water.numbers, 0.2 * np.asarray(water.positions))
    geometry = geometry_of(GATED, squeezed)
    prepared = model.prepared(geometry)
    damping, excess = np.asarray(prepared.damping), np.asarray(model.whitening.excess(prepared.inputs))
    real = np.asarray(geometry.features.kinds) >= 0
    assert excess[real].max() > 1
    np.testing.assert_allclose(damping, 1 / np.maximum(excess, 1))
    usual = model.prepared(geometry_of(GATED, training()[1]))
    np.testing.assert_array_equal(usual.damping, 1.0)
    far = dataclasses.replace(prepared, damping=np.zeros_like(damping), linear=geometry.baseline)
    np.testing.assert_array_equal(model.matrix(far), geometry.baseline)
    change = np.abs(np.asarray(prepared.linear) - np.asarray(geometry.baseline)).max()
    everything = {"support": 1e-9 * model.whitening.support, "reach": 1e9 * np.abs(model.whitening.reach)}
    loose = dataclasses.replace(model, whitening=dataclasses.replace(model.whitening, **everything))
    assert change < 0.5 * np.abs(np.asarray(loose.prepared(geometry).linear) - np.asarray(geometry.baseline)).max()
