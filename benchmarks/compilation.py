"""Seconds to compile and to run the programs of a prediction, by XLA's two code generators for CPUs.

    python -m benchmarks.compilation        four minutes on one core

The shipped model, two alkanes of about 40 atoms, medians of five runs by turns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.runs import SINGLE_THREAD, interleaved

CARBONS = (11, 12)


def main() -> None:
    """The table."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from benchmarks.structures import alkane
    from vpotjax._programs import QUICK
    from vpotjax.train.arrays import over_molecules
    from vpotjax.train.predict import PREDICTED

    jax.config.update("jax_enable_x64", True)
    model = jax.tree.map(jnp.asarray, vp.load_pretrained())
    settings = model.settings
    batch = jax.tree.map(jnp.asarray, settings.batch([vp.Molecule.from_ase(alkane(n)) for n in CARBONS]))

    def geometry(_model: Any, batch: Any, potentials: Any) -> Any:
        return over_molecules(settings.geometry, batch, potentials)

    def prediction(model: Any, _batch: Any, _potentials: Any, geometry: Any) -> Any:
        return over_molecules(lambda one: model.prediction(model.model.prepared(one), PREDICTED), geometry)

    parts: dict[str, Callable[..., Any]] = {
        "potentials": lambda _, batch: over_molecules(settings.potentials, batch),
        "the rest of the geometry": geometry,
        "network and observables": prediction,
    }
    print("| program | compiled, s | quickly, s | run, ms a molecule | quick, ms |\n|---|---|---|---|---|")
    arguments: tuple[Any, ...] = (model, batch)
    for name, function in parts.items():
        compiled, times = {}, []
        for how, options in {"default": None, "quick": QUICK}.items():
            start = time.perf_counter()
            compiled[how] = jax.jit(function, compiler_options=options).lower(*arguments).compile()
            times.append(time.perf_counter() - start)
        runs = interleaved({how: lambda c=c, a=arguments: c(*a) for how, c in compiled.items()}, 5)
        milliseconds = [1e3 * runs[how] / len(CARBONS) for how in compiled]
        cells = [*(f"{t:.1f}" for t in times), *(f"{t:.0f}" for t in milliseconds)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        arguments = (*arguments, compiled["default"](*arguments))


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    main()
