"""The persistent compilation cache serves a new process."""

import os
import subprocess
import sys

PROGRAM = """
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import vpotjax as vp

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
basis = vp.load_basis("sto-3g", [8, 1, 1])
positions = np.array([[0, 0, 0.2], [0, 1.4, -0.9], [0, -1.4, -0.9]])
jax.grad(lambda r: vp.external_potential(basis, r).sum())(positions)
print(events.count("/jax/compilation_cache/cache_misses"), events.count("/jax/compilation_cache/cache_hits"))
"""


def test_a_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        counts.append([int(n) for n in done.stdout.split()])
    (misses, _), (second_misses, second_hits) = counts
    assert misses > 0
    assert second_misses == 0
    assert second_hits >= misses
