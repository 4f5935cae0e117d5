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
# # First steps
#
# Orbital energies, dipole and polarizability of molecules from the model that the package ships, with an uncertainty, and
# a look at what lies between geometry and levels. Nothing is trained here.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule

import vpotjax as vp

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## Predictions
#
# Molecules come from ASE, or from files (`vp.Molecule.from_file`). `values` are in atomic units, `uncertainties` one
# standard deviation of the error to expect, by the spread of the four networks and their errors on validation molecules; `warnings`
# say which atoms are unlike all training molecules, and whether the molecule is larger than any by which that was checked.

# %%
names = ["H2O", "C2H4", "C6H6"]
molecules = [(name, vp.Molecule.from_ase(molecule(name))) for name in names]
model = vp.load_pretrained()
predicted = {p.name: p for p in vp.train.predictions(model, molecules)}
for name, p in predicted.items():
    gap, uncertainty = (27.2114 * float(x["homo_lumo_gap"]) for x in (p.values, p.uncertainties))
    alpha = np.trace(p.values["polarizability"]) / 3
    print(
        f"{name}: gap {gap:.2f} ± {uncertainty:.2f} eV, |μ| {np.linalg.norm(p.values['dipole']):.3f} e·bohr, α {alpha:.1f} bohr³"
    )
    print("  ", p.warnings or "within the range of the training molecules")

# %% [markdown]
# Of molecules that the networks have never seen the model card has the errors, and how many of them are below the uncertainty.
#
# ## What is in between
#
# V is a matrix in an atomic-orbital basis, F another one; the levels solve F C = S C ε.

# %%
benzene = dict(molecules)["C6H6"]
basis = vp.load_basis(model.settings.orbital_basis, benzene.numbers)
R = jnp.asarray(benzene.positions)
V, S = vp.external_potential(basis, R), vp.overlap(basis, R)
batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([benzene]))
F = jax.jit(lambda m, b: m(b).matrix)(jax.tree.map(jnp.asarray, model), batch)[: basis.nao, : basis.nao]
energies, orbitals = vp.eigh(F, S)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for axis, matrix, title in zip(axes, (V, F), ("V", "F"), strict=False):
    axis.imshow(np.arcsinh(5 * np.asarray(matrix)), cmap="RdBu", vmin=-4, vmax=4)
    axis.set(title=title, xticks=[], yticks=[])
levels = 27.2114 * np.asarray(energies)
nocc = int(benzene.nelec(basis)) // 2
axes[2].hlines(levels[:nocc], 0, 1, colors="tab:blue")
axes[2].hlines(levels[nocc : nocc + 8], 0, 1, colors="0.6")
axes[2].set(title="ε (eV)", ylim=(-30, 10), xticks=[])
plt.show()

# %% [markdown]
# The degenerate π levels of benzene are degenerate in the model, too: it is equivariant by construction.

# %%
print(np.round(levels[nocc - 2 : nocc + 2], 6))
