"""The chain in one file: molecule → features → F (or P) → ε, P, μ, α.

    F = F₀ + R [ d(x) (linear(x) + s · network(w(x))) ] R

with the baseline F₀, pair features x, their whitening w, the frame R (S^{1/2} for F), the linear map in closed form and
the size s of the correction. d is 1 for pairs within the range of the training set and falls with the distance from it,
so that a pair unlike all that was seen falls back on the baseline: a linear map extrapolates without bound.

Every function takes one molecule (an element of a `Batch`); `jax.vmap` and `jax.lax.map` give batches. What depends on
the geometry alone is computed once per data set; inside `jax.grad` with respect to positions, call `geometry` inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._guards import flag
from vpotjax._numerics import inverse_square_root, square_root, unit_padding
from vpotjax._pytree import pytree, static_field
from vpotjax._typing import Array
from vpotjax.basis import Basis, load_basis
from vpotjax.batching import Batch, BatchShape, pad_batch
from vpotjax.electronic.density import density_matrix
from vpotjax.electronic.observables import DensitySolution, OrbitalSpace, Solution
from vpotjax.integrals.assemble import joint_matrices
from vpotjax.integrals.kinetic import KINETIC, kinetic
from vpotjax.integrals.multipole import POSITION
from vpotjax.integrals.nuclear_attraction import external_potential, screened_potential
from vpotjax.integrals.overlap import OVERLAP
from vpotjax.integrals.screening import pairs_of_program
from vpotjax.models.linear_map import LinearMap, correction
from vpotjax.molecule import Molecule
from vpotjax.nn.gated import Gated
from vpotjax.nn.network import Channels, Network, Outputs
from vpotjax.operators.blocks import Coupled, ShellLayout, ao_matrix, irreps, require_irreps, shell_layout, uncouple
from vpotjax.operators.features import NetworkInputs, PairFeatures
from vpotjax.operators.inputs import require_all_electrons
from vpotjax.operators.pairs import even_channels, from_exchange, known_elements, require_known_elements
from vpotjax.operators.representation import Representation
from vpotjax.operators.whitening import Whitening

BASELINES = ("sap", "core", "zero")
PRECISIONS = ("float32", "float64")
TARGETS = ("fock", "density")
FRAMES = ("lowdin", "ao")


@dataclasses.dataclass(frozen=True)
class MatrixSettings:
    """What a model of F or P is; hashable.

    Attributes:
        representation: of a molecule.
        network: that corrects the linear map; `vpotjax.nn.Linear()` for none.
        orbital_basis: in which F lives.
        target: what is predicted, "fock" (F) or "density" (P).
        frame: of linear map and network: "lowdin", S^{−1/2} F S^{−1/2} (S^{1/2} P S^{1/2}), where the error of an
        element
            is one of the orbital energies (occupations), or "ao", where S⁻¹ enlarges it.
        baseline: what they correct: "sap" (T + superposition of atomic potentials), "core" (T + V) or "zero"; with the
            target "density", the density of that Fock matrix.
        precision: of the network, "float32" or "float64"; integrals and eigenproblem keep that of the positions.
    """

    representation: Representation
    network: Network = dataclasses.field(default_factory=Gated)
    orbital_basis: str = "sto-3g"
    target: str = "fock"
    frame: str = "lowdin"
    baseline: str = "sap"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("baseline", BASELINES),
            ("precision", PRECISIONS),
            ("target", TARGETS),
            ("frame", FRAMES),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}.")
        require_all_electrons("baseline", (self.baseline,), self.orbital_basis, self.species)
        require_irreps(irreps(self.layout), self.representation.layout, self.representation.basis)

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows."""
        return self.representation.species

    @property
    def layout(self) -> ShellLayout:
        """Of the blocks of F."""
        return shell_layout(self.orbital_basis, self.species)

    @property
    def outputs(self) -> Outputs:
        """Channels of the blocks of F."""
        even = even_channels(self.layout)
        return tuple((i, Channels(even[i], count - even[i])) for i, count in irreps(self.layout).items())

    @property
    def bases(self) -> dict[str, str]:
        """By role."""
        return {"orbital": self.orbital_basis, "potential": self.representation.basis}

    def batch(self, molecules: Sequence[Molecule], shape: BatchShape | None = None) -> Batch:
        """Molecules with the two bases of the model.

        Raises:
            InputError: an element that the model does not know, an open shell, or more electrons than the basis holds.
        """
        for molecule in molecules:
            self.require(molecule)
        return pad_batch(molecules, self.bases, shape, pair_cutoff=self.representation.cutoff)

    def require(self, molecule: Molecule) -> None:
        """Raise InputError where the model does not know an element, or the basis of F does not hold the electrons."""
        require_known_elements(molecule.numbers, self.species)
        if molecule.spin:
            raise InputError(f"{molecule.formula} has spin {molecule.spin}; the model is for closed shells.")
        basis = load_basis(self.orbital_basis, molecule.numbers)
        nelec, most = int(molecule.nelec(basis)), 2 * basis.nao
        if not 0 <= nelec <= most:
            raise InputError(
                f"{molecule.formula} with charge {molecule.charge} has {nelec} electrons, but {self.orbital_basis!r} "
                f"holds 0 to {most}; check the charge."
            )

    def potentials(self, molecule: Batch) -> dict[str, jax.Array]:
        """Those of the representation, and under "baseline" that of the baseline, (nao, nao), hartree."""
        orbital, positions = molecule.bases["orbital"], jnp.asarray(molecule.positions)
        baseline = baseline_potential(orbital, positions, self.baseline)
        return {**self.representation.potentials(molecule), "baseline": baseline}

    def geometry(self, molecule: Batch, potentials: Mapping[str, Array] | None = None) -> Geometry:
        """What follows from one molecule of `batch` without any weight.

        The baseline, and with it all that is predicted, is NaN for an open shell and for elements that the model lacks.

        Args:
            molecule: of a batch.
            potentials: from `potentials` of the molecule; default: made here, as derivatives in positions need it.
        """
        potentials = self.potentials(molecule) if potentials is None else potentials
        orbital, positions = molecule.bases["orbital"], jnp.asarray(molecule.positions)
        mask = jnp.asarray(orbital.ao_mask)
        own, kinetic_energy, position = joint_matrices((OVERLAP, KINETIC, POSITION), orbital, positions)
        valid = flag(known_elements(molecule.numbers, self.species), jnp.asarray(molecule.spin) == 0)
        baseline = jnp.asarray(potentials["baseline"]) * valid.astype(positions.dtype)
        if self.baseline != "zero":
            baseline = baseline + kinetic_energy
        if self.target == "density" and self.baseline != "zero":
            baseline = density_matrix(baseline, own, molecule.nelec, mask)
        frame = None
        if self.frame == "lowdin":
            frame = (square_root if self.target == "fock" else inverse_square_root)(unit_padding(own, mask))
        operators = bool(getattr(self.network, "operators", False))
        return Geometry(
            features=self.representation.features(molecule, irreps(self.layout), potentials, operators=operators),
            baseline=baseline,
            frame=frame,
            space=OrbitalSpace(
                overlap=own,
                position=position,
                positions=positions,
                nelec=jnp.asarray(molecule.nelec),
                basis=jax.tree.map(jnp.asarray, orbital),
            ),
        )

    def added(
        self, outputs: Coupled, baseline: Array, frame: Array | None, space: OrbitalSpace, pairs: Any
    ) -> jax.Array:
        """Baseline plus the matrix of coupled blocks, by irrep (npair, channels, 2λ+1), that are in the frame."""
        if not outputs:  # a linear map without weights
            return jnp.asarray(baseline)
        blocks = uncouple(from_exchange(outputs, self.layout), self.layout)
        matrix = ao_matrix(blocks, space.basis, self.layout, pairs).astype(baseline.dtype)
        if frame is not None:
            matrix = frame @ matrix @ frame
            matrix = (matrix + matrix.T) / 2
        return jnp.asarray(baseline) + matrix

    def solution(self, matrix: Array, space: OrbitalSpace, max_occupied: int | None = None) -> Solution:
        """Observables of a predicted matrix."""
        return (Solution if self.target == "fock" else DensitySolution)(matrix, space, max_occupied)


@pytree
class Geometry:
    """What a model needs of one molecule, before its weights.

    Attributes:
        features: of pairs of atoms.
        baseline: F (or P) before any weight, (nao, nao), hartree.
        frame: R, (nao, nao); None where linear map and network are in AOs.
        space: what observables need.
    """

    features: PairFeatures
    baseline: Array
    frame: Array | None
    space: OrbitalSpace


@pytree
class Prepared:
    """What the network corrects, and its inputs.

    Attributes:
        inputs: of the network.
        damping: (npair,) d.
        linear: the matrix without the network, (nao, nao), hartree.
        frame, space: see `Geometry`.
    """

    inputs: NetworkInputs
    damping: Array
    linear: Array
    frame: Array | None
    space: OrbitalSpace


def baseline_potential(basis: Basis, positions: Array, kind: str) -> jax.Array:
    """The potential of `baseline_fock`, (nao, nao), hartree; zero for the baseline "zero"."""
    if kind == "zero":
        return jnp.zeros((basis.nao, basis.nao), positions.dtype)
    potential = screened_potential if kind == "sap" else external_potential
    return potential(basis, positions, pairs=pairs_of_program(basis, positions, kind == "sap"))


def baseline_fock(basis: Basis, positions: Array, kind: str) -> jax.Array:
    """A Fock matrix without any density, (nao, nao), hartree; `kind` as `MatrixSettings.baseline`."""
    potential = baseline_potential(basis, positions, kind)
    return potential if kind == "zero" else potential + kinetic(basis, positions)


@pytree
class MatrixModel:
    """Weights with all that prediction needs; a pytree, so it goes through jit and grad.

    Attributes:
        settings: what the model is.
        whitening: of the features, from the training set.
        linear: in closed form.
        scale: () size of the correction.
        params: of the network's module; None for `Linear`.
    """

    settings: MatrixSettings = static_field()
    whitening: Whitening
    linear: LinearMap
    scale: Array
    params: Any

    def prepared(self, geometry: Geometry) -> Prepared:
        """Linear map and network inputs of one molecule."""
        settings, features = self.settings, geometry.features
        inputs = self.whitening(features, settings.precision)
        damping = 1 / jnp.maximum(self.whitening.excess(inputs), 1)
        linear = {irrep: _damped(y, damping) for irrep, y in self.linear(features).items()}
        matrix = settings.added(linear, geometry.baseline, geometry.frame, geometry.space, features.pairs)
        return Prepared(inputs, damping, matrix, geometry.frame, geometry.space)

    def matrix(self, prepared: Prepared) -> jax.Array:
        """Predicted F (or P), (nao, nao), hartree, symmetric; zero on padding."""
        return corrected(self.settings, self.scale, jax.tree.map(jnp.asarray, self.params), prepared)

    output = matrix

    def observables(self, output: Array, prepared: Prepared, names: Sequence[str]) -> dict[str, jax.Array]:
        """Of F (or P), by their names in `vpotjax.electronic.observables.OBSERVABLES`."""
        solution = self.solution(output, prepared)
        return {name: solution.observable(name) for name in names}

    def solution(self, output: Array, prepared: Prepared) -> Solution:
        """What a predicted F (or P) holds."""
        return self.settings.solution(output, prepared.space)

    def excess(self, prepared: Prepared) -> jax.Array:
        """(npair,) see `Whitening.excess`."""
        return self.whitening.excess(prepared.inputs)

    def natm(self, prepared: Prepared) -> jax.Array:
        """() number of atoms."""
        return jnp.sum(jnp.asarray(prepared.space.basis.nuclear_charges) > 0)

    def heavy_atoms(self, prepared: Prepared) -> jax.Array:
        """() number of atoms other than hydrogen."""
        heavy = jnp.asarray(self.settings.species)[jnp.asarray(prepared.inputs.elements)] > 1
        return jnp.sum(heavy & (jnp.asarray(prepared.space.basis.nuclear_charges) > 0))

    def __call__(self, molecule: Batch) -> Solution:
        """The whole chain for one molecule of a batch that `settings.batch` made."""
        prepared = self.prepared(self.settings.geometry(molecule))
        return self.solution(self.matrix(prepared), prepared)


def corrected(settings: MatrixSettings, scale: Array, params: Any, prepared: Prepared) -> jax.Array:
    """The linear map's matrix plus `scale` times the network's, (nao, nao)."""
    outputs = correction(settings.network, params, prepared.inputs, settings.outputs, len(settings.species))
    pairs, dtype = prepared.inputs.pairs, jnp.asarray(prepared.linear).dtype
    scaled = {
        irrep: jnp.asarray(scale, dtype) * _damped(y.astype(dtype), prepared.damping) for irrep, y in outputs.items()
    }
    return settings.added(scaled, jnp.asarray(prepared.linear), prepared.frame, prepared.space, pairs)


def _damped(values: Array, damping: Array) -> jax.Array:
    """Of each pair, (npair, channels, components)."""
    return jnp.asarray(values) * jnp.asarray(damping, values.dtype)[:, None, None]
