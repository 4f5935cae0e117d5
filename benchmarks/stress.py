"""Does one of 300 batched training steps and 300 chains wait for ever, in fresh processes without any variable set?

    python -m benchmarks.stress            ten processes, a line for each
    python -m benchmarks.stress once       one, in this process

Several batched factorisations or triangular solves of jaxlib at once wait for threads of the pool that they occupy
(jaxlib 0.10.2 on two cores: `vmap` over four Cholesky factorisations stops at the first call). The package calls LAPACK
with one matrix at a time on CPUs; its steps are vmapped here, which is what nested the calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

VARIABLES = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")
COUNT, PROCESSES, PATIENCE = 300, 10, 600.0  # calls of each kind, processes, seconds for one


def once() -> None:
    """Training steps with metric and Löwdin powers and both spaces of the eigenproblem, and the chain, all vmapped."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vpotjax.io.dataset import embedded_dataset_path, read_dataset
    from vpotjax.nn import Gated
    from vpotjax.train.config import Training
    from vpotjax.train.fit import aligned_matrices, linear_fit, prepared, whitened
    from vpotjax.train.matrix_training import labels_for
    from vpotjax.train.stages import split_buckets
    from vpotjax.train.trainable import MatrixTraining

    jax.config.update("jax_enable_x64", True)
    dataset = read_dataset(embedded_dataset_path())
    parts = {
        name: [s for s in dataset.split(name) if s.molecule.natm <= 6][:size]
        for name, size in (("train", 16), ("validation", 5))
    }
    species = tuple(sorted({int(z) for part in parts.values() for s in part for z in s.molecule.numbers}))
    training = Training(Gated(8, (32,)), basis="6-31g", power_order=2, power_kinds=("metric", "lowdin"), buckets=1)
    settings = training.settings(species, "sto-3g")
    labels = labels_for(training, settings, "sto-3g", "def2-tzvp", parts["train"][0])
    buckets = split_buckets(parts, settings, labels, 1)
    train, validation = buckets["train"], buckets["validation"]
    start = linear_fit(train, validation, settings, whitened(train, settings), aligned_matrices)
    (bucket,) = prepared(train, start)
    loss, model = training.loss(1.0).fitted([bucket.reference]), MatrixTraining(settings, 0.01)
    content, reference = jax.tree.map(jnp.asarray, (bucket.content, bucket.reference))
    params = model.initial(jax.random.key(0), jax.tree.map(lambda x: x[0], content))

    def mean_loss(params):
        def one(content, reference):
            return loss(model.predicted(model.output(params, content), content, None), reference)

        return jnp.mean(jax.vmap(one)(content, reference))

    @jax.jit
    def step(params):
        value, gradient = jax.value_and_grad(mean_loss)(params)
        return value, jax.tree.map(lambda p, g: p - 1e-9 * jnp.nan_to_num(g), params, gradient)

    batch = jax.tree.map(jnp.asarray, settings.batch([s.molecule for s in parts["train"]]))
    chain = jax.jit(jax.vmap(lambda molecule: start(molecule).observable("homo_lumo_gap")))
    value = gaps = np.asarray(np.nan)
    for _ in range(COUNT):
        value, params = step(params)
        gaps = jax.block_until_ready(chain(batch))
    assert np.isfinite(float(value))
    assert np.isfinite(gaps).all()


def main() -> None:
    """A line for each process."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    for number in range(PROCESSES):
        start = time.perf_counter()
        try:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.stress", "once"], env=environment, timeout=PATIENCE, check=True
            )
        except subprocess.TimeoutExpired:
            print(f"process {number}: WAITS, ended after {PATIENCE:.0f} s", flush=True)
            sys.exit(1)
        print(f"process {number}: {COUNT} steps and {COUNT} chains in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    once() if sys.argv[1:] == ["once"] else main()
