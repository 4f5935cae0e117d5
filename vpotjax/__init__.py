"""vpotjax: differentiable electronic structure on matrices of the external potential, in JAX.

Names are imported on first use, so that `import vpotjax` is as fast as it can be and needs neither PySCF nor Flax.
Switch JAX to double precision (`jax.config.update("jax_enable_x64", True)`) for quantum-chemical accuracy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vpotjax import interop, io, losses, metrics, nn, train
    from vpotjax._checks import InputError, PrecisionWarning
    from vpotjax.basis import Basis, load_basis
    from vpotjax.batching import Batch, pad_batch
    from vpotjax.electronic.charges import lowdin_charges, mayer_bond_orders, mulliken_charges
    from vpotjax.electronic.density import density_matrix
    from vpotjax.electronic.eigensolver import eigh
    from vpotjax.electronic.multipoles import dipole
    from vpotjax.electronic.orbitals import Orbitals, orbitals
    from vpotjax.electronic.polarizability import polarizability
    from vpotjax.electronic.spectrum import homo_lumo_gap
    from vpotjax.integrals.ao_values import ao_values
    from vpotjax.integrals.kinetic import kinetic
    from vpotjax.integrals.momentum import momentum_integrals
    from vpotjax.integrals.multipole import position_integrals, second_moment_integrals
    from vpotjax.integrals.nuclear_attraction import (
        charge_potential,
        external_potential,
        nuclear_attraction,
        screened_potential,
    )
    from vpotjax.integrals.overlap import cross_overlap, overlap
    from vpotjax.integrals.screening import significant_pairs
    from vpotjax.model import Model, ModelConfig
    from vpotjax.molecule import Molecule
    from vpotjax.operators.matrix_power import potential_powers

__version__ = "0.1.0"

_SOURCES = {
    "Basis": "basis",
    "Batch": "batching",
    "InputError": "_checks",
    "Model": "model",
    "ModelConfig": "model",
    "Molecule": "molecule",
    "Orbitals": "electronic.orbitals",
    "PrecisionWarning": "_checks",
    "ao_values": "integrals.ao_values",
    "charge_potential": "integrals.nuclear_attraction",
    "cross_overlap": "integrals.overlap",
    "density_matrix": "electronic.density",
    "dipole": "electronic.multipoles",
    "eigh": "electronic.eigensolver",
    "external_potential": "integrals.nuclear_attraction",
    "homo_lumo_gap": "electronic.spectrum",
    "kinetic": "integrals.kinetic",
    "load_basis": "basis",
    "lowdin_charges": "electronic.charges",
    "mayer_bond_orders": "electronic.charges",
    "momentum_integrals": "integrals.momentum",
    "mulliken_charges": "electronic.charges",
    "nuclear_attraction": "integrals.nuclear_attraction",
    "orbitals": "electronic.orbitals",
    "overlap": "integrals.overlap",
    "pad_batch": "batching",
    "polarizability": "electronic.polarizability",
    "position_integrals": "integrals.multipole",
    "potential_powers": "operators.matrix_power",
    "screened_potential": "integrals.nuclear_attraction",
    "second_moment_integrals": "integrals.multipole",
    "significant_pairs": "integrals.screening",
}
_MODULES = ("interop", "io", "losses", "metrics", "nn", "train")

__all__ = [
    "Basis",
    "Batch",
    "InputError",
    "Model",
    "ModelConfig",
    "Molecule",
    "Orbitals",
    "PrecisionWarning",
    "ao_values",
    "charge_potential",
    "cross_overlap",
    "density_matrix",
    "dipole",
    "eigh",
    "external_potential",
    "homo_lumo_gap",
    "interop",
    "io",
    "kinetic",
    "load_basis",
    "losses",
    "lowdin_charges",
    "mayer_bond_orders",
    "metrics",
    "momentum_integrals",
    "mulliken_charges",
    "nn",
    "nuclear_attraction",
    "orbitals",
    "overlap",
    "pad_batch",
    "polarizability",
    "position_integrals",
    "potential_powers",
    "screened_potential",
    "second_moment_integrals",
    "significant_pairs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vpotjax.{name}")
    if name not in _SOURCES:
        raise AttributeError(f"module 'vpotjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vpotjax.{_SOURCES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
