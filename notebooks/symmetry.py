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
# # Symmetry and degenerate gradients
#
# Benzene has degenerate orbitals. Derivatives of single eigenvectors do not exist there, those of the density matrix do: only
# the gap between occupied and virtual levels enters. Here is what plain automatic differentiation makes of it, and what the
# package does.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from ase.build import molecule

import vpotjax as vp

jax.config.update("jax_enable_x64", True)
turns = 2 * np.pi * np.arange(6) / 6
ring = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
benzene = vp.Molecule([6] * 6 + [1] * 6, np.concatenate([2.640 * ring, 4.691 * ring]))  # bohr
basis = vp.load_basis("sto-3g", benzene.numbers)
R = jnp.asarray(benzene.positions)
S = vp.overlap(basis, R)
F = vp.kinetic(basis, R) + vp.screened_potential(basis, R)
nelec = benzene.nelec(basis)
rng = np.random.default_rng(0)
weights = rng.standard_normal(F.shape)
weights = jnp.asarray(weights + weights.T)
direction = rng.standard_normal(F.shape)
direction = jnp.asarray(direction + direction.T) / 100
print("levels around the gap:", np.round(np.asarray(vp.eigh(F, S)[0])[nelec // 2 - 3 : nelec // 2 + 3], 6))


# %% [markdown]
# A loss on the density matrix, its derivative along a direction in F: by finite differences, by `jnp.linalg.eigh` under
# `jax.grad`, and by the package, in double and in single precision.


# %%
def plain(F, S):
    inverse = jnp.linalg.inv(jnp.linalg.cholesky(S))
    _, vectors = jnp.linalg.eigh(inverse @ F @ inverse.T)
    occupied = (inverse.T @ vectors)[:, : nelec // 2]
    return jnp.sum(weights * (2 * occupied @ occupied.T))


def ours(F, S):
    return jnp.sum(weights * vp.density_matrix(F, S, nelec))


step = 1e-3
a, b, c, d = (ours(F + t * step * direction, S) for t in (-2, -1, 1, 2))
wanted = (a - 8 * b + 8 * c - d) / (12 * step)
for dtype in (jnp.float64, jnp.float32):
    for name, loss in (("plain eigh", plain), ("vpotjax", ours)):
        gradient = jax.grad(loss)(F.astype(dtype), S.astype(dtype))
        slope = jnp.vdot(gradient, direction)
        print(f"{dtype.__name__} {name:>10}: {slope:10.6f}, off by {abs(slope / wanted - 1):.1e}")

# %% [markdown]
# The same holds for derivatives of second order, and for the polarizability.

# %%
r = vp.position_integrals(basis, R, jnp.zeros(3))


def alpha(t):
    return jnp.trace(vp.polarizability(F + t * direction, S, r, nelec))


exact = jax.grad(jax.grad(alpha))(0.0)
a, b, c, d, e = (alpha(t * 1e-2) for t in (-2.0, -1.0, 0.0, 1.0, 2.0))
print(f"second derivative of tr α: {exact:.4f}, by differences {(-a + 16 * b - 30 * c + 16 * d - e) / 12e-4:.4f}")

# %% [markdown]
# A network on pairs of atoms is equivariant by construction: turn the molecule, and the dipole turns.

# %%
water = vp.Molecule.from_ase(molecule("H2O"))
turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
turned = vp.Molecule(water.numbers, water.positions @ turn.T)
one, other = (p for p in vp.train.predictions(vp.load_pretrained(), [("water", water), ("turned", turned)]))
print(np.abs(other.values["dipole"] - turn @ one.values["dipole"]).max())
