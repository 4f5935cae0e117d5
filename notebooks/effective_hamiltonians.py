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
# # Effective Hamiltonians
#
# The shipped model predicts a Fock matrix in the small basis 6-31G. Its levels, dipole and polarizability were trained to be those of
# a large one, def2-TZVP. No one has computed that matrix: it is only known by its observables (Suman, Nigam et al., JCTC
# 2025, 21, 6505). Here it is compared with two that are computed: F of 6-31G itself, and F of def2-TZVP projected on 6-31G.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from ase.build import molecule

import vpotjax as vp
from vpotjax.electronic.comparison import eigenbasis_alignment, projected_fock
from vpotjax.interop.pyscf_labels import reference_labels

jax.config.update("jax_enable_x64", True)
EV = 27.2114
ethene = vp.Molecule.from_ase(molecule("C2H4"))
R = jnp.asarray(ethene.positions)
small, large = (vp.load_basis(name, ethene.numbers) for name in ("6-31g", "def2-tzvp"))
nocc = int(ethene.nelec(small)) // 2
wanted_of = ["fock", "overlap", "polarizability"]
labels = {name: reference_labels(ethene, name, "b3lyp", quantities=wanted_of) for name in ("6-31g", "def2-tzvp")}

# %% [markdown]
# ## Three matrices, one basis
#
# The projection keeps the operator and loses what the small basis cannot hold: by the variational principle its levels lie above
# those of the large basis, and its polarizability is that of a small one, far too low. No operator does better in this
# basis; an effective matrix does, for it need not be the operator.

# %%
model = vp.load_pretrained()
batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([ethene]))
S = np.asarray(vp.overlap(small, R))
cross = vp.cross_overlap(large, small, R)
matrices = {
    "6-31G": labels["6-31g"]["fock"],
    "projected": np.asarray(projected_fock(labels["def2-tzvp"]["fock"], labels["def2-tzvp"]["overlap"], cross)),
    "effective": np.asarray(jax.jit(lambda m, b: m(b).matrix)(jax.tree.map(jnp.asarray, model), batch)),
}
wanted, orbitals = scipy.linalg.eigh(labels["def2-tzvp"]["fock"], labels["def2-tzvp"]["overlap"])
levels = {name: scipy.linalg.eigh(F, S) for name, F in matrices.items()}
r = vp.position_integrals(small, R, jnp.zeros(3))
print(f"{'':10}  occupied ε, rms (eV)   gap (eV)   isotropic α (bohr³)")
for name, (energies, _) in levels.items():
    rms = EV * np.sqrt(np.mean((energies[:nocc] - wanted[:nocc]) ** 2))
    alpha = np.trace(vp.polarizability(matrices[name], S, r, 2 * nocc)) / 3
    print(f"{name:10}  {rms:16.3f} {EV * (energies[nocc] - energies[nocc - 1]):14.3f} {alpha:15.2f}")
alpha = np.trace(labels["def2-tzvp"]["polarizability"]) / 3
print(f"{'def2-TZVP':10}  {'':16} {EV * (wanted[nocc] - wanted[nocc - 1]):14.3f} {alpha:15.2f}")

# %% [markdown]
# For this molecule occupied levels of 6-31G are nearer than those of the network, which has an error of its own; what it wins is the
# polarizability.

# %% [markdown]
# ## Orbitals
#
# The loss has never seen an orbital. Squared overlaps with those of the large basis, level by level:

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for axis, (name, (_, vectors)) in zip(axes, levels.items(), strict=True):
    squares = np.asarray(orbitals[:, :14].T @ np.asarray(cross) @ vectors[:, :14]) ** 2
    axis.imshow(squares, cmap="Greys", vmin=0, vmax=1)
    axis.axhline(nocc - 0.5, color="tab:red", lw=0.8)
    axis.axvline(nocc - 0.5, color="tab:red", lw=0.8)
    axis.set(
        title=f"{name}: occupied space {squares[:nocc, :nocc].sum() / nocc:.3f}", xlabel="level", ylabel="of def2-TZVP"
    )
plt.show()

# %% [markdown]
# ## Elements, and the freedom of an effective matrix
#
# Matrices with the same levels may have any orbitals. `eigenbasis_alignment` puts the levels of one on the orbitals of another;
# what is left is the difference of the levels alone.

# %%
values, vectors = np.linalg.eigh(S)
root = (vectors / np.sqrt(values)) @ vectors.T


def rms(matrix):
    return 1e3 * np.sqrt(np.mean((root @ matrix @ root) ** 2))


for name in ("projected", "effective"):
    aligned = np.asarray(eigenbasis_alignment(matrices[name], matrices["6-31G"], S))
    print(
        f"{name:10}  F − F(6-31G): {rms(matrices[name] - matrices['6-31G']):6.1f} mhartree, "
        f"aligned {rms(aligned - matrices['6-31G']):6.1f}"
    )
