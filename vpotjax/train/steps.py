"""Compiled programs of a training: a step of the optimiser, and the losses of validation molecules.

Of one network, or of several at once, whose parameters and rows then have a leading axis; on one device, or with the
molecules of each batch shared among several.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

from vpotjax._programs import quick_jit
from vpotjax._typing import Array
from vpotjax.losses import Loss
from vpotjax.train.descent import Descent
from vpotjax.train.devices import AXIS, Sharing
from vpotjax.train.held import over_rows


class Trainable(Protocol):
    """What `descend` needs of a model."""

    def initial(self, key: Any, content: Any) -> Any:
        """Parameters of the network; `content` is of one molecule, for the sizes."""

    def output(self, params: Any, content: Any) -> Any:
        """Of one molecule."""

    def predicted(self, output: Any, content: Any, max_occupied: int | None) -> Any:
        """What a loss sees."""


class Counts(NamedTuple):
    """Of the molecules of a batch, (batch,): the loss, whether the gradient was finite, whether it was limited."""

    values: Any
    finite: Any
    limited: Any


class Walk(NamedTuple):
    """What moves: parameters, state of the optimiser, and the averaged parameters; None without averaging."""

    params: Any
    state: Any
    averaged: Any

    @property
    def judged(self) -> Any:
        """The parameters that are evaluated."""
        return self.params if self.averaged is None else self.averaged


def limited_gradient(
    values: Array, squares: Array, gradients: Array, limit: float, sharing: Sharing | None = None, count: int = 0
) -> tuple[jax.Array, Counts]:
    """Mean of the gradients of a batch without those that are not finite, the others limited to the median.

    Args:
        values: (batch,) losses.
        squares: (batch,) of the norms of their gradients in the model's outputs.
        gradients: in the parameters, (batch, parameters).
        limit: largest norm, in multiples of the batch's median.
        sharing: in a program of a device, which has but its own molecules of the batch.
        count: molecules of the batch then; more, at its end, fill up and do not count.
    """
    gradients = jnp.asarray(gradients)
    sound = jnp.isfinite(squares) & jnp.isfinite(values) & jnp.all(jnp.isfinite(gradients), axis=1)
    norms = jnp.sqrt(jnp.where(sound, squares, jnp.nan))
    gradients = jnp.where(sound[:, None], gradients, 0.0)
    if sharing is not None:
        values, norms = (jax.lax.all_gather(x, AXIS, tiled=True)[:count] for x in (values, norms))
    finite, bound = jnp.isfinite(norms), limit * jnp.nanmedian(norms)
    limited = finite & (norms > bound)
    factor = jnp.where(finite, jnp.where(limited, bound / norms, 1.0), 0.0) / jnp.maximum(jnp.sum(finite), 1)
    factor, counts = factor.astype(gradients.dtype), Counts(values, finite, limited)
    if sharing is None:
        return factor @ gradients, counts
    size = len(gradients)
    factor = jnp.pad(factor, (0, size * sharing.count - count))
    own = jax.lax.dynamic_slice_in_dim(factor, jax.lax.axis_index(AXIS) * size, size)
    return jax.lax.psum(own @ gradients, AXIS), counts


def advance_program(
    model: Trainable,
    loss: Loss,
    settings: Descent,
    optimiser: optax.GradientTransformation,
    several: bool,
    sharing: Sharing | None,
) -> Any:
    """A step: of walk, molecules held, rows, progress, and, static, `max_occupied` and the count of molecules.

    Content and reference of molecules are as from `vpotjax.train.held.Molecules.batch`.

    Returns:
        The walk after it, and counts.
    """

    def gradient(
        params: Any, held: Any, rows: Any, progress: Any, max_occupied: int, count: int
    ) -> tuple[jax.Array, Counts]:
        def one(content: Any, reference: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
            """Forward and all the way back, while the layers of the molecule are in the cache."""
            output, pullback = jax.vjp(lambda p: model.output(p, content), params)

            def value(output: Any) -> jax.Array:
                return loss(model.predicted(output, content, max_occupied), reference, progress)

            result, slope = jax.value_and_grad(value)(output)
            return result, jnp.sum(ravel_pytree(slope)[0] ** 2), ravel_pytree(pullback(slope)[0])[0]

        values, squares, gradients = over_rows(one, held, rows)
        return limited_gradient(values, squares, gradients, settings.limit, sharing, count)

    def moved(walk: Walk, gradient: jax.Array) -> Walk:
        params = walk.params
        updates, state = optimiser.update(ravel_pytree(params)[1](gradient), walk.state, params)
        updates = jax.tree.map(
            lambda own, moves: own if moves else jnp.zeros_like(own), updates, settings.moving(params)
        )
        params = optax.apply_updates(params, updates)
        averaged = None
        if settings.ema:
            averaged = optax.incremental_update(params, walk.averaged, 1 - settings.ema)
        return Walk(params, state, averaged)

    def advance(walk: Walk, held: Any, rows: Any, progress: Any, max_occupied: int, count: int) -> tuple[Walk, Counts]:
        own: Any = functools.partial(gradient, max_occupied=max_occupied, count=count)
        own = jax.vmap(own, in_axes=(0, None, 0, None)) if several else own
        if sharing is not None:
            own = sharing.shared(own, (PartitionSpec(), sharing.spec(), sharing.spec(int(several)), PartitionSpec()))
        summed, counts = own(walk.params, held, rows, progress)
        return (jax.vmap(moved) if several else moved)(walk, summed), counts

    return quick_jit(advance, (4, 5)) if sharing is None else sharing.jitted(advance, (4, 5))


def check_program(model: Trainable, loss: Loss, several: bool, sharing: Sharing | None) -> Callable[..., Any]:
    """The loss of each molecule, and the squared errors of all that is in it; of several networks along the last axis.

    Its arguments are parameters, molecules held, rows, and, static, `max_occupied`.
    """

    def check(params: Any, held: Any, rows: Any, max_occupied: int) -> tuple[jax.Array, dict[str, jax.Array]]:
        def one(content: Any, reference: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            predicted = model.predicted(model.output(params, content), content, max_occupied)
            return loss(predicted, reference, 1.0), loss.squared_errors(predicted, reference)

        values = over_rows(one, held, rows)
        if sharing is None:
            return values
        return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), values)

    def checked(params: Any, held: Any, rows: Any, max_occupied: int) -> Any:
        own: Any = functools.partial(check, max_occupied=max_occupied)
        own = jax.vmap(own, in_axes=(0, None, None), out_axes=1) if several else own
        if sharing is not None:
            own = sharing.shared(own, (PartitionSpec(), sharing.spec(), sharing.spec()))
        return own(params, held, rows)

    return quick_jit(checked, 3) if sharing is None else sharing.jitted(checked, 3)
