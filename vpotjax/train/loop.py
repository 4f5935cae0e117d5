"""Minimisation of a loss over batches of molecules, one of which never ends it.

Every molecule has a gradient of its own. Those that are not finite are left out and counted, others are shortened where
that of the model's output (F, P, the irreps of a property) is longer than a multiple of the batch's median; the first
molecules of either kind are named.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.losses import Loss
from vpotjax.train.arrays import CHUNK, BatchBuffer, in_chunks, over_molecules, return_memory
from vpotjax.train.samples import Bucket

NAMED = 5  # molecules in a message


@dataclasses.dataclass(frozen=True)
class Descent:
    """How a loss is minimised.

    Attributes:
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to `final` of it.
        final: see `learning_rate`.
        limit: largest norm of a molecule's gradient in the output, in multiples of the batch's median.
        tolerated: share of molecules whose gradients may be left out between two evaluations.
        evaluations: how often the validation loss is computed; the weights of the best are kept.
        seed: of the batches and of initial weights.

    Raises:
        InputError: a value is not positive, or `tolerated` not below 1.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 2e-3
    final: float = 0.01
    limit: float = 3.0
    tolerated: float = 0.1
    evaluations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "final", "limit", "evaluations"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; give a positive number.")
        if not 0 <= self.tolerated < 1:
            raise InputError(f"tolerated is {self.tolerated}; give a share from 0 to below 1.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; give 0 or a positive number.")


class Trainable(Protocol):
    """What `descend` needs of a model."""

    def initial(self, key: Any, content: Any) -> Any:
        """Parameters of the network; `content` is of one molecule, for the sizes."""

    def output(self, params: Any, content: Any) -> Any:
        """Of one molecule."""

    def predicted(self, output: Any, content: Any, max_occupied: int | None) -> Any:
        """What a loss sees."""


class Counts(NamedTuple):
    """Of the molecules of a batch, (batch,): the loss, whether the gradient was finite, whether it was limited."""

    values: Any
    finite: Any
    limited: Any


class Descended(NamedTuple):
    """Best parameters, rows of metrics, and how often each molecule was left out."""

    params: Any
    history: list[dict[str, Any]]
    left_out: Counter[str]


def limited_gradient(values: Array, squares: Array, gradients: Array, limit: float) -> tuple[jax.Array, Counts]:
    """Mean of the gradients of a batch without those that are not finite, the others limited to the median.

    Args:
        values: (batch,) losses.
        squares: (batch,) of the norms of their gradients in the model's outputs.
        gradients: in the parameters, (batch, parameters).
        limit: largest norm, in multiples of the batch's median.
    """
    gradients = jnp.asarray(gradients)
    finite = jnp.isfinite(squares) & jnp.isfinite(values) & jnp.all(jnp.isfinite(gradients), axis=1)
    norms = jnp.sqrt(jnp.where(finite, squares, jnp.nan))
    bound = limit * jnp.nanmedian(norms)
    limited = finite & (norms > bound)
    factor = jnp.where(finite, jnp.where(limited, bound / norms, 1.0), 0.0) / jnp.maximum(jnp.sum(finite), 1)
    sound = jnp.where(finite[:, None], gradients, 0.0)
    return factor.astype(gradients.dtype) @ sound, Counts(values, finite, limited)


def descend(
    model: Trainable,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    settings: Descent,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    programs: dict[Any, Any] | None = None,
) -> Descended:
    """Minimise `loss` from the model's initial parameters; the parameters with the least validation loss are kept.

    Args:
        model: see `Trainable`.
        train, validation: with the model's content.
        loss: fitted, see `Loss.fitted`.
        settings: see `Descent`.
        report: is told a row of metrics after every evaluation.
        programs: compiled programs of runs that differ in the seed alone; filled here.

    Raises:
        InputError: more molecules than tolerated had to be left out.
    """
    programs = {} if programs is None else programs
    train, validation = [b for b in train if len(b)], [b for b in validation if len(b)]
    if not train or not validation:
        raise InputError("there are no training or no validation molecules; give some of both.")
    advance = programs.setdefault("advance", _advance(model, loss, settings))
    check = programs.setdefault("check", _check(model, loss))
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), train[0].content)
    params = jax.jit(model.initial)(jax.random.key(settings.seed), first)
    state = _optimiser(settings).init(params)
    rng = np.random.default_rng(settings.seed)
    shares = np.array([len(b) for b in train]) / sum(len(b) for b in train)
    interval = max(1, settings.steps // settings.evaluations)
    best = (_validation(check, params, validation), params)
    history = [{"step": 0, "training_loss": float("nan"), "validation_loss": best[0][1], "left_out": 0, "limited": 0}]
    history[0] |= {"first_left_out": "", "first_limited": ""}
    report(history[0])
    pending: list[tuple[tuple[str, ...], Counts]] = []
    left_out: Counter[str] = Counter()
    compiled: set[int] = set()
    buffers = BatchBuffer(), BatchBuffer()  # one is read while the other one is filled
    for i in range(1, settings.steps + 1):
        place = int(rng.choice(len(train), p=shares))
        bucket = train[place]
        rows = rng.choice(len(bucket), min(settings.batch_size, len(bucket)), replace=False)
        content, reference = buffers[i % 2].filled((bucket.content, bucket.reference), rows)
        progress = np.float64(i / settings.steps)
        params, state, counts = advance(params, state, content, reference, progress, bucket.max_occupied)
        pending.append((tuple(bucket.names[r] for r in rows), counts))
        if len(pending) > 1:  # the next batch is read while this one runs; more of them would fill the memory
            jax.block_until_ready(pending[-2][1])
        if place not in compiled:
            compiled.add(place)
            return_memory()
        if i % interval and i != settings.steps:
            continue
        row = metrics_row(i, pending, left_out, settings)
        held = _validation(check, params, validation)
        row["validation_loss"] = held[1]
        history.append(row)
        pending = []
        best = min(best, (held, params), key=lambda pair: pair[0])
        report(row)
        return_memory()
    return Descended(best[1], history, left_out)


def _optimiser(settings: Descent) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        settings.learning_rate,
        max(1, settings.steps // 20),
        max(settings.steps, 2),
        settings.final * settings.learning_rate,
    )
    return optax.adam(schedule)


def _advance(model: Trainable, loss: Loss, settings: Descent) -> Callable[..., Any]:
    optimiser = _optimiser(settings)

    def advance(params: Any, state: Any, content: Any, reference: Any, progress: Any, max_occupied: int) -> Any:
        def one(content: Any, reference: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            """Forward and all the way back, while the layers of the molecule are in the cache."""
            output, pullback = jax.vjp(lambda p: model.output(p, content), params)

            def value(output: Any) -> jax.Array:
                return loss(model.predicted(output, content, max_occupied), reference, progress)

            result, slope = jax.value_and_grad(value)(output)
            return result, jnp.sum(ravel_pytree(slope)[0] ** 2), ravel_pytree(pullback(slope)[0])[0]

        values, squares, gradients = over_molecules(one, content, reference)
        gradient, counts = limited_gradient(values, squares, gradients, settings.limit)
        updates, state = optimiser.update(ravel_pytree(params)[1](gradient), state, params)
        return optax.apply_updates(params, updates), state, counts

    return jax.jit(advance, static_argnums=5)


def _check(model: Trainable, loss: Loss) -> Callable[..., Any]:
    def check(params: Any, content: Any, reference: Any, max_occupied: int) -> jax.Array:
        def one(content: Any, reference: Any) -> jax.Array:
            return loss(model.predicted(model.output(params, content), content, max_occupied), reference, 1.0)

        return over_molecules(one, content, reference)

    return jax.jit(check, static_argnums=3)


def _validation(check: Callable[..., Any], params: Any, buckets: Sequence[Bucket]) -> tuple[int, float]:
    """How many molecules have no finite loss, and the mean of the others: compared in this order."""

    def losses(bucket: Bucket) -> np.ndarray:
        arrays, size = (bucket.content, bucket.reference), min(len(bucket), CHUNK)  # always the same molecules
        return in_chunks(lambda x: check(params, *x, bucket.max_occupied), arrays, size)

    values = np.concatenate([losses(b) for b in buckets])
    finite = np.isfinite(values)
    return int(np.sum(~finite)), float(values[finite].mean()) if finite.any() else float("inf")


def metrics_row(
    step: int, pending: Sequence[tuple[tuple[str, ...], Counts]], left_out: Counter[str], settings: Descent
) -> dict[str, Any]:
    """Metrics of the steps since the last evaluation.

    Raises:
        InputError: too many molecules were left out.
    """
    names = [name for batch, _ in pending for name in batch]
    values, finite, limited = (
        np.concatenate([np.asarray(getattr(c, key)) for _, c in pending]) for key in Counts._fields
    )
    lost = [name for name, ok in zip(names, finite, strict=True) if not ok]
    left_out.update(lost)
    share = 1 - float(finite.mean())
    if share > settings.tolerated:
        raise InputError(
            f"gradients of {len(lost)} of {len(names)} molecules up to step {step} are not finite (first of them "
            f"{_first(lost)}), more than the share tolerated={settings.tolerated}; lower learning_rate, or look at "
            "these molecules."
        )
    row: dict[str, Any] = {
        "step": step,
        "training_loss": float(values[finite].mean()),
        "validation_loss": float("nan"),
        "left_out": len(lost),
        "limited": int(limited.sum()),
    }
    return row | {
        "first_left_out": _first(lost),
        "first_limited": _first([n for n, far in zip(names, limited, strict=True) if far]),
    }


def _first(names: Sequence[str]) -> str:
    return ", ".join(list(dict.fromkeys(names))[:NAMED])
