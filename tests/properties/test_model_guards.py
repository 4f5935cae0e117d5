"""What models refuse where it is known, and give NaN for where it is traced."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.models import MatrixSettings, PropertySettings
from vpotjax.models.matrix_model import baseline_fock
from vpotjax.nn import Linear
from vpotjax.operators.representation import Representation

SMALL = Representation((1, 2), basis="sto-3g", inputs=("overlap", "sap"), power_order=1)
SETTINGS = MatrixSettings(SMALL, Linear())
PROPERTY = PropertySettings(SMALL, "energy")
HEH = vp.Molecule(np.array([2, 1]), np.array([[0, 0, 0], [0, 0, 1.5]]), charge=1)
IODINE = Representation((1, 53), basis="def2-svp", inputs=("overlap", "external"), power_order=1)


def finite(tree):
    return [np.all(np.isfinite(x)) for x in jax.tree.leaves(tree)]


def test_foreign_elements_and_open_shells_are_nan_in_what_is_traced():
    """Batches that were changed after the checks of `settings.batch`, as tracers would be."""
    batch = jax.tree.map(jnp.asarray, SETTINGS.batch([HEH])[0])

    @jax.jit
    def run(one):
        geometry = SETTINGS.geometry(one)
        return geometry.baseline, geometry.features.values

    baseline, features = run(batch)
    assert all(finite((baseline, features)))
    assert np.abs(baseline).max() > 1
    for change in ({"numbers": batch.numbers.at[0].set(9)}, {"numbers": batch.numbers.at[0].set(6)}):
        baseline, features = run(dataclasses.replace(batch, **change))
        assert np.all(np.isnan(baseline)), change
        assert not any(finite(features)), change
    baseline, _ = run(dataclasses.replace(batch, spin=jnp.asarray(2)))
    assert np.all(np.isnan(baseline))


@pytest.mark.parametrize("settings", [SETTINGS, PROPERTY])
def test_foreign_elements_and_open_shells_are_refused_where_they_are_known(settings):
    with pytest.raises(vp.InputError, match="elements"):
        settings.batch([g2("CH4")])
    with pytest.raises(vp.InputError, match="closed shells"):
        settings.batch([vp.Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 2.3]]), spin=2)])
    if settings is PROPERTY:
        with pytest.raises(vp.InputError, match="charge 1 and spin 0, which a model of a property does not see"):
            settings.batch([HEH])


@pytest.mark.parametrize("change", [{"numbers": np.array([6, 1])}, {"charge": 1}, {"spin": 2}])
def test_properties_of_foreign_elements_charges_and_open_shells_are_nan(change):
    molecule = vp.Molecule(np.array([2, 2]), HEH.positions)
    batch = jax.tree.map(jnp.asarray, PROPERTY.batch([molecule])[0])
    run = jax.jit(lambda one: PROPERTY.geometry(one).features.values)
    assert all(finite(run(batch)))
    assert not any(finite(run(dataclasses.replace(batch, **change))))


def test_screened_potential_of_effective_cores_is_refused_by_models():
    with pytest.raises(vp.InputError, match=r"inputs has 'sap', .*effective cores for the elements \[53\]"):
        dataclasses.replace(IODINE, inputs=("overlap", "sap"))
    with pytest.raises(vp.InputError, match=r"baseline has 'sap', .*effective cores for the elements \[53\]"):
        MatrixSettings(IODINE, orbital_basis="def2-svp", baseline="sap")
    assert MatrixSettings(IODINE, orbital_basis="def2-svp", baseline="core").species == (1, 53)
    basis = vp.load_basis("def2-svp", [53, 1])
    with pytest.raises(vp.InputError, match="all electrons"):
        jax.eval_shape(lambda r: baseline_fock(basis, r, "sap"), jnp.array([[0, 0, 0], [0, 0, 3.0]]))
