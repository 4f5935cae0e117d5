"""How XLA compiles programs: on CPUs most of ours take longer to compile than to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer

QUICK = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def quick_options() -> dict[str, bool] | None:
    """XLA options that halve the time of compilation; None where there are none.

    On CPUs: its code generator without MLIR. Linear algebra, networks and overlaps are as fast with it, integrals of
    potentials take twice as long (docs/benchmarks/training.md), so that those have programs without it.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=QUICK).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # another version of XLA
        return None
    return QUICK


def quick_jit(function: Callable[..., Any], static_argnums: int | tuple[int, ...] = (), **options: Any) -> Any:
    """`jax.jit` with `quick_options`, of positional arguments alone.

    JAX has no such options inside of another program or transformation: where an argument is traced, `function` becomes
    part of that.
    """

    @functools.cache
    def program() -> Any:  # when it is called: only then JAX may choose its device
        return jax.jit(function, static_argnums=static_argnums, compiler_options=quick_options(), **options)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
            return function(*arguments)
        return program()(*arguments)

    return call


@functools.partial(jax.jit, static_argnums=0)
def potentials(settings: Any, molecule: Any) -> dict[str, jax.Array]:
    """`settings.potentials` of a molecule, compiled for speed."""
    return settings.potentials(molecule)
