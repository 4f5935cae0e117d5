"""How a loss is minimised: optimiser, learning rate, batches, and when it ends."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vpotjax._checks import InputError
from vpotjax.io.sample import one_line

SCHEDULES = ("cosine", "linear", "exponential", "constant")
OPTIMIZERS = tuple(
    "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad lamb lion muon nadam nadamw novograd "  # noqa: SIM905
    "radam rmsprop sgd yogi".split()
)
"""Of Optax, those that need nothing but the gradient."""


@dataclasses.dataclass(frozen=True)
class Descent:
    """How a loss is minimised.

    Attributes:
        steps: of the optimiser, at most.
        epochs: passes over the training molecules, in place of `steps`.
        seconds: wall time after which a network ends; the best of it is kept.
        batch_size: molecules per step.
        batch_aos: atomic orbitals per step, padding included, in place of `batch_size`.
        accumulation: batches whose gradients are averaged before the optimiser moves.
        optimizer: of Optax, by its name, as adam, adamw, lion, muon.
        optimizer_options: its other arguments, as {weight_decay = 1e-4}.
        learning_rate: peak.
        schedule: from the peak to `final` of it: cosine, linear, exponential, or constant.
        warmup: share of the steps in which the rate grows linearly from 0.
        final: see `schedule`.
        ema: decay of an average of the weights that is evaluated and kept in place of them; 0: none.
        frozen: parts of the network whose weights stay as they are, by the beginning of their names, as "invariants".
        patience: evaluations without a lower validation loss after which a network ends; default: none end early.
        limit: largest norm of a molecule's gradient in the output, in multiples of the batch's median.
        tolerated: share of molecules whose gradients may be left out between two evaluations.
        evaluations: how often the validation loss is computed, and a state is kept from which a killed training goes
            on; the weights of the best are those of the model.
        seed: of the batches and of initial weights.

    Raises:
        InputError: a value is out of range, an optimiser or a schedule is unknown.
    """

    steps: int = 1000
    epochs: float | None = None
    seconds: float | None = None
    batch_size: int = 32
    batch_aos: int | None = None
    accumulation: int = 1
    optimizer: str = "adam"
    optimizer_options: dict[str, float | int | bool] = dataclasses.field(default_factory=dict)
    learning_rate: float = 2e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    final: float = 0.01
    ema: float = 0.0
    frozen: tuple[str, ...] = ()
    patience: int | None = None
    limit: float = 3.0
    tolerated: float = 0.1
    evaluations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("steps", "batch_size", "accumulation", "learning_rate", "final", "limit", "evaluations")
        optional = ("epochs", "seconds", "batch_aos", "patience")
        for name in (*positive, *(name for name in optional if getattr(self, name) is not None)):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; give a positive number.")
        for name in ("tolerated", "warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a share from 0 to below 1.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give 0 or a positive number.")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value not in known:
                near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"give one of {', '.join(known)}."
                raise InputError(f"{name} is {value!r}; {hint}")
        if self.optimizer_options:
            self._try_options()

    def _try_options(self) -> None:
        """Some options show that they will not do when the optimiser moves."""
        weights = {"weights": jnp.ones((2, 2))}
        try:
            own = self.optimiser(1)
            own.update(weights, own.init(weights), weights)
        except InputError:
            raise
        except Exception as error:  # of whatever Optax does with them
            raise InputError(
                f"optimizer_options is {self.optimizer_options}, with which {self.optimizer} does not work "
                f"({type(error).__name__}: {one_line(error)}); see Optax on it."
            ) from None

    def text(self) -> str:
        """Steps and batches, in words."""
        length = f"{self.steps} steps" if self.epochs is None else f"{self.epochs:g} epochs"
        size = f"{self.batch_size} molecules" if self.batch_aos is None else f"{self.batch_aos} orbitals"
        more = f", {self.accumulation} batches each" if self.accumulation > 1 else ""
        return f"{length} of {size}{more}, {self.optimizer}"

    def step_count(self, molecules: int, mean_batch: float) -> int:
        """Steps of a training on so many molecules."""
        return self.steps if self.epochs is None else max(1, round(self.epochs * molecules / mean_batch))

    def batch(self, nao: int) -> int:
        """Molecules of a step, where each has `nao` orbitals with padding."""
        return self.batch_size if self.batch_aos is None else max(1, self.batch_aos // nao)

    def moving(self, params: Any) -> Any:
        """For each weight, whether it moves.

        Raises:
            InputError: a part that `frozen` names is not there.
        """
        paths = [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        for part in self.frozen:
            if not any(_begins(path, part) for path in paths):
                known = ", ".join(sorted({path.partition("/")[0] for path in paths}))
                raise InputError(f"frozen has {part!r}, but the network has {known}; give some of them.")
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not any(_begins(_path(path), part) for part in self.frozen), params
        )

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate by the number of updates."""
        updates = max(2, steps // self.accumulation)
        warmup, peak = (max(1, int(self.warmup * updates)) if self.warmup else 0), self.learning_rate
        rest = max(1, updates - warmup)
        falls: dict[str, Callable[[], optax.Schedule]] = {
            "cosine": lambda: optax.cosine_decay_schedule(peak, rest, self.final),
            "linear": lambda: optax.linear_schedule(peak, self.final * peak, rest),
            "exponential": lambda: optax.exponential_decay(peak, rest, self.final),
            "constant": lambda: optax.constant_schedule(peak),
        }
        fall = falls[self.schedule]()
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), fall], [warmup]) if warmup else fall

    def optimiser(self, steps: int) -> optax.GradientTransformation:
        """Of Optax."""
        made = getattr(optax, self.optimizer, None) or getattr(optax.contrib, self.optimizer)
        try:
            own = made(self.rate(steps), **self.optimizer_options)
        except TypeError as error:
            raise InputError(
                f"optimizer_options is {self.optimizer_options}, but {self.optimizer} says: {error}; see Optax on it."
            ) from None
        if self.accumulation == 1:
            return own
        several: Any = optax.MultiSteps(own, self.accumulation)
        return several.gradient_transformation()


def _path(path: tuple[Any, ...]) -> str:
    """Of a weight, without Flax's outermost "params"."""
    names = [str(getattr(key, "key", key)) for key in path]
    return "/".join(names[1:] if names[:1] == ["params"] else names)


def _begins(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}/")
