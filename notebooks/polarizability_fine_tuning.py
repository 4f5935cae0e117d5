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
# # Fine-tuning on polarizabilities
#
# The shipped model knows the *uncoupled* polarizability of B3LYP/def2-TZVP. What an experiment sees is the coupled one, whose labels
# are dear. Here the model learns it from a few geometries of water.

# %%
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule

import vpotjax as vp
from vpotjax.interop.pyscf_labels import reference_labels
from vpotjax.io.dataset import Dataset
from vpotjax.io.pretrained import pretrained_path
from vpotjax.io.sample import Sample
from vpotjax.train import Descent, Training, train_run

jax.config.update("jax_enable_x64", True)


class Quiet:
    """What a training tells, left out."""

    def say(self, text):
        pass

    def progress(self, row, members):
        pass


# %% [markdown]
# ## Labels
#
# Coupled perturbed Kohn–Sham by PySCF, B3LYP/def2-SVP. Any other method's would do: coupled cluster, or a measurement.

# %%
rng = np.random.default_rng(0)
water = vp.Molecule.from_ase(molecule("H2O"))
splits = ["train"] * 14 + ["validation"] * 4 + ["test"] * 6
samples = []
for i, split in enumerate(splits):
    own = vp.Molecule(water.numbers, water.positions + 0.1 * rng.standard_normal((3, 3)))
    alpha = reference_labels(own, "def2-svp", "b3lyp", quantities=["coupled_polarizability"])["coupled_polarizability"]
    samples.append(Sample(f"water_{i}", split, own, {"coupled": {"polarizability": alpha}}))
dataset = Dataset(samples, {"xc": "b3lyp, coupled", "small_basis": "def2-svp", "large_basis": "coupled"})

# %% [markdown]
# ## Fine-tuning
#
# `start` takes the networks of a model; what they learn is chosen anew. The same on the command line: `vpotjax train --data
# coupled.h5 --run tuned --set start=… weights.polarizability=1 descent.steps=150`. The rows are errors on the test geometries,
# before and after: ‖Δα‖ per atom, bohr³.

# %%
training = Training(
    start=str(pretrained_path("levels")),
    members=1,
    weights={"polarizability": 1.0},
    descent=Descent(steps=150, batch_size=7, learning_rate=2e-3),
    buckets=1,
)
with tempfile.TemporaryDirectory() as folder:
    outcome = train_run(dataset, Path(folder) / "tuned", training, Quiet())
    figure = plt.imread(Path(folder) / "tuned" / "parity_polarizability.png")
for row in outcome.rows:
    print(f"{row['model']:>8} {row['polarizability_rms']:.4f}")

# %%
plt.figure(figsize=(4, 4))
plt.imshow(figure)
plt.axis("off")
plt.show()

# %% [markdown]
# How much the start is worth depends on the number of labels: for CCSD α of water a factor of five with ten geometries, of two with
# thirty, and none from a hundred on (docs/benchmarks/training.md).
