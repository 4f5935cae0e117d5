"""vpotjax: differentiable electronic structure on matrices of the external potential, in JAX.

Switch JAX to double precision (`jax.config.update("jax_enable_x64", True)`) for quantum-chemical accuracy.
"""

from vpotjax import interop, io, losses, metrics, models, nn, train
from vpotjax._checks import InputError, PrecisionWarning
from vpotjax._version import __version__
from vpotjax.basis import Basis, load_basis
from vpotjax.batching import Batch, pad_batch
from vpotjax.electronic.density import density_matrix
from vpotjax.electronic.eigensolver import eigh
from vpotjax.electronic.multipoles import dipole
from vpotjax.electronic.orbitals import Orbitals, orbitals
from vpotjax.electronic.polarizability import polarizability
from vpotjax.electronic.populations import lowdin_charges, mayer_bond_orders, mulliken_charges
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
from vpotjax.io.pretrained import load_pretrained
from vpotjax.models import Ensemble, MatrixModel, MatrixSettings
from vpotjax.molecule import Molecule
from vpotjax.operators.powers import potential_powers
from vpotjax.operators.representation import Representation

__all__ = [
    "Basis",
    "Batch",
    "Ensemble",
    "InputError",
    "MatrixModel",
    "MatrixSettings",
    "Molecule",
    "Orbitals",
    "PrecisionWarning",
    "Representation",
    "__version__",
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
    "load_pretrained",
    "losses",
    "lowdin_charges",
    "mayer_bond_orders",
    "metrics",
    "models",
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
