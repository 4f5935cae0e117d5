"""The whole chain and its gradient lowered for CUDA and TPU, without a device: nothing in it is for CPUs only."""

import dataclasses
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax.model import Model, ModelConfig, initial_parameters, prepare
from vpotjax.operators.features import feature_statistics, matrix_count

PLATFORMS = ("cuda", "tpu")


def model_and_batch(precision):
    """A matrix-power model, which holds the parts of the others, with all factorisations, and two molecules."""
    config = ModelConfig(
        species=(1, 8),
        orbital_basis="sto-3g",
        potential_basis="sto-3g",
        power_order=2,
        power_kinds=("metric", "rational"),
        members=1,
        hidden=(4,),
        gated=2,
        layers=1,
        channels=2,
        shells=2,
        network="matrix-power",
        baseline="sap",
        frame="lowdin",
        precision=precision,
        inputs=("overlap", "kinetic", "external", "sap"),
    )
    batch = jax.tree.map(jnp.asarray, config.batch([g2("H2O"), g2("H2")]))
    prepared = jax.jit(jax.vmap(lambda one: prepare(one, config)))(batch)
    count = matrix_count(config.inputs, config.power_order)
    statistics = {
        kind: feature_statistics(x, np.asarray(prepared.kinds), config.species, count)
        for kind, x in prepared.features.items()
    }
    params = initial_parameters(config, jax.tree.map(lambda leaf: leaf[0], prepared), 0)

    def cast(leaf):
        return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return Model(config, params, statistics), jax.tree.map(cast, batch)


def loss(positions, params, model, batch):
    """Of ε, P, μ and α."""

    def one(molecule):
        o = dataclasses.replace(model, params=params)(molecule)
        levels = jnp.where(molecule.bases["orbital"].ao_mask, o.mo_energies, 0.0)
        return jnp.sum(levels**2) + jnp.sum(o.density**2) + jnp.sum(o.dipole**2) + jnp.sum(o.polarizability**2)

    return jnp.mean(jax.vmap(one)(dataclasses.replace(batch, positions=positions)))


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
