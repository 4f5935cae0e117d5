"""What a training is: model, data, loss and descent, as nested dataclasses that a TOML file fills."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vpotjax._checks import InputError
from vpotjax.electronic.observables import known_observable
from vpotjax.io.config_file import read_toml, toml_text, updated, with_assignments
from vpotjax.losses import Alignment, ElectronDensity, Loss, MatrixElements, Observed, from_to
from vpotjax.models.matrix_model import TARGETS, MatrixSettings
from vpotjax.models.property_model import PROPERTIES, PropertySettings
from vpotjax.nn import Gated, Linear, MatrixPower
from vpotjax.operators.representation import Representation
from vpotjax.train.descent import Descent

CORRECTION = 0.03  # hartree
OF_MATRICES = ("elements", "alignment", "density")
"""Weights of losses on F or P, by the names of their fields."""
WEIGHTS = {"mo_energies": 1e6, "homo_lumo_gap": 3e6, "dipole": 1.5e3, "polarizability": 3e2}


Scheduled: TypeAlias = float | tuple[float, ...]
"""A weight: a number, or what `from_to` takes."""


def _counts(weight: Scheduled) -> bool:
    """Whether a weight is ever more than 0."""
    return any(weight[:2]) if isinstance(weight, tuple) else bool(weight)


def _shown(weight: Scheduled) -> Any:
    return list(weight) if isinstance(weight, tuple) else weight


def _scheduled(name: str, weight: Scheduled) -> float | Callable[[Any], Any]:
    """As losses take it.

    Raises:
        InputError: it is negative, or not finite, or a list of anything else than two or three numbers.
    """
    numbers = weight if isinstance(weight, tuple) else (weight,)
    if not all(0 <= x < float("inf") for x in numbers):
        raise InputError(f"weight of {name} is {_shown(weight)}; give 0 or a positive number.")
    if not isinstance(weight, tuple):
        return float(weight)
    if len(weight) not in (2, 3) or not 0 < (*weight, 1.0)[2] <= 1:
        raise InputError(
            f"weight of {name} is {_shown(weight)}; give two numbers, from and to, and the share of the steps, above 0 "
            "and up to 1, at which it arrives."
        )
    return from_to(*map(float, weight))


@dataclasses.dataclass(frozen=True)
class Training:
    """A training on observables, or on matrices.

    Attributes:
        network: that corrects the closed-form fit.
        members: networks of the ensemble, from seeds in a row.
        together: train them in one program (vmap); false: each by itself, as many at a time as there are processors.
            Default: the first on accelerators and on several devices.
        orbital_basis: in which F lives; matrices of the data set in that basis give the start, or are learned.
            Default: the largest basis in which there are some, else the small one.
        basis: in which the operators are represented.
        inputs: operators: overlap, kinetic, external, sap, own_nuclei.
        power_order, power_kinds: highest power of the potentials, and products: metric, raw, lowdin, rational.
        cutoff: of nuclei and pairs of atoms, bohr; default: none.
        target: fock or density, or a property that is predicted without F: energy, dipole or polarizability; of these
            only network, members, operators (from `basis` to `cutoff`), precision and descent count.
        frame, baseline: see `MatrixSettings`.
        precision: of the network.
        weights: of the observables in the loss, by name; 0 or absent: not in it. One that changes is a list: from, to,
            and the share of the steps at which it arrives if not at the end; the last decides which weights of the
            network are the best. Default: WEIGHTS, on matrices none.
        elements, alignment: weights, likewise, of the elements of the matrix and of its alignment in the loss, in
            units of what the closed-form fit leaves; with one of them the labels in orbital_basis are what is learned,
            the matrix and the observables in `weights`. P needs the first, F alone knows the second.
        density: weight, likewise, of the share of the electrons that the density of F misplaces, some 1e-4; for
            densities with which an SCF starts.
        scale: unit of the network's correction, hartree for F. Default: 0.03 hartree in a training on observables, in
            one on matrices what the closed-form fit leaves.
        descent: how the loss is minimised.
        buckets: sizes to which molecules are padded.
        start: folder of a run whose model this training starts from, networks and all; what its settings are, is not
            to be given here. Default: from the closed-form fit.
        wandb: project of Weights & Biases that metrics are sent to; default: none.
    """

    network: Gated | MatrixPower | Linear = dataclasses.field(default_factory=Gated)
    members: int = 4
    together: bool | None = None
    orbital_basis: str | None = None
    basis: str = "def2-svp"
    inputs: tuple[str, ...] = ("overlap", "kinetic", "sap")
    power_order: int = 3
    power_kinds: tuple[str, ...] = ("metric",)
    cutoff: float | None = None
    target: str = "fock"
    frame: str = "lowdin"
    baseline: str = "sap"
    precision: str = "float32"
    weights: dict[str, Scheduled] | None = None
    elements: Scheduled = 0.0
    alignment: Scheduled = 0.0
    density: Scheduled = 0.0
    scale: float | None = None
    descent: Descent = dataclasses.field(default_factory=Descent)
    buckets: int = 4
    start: str | None = None
    wandb: str | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise InputError(f"scale is {self.scale}; give a positive number, in hartree.")
        for name in ("members", "buckets"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1.")
        for name, weight in (self.weights or {}).items():
            known_observable(name)
            _scheduled(name, weight)
        for name in OF_MATRICES:
            _scheduled(name, getattr(self, name))
        if self.target not in (*TARGETS, *PROPERTIES):
            raise InputError(f"target is {self.target!r}; give one of {', '.join((*TARGETS, *PROPERTIES))}.")
        if self.target in PROPERTIES:
            self._require_no_matrix()
        if self.target == "density" and (_counts(self.alignment) or not _counts(self.elements)):
            raise InputError(
                f"target is 'density' with elements={self.elements} and alignment={self.alignment}; give elements a "
                "positive weight, and alignment none: it compares orbital energies."
            )

    def _require_no_matrix(self) -> None:
        """Raise InputError where what only a model of a matrix has is given for a property."""
        for name in (*OF_MATRICES, "weights", "orbital_basis", "frame", "baseline", "scale"):
            default = next(field.default for field in dataclasses.fields(self) if field.name == name)
            if getattr(self, name) != default:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, but target is {self.target!r}, whose model has no matrix and "
                    "one label; leave it out, or train target='fock'."
                )

    @property
    def observables(self) -> dict[str, Scheduled]:
        """Weights of the observables that are in the loss."""
        weights = ({} if self.on_matrices else WEIGHTS) if self.weights is None else self.weights
        return {name: weight for name, weight in weights.items() if _counts(weight)}

    @property
    def on_matrices(self) -> bool:
        """Whether F or P of the data set is what is learned."""
        return any(_counts(getattr(self, name)) for name in OF_MATRICES)

    def representation(self, species: tuple[int, ...]) -> Representation:
        """Of molecules of these elements."""
        return Representation(species, self.basis, self.inputs, self.power_order, self.power_kinds, self.cutoff)

    def settings(self, species: tuple[int, ...], orbital: str) -> MatrixSettings:
        """Of a model of a matrix; `orbital` is the basis of F where none is chosen."""
        own, orbital = self.representation(species), self.orbital_basis or orbital
        return MatrixSettings(own, self.network, orbital, self.target, self.frame, self.baseline, self.precision)

    def property_settings(self, species: tuple[int, ...]) -> PropertySettings:
        """Of a model of a property."""
        return PropertySettings(self.representation(species), self.target, self.network, self.precision)

    def settings_from(self, before: MatrixSettings | PropertySettings) -> MatrixSettings | PropertySettings:
        """Those of the model that the training starts from.

        Raises:
            InputError: other ones are asked for.
        """
        representation, plain = before.representation, Training()
        if self.scale is not None:
            raise InputError(
                f"scale is {self.scale}, but that of the model of start={self.start!r} stays; leave it out."
            )
        kept = ("network", "target", "orbital_basis", "frame", "baseline")
        own = {name: getattr(before, name) for name in kept if hasattr(before, name)}
        own |= {name: getattr(representation, name) for name in ("basis", "inputs", "power_order", "power_kinds")}
        own |= {"cutoff": representation.cutoff, "precision": before.precision}
        if before.target in PROPERTIES and self.target != before.target:
            raise InputError(f"target is {self.target!r}, but {before.target!r} in the model of start; give that.")
        for name, value in own.items():
            wanted = getattr(self, name)
            if wanted not in (value, getattr(plain, name)):
                raise InputError(
                    f"{name} is {wanted!r}, but {value!r} in the model of start={self.start!r}; leave it out, or train "
                    "without start."
                )
        return before

    def loss(self, scale: float) -> Loss:
        """What is minimised; `scale` is the size of what the closed-form fit leaves."""
        weighted: list[tuple[str, Scheduled, Loss]] = [
            (n, weight, Observed(n)) for n, weight in self.observables.items()
        ]
        if _counts(self.elements):
            weighted.append(("elements", self.elements, MatrixElements(self.target, scale)))
        if _counts(self.alignment):
            weighted.append(("alignment", self.alignment, Alignment(scale)))
        if _counts(self.density):
            weighted.append(("density", self.density, ElectronDensity()))
        if weighted and not any(weight[1] if isinstance(weight, tuple) else weight for _, weight, _ in weighted):
            raise InputError(
                f"all weights of the loss end at 0 ({', '.join(name for name, *_ in weighted)}), but those at the end "
                "judge which network is the best; let one end at a positive number."
            )
        terms = [_scheduled(name, weight) * term for name, weight, term in weighted]
        if not terms:
            raise InputError("all weights of the loss are 0; give one a positive number.")
        return sum(terms[1:], start=terms[0])


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a training takes its data from, and puts its results.

    Attributes:
        data: HDF5 file.
        run: folder for configuration, metrics, checkpoint and plots: new, or of the same training that was ended.
        split: of those that 'vpotjax split' stored, by name; default: the one that the data set was made with.
    """

    data: str | None = None
    run: str | None = None
    split: str | None = None


def read_config(
    file: str | Path | None,
    assignments: Sequence[str] = (),
    place: Mapping[str, Any] | None = None,
    default: Training | None = None,
) -> tuple[Place, Training]:
    """A training as a TOML file describes it, whose keys are the fields of `Place` and of `Training`.

    Args:
        file: TOML; None: defaults.
        assignments: changes such as "descent.steps=200".
        place: entries of `Place` that are known already, and win.
        default: what is not in the file.

    Raises:
        InputError: the file cannot be read; an unknown key, with the nearest one that there is; a wrong value.
    """
    values = with_assignments({} if file is None else read_toml(file), assignments)
    names = [field.name for field in dataclasses.fields(Place)]
    own = {name: values.pop(name) for name in names if name in values}
    known = {name: str(value) for name, value in (place or {}).items() if value is not None}
    return updated(Place(), own | known), updated(default or Training(), values)


def config_text(place: Place, training: Training, comments: bool = True) -> str:
    """All of it as TOML, which `read_config` reads."""
    return toml_text(place, comments) + toml_text(training, comments)
