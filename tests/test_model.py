"""The whole chain: symmetry, padding, derivatives, with weights far from their initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import central_difference, g2, random_rotation
from vpotjax.conventions import block_diagonal, rotation_matrices
from vpotjax.model import Model, ModelConfig, initial_parameters, matrix_from_features, observables, prepare
from vpotjax.operators.features import feature_statistics, matrix_count

CONFIG = ModelConfig(
    species=(1, 6, 7, 8),
    potential_basis="6-31g",
    power_order=3,
    hidden=(8, 8),
    gated=2,
    members=1,
    precision="float64",
)
MOLECULES = ["CH4", "C6H6", "CH3CONH2"]


# Small shells and one kind of power: compiles fast where gradients are taken.
LIGHT = dataclasses.replace(CONFIG, potential_basis="sto-3g", power_order=2, power_kinds=("metric",))


@functools.cache
def random_model(config=CONFIG) -> Model:
    """Every weight is random, so that no part of the network is switched off; near T + SAP, so that the gap is open."""
    config = dataclasses.replace(config, baseline="sap")
    parts = [prepared_of(config, g2(name)) for name in MOLECULES]
    prepared = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
    kinds, count = np.asarray(prepared.kinds), matrix_count(config.inputs, config.power_order)
    statistics = {k: feature_statistics(x, kinds, config.species, count) for k, x in prepared.features.items()}
    params = initial_parameters(config, jax.tree.map(lambda leaf: leaf[0], prepared), 0)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    params = tree.unflatten([jnp.asarray(0.01 * rng.standard_normal(leaf.shape)) for leaf in leaves])
    return Model(config, params, statistics)


jitted_prepare = jax.jit(prepare, static_argnums=1)


def prepared_of(config, molecule: vp.Molecule):
    """All padded alike, so that one program serves the file."""
    shape = vp.batching.batch_shape(config.batch([g2(name) for name in MOLECULES]))
    return jitted_prepare(jax.tree.map(jnp.asarray, config.batch([molecule], shape)[0]), config)


@jax.jit
def fock_and_observables(model, prepared):
    fock = model.fock(prepared)
    return fock, observables(fock, prepared)


def evaluate(molecule: vp.Molecule):
    """F and observables of one molecule."""
    model = random_model()
    return jax.tree.map(np.asarray, fock_and_observables(model, prepared_of(model.config, molecule)))


def moved(molecule: vp.Molecule, rotation=None, shift=0.0, order=None):
    rotation = np.eye(3) if rotation is None else rotation
    order = np.arange(molecule.natm) if order is None else order
    return vp.Molecule(molecule.numbers[order], (molecule.positions @ rotation.T + shift)[order])


# Rounding of float64, amplified by the whitening of nearly parallel features.
TOLERANCE = 1e-10


@pytest.mark.parametrize("name", MOLECULES)
def test_rotation_with_inversion(name):
    molecule, rotation = g2(name), random_rotation()
    distorted = vp.Molecule(
        molecule.numbers, molecule.positions + 0.1 * np.sin(np.arange(3 * molecule.natm)).reshape(-1, 3)
    )
    (fock, before), (rotated, after) = evaluate(distorted), evaluate(moved(distorted, rotation))
    shells = vp.load_basis("sto-3g", molecule.numbers).shell_angular_momenta()
    wigner = rotation_matrices(1, tuple(map(tuple, rotation.tolist())))
    big = block_diagonal([wigner[l] for l in shells])
    n = len(big)
    assert np.abs(rotated[:n, :n] - fock[:n, :n]).max() > 1e-2
    assert np.abs(after.dipole - before.dipole).max() > 1e-3
    np.testing.assert_allclose(rotated[:n, :n], big @ fock[:n, :n] @ big.T, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.mo_energies[:n], before.mo_energies[:n], rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.homo_lumo_gap, before.homo_lumo_gap, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.dipole, rotation @ before.dipole, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(
        after.polarizability, rotation @ before.polarizability @ rotation.T, rtol=1e-10, atol=TOLERANCE
    )


@pytest.mark.parametrize("name", MOLECULES)
def test_translation(name):
    (fock, before), (shifted, after) = (
        evaluate(g2(name)),
        evaluate(moved(g2(name), shift=np.array([1.0, -2.0, 0.5]))),
    )
    np.testing.assert_allclose(shifted, fock, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.dipole, before.dipole, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.polarizability, before.polarizability, rtol=1e-10, atol=TOLERANCE)


@pytest.mark.parametrize("name", MOLECULES)
def test_permutation(name):
    molecule = g2(name)
    order = np.random.default_rng(1).permutation(molecule.natm)
    (fock, before), (permuted, after) = evaluate(molecule), evaluate(moved(molecule, order=order))
    slices = vp.load_basis("sto-3g", molecule.numbers).atom_ao_slices()
    index = np.concatenate([np.arange(*slices[atom]) for atom in order])
    assert np.abs(permuted - fock).max() > 1e-2
    np.testing.assert_allclose(
        permuted[: len(index), : len(index)], fock[np.ix_(index, index)], rtol=1e-10, atol=TOLERANCE
    )
    n = len(index)
    np.testing.assert_allclose(after.mo_energies[:n], before.mo_energies[:n], rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.dipole, before.dipole, rtol=1e-10, atol=TOLERANCE)
    np.testing.assert_allclose(after.polarizability, before.polarizability, rtol=1e-10, atol=TOLERANCE)


def test_fock_is_hermitian_and_zero_on_padding():
    fock, _ = evaluate(g2("CH4"))
    np.testing.assert_array_equal(fock, fock.T)
    assert np.abs(fock[:9, :9]).max() > 1
    assert not np.any(fock[9:])


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def light_loss(positions, params, example, weights):
    """A scalar of all observables of the light model, and its gradients in positions and parameters."""
    moved_example = dataclasses.replace(example, positions=positions)
    o = dataclasses.replace(random_model(LIGHT), params=params)(moved_example)
    energies = jnp.sum(jnp.where(example.bases["orbital"].ao_mask, o.mo_energies, 0.0) ** 3)
    return energies + jnp.vdot(weights[0], o.dipole) + jnp.vdot(weights, o.polarizability)


LOSS_WEIGHTS = np.random.default_rng(3).standard_normal((3, 3))


def light_example(name, padded=True):
    shape = vp.batching.batch_shape(LIGHT.batch([g2("C6H6"), g2("CH3CONH2")])) if padded else None
    return jax.tree.map(jnp.asarray, LIGHT.batch([g2(name)], shape)[0])


@pytest.mark.slow
def test_padded_equals_unpadded_in_values_and_gradients():
    params, natm = random_model(LIGHT).params, g2("CH3CONH2").natm
    results = []
    for padded in (False, True):
        example = light_example("CH3CONH2", padded)
        results.append(light_loss(example.positions, params, example, LOSS_WEIGHTS))
    (value, (position_gradient, parameter_gradient)), (padded, (padded_position, padded_parameter)) = results
    assert np.abs(position_gradient).max() > 1e-2
    np.testing.assert_allclose(padded, value, rtol=1e-11)  # another order of summation
    # the same, through S⁻¹
    np.testing.assert_allclose(padded_position[:natm], position_gradient, rtol=1e-7, atol=1e-8)
    for a, b in zip(jax.tree.leaves(parameter_gradient), jax.tree.leaves(padded_parameter), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["CH4", "C6H6"])
def test_chain_agrees_with_finite_differences(name):
    """At symmetric molecules with degenerate levels, in one network weight and in one nuclear position."""
    params, example = random_model(LIGHT).params, light_example(name)

    def loss(weight, position):
        linear = params["metric-0"]["params"]["map"]["linear_1-"].at[5, 0, 0].add(weight)  # hydrogen–carbon, s with p
        own = params["metric-0"]["params"]
        moved_params = {"metric-0": {"params": {**own, "map": {**own["map"], "linear_1-": linear}}}}
        return light_loss(example.positions.at[1, 0].add(position), moved_params, example, LOSS_WEIGHTS)[0]

    _, (in_positions, in_params) = light_loss(example.positions, params, example, LOSS_WEIGHTS)
    exact = in_params["metric-0"]["params"]["map"]["linear_1-"][5, 0, 0], in_positions[1, 0]
    assert min(abs(float(e)) for e in exact) > 1e-3
    # 1e-6 is what AD against finite differences must reach; the quotient itself is good to about 1e-8.
    np.testing.assert_allclose(central_difference(lambda t: loss(t, 0.0), 3e-4), exact[0], rtol=1e-6)
    np.testing.assert_allclose(central_difference(lambda t: loss(0.0, t), 3e-4), exact[1], rtol=1e-6)


def test_features_and_fock_separate_cleanly():
    """Training normalises once; the result is that of the whole chain."""
    from vpotjax.model import normalise

    model = random_model()
    prepared = prepared_of(model.config, g2("CH4"))
    inputs = jax.jit(normalise, static_argnums=2)(prepared, model.statistics, "float64")
    split = jax.jit(matrix_from_features, static_argnums=0)(model.config, model.params, inputs)
    np.testing.assert_allclose(split, evaluate(g2("CH4"))[0], rtol=0, atol=1e-12)  # the same operations, fused apart


def test_network_runs_in_single_precision_and_the_eigenproblem_in_double():
    model = random_model()
    single = dataclasses.replace(model, config=dataclasses.replace(model.config, precision="float32"))
    single = dataclasses.replace(single, params=jax.tree.map(lambda x: x.astype(jnp.float32), model.params))
    o = fock_and_observables(single, prepared_of(model.config, g2("CH4")))[1]
    reference = evaluate(g2("CH4"))[1]
    assert o.mo_energies.dtype == jnp.float64
    np.testing.assert_allclose(o.mo_energies, reference.mo_energies, rtol=0, atol=1e-4)  # float32 features of size 10


def test_unknown_elements_and_open_shells_are_refused():
    with pytest.raises(vp.InputError, match="elements"):
        random_model().predict([g2("HCl")])
    with pytest.raises(vp.InputError, match="closed shells"):
        random_model().predict([vp.Molecule(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 2.3]]), spin=2)])
    with pytest.raises(vp.InputError, match="baseline"):
        ModelConfig(species=(1,), baseline="none")
