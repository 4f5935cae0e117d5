"""What all benchmarks share: interleaved timing, and runs in processes of their own that can be resumed."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NPROC": "1"}


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, called in turn."""
    import jax

    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An npz file that is there as a whole or not at all; its folder is made."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    unfinished.rename(path)


def resumed(
    module: str, runs: Sequence[tuple[str, ...]], partial: Path, all_cores: tuple[str, ...] = ()
) -> dict[str, dict[str, Any]]:
    """Results by the words of each run; those that `partial` has are not run again.

    Args:
        module: to run with `python -m`; it prints a line of JSON last.
        runs: arguments of the module.
        partial: written after each run.
        all_cores: first words of runs that are not bound to one thread.
    """
    results: dict[str, dict[str, Any]] = json.loads(partial.read_text()) if partial.exists() else {}
    for run in runs:
        if " ".join(run) in results:
            continue
        settings = {} if run[0] in all_cores else SINGLE_THREAD
        command = [sys.executable, "-m", module, *run]
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(run)} failed:\n{done.stderr[-2000:]}")
        results[" ".join(run)] = json.loads(done.stdout.strip().splitlines()[-1])
        partial.write_text(json.dumps(results, indent=1))
        print(" ".join(run), flush=True)
    return results
