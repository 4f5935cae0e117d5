"""Minimisation of a loss over minibatches, in compiled chunks of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vpotjax._checks import InputError


def require_positive_settings(settings: Any, names: tuple[str, ...]) -> None:
    """Raise InputError unless the named fields are positive."""
    for name in names:
        if not 0 < getattr(settings, name) < float("inf"):
            raise InputError(f"{name} is {getattr(settings, name)}; give a positive number.")


@dataclasses.dataclass(frozen=True)
class DescentConfig:
    """How a loss is minimised.

    Attributes:
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to 1e-4 of it.
        chunk: steps per call of the compiled program.
        seed: of the batches, and of initial weights that are made for the training.
    """

    steps: int = 5000
    batch_size: int = 25
    learning_rate: float = 2e-3
    chunk: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive_settings(self, ("steps", "batch_size", "learning_rate", "chunk"))


Report = Callable[[int, float, Any], None]
"""Told the step, the mean loss of the chunk and the parameters."""


def descent(loss: Callable[[Any, Any], jax.Array], settings: DescentConfig) -> Callable[..., Any]:
    """A function (params, inputs, report, name, number) that minimises `loss` and returns the parameters.

    The weights of the ridge fit ("map") and "scale" stay as they are. `inputs` have a leading axis of molecules on
    every leaf; `number` is that of one among several networks, each of which sees batches of its own. Calls share one
    program.

    Args:
        loss: of the parameters and of a batch of inputs.
        settings: see `DescentConfig`.

    Raises:
        FloatingPointError: the loss is not finite (by the function).
    """
    moving = clipped_adam(settings.learning_rate, settings.steps, 1e-4)
    optimiser = optax.multi_transform({"moving": moving, "fixed": optax.set_to_zero()}, _labels)

    @jax.jit
    def advance(carry: Any, inputs: Any, indices: jax.Array) -> tuple[Any, jax.Array]:
        def step(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[index], inputs))
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        return jax.lax.scan(step, carry, indices)

    def descend(params: Any, inputs: Any, report: Report, name: str, number: int = 0) -> Any:
        count = len(jax.tree.leaves(inputs)[0])
        size, rng = min(settings.batch_size, count), np.random.default_rng([settings.seed, number])
        carry = (params, optimiser.init(params))
        for start in range(0, settings.steps, settings.chunk):
            now = min(settings.chunk, settings.steps - start)
            indices = jnp.asarray(np.stack([rng.choice(count, size, replace=False) for _ in range(now)]))
            carry, values = advance(carry, inputs, indices)
            mean = float(jnp.mean(values))
            if not np.isfinite(mean):
                raise FloatingPointError(f"loss of {name} is {mean} at step {start + now}; lower learning_rate.")
            report(start + now, mean, carry[0])
        return carry[0]

    return descend


def _labels(params: Any) -> Any:
    def label(path: tuple[Any, ...], _: Any) -> str:
        keys = [str(getattr(key, "key", key)) for key in path]
        return "fixed" if "map" in keys or keys[-1] == "scale" else "moving"

    return jax.tree_util.tree_map_with_path(label, params)


def clipped_adam(peak: float, steps: int, final: float) -> optax.GradientTransformation:
    """Adam with a linear warm-up over the first twentieth, then a cosine to `final` times `peak`; clipped gradients."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, max(1, steps // 20), max(steps, 2), final * peak)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def with_scale(params: Any, scale: float) -> Any:
    """`params` with the size of the network's correction."""
    own = params["params"]
    return {"params": {**own, "scale": jnp.full_like(own["scale"], scale)}}
