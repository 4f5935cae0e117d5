"""Models of properties, linear and with a network: symmetry, closed-form fits, and refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2, random_rotation
from vpotjax.batching import map_arrays
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import new_run_folder, write_config
from vpotjax.models.property_model import (
    PROPERTIES,
    PropertyModel,
    PropertyPrepared,
    PropertySettings,
    composition,
    from_irreps,
    to_irreps,
)
from vpotjax.nn.gated import Gated
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import fitted_whitening
from vpotjax.train import property_fit
from vpotjax.train.descent import Descent
from vpotjax.train.property_fit import channel_matrices, fit_property, fit_sums, property_features
from vpotjax.train.ridge import fold_numbers, ridge

SPECIES = (1, 6, 8)
REPRESENTATION = Representation(SPECIES, "sto-3g", ("overlap", "external"), power_order=2)
SETTINGS = PropertySettings(REPRESENTATION, "dipole")


def geometries(count=16, seed=0, names=("H2O", "CH3OH")):
    rng = np.random.default_rng(seed)
    molecules = [g2(names[i % len(names)]) for i in range(count)]
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
    settings = PropertySettings(dataclasses.replace(REPRESENTATION, basis=basis), target)
    molecules = geometries()
    return fit_property(molecules, labels_of(molecules, target), settings)


@functools.cache
def trained(target):
    settings = PropertySettings(REPRESENTATION, target, Gated(2, (8, 8)), "float64")
    rows, molecules = [], geometries(40)
    descent = Descent(steps=200, batch_size=8, learning_rate=2e-2, evaluations=4)
    labels = labels_of(molecules, target)
    return fit_property(molecules, labels, settings, descent=descent, report=rows.append), rows


def corrected(target, seed=0):
    """A model with a network whose weights are far from their initial values."""
    model, rng = trained(target)[0], np.random.default_rng(seed)
    assert model.params is not None
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), model.params)
    return dataclasses.replace(model, params=params)


@pytest.mark.parametrize(
    ("make", "target"),
    [*((fitted, target) for target in PROPERTIES), pytest.param(corrected, "polarizability", marks=pytest.mark.slow)],
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
        error = np.abs(plain - labels).mean()
        assert error < 0.2 * np.abs(labels - labels.mean(axis=0)).mean()
        assert error < model.scale  # that of molecules that are not in the fit


def test_a_model_is_its_weights_times_the_sums_of_features():
    model, molecules = fitted("energy"), geometries(3, seed=1)
    ((irrep, x),) = property_features(molecules, model.settings).items()
    atoms = np.stack([np.asarray(composition(m.numbers, SPECIES)) for m in molecules])
    expected = np.einsum("nkcm,kcm->n", x, model.linear.weights[irrep]) + atoms @ model.per_atom
    np.testing.assert_allclose(model.predict(molecules), expected, rtol=0, atol=1e-10)


def test_padding_changes_nothing():
    model = fitted("polarizability")
    molecules = geometries(4)
    together = model.predict(molecules)
    alone = [model.predict([m])[0] for m in molecules[:2]]
    np.testing.assert_allclose(together[:2], alone, rtol=0, atol=1e-9)


def test_irreps_of_labels_return():
    values = np.random.default_rng(0).standard_normal((3, 3, 3))
    values = values + values.transpose(0, 2, 1)
    parts = to_irreps(values, "polarizability")
    np.testing.assert_allclose(from_irreps(parts, "polarizability"), values, atol=1e-14)


@pytest.mark.parametrize("channels", [10, 200])
def test_ridge_agrees_with_the_normal_equations(channels):
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(30) % 5, 3)
    x, y = rng.standard_normal((90, channels)), rng.standard_normal((90, 1))
    fit = ridge(x, y, folds)
    assert not fit.constants.size

    def solved(rows, right):
        penalty = fit.regulariser * np.sum(rows**2) * np.eye(channels)
        return np.linalg.solve(rows.T @ rows + penalty, rows.T @ right)

    np.testing.assert_allclose(fit.weights, solved(x, y), atol=1e-8)
    seen = folds != 0
    np.testing.assert_allclose(fit.residuals[~seen], y[~seen] - x[~seen] @ solved(x[seen], y[seen]), atol=1e-7)


def test_fits_do_not_depend_on_the_size_of_a_matrix_and_leave_rounding_out():
    """Of two kinds and two matrices; of one kind the second matrix has rounding only."""
    rng = np.random.default_rng(0)
    x, y, folds = rng.standard_normal((40, 2, 3, 1)), rng.standard_normal((40, 1)), np.arange(40) % 5
    matrices, sizes = np.array([0, 0, 1]), np.array([1.0, 1.0, 1e6])[:, None]
    plain = fit_sums(x, y, matrices, folds)
    larger = fit_sums(x * sizes, y, matrices, folds)
    np.testing.assert_allclose(larger.weights * sizes[:, 0], plain.weights, rtol=1e-9)
    np.testing.assert_allclose(larger.residuals, plain.residuals, rtol=1e-9)
    x[:, 1, 2] *= 1e-12
    weights = fit_sums(x, y, matrices, folds).weights
    np.testing.assert_array_equal(weights != 0, [[True, True, True], [True, True, False]])
    nothing = fit_sums(0 * x, y, matrices, folds, np.ones((40, 1)))  # as dipoles of single atoms
    assert not nothing.weights.any()
    np.testing.assert_allclose(nothing.constants, [[y.mean()]])


def test_folds_keep_groups_together():
    groups = np.arange(40) // 4
    folds = fold_numbers(groups).reshape(10, 4)
    assert (folds == folds[:, :1]).all()
    assert set(folds.ravel()) == set(range(5))


def test_a_network_lowers_the_error_of_new_molecules():
    model, rows = trained("polarizability")
    assert [row["step"] for row in rows] == [0, 50, 100, 150, 200]
    assert rows[0]["validation_loss"] == pytest.approx(1, abs=0.5)  # gates are zero at first
    molecules = geometries(40, seed=1)
    labels = labels_of(molecules, "polarizability")
    before, after = (np.mean((np.asarray(m.predict(molecules)) - labels) ** 2) for m in (without(model), model))
    assert 0 < after < 0.8 * before


def without(model):
    """The linear part."""
    return dataclasses.replace(model, params=None, whitening=None)


def saved_and_loaded(model, path):
    folder = new_run_folder(path)
    write_config(folder, model.settings, {})
    save_model(folder, jax.tree.map(np.asarray, model))
    loaded = load_model(folder).member(0)
    assert loaded.settings == model.settings
    return loaded


def test_a_network_that_does_not_help_is_left_out(tmp_path):
    """Dipoles of fixed charges are linear in the features, so that only noise is left to learn."""
    settings = dataclasses.replace(SETTINGS, network=Gated(1, (4,)))
    descent, molecules = Descent(steps=1, learning_rate=1e3), geometries(8, names=["H2O"])
    model = fit_property(molecules, labels_of(molecules, "dipole"), settings, descent=descent)
    assert model.params is None
    loaded = saved_and_loaded(model, tmp_path / "run")
    np.testing.assert_array_equal(loaded.predict(molecules), model.predict(molecules))


def test_channels_that_are_not_zero_are_kept_in_single_precision():
    representation = dataclasses.replace(REPRESENTATION, species=(1, 6, 17), power_kinds=("raw",), power_order=4)
    settings, kept = dataclasses.replace(SETTINGS, representation=representation), []
    batch = jax.tree.map(jnp.asarray, settings.batch([g2("CH3Cl")]))
    for dtype in (np.float32, np.float64):
        one = dataclasses.replace(batch, positions=batch.positions.astype(dtype))
        features = map_arrays(settings.features, one)
        whitening = fitted_whitening([features], 3, representation.matrix_count)
        kept.append(np.concatenate([np.any(t, axis=-1).ravel() for t in whitening.transform.values()]))
    assert np.sum(kept[0]) > 0.95 * np.sum(kept[1]) > 100


def test_padding_precision_and_files_of_a_model_with_a_network(tmp_path):
    model, molecules = corrected("polarizability"), geometries(4)
    together = np.asarray(model.predict(molecules))
    assert np.abs(together - without(model).predict(molecules)).max() > 1e-2
    np.testing.assert_allclose(together[0], model.predict(molecules[:1])[0], rtol=0, atol=1e-9)
    settings = dataclasses.replace(model.settings, precision="float32")
    params = jax.tree.map(lambda x: x.astype(np.float32), model.params)
    single = dataclasses.replace(model, settings=settings, params=params).predict(molecules)
    # float32 rounding of whitened features and of sums over pairs
    np.testing.assert_allclose(single, together, rtol=0, atol=1e-4 * np.abs(together).max())
    for name, one in (("network", model), ("linear", fitted("polarizability"))):
        loaded = saved_and_loaded(one, tmp_path / name)
        np.testing.assert_array_equal(loaded.predict(molecules), one.predict(molecules))


def test_features_are_extensive(monkeypatch):
    """Two molecules far apart have the sum of their features, if nuclei beyond a cutoff do not count."""
    monkeypatch.setattr(property_fit, "BUCKETS", 1)  # one program
    representation = dataclasses.replace(REPRESENTATION, cutoff=9.0, power_kinds=("raw",))
    water, methane = g2("H2O"), g2("CH4")
    both = vp.Molecule(
        np.append(water.numbers, methane.numbers), np.concatenate([water.positions, methane.positions + 60.0])
    )
    ((irrep, x),) = property_features([water, methane, both], PropertySettings(representation, "energy")).items()
    assert x.shape[2] == len(channel_matrices(representation, irrep))
    assert np.abs(x[0]).max() > 1
    np.testing.assert_allclose(x[2], x[0] + x[1], rtol=0, atol=1e-10 * np.abs(x[2]).max())


def test_bad_input_is_named():
    with pytest.raises(vp.InputError, match="target is 'mass'"):
        PropertySettings(REPRESENTATION, "mass")
    with pytest.raises(vp.InputError, match="labels have shape"):
        fit_property(geometries(6), np.zeros(6), SETTINGS)
    with pytest.raises(vp.InputError, match="2 labels for 6 molecules"):
        fit_property(geometries(6), np.zeros((2, 3)), SETTINGS)
    with pytest.raises(vp.InputError, match="groups have shape"):
        fit_property(geometries(6), np.zeros((6, 3)), SETTINGS, groups=np.zeros(6))
    with pytest.raises(vp.InputError, match="descent is given"):
        fit_property(geometries(6), np.zeros((6, 3)), SETTINGS, descent=Descent())
    with pytest.raises(vp.InputError, match="irreps 2\\+"):
        PropertySettings(Representation((1,), "sto-3g"), "polarizability")
    with pytest.raises(vp.InputError, match="elements"):
        fitted("dipole").predict([g2("HCl")])


def test_atoms_and_heavy_atoms_are_counted_without_padding():
    own = PropertyPrepared(None, {}, np.array([8, 6, 1, 1, 0]))
    counts = [count(None, own) for count in (PropertyModel.natm, PropertyModel.heavy_atoms)]
    assert list(map(int, counts)) == [4, 2]
