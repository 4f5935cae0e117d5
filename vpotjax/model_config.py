"""What a model is: the configuration that its weights fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vpotjax._checks import InputError
from vpotjax.batching import Batch, BatchShape, pad_batch
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import ShellLayout, irreps, require_irreps, shell_layout
from vpotjax.operators.external_potential import check_cutoff, check_operators, require_all_electrons
from vpotjax.operators.features import pair_types
from vpotjax.operators.matrix_power import check_power

BASELINES = ("sap", "core", "zero")
PRECISIONS = ("float32", "float64")
NETWORKS = ("linear", "gated", "matrix-power")
TARGETS = ("fock", "density")
FRAMES = ("ao", "lowdin")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What a model is; hashable and written to the run folder.

    Attributes:
        species: atomic numbers that the model knows, ascending.
        orbital_basis: in which F lives.
        potential_basis: in which V and its powers are represented.
        power_order: highest power of V.
        power_kinds: products of V, see `potential_powers`.
        members: networks for each kind of product; F is the mean of the matrices of all networks.
        baseline: what the network corrects: "sap" (T + superposition of atomic potentials), "core" (T + V) or "zero";
            with the target "density", the density of that Fock matrix.
        hidden: widths of the MLP of the pair's invariants.
        gated: channels per irrep that the MLP gates.
        precision: of the network, "float32" or "float64"; integrals and eigenproblem keep that of the positions.
        network: "linear", "gated" (by invariants), or "matrix-power" (gated, with hidden operators of `MatrixPower`).
        target: what is predicted, "fock" (F) or "density" (P).
        frame: of the network's correction, "ao", or "lowdin": of S^{−1/2} F S^{−1/2} (S^{1/2} P S^{1/2}), where the
            error of an element is one of the orbital energies (occupations), not one that S⁻¹ enlarges.
        inputs: operators whose blocks are features, see `operator_matrices`; of potentials the powers. The matrix-power
            network multiplies by the external potential, or by the screened one where that is the only one.
        cutoff: in bohr, of the network's nuclei and pairs of atoms; None for none. The baseline "core" has none.
        layers, channels, shells: of `MatrixPower`.
        coupling: whether its layers also mix the pairs (l₁, l₂) of one irrep.
        product_precision: of its matrix products, "float32", "float64" or "bfloat16".
        checkpoint: whether its layers are recomputed in reverse mode, which saves memory.
    """

    species: tuple[int, ...]
    orbital_basis: str = "sto-3g"
    potential_basis: str = "def2-svp"
    power_order: int = 3
    power_kinds: tuple[str, ...] = ("raw", "metric")
    members: int = 3
    baseline: str = "zero"
    hidden: tuple[int, ...] = (64, 64)
    gated: int = 8
    precision: str = "float32"
    network: str = "gated"
    target: str = "fock"
    frame: str = "ao"
    inputs: tuple[str, ...] = ("overlap", "external")
    cutoff: float | None = None
    layers: int = 3
    channels: int = 8
    shells: int = 4
    coupling: bool = False
    product_precision: str = "float32"
    checkpoint: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (
            ("baseline", BASELINES),
            ("precision", PRECISIONS),
            ("network", NETWORKS),
            ("target", TARGETS),
            ("frame", FRAMES),
            ("product_precision", (*PRECISIONS, "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}.")
        for name in ("members", "layers", "channels", "shells", "gated"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}; give the width of at least one layer.")
        if len(set(self.power_kinds)) < len(self.power_kinds):
            raise InputError(f"power_kinds is {self.power_kinds}; give each kind once.")
        check_cutoff(self.cutoff)
        check_operators(self.inputs)
        if not self.power_kinds:
            raise InputError("power_kinds is empty; give at least one kind of product of V.")
        for kind in self.power_kinds:
            check_power(self.power_order, kind)
        require_all_electrons("baseline", (self.baseline,), self.orbital_basis, self.species)
        require_all_electrons("inputs", self.inputs, self.potential_basis, self.species)
        target, potential = self.layouts()
        require_irreps(irreps(target), potential, self.potential_basis)

    def networks(self) -> dict[str, str]:
        """Names of the networks, each with its kind of power."""
        return {f"{kind}-{i}": kind for kind in self.power_kinds for i in range(self.members)}

    def layouts(self) -> tuple[ShellLayout, ShellLayout]:
        """Shell layouts of the orbital and of the potential basis."""
        return shell_layout(self.orbital_basis, self.species), shell_layout(self.potential_basis, self.species)

    def batch(self, molecules: Sequence[Molecule], shape: BatchShape | None = None) -> Batch:
        """Molecules with the two bases of the model.

        Raises:
            InputError: an element that is not among `species`, or an open shell.
        """
        for molecule in molecules:
            pair_types(molecule.numbers, self.species)
            if molecule.spin:
                raise InputError(f"{molecule.formula} has spin {molecule.spin}; the model is for closed shells.")
        batch = pad_batch(molecules, {"orbital": self.orbital_basis, "potential": self.potential_basis}, shape)
        room = 2 * np.sum(batch.bases["orbital"].ao_mask, axis=1)
        for molecule, nelec, most in zip(molecules, batch.nelec, room, strict=True):
            if nelec > most:
                raise InputError(
                    f"{molecule.formula} with charge {molecule.charge} has {nelec} electrons, but "
                    f"{self.orbital_basis!r} holds {most}; check the charge."
                )
        return batch


def require_target(config: ModelConfig, target: str) -> None:
    """Raise InputError unless the model predicts `target`, "fock" or "density"."""
    if config.target != target:
        raise InputError(f"the model's target is {config.target!r}, not {target!r}; train one for that.")
