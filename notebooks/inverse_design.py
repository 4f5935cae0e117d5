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
# # Inverse design: point charges that open a gap
#
# Charges around a molecule are one more potential in its Fock matrix. Where they have to be, to open the gap of
# butadiene the most, is a question for a gradient: of the gap in the places and sizes of the charges, through integrals and
# eigenproblem. F of the molecule itself is that of the shipped model; the charges act on it as a fixed F, without
# relaxation of the density.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from ase.build import molecule

import vpotjax as vp

jax.config.update("jax_enable_x64", True)
butadiene = vp.Molecule.from_ase(molecule("butadiene"))
model = vp.load_pretrained()
basis = vp.load_basis(model.settings.orbital_basis, butadiene.numbers)
R = jnp.asarray(butadiene.positions)
batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([butadiene]))
F = jax.jit(lambda m, b: m(b).matrix)(jax.tree.map(jnp.asarray, model), batch)[: basis.nao, : basis.nao]
S, nelec = vp.overlap(basis, R), butadiene.nelec(basis)


# %% [markdown]
# Four charges of about one e at most, which together are neutral, at least 4.5 bohr from every atom (a soft wall):


# %%
def gap(parameters):
    charges = jnp.tanh(parameters["charges"])
    charges = charges - jnp.mean(charges)
    levels = vp.eigh(F + vp.charge_potential(basis, R, parameters["places"], charges), S)[0]
    return levels[nelec // 2] - levels[nelec // 2 - 1]


def loss(parameters):
    distance = jnp.linalg.norm(parameters["places"][:, None] - R, axis=-1)
    return -gap(parameters) + jnp.sum(jax.nn.relu(4.5 - distance) ** 2) + 1e-4 * jnp.sum(parameters["places"] ** 2)


rng = np.random.default_rng(1)
start = rng.standard_normal((4, 3))
start = 9 * start / np.linalg.norm(start, axis=1, keepdims=True)
parameters = {"charges": 0.1 * jnp.asarray(rng.standard_normal(4)), "places": jnp.asarray(start)}
optimizer = optax.adam(0.1)
state, history = optimizer.init(parameters), []
step = jax.jit(jax.value_and_grad(loss))
for _ in range(150):
    value, gradient = step(parameters)
    updates, state = optimizer.update(gradient, state)
    parameters = optax.apply_updates(parameters, updates)
    history.append(27.2114 * float(gap(parameters)))
plt.figure(figsize=(4, 3), layout="constrained")
plt.plot(history)
plt.xlabel("step")
plt.ylabel("gap (eV)")
plt.show()
print(
    f"without charges {27.2114 * float(gap({**parameters, 'charges': jnp.zeros(4)})):.3f} eV, with {history[-1]:.3f} eV"
)

# %% [markdown]
# The gradient is exact: along a random direction it is the difference quotient.

# %%
direction = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), parameters)


def along(t):
    return gap(jax.tree.map(lambda x, d: x + t * d, parameters, direction))


print(float(jax.grad(along)(0.0)), float((along(1e-4) - along(-1e-4)) / 2e-4))
