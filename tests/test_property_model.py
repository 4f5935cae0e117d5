"""Linear and gated models of properties: symmetry, closed-form fits, and refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2, random_rotation
from vpotjax.batching import map_arrays
from vpotjax.io.run import load_model, load_property_model, new_run_folder, save_model, write_config
from vpotjax.operators.features import feature_statistics, matrix_count
from vpotjax.property_model import PROPERTIES, PropertyConfig, from_irreps, molecule_features, pair_features, to_irreps
from vpotjax.train.descent import DescentConfig
from vpotjax.train.property_fit import fit_property, ridge

SPECIES = (1, 6, 8)
CONFIG = PropertyConfig(SPECIES, "dipole", potential_basis="sto-3g", power_order=2, power_kind="metric")


def geometries(count=16, seed=0):
    rng = np.random.default_rng(seed)
    names = ["H2O", "CH3OH"]
    molecules = [g2(names[i % 2]) for i in range(count)]
    return [vp.Molecule(m.numbers, m.positions + 0.1 * rng.standard_normal(m.positions.shape)) for m in molecules]


def labels_of(molecules, target):
    """Of point charges that depend on the element: exactly equivariant, additive, with an offset per element."""
    results = []
    for m in molecules:
        q = np.where(m.numbers == 1, 0.3, np.where(m.numbers == 8, -0.6, -0.4))
        dipole = (q - q.mean()) @ m.positions
        bonds = m.positions[:, None] - m.positions
        r = np.linalg.norm(bonds, axis=-1) + np.eye(m.natm)
        energy = np.sum(np.triu(q[:, None] * q / r, 1)) + q.sum()
        alpha = np.einsum("ab,abx,aby->xy", np.exp(-r), bonds, bonds) + np.sum(q**2) * np.eye(3)
        results.append({"energy": energy, "dipole": dipole, "polarizability": alpha}[target])
    return np.array(results)


@functools.cache
def fitted(target):
    basis = "6-31g" if target == "polarizability" else "sto-3g"  # λ = 2 comes from pairs of p shells alone
    config = dataclasses.replace(CONFIG, target=target, potential_basis=basis)
    molecules = geometries()
    return fit_property(molecules, labels_of(molecules, target), config)


def corrected(target, seed=0):
    """A gated model whose weights are far from their initial values."""
    model, rng = trained(target)[0], np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), model.params)
    return dataclasses.replace(model, params=params)


@functools.cache
def trained(target):
    config = dataclasses.replace(CONFIG, target=target, gated=2, hidden=(8, 8), precision="float64")
    rows, molecules = [], geometries(40)
    settings = DescentConfig(steps=200, batch_size=8, chunk=50, learning_rate=5e-3)
    labels = labels_of(molecules, target)
    return fit_property(molecules, labels, config, settings=settings, report=rows.append), rows


@pytest.mark.parametrize(
    ("make", "target"), [(fitted, target) for target in PROPERTIES] + [(corrected, "polarizability")]
)
def test_symmetry_and_fit(make, target):
    model, molecules, rotation = make(target), geometries(8), random_rotation()
    moved = [vp.Molecule(m.numbers[::-1], (m.positions @ rotation.T + 1.0)[::-1]) for m in molecules]
    plain, turned = np.asarray(model.predict(molecules)), np.asarray(model.predict(moved))
    expected = {
        "energy": lambda x: x,
        "dipole": lambda x: x @ rotation.T,
        "polarizability": lambda x: rotation @ x @ rotation.T,
    }[target](plain)
    if target != "energy":
        assert np.abs(turned - plain).max() > 1e-2
    assert np.ptp(plain, axis=0).max() > 1e-2
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-10 * np.abs(plain).max())
    labels = labels_of(molecules, target)
    if make is fitted:
        assert np.abs(plain - labels).mean() < 0.2 * np.abs(labels - labels.mean(axis=0)).mean()


def test_padding_changes_nothing():
    model = fitted("polarizability")
    molecules = geometries(4)
    together = model.predict(molecules)
    alone = [model.predict([m])[0] for m in molecules[:2]]
    np.testing.assert_allclose(together[:2], alone, rtol=0, atol=1e-9)


def test_irreps_of_labels_return():
    values = np.random.default_rng(0).standard_normal((3, 3, 3))
    values = values + values.transpose(0, 2, 1)
    np.testing.assert_allclose(from_irreps(to_irreps(values, "polarizability"), "polarizability"), values, atol=1e-14)


def test_ridge_agrees_with_the_normal_equations_and_both_routes_agree():
    rng = np.random.default_rng(0)
    folds = np.arange(30) % 5
    for channels in (10, 200):
        x, y = rng.standard_normal((30, channels, 3)), rng.standard_normal((30, 3))
        fit = ridge(x, y, folds)
        assert not fit.constants.size
        rows = np.swapaxes(x, 1, 2).reshape(-1, channels)
        penalty = float(fit.regulariser) * np.sum(rows**2) * np.eye(channels)
        expected = np.linalg.solve(rows.T @ rows + penalty, rows.T @ y.ravel())
        np.testing.assert_allclose(fit.weights, expected, atol=1e-8)
        seen = np.repeat(folds != 0, 3)
        penalty = float(fit.regulariser) * np.sum(rows[seen] ** 2) * np.eye(channels)
        w = np.linalg.solve(rows[seen].T @ rows[seen] + penalty, rows[seen].T @ y.ravel()[seen])
        unseen = y.ravel()[~seen] - rows[~seen] @ w
        np.testing.assert_allclose(fit.residuals[folds == 0].ravel(), unseen, atol=1e-7)


def test_the_gated_correction_lowers_the_error_of_new_molecules():
    model, rows = trained("polarizability")
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    molecules = geometries(40, seed=1)
    labels = labels_of(molecules, "polarizability")
    linear = dataclasses.replace(model, params=None, statistics=None)
    before, after = (np.mean((np.asarray(m.predict(molecules)) - labels) ** 2) for m in (linear, model))
    assert 0 < after < 0.8 * before


def test_a_correction_that_does_not_help_is_left_out(tmp_path):
    """Dipoles of fixed charges are linear in the features, so that only noise is left to learn."""
    config = dataclasses.replace(CONFIG, gated=1, hidden=(4,))
    settings, molecules = DescentConfig(steps=1, learning_rate=1e3), geometries(8)
    model = fit_property(molecules, labels_of(molecules, "dipole"), config, settings=settings)
    assert model.params is None
    write_config(tmp_path, config, {})
    save_model(tmp_path, jax.tree.map(np.asarray, model))
    np.testing.assert_array_equal(load_property_model(tmp_path).predict(molecules), model.predict(molecules))


def test_channels_that_are_not_zero_are_kept_in_single_precision():
    config = dataclasses.replace(CONFIG, species=(1, 6, 17), power_kind="raw", power_order=4)
    batch, kept = jax.tree.map(jnp.asarray, config.batch([g2("CH3Cl")])), []
    for dtype in (np.float32, np.float64):
        one = dataclasses.replace(batch, positions=batch.positions.astype(dtype))
        features, kinds = map_arrays(lambda m: pair_features(m, config), one)
        statistics = feature_statistics(features, kinds, config.species, matrix_count(config.inputs, 4))
        kept.append(np.concatenate([np.any(t, axis=-1).ravel() for t in statistics.transform.values()]))
    assert np.sum(kept[0]) > 0.95 * np.sum(kept[1]) > 100


def test_gated_model_padding_precision_and_files(tmp_path):
    model, molecules = corrected("polarizability"), geometries(4)
    together = np.asarray(model.predict(molecules))
    assert np.abs(together - fitted("polarizability").predict(molecules)).max() > 1e-2
    np.testing.assert_allclose(together[0], model.predict(molecules[:1])[0], rtol=0, atol=1e-9)
    config = dataclasses.replace(model.config, precision="float32")
    params = jax.tree.map(lambda x: x.astype(np.float32), model.params)
    single = dataclasses.replace(model, config=config, params=params).predict(molecules)
    # float32 rounding of whitened features and of sums over pairs
    np.testing.assert_allclose(single, together, rtol=0, atol=1e-4 * np.abs(together).max())
    for name, one in (("gated", model), ("linear", fitted("polarizability"))):
        folder = new_run_folder(tmp_path / name)
        write_config(folder, one.config, {})
        save_model(folder, jax.tree.map(np.asarray, one))
        loaded = load_property_model(folder)
        assert loaded.config == one.config
        np.testing.assert_array_equal(loaded.predict(molecules), one.predict(molecules))
    with pytest.raises(vp.InputError, match="holds a model of kind 'property'; load it with"):
        load_model(tmp_path / "gated")


def test_features_are_extensive():
    """Two molecules far apart have the sum of their features, if nuclei beyond a cutoff do not count."""
    config = PropertyConfig(SPECIES, "energy", potential_basis="sto-3g", power_order=2, cutoff=9.0)
    water, methane = g2("H2O"), g2("CH4")
    both = vp.Molecule(
        np.append(water.numbers, methane.numbers), np.concatenate([water.positions, methane.positions + 60.0])
    )
    shape = vp.batching.batch_shape(config.batch([both]))
    compute = jax.jit(lambda m: molecule_features(m, config))
    parts = [
        next(iter(compute(jax.tree.map(jnp.asarray, config.batch([m], shape)[0])).values()))
        for m in (water, methane, both)
    ]
    assert np.abs(parts[0]).max() > 1
    np.testing.assert_allclose(parts[2], parts[0] + parts[1], rtol=0, atol=1e-10 * np.abs(parts[2]).max())


def test_bad_input_is_named():
    with pytest.raises(vp.InputError, match="target is 'mass'"):
        PropertyConfig(SPECIES, "mass")
    config = PropertyConfig(SPECIES, "dipole", potential_basis="sto-3g")
    with pytest.raises(vp.InputError, match="labels have shape"):
        fit_property(geometries(6), np.zeros(6), config)
    with pytest.raises(vp.InputError, match="2 labels for 6 molecules"):
        fit_property(geometries(6), np.zeros((2, 3)), config)
    with pytest.raises(vp.InputError, match="groups have shape"):
        fit_property(geometries(6), np.zeros((6, 3)), config, groups=np.zeros(6))
    with pytest.raises(vp.InputError, match="settings are given"):
        fit_property(geometries(6), np.zeros((6, 3)), config, settings=DescentConfig())
    with pytest.raises(vp.InputError, match="irreps 2\\+"):
        PropertyConfig((1,), "polarizability", potential_basis="sto-3g")
    with pytest.raises(vp.InputError, match="elements"):
        fitted("dipole").predict([g2("HCl")])
