"""A training of a line, on one device and on all that there are; `python -m tests.train.shared_training OUT [HOW]`.

HOW: as for `vpotjax train --processes`. Writes validation losses, weights and counts of every way as JSON.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.train.test_loop import SQUARE, bucket
from vpotjax.cli.session import join_processes
from vpotjax.train.descent import Descent
from vpotjax.train.devices import Sharing, leads
from vpotjax.train.loop import descend_all

X = np.linspace(0.5, 1.5, 12)
SETTINGS = Descent(steps=24, batch_size=6, learning_rate=0.03, evaluations=6, limit=1.5, tolerated=0.9, ema=0.5)


@dataclasses.dataclass(frozen=True)
class Line:
    """y = a x + b from a start that is given."""

    offset: float = 0.0

    def initial(self, key, content):
        return {"a": jax.random.normal(key) + self.offset, "b": jnp.zeros(3)}

    def output(self, params, content):
        return params["a"] * content + params["b"].sum()

    def predicted(self, output, content, max_occupied):
        return output


class Memory:
    """Keeps the last state as a file would have it."""

    def __init__(self):
        self.kept = None

    def latest(self):
        return self.kept

    def save(self, step, arrays, record):
        if step == 12:
            self.kept = arrays, json.loads(json.dumps(record))


def curves(models, sharing, first=0, keeper=None):
    y = 2 * X + 1
    y[3], y[7] = np.nan, 40.0  # one is left out, another one is limited
    train = [bucket(X, y), bucket(X[:5], 2 * X[:5] + 1)]
    check = [bucket(X[3:6], 2 * X[3:6] + 1)]
    done = descend_all(models, train, check, SQUARE, SETTINGS, keeper=keeper, first=first, sharing=sharing)
    return [
        {
            "losses": [row["validation_loss"] for row in own.history],
            "training": [row["training_loss"] for row in own.history[1:]],
            "limited": [row["limited"] for row in own.history],
            "params": [float(np.asarray(x).sum()) for x in jax.tree.leaves(own.params)],
            "left_out": dict(own.left_out),
        }
        for own in done
    ]


def main(out, how=None):
    jax.config.update("jax_enable_x64", True)
    if how is not None:
        join_processes(how)
    models, sharing, keeper = [Line(0.0), Line(1.0)], Sharing.of_all(), Memory() if leads() else None
    rows = {
        "devices": jax.device_count(),
        "alone": [curves([model], None, i)[0] for i, model in enumerate(models)],
        "together": curves(models, None),
        "shared": [curves([model], sharing, i)[0] for i, model in enumerate(models)],
        "shared together": curves(models, sharing, keeper=keeper),
        "resumed": curves(models, sharing, keeper=keeper),
    }
    if leads():
        Path(out).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
