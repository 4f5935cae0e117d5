# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own training loop
#
# `vpotjax train` is one way to train; the pieces are another. Here a Flax module of the package and a loss on the polarizability
# meet in a loop of plain `jax.jit` and `optax`: no trainer, no callbacks. Molecules come from `ase.build`, labels from a matrix that
# is known, so that nothing has to be downloaded or waited for.

# %%
import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from ase.build import molecule

import vpotjax as vp
from vpotjax.models.linear_map import LinearMap
from vpotjax.operators.whitening import fitted_whitening

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Molecules and labels
#
# Twelve geometries of each of three molecules. The labels are the polarizabilities of T + SAP in 6-31G: a stand-in for the
# quantum-chemical program of real work.

# %%
rng = np.random.default_rng(0)
names, count = ("H2O", "NH3", "CH4"), 12
molecules = [
    vp.Molecule(own.numbers, own.positions + 0.1 * rng.standard_normal(np.shape(own.positions)))
    for own in (vp.Molecule.from_ase(molecule(name)) for name in names)
    for _ in range(count)
]


@jax.jit
def labels(batch):
    def one(m):
        matrix = vp.kinetic(m.basis, m.positions) + vp.screened_potential(m.basis, m.positions)
        s, r = vp.overlap(m.basis, m.positions), vp.position_integrals(m.basis, m.positions, jnp.zeros(3))
        return vp.polarizability(matrix, s, r, m.nelec, m.basis.ao_mask)

    return jax.lax.map(one, batch)


alpha = labels(jax.tree.map(jnp.asarray, vp.pad_batch(molecules, "6-31g")))
held = np.arange(len(molecules)) % 4 == 0
print(alpha.shape, "of", len(molecules), "geometries;", int(held.sum()), "are held out")

# %% [markdown]
# ## A model without a trainer
#
# Operators of the nuclei in STO-3G are the input, F in STO-3G is the output: T + SAP plus what a gated network adds. A smaller
# basis has to do what 6-31G does. `geometry` holds the integrals, which are computed once; whitening gives all features size
# one.

# %%
operators = vp.Representation((1, 6, 7, 8), "sto-3g", power_order=2)
settings = vp.MatrixSettings(operators, vp.nn.Gated(), orbital_basis="sto-3g")
batch = settings.batch(molecules)  # padded: one program for all
geometry = jax.jit(lambda b: jax.lax.map(settings.geometry, b))(batch)
whitening = fitted_whitening([geometry.features], 4, operators.matrix_count)
model = vp.MatrixModel(settings, whitening, LinearMap({}), 0.1, None)
prepared = jax.jit(lambda g: jax.lax.map(model.prepared, g))(geometry)
network, first = settings.network.module(settings.outputs, 4), jax.tree.map(lambda x: x[0], prepared.inputs)
params, optimizer = network.init(jax.random.key(0), first), optax.adam(optax.cosine_decay_schedule(5e-3, 80))
print(sum(x.size for x in jax.tree.leaves(params)), "weights")


# %% [markdown]
# ## The loop
#
# `vp.polarizability` differentiates the eigenproblem, at degenerate levels too (methane has some).


# %%
def errors(params, chosen):
    def one(row):
        fock = dataclasses.replace(model, params=params).matrix(row[0])
        s = row[0].space
        return jnp.mean((vp.polarizability(fock, s.overlap, s.position, s.nelec, s.ao_mask) - row[1]) ** 2)

    return jnp.mean(jax.lax.map(one, jax.tree.map(lambda x: x[chosen], (prepared, alpha))))


train, check = np.flatnonzero(~held), np.flatnonzero(held)


@jax.jit
def step(params, state):
    value, gradient = jax.value_and_grad(errors)(params, train)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(params, updates), state, value


validation = jax.jit(lambda p: errors(p, check))
state, history = optimizer.init(params), []
for i in range(80):
    params, state, value = step(params, state)
    if i % 5 == 4:
        history.append((i + 1, float(value) ** 0.5, float(validation(params)) ** 0.5))
steps, seen, unseen = zip(*history, strict=True)
plt.figure(figsize=(4, 3), layout="constrained")
plt.semilogy(steps, seen, label="training")
plt.semilogy(steps, unseen, label="held out")
plt.xlabel("step")
plt.ylabel("RMSE of α (bohr³)")
plt.legend()
plt.show()
spread = float(jnp.std(alpha[check] - jnp.mean(alpha[train], axis=0)))
print(f"held out: {unseen[-1]:.3f} bohr³; elements of α scatter by {spread:.2f}")

# %% [markdown]
# The same `errors` may have any other term: `vp.dipole`, levels of `vp.eigh`, or a function of yours. Large data sets, restarts and
# reports are what `vpotjax train` is for.
