"""The whole chain and its gradient lowered for CUDA and TPU, without a device: nothing in it is for CPUs only."""

import dataclasses
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax.models import MatrixModel, MatrixSettings
from vpotjax.models.linear_map import LinearMap
from vpotjax.nn import MatrixPower
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import fitted_whitening

PLATFORMS = ("cuda", "tpu")


def model_and_batch(precision):
    """A matrix-power model, which holds the parts of the others, with all factorisations, and two molecules."""
    representation = Representation(
        (1, 8), "sto-3g", ("overlap", "kinetic", "external", "sap"), 2, ("metric", "rational"), cutoff=8.0
    )
    settings = MatrixSettings(representation, MatrixPower(2, (4,), 1, 2, 2, coupling=True), precision=precision)
    batch = jax.tree.map(jnp.asarray, settings.batch([g2("H2O"), g2("H2")]))
    features = jax.jit(jax.vmap(lambda one: settings.geometry(one).features))(batch)
    whitening = fitted_whitening([features], 2, representation.matrix_count)
    inputs = jax.jit(lambda x: whitening(x, precision))(jax.tree.map(lambda leaf: leaf[0], features))
    params = jax.jit(settings.network.module(settings.outputs, 2).init)(jax.random.key(0), inputs)
    weights = {i: np.zeros((*x.shape[:2], dict(settings.outputs)[i].total)) for i, x in whitening.transform.items()}

    def cast(leaf):
        return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    model = MatrixModel(settings, whitening, LinearMap(weights), np.asarray(1.0), params)
    return jax.tree.map(cast, model), jax.tree.map(cast, batch)


def loss(positions, params, model, batch):
    """Of ε, P, μ and α."""

    def one(molecule):
        solution = dataclasses.replace(model, params=params)(molecule)
        levels = jnp.where(molecule.bases["orbital"].ao_mask, solution.mo_energies, 0.0)
        others = [solution.density, solution.observable("dipole"), solution.observable("polarizability")]
        return jnp.sum(levels**2) + sum(jnp.sum(x**2) for x in others)

    return jnp.mean(jax.vmap(one)(dataclasses.replace(batch, positions=positions)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_chain_and_gradient_are_exported(precision):
    model, batch = model_and_batch(precision)
    function = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    exported = jax.export.export(function, platforms=PLATFORMS)(batch.positions, model.params, model, batch)
    assert exported.platforms == PLATFORMS
    text = exported.mlir_module()
    assert "lapack" not in text  # nothing that is a CPU's alone
    assert "xla_python_cpu_callback" not in text
    assert [str(a.dtype) for a in exported.out_avals[:2]] == [
        precision,
        precision,
    ]  # the loss, and its position gradient
    calls = [
        c for c in function.lower(batch.positions, model.params, model, batch).as_text().splitlines() if "lapack" in c
    ]
    assert calls
    for call in calls:  # on CPUs one matrix at a time, see tests/test_numerics.py
        assert max(shape.count("x") for shape in re.findall(r"tensor<([^>]*)>", call)) <= 2, call
