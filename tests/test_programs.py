"""Programs that are compiled quickly: the same numbers, and none of it asked of a compiler that does not know how."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule

from vpotjax import _programs
from vpotjax._programs import quick_jit, quick_options
from vpotjax.models.matrix_model import MatrixSettings
from vpotjax.models.property_model import PropertySettings
from vpotjax.molecule import Molecule
from vpotjax.operators.features import SCALAR
from vpotjax.operators.representation import Representation
from vpotjax.train.geometry import geometry_program

MINIMAL = Representation((1, 8), "sto-3g", ("overlap", "kinetic", "external", "own_nuclei"), 2, cutoff=6.0)


@pytest.fixture
def unknown_option(monkeypatch):
    """A compiler that has not heard of the options."""
    monkeypatch.setattr(_programs, "QUICK", {"xla_no_such_option": True})
    quick_options.cache_clear()
    yield
    quick_options.cache_clear()


def power(x, n):
    return jnp.sin(x) ** n


def test_static_arguments_and_gradients():
    program = quick_jit(jax.grad(power), static_argnums=1)
    assert program(0.3, 2) == pytest.approx(np.sin(0.6), abs=1e-14)
    assert program(0.3, 1) == pytest.approx(np.cos(0.3), abs=1e-14)


def test_inside_of_other_transformations():
    """Where JAX has no options of the compiler."""
    program = quick_jit(power, 1)
    assert jax.grad(program)(0.3, 2) == pytest.approx(np.sin(0.6), abs=1e-14)
    assert jax.jit(lambda x: program(x, 2))(0.3) == pytest.approx(np.sin(0.3) ** 2, abs=1e-14)
    np.testing.assert_allclose(jax.lax.map(lambda x: program(x, 1), jnp.array([0.3, 0.4])), np.sin([0.3, 0.4]))


def test_without_the_options(unknown_option):
    assert quick_options() is None
    assert quick_jit(power, 1)(0.3, 2) == pytest.approx(np.sin(0.3) ** 2, abs=1e-14)


PREDICT = """
import sys, jax, numpy as np, vpotjax as vp
from ase.build import molecule
from vpotjax import _programs
jax.config.update("jax_enable_x64", True)
if sys.argv[1] == "plain":
    _programs.quick_options = lambda: None
water = vp.Molecule.from_ase(molecule("H2O"))
(own,) = vp.train.predictions(vp.load_pretrained(), [("water", water)])
print(*np.concatenate([np.ravel(x) for x in own.values.values()]).tolist())
"""


@pytest.mark.slow
def test_both_code_generators_predict_the_same():
    """The tests themselves know one of them, see conftest.py."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    texts = [
        subprocess.run(
            [sys.executable, "-c", PREDICT, how], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for how in ("quick", "plain")
    ]
    quick, plain = (np.array(text.split(), float) for text in texts)
    np.testing.assert_allclose(quick, plain, atol=1e-7)


@pytest.mark.parametrize("target", [pytest.param("fock", marks=pytest.mark.slow), "fock, no baseline", "dipole"])
def test_geometry_in_two_programs(target):
    """As in one."""
    if target == "dipole":
        settings = PropertySettings(MINIMAL, target)
    else:
        settings = MatrixSettings(MINIMAL, baseline="zero" if "no" in target else "core")
    batch = jax.tree.map(jnp.asarray, settings.batch([Molecule.from_ase(molecule(name)) for name in ("H2O", "H2")]))
    whole = jax.jit(jax.vmap(settings.geometry))(batch)
    parts = geometry_program(settings)(batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), whole, parts)
    own = jax.vmap(settings.potentials)(batch)
    other = jax.vmap(settings.geometry)(batch, {name: 1.1 * x for name, x in own.items()})
    scalars = (np.asarray(g.features.values[SCALAR]) for g in (parts, other))
    assert not np.allclose(*scalars, atol=1e-3)  # those that are given are those that are used
