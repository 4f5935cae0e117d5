"""Cost of the matrix-power network: one layer against bare matrix products of the same size.

    python -m benchmarks.networks                all cases, each in its own process on one thread; prints the table
    python -m benchmarks.networks case 10 4 float32

A layer multiplies C hidden operators of n = natm · width functions; the peak rate is that of one product of matrices
with n = 2048 in the same process and precision. "Share" is 2 C n³ (with gradient three times that) over the time, over
that rate. Finished cases are kept in networks.partial.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.runs import interleaved, resumed

ATOMS = (8, 16, 32, 64)
CHANNELS = (4, 16)
PRECISIONS = ("float32", "float64")
PEAK_SIZE = 2048


def run_case(natm: int, channels: int, precision: str) -> dict[str, Any]:
    """Seconds of one layer forward and with its gradient, and of the products alone."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vpotjax.nn.operator_products import ProductLayer, unit_norm
    from vpotjax.operators.blocks import ShellLayout

    jax.config.update("jax_enable_x64", True)
    layout, rng = ShellLayout((4, 4, 4)), np.random.default_rng(0)
    size = natm * layout.width

    def operators() -> jax.Array:
        matrices = rng.standard_normal((channels, natm, layout.width, natm, layout.width))
        return unit_norm(jnp.asarray(matrices + matrices.transpose(0, 3, 4, 1, 2), precision))

    state, factor = operators(), operators()
    elements = jnp.asarray(rng.integers(0, 4, natm))
    layer = ProductLayer(layout, 4, 32, precision)
    params = layer.init(jax.random.key(0), state, factor, elements)
    forward = jax.jit(layer.apply)
    apply: Any = layer.apply
    loss = jax.jit(jax.grad(lambda p, s, f: jnp.sum(apply(p, s, f, elements) ** 2), argnums=(0, 1, 2)))
    flat = jnp.asarray(rng.standard_normal((2, channels, size, size)), precision)
    large = jnp.asarray(rng.standard_normal((PEAK_SIZE, PEAK_SIZE)), precision)
    product = jax.jit(jnp.matmul)
    seconds = interleaved(
        {
            "layer": lambda: forward(params, state, factor, elements),
            "gradient": lambda: loss(params, state, factor),
            "products": lambda: product(flat[0], flat[1]),
            "peak": lambda: product(large, large),
        },
        5,
    )
    operations = 2 * channels * size**3
    peak = 2 * PEAK_SIZE**3 / seconds["peak"]
    row: dict[str, Any] = {"natm": natm, "n": size, "channels": channels, "precision": precision}
    row |= {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    return row | {
        "share": operations / seconds["layer"] / peak,
        "share_of_gradient": 3 * operations / seconds["gradient"] / peak,
        "peak_gflops": peak / 1e9,
    }


def main() -> None:
    """The table of all cases."""
    partial = Path("networks.partial.json")
    runs = [("case", str(a), str(c), p) for p in PRECISIONS for c in CHANNELS for a in ATOMS]
    rows = resumed("benchmarks.networks", runs, partial).values()
    columns = ["precision", "channels", "n", "layer_ms", "gradient_ms", "products_ms", "share", "share_of_gradient"]
    print("| " + " | ".join([*columns, "peak_gflops"]) + " |\n|" + "---|" * (len(columns) + 1))
    for row in rows:
        cells = [row[c] for c in [*columns, "peak_gflops"]]
        print("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["case"]:
        print(json.dumps(run_case(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        main()
