"""What models refuse where it is known, and give NaN for where it is traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.model import ModelConfig, baseline_fock, prepare
from vpotjax.property_model import PropertyConfig, molecule_features

CONFIG = ModelConfig(species=(1, 8), orbital_basis="sto-3g", potential_basis="6-31g", power_order=1, members=1)
PROPERTY = PropertyConfig(species=(1, 8), target="energy", potential_basis="sto-3g", power_order=1)


def test_inside_prepare_foreign_elements_and_open_shells_give_nan():
    """Batches that were changed after the checks of `config.batch`, as tracers would be."""
    batch = jax.tree.map(jnp.asarray, CONFIG.batch([g2("H2O")])[0])
    run = jax.jit(lambda one: prepare(one, CONFIG).baseline)
    assert np.all(np.isfinite(run(batch)))
    for change in ({"numbers": batch.numbers.at[0].set(9)}, {"numbers": batch.numbers.at[0].set(6)}, {"spin": 2}):
        changed = dataclasses.replace(batch, **{k: jnp.asarray(v) for k, v in change.items()})
        assert np.all(np.isnan(run(changed))), change
    with pytest.raises(vp.InputError, match="elements"):
        CONFIG.batch([g2("CH4")])
    with pytest.raises(vp.InputError, match="closed shells"):
        CONFIG.batch([vp.Molecule(np.array([8, 8]), np.array([[0, 0, 0], [0, 0, 2.3]]), spin=2)])


def test_property_features_of_foreign_elements_are_nan():
    batch = jax.tree.map(jnp.asarray, PROPERTY.batch([g2("H2O")])[0])
    run = jax.jit(lambda one: molecule_features(one, PROPERTY))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(run(batch)))
    changed = dataclasses.replace(batch, numbers=batch.numbers.at[0].set(6))
    assert all(np.all(np.isnan(x)) for x in jax.tree.leaves(run(changed)))


def test_screened_potential_of_effective_cores_is_refused_by_models():
    for options in ({"baseline": "sap"}, {"baseline": "zero", "inputs": ("overlap", "sap")}):
        with pytest.raises(
            vp.InputError, match=r"(baseline|inputs) has 'sap', .*effective cores for the elements \[53\]"
        ):
            ModelConfig(species=(1, 53), orbital_basis="def2-svp", potential_basis="def2-svp", **options)
    with pytest.raises(vp.InputError, match=r"inputs has 'sap', .*effective cores"):
        PropertyConfig((1, 53), "energy", inputs=("overlap", "sap"))
    config = ModelConfig(species=(1, 53), orbital_basis="def2-svp", baseline="core", members=1, power_order=1)
    assert config.species == (1, 53)
    with pytest.raises(vp.InputError, match="all electrons"):
        baseline_fock(vp.load_basis("def2-svp", [53, 1]), jnp.array([[0, 0, 0], [0, 0, 3.0]]), "sap")
