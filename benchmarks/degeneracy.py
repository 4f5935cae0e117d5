"""Environments that ν = 2 SOAP cannot tell apart, and what powers of V say of them.

    python -m benchmarks.degeneracy methane       a minute on one core; needs featomic
    python -m benchmarks.degeneracy anthracene    three minutes

methane: four hydrogens in a plane around a carbon, at one distance, at the angles 45° × {0, 1, 3, 4} and
45° × {0, 1, 2, 5}: no rotation or mirror takes one to the other, but the six angles between them are the same
(Patterson's cyclic homometric sets; degenerate CH4 as in Pozdnyakov et al. 2020, doi:10.1103/PhysRevLett.125.166001).
Shown is ‖Δx‖/‖x‖ of the invariants of carbon's own block, and of the whole molecule; in brackets of {0, 1, 2, 4}, whose
angles differ.

anthracene: flat, its hydrogens at the two ends bent by 0.3 Å out of the plane, both ends to the same side or to
opposite ones. No atom has both ends within 4 Å, SOAP's cutoff here, so no descriptor of such environments, whatever
its order, tells the two apart. In brackets one end alone is bent.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from benchmarks.op2prop import SOAP
from benchmarks.runs import SINGLE_THREAD
from vpotjax.molecule import Molecule
from vpotjax.operators.representation import Representation
from vpotjax.units import ANGSTROM_TO_BOHR

PLACES = ((0, 1, 3, 4), (0, 1, 2, 5), (0, 1, 2, 4))
DISTANCE, ORDER = 3.0, 5  # bohr, so that hydrogens are 2.3 apart
BEND = 0.3  # Å
ROWS = {
    "raw powers of V": ("external", "raw"),
    "metric powers of V": ("external", "metric"),
    "metric powers of the screened V": ("sap", "metric"),
    "resolvents of V": ("external", "rational"),
}


def methanes() -> list[Molecule]:
    """The degenerate pair, and the third."""
    result = []
    for places in PLACES:
        angles = np.pi / 4 * np.array(places)
        hydrogens = DISTANCE * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
        result.append(Molecule(np.array([6, 1, 1, 1, 1]), np.vstack([np.zeros(3), hydrogens])))
    return result


def anthracenes() -> list[Molecule]:
    """Ends bent to the same side, to opposite sides, and one alone; bonds of 1.40 and 1.09 Å."""
    bond, out = 1.40, 1.09
    height = bond * np.sqrt(3) / 2
    quarter = [(0.0, bond), (height, bond / 2), (2 * height, bond), (3 * height, bond / 2)]
    ends = (3 * height + out * np.sqrt(3) / 2, bond / 2 + out / 2)
    hydrogens = [(0.0, bond + out), (2 * height, bond + out), ends]

    def whole(points: list[tuple[float, float]]) -> np.ndarray:
        signs = [(i, j) for i in (1, -1) for j in (1, -1)]
        places = sorted({(round(i * x, 9) + 0.0, round(j * y, 9)) for x, y in points for i, j in signs})
        return np.array([(*place, 0.0) for place in places])

    carbon, hydrogen = whole(quarter), whole(hydrogens)
    result = []
    for left in (1, -1, 0):
        bent = hydrogen.copy()
        bent[:, 2] += BEND * (np.isclose(bent[:, 0], ends[0]) + left * np.isclose(bent[:, 0], -ends[0]))
        numbers = np.array([6] * len(carbon) + [1] * len(bent))
        result.append(Molecule(numbers, np.vstack([carbon, bent]) * ANGSTROM_TO_BOHR))
    return result


def of_powers(systems: list[Molecule], name: str, kind: str, basis: str) -> tuple[np.ndarray, np.ndarray]:
    """Invariants of carbon's own blocks (molecules, powers, channels), and of each kind of pair, summed."""
    import jax
    import jax.numpy as jnp

    from vpotjax.batching import pad_batch
    from vpotjax.operators.features import SCALAR
    from vpotjax.train.property_fit import channel_matrices

    representation = Representation((1, 6), basis, (name,), ORDER, (kind,))
    batch = jax.tree.map(jnp.asarray, pad_batch(systems, {"potential": basis}))
    features = jax.jit(lambda b: jax.lax.map(lambda m: representation.features(m, ()), b))(batch)
    values, kinds = np.asarray(features.values[SCALAR])[..., 0], np.asarray(features.kinds)
    matrices = channel_matrices(representation, SCALAR)
    carbon = np.stack([x[k == 1].sum(axis=0) for x, k in zip(values, kinds, strict=True)])
    whole = np.stack(
        [np.concatenate([x[k == i].sum(axis=0)[None] for i in range(5)]) for x, k in zip(values, kinds, strict=True)]
    )
    orders = range(representation.matrix_count)
    return (
        np.stack([carbon[:, matrices == i] for i in orders], axis=1),
        np.stack([whole[:, :, matrices == i].reshape(len(whole), -1) for i in orders], axis=1),
    )


def of_soap(molecules: list[Molecule]) -> tuple[np.ndarray, np.ndarray]:
    """The power spectrum of carbons, and of the atoms of each element, summed."""
    from featomic import SoapPowerSpectrum  # pyright: ignore[reportMissingImports]
    from metatensor import sum_over_samples  # pyright: ignore[reportMissingImports]

    systems: list[Any] = [m.to_ase() for m in molecules]
    spectrum = SoapPowerSpectrum(**SOAP).compute(systems)
    spectrum = spectrum.keys_to_properties(["neighbor_1_type", "neighbor_2_type"])
    summed: Any = sum_over_samples
    sums: Any = summed(spectrum, sample_names="atom")
    carbon = np.asarray(sums.block({"center_type": 6}).values)
    whole = np.concatenate([carbon, np.asarray(sums.block({"center_type": 1}).values)], axis=1)
    return carbon[:, None], whole[:, None]


def shown(x: np.ndarray) -> str:
    """Of the degenerate pair, and in brackets of the third molecule, for each power."""
    cells = []
    for own in np.swapaxes(x, 0, 1):
        size = np.linalg.norm(own[0])
        pair, other = (np.linalg.norm(own[i] - own[0]) / size for i in (1, 2))
        cells.append(f"{pair:.1e} ({other:.1e})")
    return " | ".join(cells)


SYSTEMS = {"methane": methanes, "anthracene": anthracenes}


def show(which: str) -> None:
    """Print the tables."""
    systems = SYSTEMS[which]()
    spectra = of_soap(systems)
    for i, title in enumerate(("carbon", "whole molecule")):
        orders = " | ".join(str(n + 1) for n in range(ORDER))
        print(f"\n{which}, {title}\n\n| invariants | {orders} |\n|---|{'---|' * ORDER}")
        print(f"| ν = 2 SOAP | {shown(spectra[i])} | {'| ' * (ORDER - 1)}")
        for basis in ("sto-3g", "def2-svp"):
            for name, (operator, kind) in ROWS.items():
                print(f"| {name}, {basis} | {shown(of_powers(systems, operator, kind, basis)[i])} |")


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    import jax

    jax.config.update("jax_enable_x64", True)
    for one in sys.argv[1:] or SYSTEMS:
        show(one)
