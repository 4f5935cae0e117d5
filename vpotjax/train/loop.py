"""Minimisation of a loss over batches of molecules, one of which never ends it.

Every molecule has a gradient of its own. Those that are not finite are left out and counted, others are shortened where
that of the model's output (F, P, the irreps of a property) is longer than a multiple of the batch's median; the first
molecules of either kind are named. Several networks may go at once, in one program; each draws molecules of its own.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.losses import Loss
from vpotjax.train.arrays import CHUNK, in_chunks, return_memory
from vpotjax.train.descent import Descent
from vpotjax.train.devices import Sharing, told
from vpotjax.train.draw import Draw, DrawnBatch
from vpotjax.train.held import Molecules, shared_molecules
from vpotjax.train.samples import Bucket
from vpotjax.train.steps import Counts, Trainable, Walk, advance_program, check_program

NAMED = 5  # molecules in a message


class Descended(NamedTuple):
    """Best parameters, rows of metrics, and how often each molecule was left out."""

    params: Any
    history: list[dict[str, Any]]
    left_out: Counter[str]


class Keeper(Protocol):
    """Where the states of a training are kept; see `vpotjax.io.checkpoint.Checkpoints`."""

    def latest(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Arrays and record of the last state; None where there is none."""

    def save(self, step: int, arrays: dict[str, Any], record: dict[str, Any]) -> None:
        """Keep a state."""


class Record(NamedTuple):
    """What is known of a network so far.

    Attributes:
        held: how many validation molecules had no finite loss, and the mean of the others, of the best parameters.
        stale: evaluations since then.
        left_out: how often molecules were.
        history: rows of metrics.
    """

    held: tuple[int, float]
    stale: int
    left_out: Counter[str]
    history: list[dict[str, Any]]

    def after(self, row: dict[str, Any], held: tuple[int, float]) -> Record:
        """With one more evaluation; `stale` is 0 where it is the best."""
        stale = 0 if held < self.held else self.stale + 1
        return Record(min(held, self.held), stale, self.left_out, [*self.history, row])


class Course(NamedTuple):
    """How far the training of some networks has come.

    Attributes:
        step: that was the last.
        seconds: of work.
        draws: states of the generators that draw batches.
        records: of the networks.
    """

    step: int
    seconds: float
    draws: list[dict[str, Any]]
    records: list[Record]

    def over(self, settings: Descent) -> list[bool]:
        """Of each network, whether its patience is at an end, or the time of all."""
        late = settings.seconds is not None and self.seconds > settings.seconds
        return [late or (settings.patience is not None and r.stale >= settings.patience) for r in self.records]


class EndedError(Exception):
    """A training was told to end, for another one has failed."""


Tell = Callable[[dict[str, Any]], None]


def descend(
    model: Trainable,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    settings: Descent,
    report: Tell = lambda row: None,
    programs: dict[str, Any] | None = None,
    keeper: Keeper | None = None,
) -> Descended:
    """Train one network, see `descend_all`."""
    return descend_all([model], train, validation, loss, settings, lambda _, row: report(row), programs, keeper)[0]


def descend_all(
    models: Sequence[Trainable],
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    settings: Descent,
    report: Callable[[int, dict[str, Any]], None] = lambda number, row: None,
    programs: dict[str, Any] | None = None,
    keeper: Keeper | None = None,
    ended: Callable[[], bool] = lambda: False,
    *,
    first: int = 0,
    sharing: Sharing | None = None,
) -> list[Descended]:
    """Minimise `loss` from the initial parameters of each model; those with the least validation loss are kept.

    All draw from the same buckets at the same steps, each its own molecules, in the same way whether they are trained
    at once or one after the other, on one device or on several.

    Args:
        models: see `Trainable`; they differ in the initial parameters alone.
        train, validation: with the models' content.
        loss: fitted, see `Loss.fitted`.
        settings: see `Descent`; the seed is that of network 0, and the others' follow.
        report: is told the number of a network, and a row of metrics after every evaluation.
        programs: compiled programs, and molecules as they read them, of calls that differ in the numbers of the
            networks alone; filled here.
        ended: whether to end before the next step.
        keeper: of states; the training goes on from the last one, as if it had not been ended.
        first: number of the first network.
        sharing: devices among which each batch is shared; default: on one.

    Raises:
        InputError: more molecules than tolerated had to be left out.
        EndedError: `ended` says so.
    """
    run = _Run(models, train, validation, loss, settings, {} if programs is None else programs, first, sharing)
    run.begin(keeper)
    for number, record in zip(run.numbers, run.course.records, strict=True):
        for row in record.history:
            report(number, row)
    for i in range(run.course.step + 1, run.steps + 1):
        if ended():
            raise EndedError
        if all(run.course.over(settings)):
            break
        run.advance(i)
        if run.is_due(i):
            over = run.course.over(settings)
            run.evaluate(i)
            if keeper is not None:
                keeper.save(i, *_kept(run.walk, run.best, run.course))
            for number, record, before in zip(run.numbers, run.course.records, over, strict=True):
                if not before:
                    report(number, record.history[-1])
    return [Descended(_of(run.best, i, run.several), r.history, r.left_out) for i, r in enumerate(run.course.records)]


class _Run:
    """A training on its way: what moves, what was best, and how far it has come."""

    def __init__(
        self,
        models: Sequence[Trainable],
        train: Sequence[Bucket],
        validation: Sequence[Bucket],
        loss: Loss,
        settings: Descent,
        programs: dict[str, Any],
        first: int,
        sharing: Sharing | None,
    ) -> None:
        self.settings, self.sharing, self.several = settings, sharing, len(models) > 1
        self.numbers = [first + i for i in range(len(models))]
        train, validation = ([b for b in own if len(b)] for own in (train, validation))
        if not train or not validation:
            raise InputError("there are no training or no validation molecules; give some of both.")
        self.draw = Draw(train, shared_molecules("train", train, programs, sharing), settings, self.numbers)
        self.steps = settings.step_count(self.draw.total, self.draw.mean_size)
        self.interval, self.rate = max(1, self.steps // settings.evaluations), settings.rate(self.steps)
        optimiser = settings.optimiser(self.steps)
        how = self.several, sharing
        self.program = programs.setdefault("advance", advance_program(models[0], loss, settings, optimiser, *how))
        check = programs.setdefault("check", check_program(models[0], loss, *how))
        self.judge = _Judge(check, validation, shared_molecules("validation", validation, programs, sharing))
        params = self._initial(models)
        state = (jax.vmap(optimiser.init) if self.several else optimiser.init)(params)
        self.walk, self.best = self._everywhere((Walk(params, state, params if settings.ema else None), params))
        self.course = Course(0, 0.0, [], [])
        self.pending: list[tuple[DrawnBatch, Counts]] = []
        self.compiled = set[int]()

    def _initial(self, models: Sequence[Trainable]) -> Any:
        """Parameters of the networks."""
        content = jax.tree.map(lambda x: jnp.asarray(x[0]), self.draw.buckets[0].content)
        keys = [jax.random.key(self.settings.seed + number) for number in self.numbers]
        params = [jax.jit(model.initial)(key, content) for model, key in zip(models, keys, strict=True)]
        self.settings.moving(params[0])  # raises where a part is not there
        params = told(params)
        return jax.tree.map(lambda *own: jnp.stack(own), *params) if self.several else params[0]

    def _everywhere(self, tree: Any) -> Any:
        return tree if self.sharing is None else self.sharing.everywhere(tree)

    def begin(self, keeper: Keeper | None) -> None:
        """From the last state that was kept, or from the start."""
        kept = told(None if keeper is None else keeper.latest())
        if kept is None:
            records = [_first_record(*own) for own in self.judge(self.walk.params, len(self.numbers))]
            self.course = Course(0, 0.0, self.draw.states, records)
        else:
            walk, best, self.course = _restored(self.walk, self.best, *kept)
            self.walk, self.best = self._everywhere((walk, best))
            self.draw.states = self.course.draws
        self.started = time.monotonic() - self.course.seconds

    def advance(self, i: int) -> None:
        """One step of the optimiser."""
        batch, *molecules = self.draw()
        how = np.float64(i / self.steps), batch.bucket.max_occupied, batch.count
        self.walk, counts = self.program(self.walk, *molecules, *how)
        self.pending.append((batch, counts))
        if len(self.pending) > 1:  # one more is drawn while this one runs; copies of all would fill the memory
            jax.block_until_ready(self.pending[-2][1])
        self._return_memory(batch.bucket)

    def _return_memory(self, of: object) -> None:
        """After the first call of a program, which compiles."""
        if id(of) not in self.compiled:
            self.compiled.add(id(of))
            return_memory()

    def is_due(self, i: int) -> bool:
        """Whether an evaluation follows on a step; several processes must agree, so their clocks do not count."""
        limit = self.settings.seconds if jax.process_count() == 1 else None
        late = limit is not None and time.monotonic() - self.started > limit
        return late or i == self.steps or i % self.interval == 0

    def evaluate(self, i: int) -> None:
        """Compare in the validation molecules; networks whose training is over stay as they are."""
        seconds, over = told(time.monotonic() - self.started), self.course.over(self.settings)
        count = sum(batch.count for batch, _ in self.pending)
        common = {"learning_rate": float(jnp.asarray(self.rate(i // self.settings.accumulation)))}
        common |= {"seconds": seconds, "progress": i / self.steps}
        common |= {"molecules_per_second": count / max(seconds - self.course.seconds, 1e-9)}
        records = list(self.course.records)
        for place, (held, errors) in enumerate(self.judge(self.walk.judged, len(records))):
            if not over[place]:
                own = [(batch.names(place), _of(counts, place, self.several)) for batch, counts in self.pending]
                row = metrics_row(i, own, records[place].left_out, self.settings) | {"validation_loss": held[1]}
                records[place] = records[place].after(row | common | errors, held)
        better = [not ended and record.stale == 0 for ended, record in zip(over, records, strict=True)]
        self.best = _where(better, self.walk.judged, self.best)
        self.course, self.pending = Course(i, seconds, self.draw.states, records), []
        self._return_memory(self.judge)


def _of(tree: Any, place: int, several: bool) -> Any:
    """What belongs to one network."""
    return jax.tree.map(lambda x: x[place], tree) if several else tree


def _where(better: Sequence[bool], new: Any, old: Any) -> Any:
    """The new parameters of networks that are better."""
    if len(set(better)) == 1:
        return new if better[0] else old
    mask = np.array(better)
    return jax.tree.map(lambda x, y: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, y), new, old)


def _first_record(held: tuple[int, float], errors: dict[str, float]) -> Record:
    """Before the first step."""
    row = {"step": 0, "training_loss": float("nan"), "left_out": 0, "limited": 0}
    row |= {"first_left_out": "", "first_limited": "", "validation_loss": held[1], "learning_rate": 0.0, "seconds": 0.0}
    row |= {"progress": 0.0, "molecules_per_second": 0.0}
    return Record(held, 0, Counter(), [row | errors])


def _kept(walk: Walk, best: Any, course: Course) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers of each type in one array, which is written in half the time of its parts, and what JSON holds."""
    numbers: dict[str, list[np.ndarray]] = {}
    for leaf in jax.tree.leaves((walk, best)):
        numbers.setdefault(str(leaf.dtype), []).append(np.asarray(leaf).ravel())
    records = [record._asdict() | {"left_out": dict(record.left_out)} for record in course.records]
    arrays = {kind: np.concatenate(parts) for kind, parts in numbers.items()}
    return arrays, course._asdict() | {"records": records}


def _restored(walk: Walk, best: Any, arrays: dict[str, Any], entries: dict[str, Any]) -> tuple[Walk, Any, Course]:
    """The inverse of `_kept`; walk and best give the structure."""
    leaves, structure = jax.tree.flatten((walk, best))
    sizes = Counter[str]()
    for leaf in leaves:
        sizes[str(leaf.dtype)] += leaf.size
    if "records" not in entries or sizes != {kind: x.size for kind, x in arrays.items()}:
        raise InputError("the states of this training are of an older version of vpotjax; delete the run folder.")
    kept, starts = [], Counter[str]()
    for leaf in leaves:
        kind = str(leaf.dtype)
        own = arrays[kind][starts[kind] : starts[kind] + leaf.size]
        kept.append(jnp.asarray(own.reshape(leaf.shape)))
        starts[kind] += leaf.size
    walk, best = jax.tree.unflatten(structure, kept)
    records = [
        Record(**own | {"held": (int(own["held"][0]), float(own["held"][1])), "left_out": Counter(own["left_out"])})
        for own in entries["records"]
    ]
    return walk, best, Course(entries["step"], entries["seconds"], entries["draws"], records)


@dataclasses.dataclass(frozen=True)
class _Judge:
    """Validation molecules, in which parameters are compared."""

    check: Callable[..., Any]
    buckets: Sequence[Bucket]
    molecules: Sequence[Molecules]

    def __call__(self, params: Any, count: int) -> list[tuple[tuple[int, float], dict[str, float]]]:
        """Of each of `count` networks what is compared, and errors.

        The first: how many molecules have no finite loss, and the mean of the others, in this order. The second: root
        mean squares over the molecules of ‖Δ‖/natm, of elements of matrices √⟨Δ²⟩, in customary units.
        """
        parts = [self._losses(params, *own) for own in zip(self.buckets, self.molecules, strict=True)]
        values = np.concatenate([own for own, _ in parts])
        squares = {key: np.concatenate([own[key] for _, own in parts]) for key in parts[0][1]}
        values, squares = jax.tree.map(lambda x: x.reshape(-1, count), (values, squares))
        return [_summary(values[:, i], {key: x[:, i] for key, x in squares.items()}) for i in range(count)]

    def _losses(self, params: Any, bucket: Bucket, molecules: Molecules) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        def losses(rows: np.ndarray) -> Any:
            return self.check(params, *molecules.batch(rows), bucket.max_occupied)

        return in_chunks(losses, np.arange(len(bucket)), molecules.filled(min(len(bucket), CHUNK)))


def _summary(values: np.ndarray, squares: dict[str, np.ndarray]) -> tuple[tuple[int, float], dict[str, float]]:
    finite = np.isfinite(values)
    mean = float(values[finite].mean()) if finite.any() else float("inf")
    errors = {f"validation_{key}": unit_factor(key) * float(np.sqrt(x[finite].mean())) for key, x in squares.items()}
    return (int(np.sum(~finite)), mean), errors


def unit_factor(name: str) -> float:
    """From atomic units to those of the table of observables; 1 for matrices."""
    return OBSERVABLES[name].factor if name in OBSERVABLES else 1.0


def metrics_row(
    step: int, pending: Sequence[tuple[Sequence[str], Counts]], left_out: Counter[str], settings: Descent
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
