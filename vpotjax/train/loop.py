"""Minimisation of a loss over batches of molecules, one of which never ends it.

Every molecule has a gradient of its own. Those that are not finite are left out and counted, others are shortened where
that of the model's output (F, P, the irreps of a property) is longer than a multiple of the batch's median; the first
molecules of either kind are named.
"""

from __future__ import annotations

import time
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
from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.losses import Loss
from vpotjax.train.arrays import CHUNK, BatchBuffer, in_chunks, over_molecules, return_memory
from vpotjax.train.descent import Descent
from vpotjax.train.samples import Bucket

NAMED = 5  # molecules in a message


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


class Keeper(Protocol):
    """Where the states of a training are kept; see `vpotjax.io.checkpoint.Checkpoints`."""

    def latest(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Arrays and record of the last state; None where there is none."""

    def save(self, step: int, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        """Keep a state."""


class Walk(NamedTuple):
    """What moves: parameters, state of the optimiser, and the averaged parameters; None without averaging."""

    params: Any
    state: Any
    averaged: Any

    @property
    def judged(self) -> Any:
        """The parameters that are evaluated."""
        return self.params if self.averaged is None else self.averaged


class Record(NamedTuple):
    """What is known of a training so far.

    Attributes:
        step: that was the last.
        batches: state of the generator that draws them.
        held: how many validation molecules had no finite loss, and the mean of the others, of the best parameters.
        stale: evaluations since then.
        seconds: of work.
        left_out: how often molecules were.
        history: rows of metrics.
    """

    step: int
    batches: dict[str, Any]
    held: tuple[int, float]
    stale: int
    seconds: float
    left_out: Counter[str]
    history: list[dict[str, Any]]

    def after(self, row: dict[str, Any], held: tuple[int, float], rng: np.random.Generator) -> Record:
        """With one more evaluation; `stale` is 0 where it is the best."""
        stale = 0 if held < self.held else self.stale + 1
        batches: Any = rng.bit_generator.state
        history = [*self.history, row]
        return Record(row["step"], batches, min(held, self.held), stale, row["seconds"], self.left_out, history)


class EndedError(Exception):
    """A training was told to end, for another one has failed."""


def descend(
    model: Trainable,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    settings: Descent,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    programs: dict[Any, Any] | None = None,
    keeper: Keeper | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> Descended:
    """Minimise `loss` from the model's initial parameters; the parameters with the least validation loss are kept.

    Args:
        model: see `Trainable`.
        train, validation: with the model's content.
        loss: fitted, see `Loss.fitted`.
        settings: see `Descent`.
        report: is told a row of metrics after every evaluation.
        programs: compiled programs of runs that differ in the seed alone; filled here.
        ended: whether to end before the next step.
        keeper: of states; the training goes on from the last one, as if it had not been ended.

    Raises:
        InputError: more molecules than tolerated had to be left out.
        EndedError: `ended` says so.
    """
    programs = {} if programs is None else programs
    draw = _Draw([b for b in train if len(b)], settings)
    validation = [b for b in validation if len(b)]
    if not draw.buckets or not validation:
        raise InputError("there are no training or no validation molecules; give some of both.")
    steps = settings.step_count(draw.molecules, draw.mean_size)
    interval, rate, optimiser = max(1, steps // settings.evaluations), settings.rate(steps), settings.optimiser(steps)
    advance = programs.setdefault("advance", _advance(model, loss, settings, optimiser))
    check = programs.setdefault("check", _check(model, loss))
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), draw.buckets[0].content)
    params = jax.jit(model.initial)(jax.random.key(settings.seed), first)
    settings.moving(params)  # raises where a part is not there
    walk, best = Walk(params, optimiser.init(params), params if settings.ema else None), params
    kept = None if keeper is None else keeper.latest()
    if kept is None:
        record = _first_record(*_validation(check, params, validation))
    else:
        walk, best, record = _restored(walk, best, *kept)
        draw.rng.bit_generator.state = record.batches
    for row in record.history:
        report(row)
    pending: list[tuple[tuple[str, ...], Counts]] = []
    start, before = time.monotonic(), record.seconds
    for i in range(record.step + 1, steps + 1):
        if ended():
            raise EndedError
        if _is_over(record, settings):
            break
        bucket, names, content, reference = draw(i)
        walk, counts = advance(walk, content, reference, np.float64(i / steps), bucket.max_occupied)
        pending.append((names, counts))
        if len(pending) > 1:  # the next batch is read while this one runs; more of them would fill the memory
            jax.block_until_ready(pending[-2][1])
        draw.return_memory_once(bucket)
        late = settings.seconds is not None and before + time.monotonic() - start > settings.seconds
        if i % interval and i != steps and not late:
            continue
        row = metrics_row(i, pending, record.left_out, settings)
        held, errors = _validation(check, walk.judged, validation)
        row |= {"validation_loss": held[1], "learning_rate": float(jnp.asarray(rate(i // settings.accumulation)))}
        seconds = before + time.monotonic() - start
        count = sum(len(names) for names, _ in pending)
        row |= {"seconds": seconds, "progress": i / steps}
        row |= {"molecules_per_second": count / max(seconds - record.seconds, 1e-9)} | errors
        record = record.after(row, held, draw.rng)
        best = walk.judged if record.stale == 0 else best
        pending = []
        if keeper is not None:
            keeper.save(i, *_kept(walk, best, record))
        report(row)
        return_memory()
    return Descended(best, record.history, record.left_out)


class _Draw:
    """Batches at random: a bucket by its share of the molecules, then some of its molecules."""

    def __init__(self, buckets: Sequence[Bucket], settings: Descent) -> None:
        self.buckets, self.rng = buckets, np.random.default_rng(settings.seed)
        self.sizes = [min(settings.batch(max(1, b.reference.level_mask.shape[-1])), len(b)) for b in buckets]
        self.molecules = sum(len(b) for b in buckets)
        self.shares = np.array([len(b) for b in buckets]) / max(1, self.molecules)
        self.mean_size = float(self.shares @ np.array(self.sizes))
        self.buffers = BatchBuffer(), BatchBuffer()  # one is read while the other one is filled
        self.compiled: set[int] = set()

    def __call__(self, step: int) -> tuple[Bucket, tuple[str, ...], Any, Any]:
        """Bucket, names, content and reference."""
        place = int(self.rng.choice(len(self.buckets), p=self.shares))
        bucket = self.buckets[place]
        rows = self.rng.choice(len(bucket), self.sizes[place], replace=False)
        content, reference = self.buffers[step % 2].filled((bucket.content, bucket.reference), rows)
        return bucket, tuple(bucket.names[r] for r in rows), content, reference

    def return_memory_once(self, bucket: Bucket) -> None:
        """After the first batch of a bucket, which compiles."""
        if id(bucket) not in self.compiled:
            self.compiled.add(id(bucket))
            return_memory()


def _first_record(held: tuple[int, float], errors: dict[str, float]) -> Record:
    """Before the first step."""
    row = {"step": 0, "training_loss": float("nan"), "left_out": 0, "limited": 0}
    row |= {"first_left_out": "", "first_limited": "", "validation_loss": held[1], "learning_rate": 0.0, "seconds": 0.0}
    row |= {"progress": 0.0, "molecules_per_second": 0.0}
    return Record(0, {}, held, 0, 0.0, Counter(), [row | errors])


def _is_over(record: Record, settings: Descent) -> bool:
    """Whether the time is up, or patience."""
    late = settings.seconds is not None and record.seconds > settings.seconds
    return late or (settings.patience is not None and record.stale >= settings.patience)


def _kept(walk: Walk, best: Any, record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays by number, and what JSON holds."""
    leaves = jax.tree.leaves((walk, best))
    entries = record._asdict() | {"left_out": dict(record.left_out)}
    return {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}, entries


def _restored(walk: Walk, best: Any, arrays: dict[str, Any], entries: dict[str, Any]) -> tuple[Walk, Any, Record]:
    """The inverse of `_kept`; walk and best give the structure."""
    leaves, structure = jax.tree.flatten((walk, best))
    kept = [jnp.asarray(arrays[str(i)], leaf.dtype) for i, leaf in enumerate(map(jnp.asarray, leaves))]
    walk, best = jax.tree.unflatten(structure, kept)
    held = (int(entries["held"][0]), float(entries["held"][1]))
    return walk, best, Record(**entries | {"held": held, "left_out": Counter(entries["left_out"])})


def _advance(model: Trainable, loss: Loss, settings: Descent, optimiser: optax.GradientTransformation) -> Any:
    def advance(walk: Walk, content: Any, reference: Any, progress: Any, max_occupied: int) -> Any:
        params = walk.params

        def one(content: Any, reference: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            """Forward and all the way back, while the layers of the molecule are in the cache."""
            output, pullback = jax.vjp(lambda p: model.output(p, content), params)

            def value(output: Any) -> jax.Array:
                return loss(model.predicted(output, content, max_occupied), reference, progress)

            result, slope = jax.value_and_grad(value)(output)
            return result, jnp.sum(ravel_pytree(slope)[0] ** 2), ravel_pytree(pullback(slope)[0])[0]

        values, squares, gradients = over_molecules(one, content, reference)
        gradient, counts = limited_gradient(values, squares, gradients, settings.limit)
        updates, state = optimiser.update(ravel_pytree(params)[1](gradient), walk.state, params)
        updates = jax.tree.map(
            lambda own, moves: own if moves else jnp.zeros_like(own), updates, settings.moving(params)
        )
        params = optax.apply_updates(params, updates)
        averaged = None
        if settings.ema:
            averaged = optax.incremental_update(params, walk.averaged, 1 - settings.ema)
        return Walk(params, state, averaged), counts

    return jax.jit(advance, static_argnums=4)


def _check(model: Trainable, loss: Loss) -> Callable[..., Any]:
    """The loss of each molecule, and the squared errors of all that is in it."""

    def check(params: Any, content: Any, reference: Any, max_occupied: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        def one(content: Any, reference: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            predicted = model.predicted(model.output(params, content), content, max_occupied)
            return loss(predicted, reference, 1.0), loss.squared_errors(predicted, reference)

        return over_molecules(one, content, reference)

    return jax.jit(check, static_argnums=3)


def _validation(
    check: Callable[..., Any], params: Any, buckets: Sequence[Bucket]
) -> tuple[tuple[int, float], dict[str, float]]:
    """How many molecules have no finite loss, and the mean of the others: compared in this order; and errors.

    Errors are root mean squares over the molecules of ‖Δ‖/natm, of elements of matrices √⟨Δ²⟩, in customary units.
    """

    def losses(bucket: Bucket) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        arrays, size = (bucket.content, bucket.reference), min(len(bucket), CHUNK)  # always the same molecules
        return in_chunks(lambda x: check(params, *x, bucket.max_occupied), arrays, size)

    parts = [losses(b) for b in buckets]
    values = np.concatenate([own for own, _ in parts])
    finite = np.isfinite(values)
    mean = float(values[finite].mean()) if finite.any() else float("inf")
    squares = {key: np.concatenate([own[key] for _, own in parts])[finite] for key in parts[0][1]}
    errors = {f"validation_{key}": unit_factor(key) * float(np.sqrt(own.mean())) for key, own in squares.items()}
    return (int(np.sum(~finite)), mean), errors


def unit_factor(name: str) -> float:
    """From atomic units to those of the table of observables; 1 for matrices."""
    return OBSERVABLES[name].factor if name in OBSERVABLES else 1.0


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
