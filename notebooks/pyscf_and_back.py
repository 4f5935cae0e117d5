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
# # From PySCF and back
#
# A molecule of PySCF comes with its own basis; matrices agree with libcint; a predicted density starts PySCF's SCF.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from ase.build import molecule
from pyscf import dft, gto

import vpotjax as vp

jax.config.update("jax_enable_x64", True)
atoms = molecule("CH3CHO")
mol = gto.M(atom=list(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)), basis="def2-svp", verbose=0)

# %% [markdown]
# ## Integrals

# %%
acetaldehyde, basis = vp.interop.pyscf.from_pyscf(mol)
R = jnp.asarray(acetaldehyde.positions)
for name, own in (
    ("int1e_ovlp", vp.overlap(basis, R)),
    ("int1e_kin", vp.kinetic(basis, R)),
    ("int1e_nuc", vp.external_potential(basis, R)),
    ("int1e_r", vp.position_integrals(basis, R, jnp.zeros(3))),
):
    print(f"{name:>10}: largest difference {np.abs(np.asarray(own) - mol.intor(name)).max():.1e}")

# %% [markdown]
# ## Observables of PySCF's F

# %%
mf = dft.RKS(mol, xc="b3lyp").density_fit()
mf.kernel()
F, S = jnp.asarray(mf.get_fock()), vp.overlap(basis, R)
P = vp.density_matrix(F, S, acetaldehyde.nelec(basis))
mu = vp.dipole(P, vp.position_integrals(basis, R, jnp.zeros(3)), R, basis.nuclear_charges)
print("μ:", np.round(np.asarray(mu), 5), "PySCF's:", np.round(mf.dip_moment(unit="AU", verbose=0), 5))

# %% [markdown]
# ## A predicted density starts the SCF
#
# The shipped model has an effective F in 6-31G; the occupied orbitals are projected on the basis of `mol`. A model of F in that
# basis, trained with `density = 3e3`, saves more.


# %%
def fock_matrices(dm0):
    mf = dft.RKS(mol, xc="b3lyp").density_fit()
    built, build = [], mf.get_veff
    mf.get_veff = lambda *own, **others: built.append(1) or build(*own, **others)
    return len(built), mf.kernel(dm0=dm0), len(built)


guess = vp.interop.pyscf.initial_guess(vp.load_pretrained(), mol)
for name, dm0 in (("minao", mf.get_init_guess(key="minao")), ("vpotjax", guess)):
    _, energy, count = fock_matrices(dm0)
    print(f"{name:>8}: {count} Fock matrices, E = {energy:.8f} hartree")
