"""Molecules per second of a training on ε, μ and α of QM7, what binds it, and the same by PySCFAD.

    python -m benchmarks.throughput rate     a network in a thread for each core, against the size of the batch:
                                             compilations after the first evaluation, and memory (Linux)
    python -m benchmarks.throughput outside  share of the time outside of compiled programs, all on one core
    python -m benchmarks.throughput beside   the same, where batches are read and states written on another core
    python -m benchmarks.throughput parts    milliseconds of the parts of a step, one thread
    python -m benchmarks.throughput peer     32 molecules: PySCFAD molecule by molecule in place of our observables

F in STO-3G, labels of B3LYP/def2-TZVP, the default network, the 700 + 45 molecules of `benchmarks.qm7_data` in four
buckets. The peer is "PySCFAD" of `benchmarks.electronic`, the published route (Suman et al. 2025): it makes the loss
on ε, μ, α and its gradient in F, without jit, for one molecule after the other, each of which has another shape. To its
time that of the network, forward and backward, is added: as we do it, so that only the observables differ, or in the
same way, molecule by molecule without jit.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.runs import SINGLE_THREAD, interleaved

SIZES, STEPS, REPORTS, BATCH, SOME, TURNS = (1, 8, 32, 128), 300, 6, 32, 4, 5
COMPILED = "/jax/core/compile/backend_compile_duration"


class Ready(NamedTuple):
    """All that a training starts from."""

    start: Any
    settings: Any
    geometry: list[Any]
    train: list[Any]
    validation: list[Any]
    loss: Any


def ready() -> Ready:
    """Closed-form start and features of all molecules."""
    import jax

    from benchmarks.qm7_data import LARGE, SMALL, qm7_dataset
    from vpotjax.train.config import Training
    from vpotjax.train.fit import aligned_matrices, linear_fit, prepared, whitened
    from vpotjax.train.matrix_training import labels_for
    from vpotjax.train.stages import split_buckets

    jax.config.update("jax_enable_x64", True)
    dataset = qm7_dataset()
    training = Training(orbital_basis=SMALL)
    settings = training.settings((1, 6, 7, 8), SMALL)
    parts = {name: dataset.split(name) for name in ("train", "validation")}
    labels = labels_for(training, settings, SMALL, LARGE, parts["train"][0])
    geometry, check = split_buckets(parts, settings, labels, training.buckets).values()
    start = linear_fit(geometry, check, settings, whitened(geometry, settings), aligned_matrices)
    files = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, files)
    train, check = ([b.with_labels(labels.names) for b in prepared(own, start, files)] for own in (geometry, check))
    loss = training.loss(1.0).fitted([b.reference for b in train])
    return Ready(start, settings, geometry, train, check, loss)


def rate() -> None:
    """The tables."""
    import jax

    from vpotjax.train.descent import Descent
    from vpotjax.train.fit import fit

    own, compiled = ready(), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: compiled.append(time.perf_counter()) if event == COMPILED else None
    )
    cores = len(os.sched_getaffinity(0))
    for size in SIZES:
        steps = max(60, STEPS * min(1, BATCH // size))
        descent = Descent(steps, batch_size=size, learning_rate=1e-5, evaluations=REPORTS)
        rows: list[dict[str, Any]] = []
        times: list[float] = []

        def report(row: dict[str, Any], rows: list[Any] = rows, times: list[float] = times) -> None:
            rows.append(row)
            times.append(time.perf_counter())

        before = memory(from_now=True)
        cpu = [time.process_time(), time.perf_counter()]
        fit(own.start, own.settings, own.train, own.validation, own.loss, descent, members=cores, report=report)
        used = (time.process_time() - cpu[0]) / (time.perf_counter() - cpu[1]) / cores
        rates = [r["molecules_per_second"] for r in rows if r["step"] > 2 * steps // REPORTS]
        late = sum(times[2 * cores - 1] < t < times[-1] for t in compiled)
        print(
            f"batch {size}: {cores * statistics.median(rates):.0f} molecules per second on {cores} cores, evaluations "
            f"included; cores busy {used:.0%} of the time, compilation included; {late} compilations after the first "
            f"evaluation; {memory() - before:.2f} GB at most, beyond the {before:.2f} GB of data and program",
            flush=True,
        )


def memory(from_now: bool = False) -> float:
    """GB that the process has held at most since it was last asked `from_now`, which gives those that it holds."""
    if from_now:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1e6


def outside(own: Ready) -> None:
    """Share of the time of a training, which keeps its states, that is not in compiled programs.

    A training that waits for each program tells their time, and on one core, where nothing overlaps, that of all; on
    two the time of all is that of the same steps without waiting.
    """
    import jax

    from vpotjax.io.checkpoint import Checkpoints
    from vpotjax.train.descent import Descent
    from vpotjax.train.loop import descend
    from vpotjax.train.steps import advance_program, check_program
    from vpotjax.train.trainable import MatrixTraining

    descent = Descent(STEPS, batch_size=BATCH, learning_rate=1e-5, evaluations=REPORTS)
    model, inside = MatrixTraining(own.settings, float(own.start.scale)), [0.0]
    plain = {
        "advance": advance_program(model, own.loss, descent, descent.optimiser(STEPS), False, None),
        "check": check_program(model, own.loss, False, None),
    }

    def timed(program: Any) -> Any:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = jax.block_until_ready(program(*arguments))
            inside[0] += time.perf_counter() - start
            return result

        return call

    def spent(programs: dict[str, Any]) -> tuple[float, float]:
        """Seconds of all, and in programs that are timed, from the second evaluation on."""
        rows: list[tuple[float, float]] = []
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(Checkpoints(Path(folder))) as keeper:
            arrays = own.train, own.validation, own.loss, descent
            descend(model, *arrays, lambda _: rows.append((time.perf_counter(), inside[0])), programs, keeper)
        return rows[-1][0] - rows[2][0], rows[-1][1] - rows[2][1]

    waiting = {name: timed(program) for name, program in plain.items()}
    shares = []
    for _ in range(TURNS):
        whole, compiled = spent(waiting)
        whole = spent(plain)[0] if len(os.sched_getaffinity(0)) > 1 else whole
        shares.append(1 - compiled / whole)
    print(
        f"one network: {statistics.median(shares):.1%} of the time is outside of compiled programs, median of {TURNS} "
        f"from {min(shares):.1%} to {max(shares):.1%}"
    )


def parts() -> None:
    """Marginal times, weighted by the shares of the buckets."""
    import jax
    import jax.numpy as jnp

    from vpotjax.integrals.assemble import joint_matrices
    from vpotjax.integrals.kinetic import KINETIC
    from vpotjax.integrals.multipole import POSITION
    from vpotjax.integrals.overlap import OVERLAP
    from vpotjax.models.matrix_model import corrected
    from vpotjax.operators.inputs import operator_matrices
    from vpotjax.train.arrays import over_molecules
    from vpotjax.train.descent import Descent
    from vpotjax.train.geometry import geometry_program
    from vpotjax.train.held import Molecules
    from vpotjax.train.steps import Walk, advance_program, check_program
    from vpotjax.train.trainable import MatrixTraining

    own, total = ready(), {}
    settings, scale = own.settings, jnp.asarray(own.start.scale)
    model, descent = MatrixTraining(settings, float(scale)), Descent()
    advance = advance_program(model, own.loss, descent, descent.optimiser(1000), False, None)
    check = check_program(model, own.loss, False, None)
    inputs = settings.representation.inputs

    def integrals(batch: Any) -> Any:
        def one(molecule: Any) -> Any:
            orbital, potential = molecule.bases["orbital"], molecule.bases["potential"]
            return (
                joint_matrices((OVERLAP, KINETIC, POSITION), orbital, molecule.positions),
                operator_matrices(potential, molecule.positions, inputs),
            )

        return over_molecules(one, batch)

    count = sum(len(b) for b in own.train)
    for geometry, bucket in zip(own.geometry, own.train, strict=True):
        rows = np.arange(BATCH) % len(bucket)
        content, reference, places = (
            jax.tree.map(lambda x, r=rows: jnp.asarray(x[r]), tree)
            for tree in (bucket.content, bucket.reference, geometry.content)
        )
        batch, batched = molecules_of(own, bucket, rows), Molecules((content, reference), None).batch(np.arange(BATCH))
        params = model.initial(jax.random.key(0), jax.tree.map(lambda x: x[0], content))
        state, most = descent.optimiser(1000).init(params), bucket.max_occupied
        walk = Walk(params, state, None)
        network = jax.jit(lambda p, c: over_molecules(lambda one: corrected(settings, scale, p, one), c))
        functions = {
            "integrals": (jax.jit(integrals), batch),
            "integrals and features": (geometry_program(settings), batch),
            "linear map, whitening": (jax.jit(lambda g: over_molecules(own.start.prepared, g)), places),
            "network": (network, params, content),
            "forward": (lambda p, *batch, m=most: check(p, *batch, m), params, *batched),
            "step": (lambda w, *batch, m=most: advance(w, *batch, 0.5, m, BATCH), walk, *batched),
        }
        times = interleaved({name: lambda f=f, a=a: f(*a) for name, (f, *a) in functions.items()}, 7)
        share, nao = len(bucket) / count, content.linear.shape[-1]
        print(f"share {share:.2f}, {nao} orbitals:", {name: round(1e3 * t / BATCH, 3) for name, t in times.items()})
        for name, t in times.items():
            total[name] = total.get(name, 0.0) + share * 1e3 * t / BATCH
    once, forward = total["integrals and features"], total["forward"]
    print("once per molecule, ms:")
    print(f"  integrals {total['integrals']:.3f}, powers and coupling {once - total['integrals']:.3f}")
    print(f"  linear map and whitening {total['linear map, whitening']:.3f}")
    print(f"each step, ms per molecule: {total['step']:.3f}")
    print(f"  network {total['network']:.3f}, ε, μ, α and loss {forward - total['network']:.3f}")
    print(f"  backward and optimiser {total['step'] - forward:.3f}")


def molecules_of(own: Ready, bucket: Any, rows: np.ndarray) -> Any:
    """The padded batch of those rows."""
    import jax
    import jax.numpy as jnp

    from benchmarks.qm7_data import qm7_dataset

    known = {s.name: s.molecule for s in qm7_dataset().samples}
    return jax.tree.map(jnp.asarray, own.settings.batch([known[bucket.names[r]] for r in rows]))


def peer() -> None:
    """Seconds of 32 molecules of the largest share."""
    import jax
    import jax.numpy as jnp

    from benchmarks.electronic import batch_of, pyscfad_routes
    from benchmarks.qm7_data import qm7_dataset
    from vpotjax.train.arrays import over_molecules
    from vpotjax.train.descent import Descent
    from vpotjax.train.held import Molecules
    from vpotjax.train.steps import Walk, advance_program
    from vpotjax.train.trainable import MatrixTraining

    own = ready()
    bucket = max(own.train, key=len)
    rows = np.arange(BATCH)
    content, reference = (jax.tree.map(lambda x: jnp.asarray(x[rows]), t) for t in (bucket.content, bucket.reference))
    batched = Molecules((content, reference), None).batch(rows)
    model, descent = MatrixTraining(own.settings, float(own.start.scale)), Descent()
    optimiser = descent.optimiser(1000)
    params = model.initial(jax.random.key(0), jax.tree.map(lambda x: x[0], content))
    walk = Walk(params, optimiser.init(params), None)
    advance = advance_program(model, own.loss, descent, optimiser, False, None)

    def one(params: Any, content: Any) -> Any:
        """Of the network: forward, and back from a matrix of ones."""
        output, pullback = jax.vjp(lambda p: model.output(p, content), params)
        return output, pullback(jnp.ones_like(output))

    some = [jax.tree.map(lambda x, r=r: x[r], content) for r in rows[:SOME]]

    known = {s.name: s.molecule for s in qm7_dataset().samples}
    molecules = [known[bucket.names[r]] for r in rows]
    published = pyscfad_routes(molecules, "sto-3g", batch_of(molecules, "sto-3g", "float64"))["PySCFAD"]
    compiled = jax.jit(lambda p, c: over_molecules(lambda own: one(p, own), c))
    times = interleaved(
        {
            "step": lambda: advance(walk, *batched, 0.5, bucket.max_occupied, BATCH),
            "network": lambda: compiled(params, content),
            f"network of {SOME}, without jit": lambda: [one(params, own) for own in some],
            "PySCFAD": published,
        },
        3,
    )
    print({name: round(t, 4) for name, t in times.items()})
    networks = {"compiled": times["network"], "without jit": times[f"network of {SOME}, without jit"] * BATCH / SOME}
    for how, seconds in networks.items():
        own, theirs = BATCH / times["step"], BATCH / (times["PySCFAD"] + seconds)
        print(f"network {how}: {own:.0f} molecules per second against {theirs:.2f}, {own / theirs:.0f} times")


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "rate"
    if what == "rate":  # as from the command line
        os.environ.update({name: value for name, value in SINGLE_THREAD.items() if name != "NPROC"})
    else:
        os.environ.update(SINGLE_THREAD)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: 2 if what == "beside" else 1])
    parted = lambda: outside(ready())  # noqa: E731
    {"rate": rate, "outside": parted, "beside": parted, "parts": parts, "peer": peer}[what]()
