"""Linear and gated models of properties: symmetry, closed-form fits, and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2, random_rotation
from vpotjax.property_model import PROPERTIES, PropertyConfig, from_irreps, molecule_features, pair_features, to_irreps
from vpotjax.train.property_fit import fit_property, ridge

SPECIES = (1, 6, 8)


def geometries(count=16):
    rng = np.random.default_rng(0)
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
    config = PropertyConfig(SPECIES, target, potential_basis=basis, power_order=2, power_kind="metric")
    molecules = geometries()
    return fit_property(molecules, labels_of(molecules, target), config)


@pytest.mark.parametrize("target", PROPERTIES)
def test_symmetry_and_fit(target):
    model, molecules, rotation = fitted(target), geometries(8), random_rotation()
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
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-10 * max(1.0, np.abs(plain).max()) * 100)
    labels = labels_of(molecules, target)
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
        w, constants, chosen = ridge(x, y, folds)
        assert not constants.size
        rows = np.swapaxes(x, 1, 2).reshape(-1, channels)
        penalty = float(chosen) * np.sum(rows**2) * np.eye(channels)
        np.testing.assert_allclose(w, np.linalg.solve(rows.T @ rows + penalty, rows.T @ y.ravel()), atol=1e-8)


def test_gated_map_is_equivariant():
    from vpotjax.nn.property_map import PropertyMap
    from vpotjax.operators.features import pair_type_count

    config = PropertyConfig(SPECIES, "dipole", potential_basis="sto-3g", power_order=2)
    network = PropertyMap(PROPERTIES["dipole"], len(SPECIES), pair_type_count(SPECIES), (8, 8), 2)
    rotation, molecule = random_rotation(), geometries(3)[2]
    moved = vp.Molecule(molecule.numbers, molecule.positions @ rotation.T)
    compute = jax.jit(lambda m: pair_features(m, config))
    inputs = [compute(jax.tree.map(jnp.asarray, config.batch([m])[0])) for m in (molecule, moved)]
    params = jax.jit(network.init)(jax.random.key(0), *inputs[0])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), params)
    jitted = jax.jit(network.apply)
    plain, turned = (np.asarray(jitted(params, *x)[PROPERTIES["dipole"][0]]) for x in inputs)
    assert np.abs(turned - plain).max() > 1e-2
    np.testing.assert_allclose(turned, rotation @ plain, rtol=0, atol=1e-10 * np.abs(plain).max())


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
    with pytest.raises(vp.InputError, match="elements"):
        fitted("dipole").predict([g2("HCl")])
