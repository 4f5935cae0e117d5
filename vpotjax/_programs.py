"""Programs that take longer to compile than to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

QUICK = {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def quick_options() -> dict[str, bool] | None:
    """Of XLA, to compile in half of the time; None where there are none.

    On CPUs this is its code generator without MLIR. What that makes is as fast (linear algebra, networks, overlaps),
    but for integrals of potentials, which take 1.7 times as long: those are compiled without these options.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=QUICK).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # another version of XLA
        return None
    return QUICK


def quick_jit(function: Callable[..., Any], static_argnums: int | tuple[int, ...] = (), **options: Any) -> Any:
    """`jax.jit` with `quick_options`; not to be called inside of another one. The device is asked for when it is."""

    @functools.cache
    def program() -> Any:
        return jax.jit(function, static_argnums=static_argnums, compiler_options=quick_options(), **options)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return program()(*arguments)

    return call
