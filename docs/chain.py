"""The picture of the README: furan, its V, the F that the shipped model predicts, and its levels.

python docs/chain.py     writes docs/chain.png
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from ase.build import molecule as ase_molecule
from ase.data import covalent_radii
from ase.data.colors import jmol_colors

import vpotjax as vp
from vpotjax.units import HARTREE_TO_EV

mpl.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """Four panels in a row."""
    jax.config.update("jax_enable_x64", True)
    molecule = vp.Molecule.from_ase(ase_molecule("C4H4O"))
    model = vp.load_pretrained()
    basis = vp.load_basis(model.settings.orbital_basis, molecule.numbers)
    potential = np.asarray(vp.external_potential(basis, jnp.asarray(molecule.positions)))
    batch: Any = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([molecule]))
    solution = jax.jit(lambda m, b: m(b))(jax.tree.map(jnp.asarray, model), batch)
    n, nocc = len(potential), int(molecule.nelec(basis)) // 2
    fock, levels = np.asarray(solution.matrix)[:n, :n], np.asarray(solution.mo_energies)[:n] * HARTREE_TO_EV
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained", width_ratios=(1, 1, 1, 0.6))
    place = np.asarray(molecule.positions)[:, 1:] - np.asarray(molecule.positions)[:, 1:].mean(axis=0)
    for i in np.argsort(np.asarray(molecule.positions)[:, 0]):
        z = int(molecule.numbers[i])
        axes[0].add_patch(plt.Circle(place[i], 1.1 * covalent_radii[z] / 0.53, fc=jmol_colors[z], ec="k", lw=0.6))
    size = np.abs(place).max() + 1.8
    axes[0].set(xlim=(-size, size), ylim=(-size, size), aspect="equal", title="geometry R, Z")
    for panel, matrix, title in ((axes[1], potential, "V"), (axes[2], fock, "F, predicted")):
        panel.imshow(np.arcsinh(5 * matrix), cmap="RdBu", vmin=-4, vmax=4)
        panel.set_title(title)
    for panel in axes[:3]:
        panel.set(xticks=[], yticks=[])
    shown = levels[(levels > -40) & (levels < 12)]
    occupied = np.isin(shown, levels[:nocc])
    axes[3].hlines(shown, 0, 1, colors=np.where(occupied, "tab:blue", "0.6"))
    axes[3].set(title="ε (eV)", xticks=[])
    figure.savefig(Path(__file__).with_name("chain.png"), dpi=110)


if __name__ == "__main__":
    main()
