"""Minimisation of a loss over minibatches, in compiled chunks of steps."""

from __future__ import annotations

import dataclasses
import functools
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
        if getattr(settings, name) <= 0:
            raise InputError(f"{name} is {getattr(settings, name)}; give a positive number.")


@dataclasses.dataclass(frozen=True)
class DescentConfig:
    """How a loss is minimised.

    Attributes:
        steps: of Adam.
        batch_size: molecules per step.
        learning_rate: peak; a linear warm-up over the first twentieth, then a cosine to 1e-4 of it.
        chunk: steps per call of the compiled program.
        seed: of the batches.
    """

    steps: int = 5000
    batch_size: int = 25
    learning_rate: float = 2e-3
    chunk: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive_settings(self, ("steps", "batch_size", "learning_rate", "chunk"))


Loss = Callable[[Any, Any], jax.Array]
"""Of the parameters and of a batch of inputs."""


def descend(
    loss: Loss,
    params: Any,
    inputs: Any,
    settings: DescentConfig,
    report: Callable[[int, float, Any], None],
    number: int = 0,
) -> Any:
    """Parameters after `settings.steps` of Adam; the ridge fit's weights ("map") and "scale" stay as they are.

    Args:
        loss: the same object for several calls shares their compiled program.
        params: at the start.
        inputs: with a leading axis of molecules on every leaf.
        settings: see `DescentConfig`.
        report: called after every chunk with the step, the mean loss of the chunk and the parameters.
        number: of this among several networks; each sees batches of its own.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimiser = _optimiser(settings.learning_rate, settings.steps)
    count = len(jax.tree.leaves(inputs)[0])
    size, rng = min(settings.batch_size, count), np.random.default_rng([settings.seed, number])
    carry = (params, optimiser.init(params))
    for start in range(0, settings.steps, settings.chunk):
        now = min(settings.chunk, settings.steps - start)
        indices = jnp.asarray(np.stack([rng.choice(count, size, replace=False) for _ in range(now)]))
        carry, values = _advance(loss, optimiser, carry, inputs, indices)
        mean = float(jnp.mean(values))
        if not np.isfinite(mean):
            raise FloatingPointError(f"loss is {mean} at step {start + now}; lower learning_rate.")
        report(start + now, mean, carry[0])
    return carry[0]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _advance(
    loss: Loss, optimiser: optax.GradientTransformation, carry: Any, inputs: Any, indices: jax.Array
) -> tuple[Any, jax.Array]:
    def step(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[index], inputs))
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(step, carry, indices)


@functools.lru_cache(maxsize=4)  # the same object for the same settings, so that programs are shared
def _optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    moving = clipped_adam(learning_rate, steps, 1e-4)
    return optax.multi_transform({"moving": moving, "fixed": optax.set_to_zero()}, _labels)


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
