"""e3nn-jax: pair features as an `IrrepsArray`, and what a network returns back from one.

A network of e3nn-jax can stand between representation and F::

    @dataclasses.dataclass(frozen=True)
    class MyNetwork:
        def module(self, outputs, species):
            return MyModule(outputs)          # a Flax module: inputs → from_irreps_array(…, outputs)

The order of components is the only difference (the polar axis is y in e3nn); parity is the same.
Weights of an e3nn layer mix channels freely, so the model symmetrises its results under exchange of two equal atoms.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.conventions import ao_transform
from vpotjax.nn.network import Outputs
from vpotjax.operators.blocks import Coupled, Irrep


def to_irreps_array(values: Coupled) -> Any:
    """By irrep (..., channels, 2λ+1) → `e3nn_jax.IrrepsArray` (..., dim), irreps in the order of `values`.

    Args:
        values: features of pairs, such as `NetworkInputs.values`.
    """
    import e3nn_jax

    irreps = e3nn_jax.Irreps([(jnp.shape(x)[-2], (i.lam, i.parity)) for i, x in values.items()])
    parts = [_turned(jnp.asarray(x), i, "to").reshape(*jnp.shape(x)[:-2], -1) for i, x in values.items()]
    return e3nn_jax.IrrepsArray(irreps, jnp.concatenate(parts, axis=-1))


def output_irreps(outputs: Outputs) -> Any:
    """`e3nn_jax.Irreps` of what a network has to return, in the order of `outputs`."""
    import e3nn_jax

    return e3nn_jax.Irreps([(channels.total, (irrep.lam, irrep.parity)) for irrep, channels in outputs])


def from_irreps_array(array: Any, outputs: Outputs) -> dict[Irrep, jax.Array]:
    """`e3nn_jax.IrrepsArray` with `output_irreps` → by irrep (..., channels, 2λ+1).

    Raises:
        InputError: other irreps.
    """
    wanted = output_irreps(outputs)
    if array.irreps != wanted:
        raise InputError(f"array has the irreps {array.irreps}, the outputs are {wanted}; end with a layer to those.")
    result, start = {}, 0
    for irrep, channels in outputs:
        size = channels.total * (2 * irrep.lam + 1)
        part = array.array[..., start : start + size]
        part = part.reshape(*part.shape[:-1], channels.total, 2 * irrep.lam + 1)
        result[irrep], start = _turned(part, irrep, "from"), start + size
    return result


def _turned(x: Array, irrep: Irrep, way: str) -> jax.Array:
    """Components in e3nn's order, or back."""
    transform = jnp.asarray(ao_transform(irrep.lam, "e3nn"), jnp.asarray(x).dtype)
    return jnp.asarray(x) @ (transform.T if way == "to" else transform)
