"""Symmetries of every model, with weights far from their initial values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import central_difference, g2, random_rotation
from vpotjax.conventions import block_diagonal, rotation_matrices
from vpotjax.io.run import load_model, save_model, write_config
from vpotjax.model import Model, ModelConfig, initial_parameters, prepare
from vpotjax.operators.features import feature_statistics, matrix_count

SPECIES = (1, 6, 8)
CONFIG = ModelConfig(
    species=SPECIES,
    potential_basis="6-31g*",  # d functions on C and O
    power_order=2,
    power_kinds=("lowdin",),
    members=1,
    baseline="sap",
    hidden=(8, 8),
    gated=2,
    precision="float64",
    layers=2,
    channels=2,
    shells=2,
    product_precision="float64",
    inputs=("overlap", "kinetic", "external", "sap"),
)
MODELS = {
    "linear": {"network": "linear", "potential_basis": "sto-3g"},
    "gated": {
        "network": "gated",
        "frame": "lowdin",
        "potential_basis": "sto-3g",
        "inputs": ("own_nuclei", "external"),
        "power_kinds": ("rational",),
    },
    "matrix-power": {"network": "matrix-power", "cutoff": 7.0, "inputs": ("overlap", "external"), "coupling": True},
    "density": {
        "network": "matrix-power",
        "target": "density",
        "frame": "lowdin",
        "inputs": ("sap", "kinetic"),
        "potential_basis": "sto-3g",
    },
}
TRAINING = ["H2O", "CH4", "CH3OH"]
TOLERANCE = 1e-10  # rounding of float64, amplified by the whitening of nearly parallel features


def water_and_methane(distance):
    water, methane = g2("H2O"), g2("CH4")
    far = methane.positions + np.array([0.0, 0.6, 0.8]) * distance
    return vp.Molecule(np.append(water.numbers, methane.numbers), np.concatenate([water.positions, far]))


@functools.cache
def initial_model(name) -> Model:
    config = dataclasses.replace(CONFIG, **MODELS[name])
    prepared = jax.tree.map(lambda *leaves: np.stack(leaves), *(prepared_of(config, g2(m)) for m in TRAINING))
    count = matrix_count(config.inputs, config.power_order)
    statistics = {
        kind: feature_statistics(x, np.asarray(prepared.kinds), SPECIES, count) for kind, x in prepared.features.items()
    }
    return Model(config, initial_parameters(config, jax.tree.map(lambda leaf: leaf[0], prepared), 0), statistics)


@functools.cache
def random_model(name, seed=0) -> Model:
    model, rng = initial_model(name), np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape), model.params)
    return dataclasses.replace(model, params=params)


@functools.cache
def shape(config):
    """Padded beyond every molecule here, so that one program serves all."""
    return vp.batching.batch_shape(config.batch([water_and_methane(9.0), g2("CH3OH")]))


jitted_prepare = jax.jit(prepare, static_argnums=1)


def prepared_of(config, molecule, padded=True):
    batch = config.batch([molecule], shape(config) if padded else None)
    return jitted_prepare(jax.tree.map(jnp.asarray, batch[0]), config)


@jax.jit
def matrix_of(model, prepared):
    return model.fock(prepared) if model.config.target == "fock" else model.density(prepared)


def evaluate(model, molecule):
    matrix = np.asarray(matrix_of(model, prepared_of(model.config, molecule)))
    n = vp.load_basis("sto-3g", molecule.numbers).nao
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not np.any(matrix[n:])
    return matrix[:n, :n]


def distorted(name):
    molecule = g2(name)
    return vp.Molecule(
        molecule.numbers, molecule.positions + 0.1 * np.sin(np.arange(molecule.positions.size)).reshape(-1, 3)
    )


@pytest.mark.parametrize("name", MODELS)
def test_rotation_translation_permutation(name):
    model, molecule, rotation = random_model(name), distorted("CH3OH"), random_rotation()
    plain = evaluate(model, molecule)
    moved = vp.Molecule(molecule.numbers, molecule.positions @ rotation.T + np.array([1.0, -2.0, 0.5]))
    rotated = evaluate(model, moved)
    wigner = rotation_matrices(1, tuple(map(tuple, rotation.tolist())))
    big = block_diagonal([wigner[l] for l in vp.load_basis("sto-3g", molecule.numbers).shell_angular_momenta()])
    assert np.linalg.det(rotation) < 0
    assert np.abs(rotated - plain).max() > 1e-2
    np.testing.assert_allclose(rotated, big @ plain @ big.T, rtol=0, atol=TOLERANCE * np.abs(plain).max())
    order = np.random.default_rng(1).permutation(molecule.natm)
    permuted = evaluate(model, vp.Molecule(molecule.numbers[order], molecule.positions[order]))
    slices = vp.load_basis("sto-3g", molecule.numbers).atom_ao_slices()
    index = np.concatenate([np.arange(*slices[atom]) for atom in order])
    assert np.abs(permuted - plain).max() > 1e-2
    np.testing.assert_allclose(permuted, plain[np.ix_(index, index)], rtol=0, atol=TOLERANCE * np.abs(plain).max())


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_matters(name):
    """The matrix depends on every array of weights, and its derivative is that of finite differences."""
    model = random_model(name)
    prepared = prepared_of(model.config, distorted("CH3OH"))
    weights = np.random.default_rng(0).standard_normal(prepared.overlap.shape)

    def value(params):
        return jnp.vdot(weights, matrix_of(dataclasses.replace(model, params=params), prepared))

    gradient = jax.jit(jax.grad(value))(model.params)
    dead = [jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(gradient) if not np.any(leaf)]
    assert not dead
    change = jax.tree.map(lambda x: np.random.default_rng(1).standard_normal(x.shape), model.params)
    exact = sum(np.vdot(g, c) for g, c in zip(jax.tree.leaves(gradient), jax.tree.leaves(change), strict=True))
    assert abs(exact) > 1e-2

    def along(t):
        return value(jax.tree.map(lambda x, c: x + t * c, model.params, change))

    np.testing.assert_allclose(central_difference(along, 1e-5), exact, rtol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_single_precision(name):
    model, molecule = random_model(name), distorted("H2O")
    padded = evaluate(model, molecule)
    alone = prepared_of(model.config, molecule, padded=False)
    np.testing.assert_allclose(matrix_of(model, alone), padded, rtol=0, atol=TOLERANCE)
    config = dataclasses.replace(model.config, precision="float32", product_precision="float32")
    params = jax.tree.map(lambda x: x.astype(jnp.float32), model.params)
    single = matrix_of(Model(config, params, model.statistics), alone)
    # float32 rounding of features and weights of size ten
    np.testing.assert_allclose(single, padded, rtol=0, atol=1e-4 * np.abs(padded).max())
    if name != "matrix-power":
        return
    half = dataclasses.replace(config, product_precision="bfloat16", checkpoint=True)
    rough = matrix_of(Model(half, params, model.statistics), alone)
    difference = np.abs(rough - single).max()
    assert 0 < difference < 0.05 * np.abs(padded).max()  # eight bits of mantissa in the products


def test_deep_stacks_stay_finite():
    """Normalised operators: the size of the hidden ones grows with depth no faster than by a factor of two each."""
    from vpotjax.nn.matrix_power import MatrixPower, unit_norm
    from vpotjax.operators.blocks import Irrep, ShellLayout

    layout, rng = ShellLayout((4, 3, 2)), np.random.default_rng(0)
    operators = rng.standard_normal((1, 30, 30, layout.width, layout.width)) * 50
    operators = operators + operators.transpose(0, 2, 1, 4, 3)
    elements = jnp.asarray(rng.integers(0, 2, 30))
    network = MatrixPower(layout, 2, layers=8, channels=2, shells=2)
    wanted = (Irrep(0, 1), Irrep(1, -1))
    features, _ = jax.jit(lambda: network.init_with_output(jax.random.key(0), operators, elements, wanted))()
    assert all(np.all(np.isfinite(x)) for x in features.values())
    assert max(float(np.abs(x).max()) for x in features.values()) < 100
    flat = np.asarray(unit_norm(jnp.asarray(operators.swapaxes(2, 3))))[0].reshape(30 * layout.width, -1)
    assert 0.01 < np.abs(np.linalg.eigvalsh(flat)).max() <= 1


@pytest.mark.slow
def test_position_gradient_agrees_with_finite_differences():
    """Through hidden operators, the cutoff and the normalisation, padded, with an atom pair at the cutoff's edge."""
    config = dataclasses.replace(
        CONFIG,
        potential_basis="sto-3g",
        network="matrix-power",
        cutoff=3.0,
        power_kinds=("rational",),
        layers=1,
        inputs=("external",),
        baseline="zero",
    )
    molecule = distorted("H2O")
    example = jax.tree.map(jnp.asarray, config.batch([molecule], vp.batching.batch_shape(config.batch([g2("CH4")])))[0])
    prepared = jax.jit(prepare, static_argnums=1)(example, config)
    features = jax.tree.map(lambda leaf: np.asarray(leaf)[None], prepared.features)
    count = matrix_count(config.inputs, config.power_order)
    statistics = {
        kind: feature_statistics(x, np.asarray(prepared.kinds)[None], SPECIES, count) for kind, x in features.items()
    }
    rng = np.random.default_rng(2)
    params = initial_parameters(config, prepared, 0)
    params = jax.tree.map(lambda leaf: leaf + 0.05 * rng.standard_normal(leaf.shape), params)
    model, weights = Model(config, params, statistics), rng.standard_normal((9, 9))
    direction = jnp.asarray(rng.standard_normal(example.positions.shape))

    @jax.jit
    @jax.value_and_grad
    def along(t):
        moved = dataclasses.replace(example, positions=example.positions + t * direction)
        return jnp.vdot(weights, model.fock(prepare(moved, config)))

    exact = along(0.0)[1]
    assert abs(exact) > 1e-2
    # A small step, for the cutoff's edge and the soft norms of small blocks vary fast; rounding over step is 1e-8.
    np.testing.assert_allclose(central_difference(lambda t: along(t)[0], 1e-5), exact, rtol=1e-6)


def test_far_molecules_are_independent_with_a_cutoff():
    """With a cutoff nothing reaches from one molecule to the other, so F is the direct sum."""
    model = random_model("matrix-power")
    whole = evaluate(model, water_and_methane(100.0))
    parts = [evaluate(model, g2(name)) for name in ("H2O", "CH4")]
    np.testing.assert_allclose(whole, block_diagonal(parts), rtol=0, atol=TOLERANCE * np.abs(whole).max())
    assert np.abs(evaluate(model, water_and_methane(6.0)) - whole).max() > 1e-3


def test_interaction_decays_without_a_cutoff():
    """Bare nuclei have a charge, so a feature changes by Z/R: twice as far, half the effect."""
    model = random_model("linear")
    parts = block_diagonal([evaluate(model, g2(name)) for name in ("H2O", "CH4")])
    errors = [np.abs(evaluate(model, water_and_methane(r)) - parts).max() for r in (1e3, 2e3, 4e3)]
    assert errors[0] > 1e-4
    np.testing.assert_allclose(np.array(errors[1:]) / errors[:-1], 0.5, atol=0.02)  # next order: 1/R²


def test_idempotent_density():
    model = random_model("density")
    prepared = prepared_of(model.config, g2("H2O"))
    raw, density = matrix_of(model, prepared), jax.jit(lambda m, p: m.density(p, idempotent=True))(model, prepared)
    overlap = prepared.overlap
    assert np.abs(raw @ overlap @ raw - 2 * raw).max() > 1e-2
    np.testing.assert_allclose(density @ overlap @ density, 2 * density, rtol=0, atol=1e-10)
    np.testing.assert_allclose(jnp.sum(density * overlap), 10, atol=1e-10)
    with pytest.raises(vp.InputError, match="target is 'density'"):
        model.predict([g2("H2O")])


def test_saved_and_loaded(tmp_path):
    model = random_model("matrix-power")
    write_config(tmp_path, model.config, {})
    save_model(tmp_path, jax.tree.map(np.asarray, model))
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    np.testing.assert_array_equal(evaluate(loaded, g2("H2O")), evaluate(model, g2("H2O")))
    with pytest.raises(vp.InputError, match="elements"):
        loaded.predict([g2("HCl")])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network", "deep", "network is 'deep'; give one of linear, gated, matrix-power"),
        ("target", "energy", "target is 'energy'"),
        ("frame", "mo", "frame is 'mo'"),
        ("inputs", ("overlap",), "with external or sap among them"),
        ("cutoff", -1.0, "cutoff is -1.0"),
        ("layers", 0, "layers is 0"),
        ("hidden", (), "hidden is"),
        ("power_kinds", ("raw", "raw"), "give each kind once"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(vp.InputError, match=message):
        dataclasses.replace(CONFIG, **{field: value})
