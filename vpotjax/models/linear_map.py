"""The part of a model that is fitted in closed form, and the correction that a network adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.nn.network import Network, Outputs
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import NetworkInputs, PairFeatures, exchanged
from vpotjax.operators.pairs import mixing


@pytree
class LinearMap:
    """y_c = Σ_k W_kc x_k with W by kind of pair and irrep, on features as they are: normalisations are in W.

    Attributes:
        weights: by irrep, (kinds, channels of x, channels of y); zero where exchange of the atoms forbids it.
    """

    weights: Mapping[Irrep, Array]

    def __call__(self, features: PairFeatures) -> dict[Irrep, jax.Array]:
        """By irrep (npair, channels, 2λ+1), zero on padding."""
        real = (jnp.asarray(features.kinds) >= 0)[:, None, None]
        result = {}
        for irrep, weights in self.weights.items():
            x = features.values[irrep]
            y = jnp.einsum("pkc,pkm->pcm", jnp.asarray(weights, x.dtype)[features.kinds], x)
            result[irrep] = jnp.where(real, y, 0.0)
        return result


def output_mask(inputs: NetworkInputs | PairFeatures, outputs: Outputs) -> dict[Irrep, jax.Array]:
    """(npair, channels, 1) False on padding, and for odd channels on site."""
    onsite = jnp.asarray(inputs.pairs.first) == jnp.asarray(inputs.pairs.second)
    real = jnp.asarray(inputs.kinds) >= 0
    masks = {}
    for irrep, channels in outputs:
        odd = jnp.arange(channels.total) >= channels.even
        masks[irrep] = (real[:, None] & ~(onsite[:, None] & odd))[:, :, None]
    return masks


def correction(
    network: Network, params: Any, inputs: NetworkInputs, outputs: Outputs, species: int
) -> dict[Irrep, jax.Array]:
    """What a network adds, by irrep (npair, channels, 2λ+1), with the symmetry of a hermitian operator; {} for none.

    Raises:
        InputError: the module returns something else.
    """
    module = network.module(outputs, species)
    if module is None:
        return {}
    result = dict(module.apply(params, inputs))
    foreign = result.keys() - {irrep for irrep, _ in outputs}
    if foreign:
        raise InputError(f"network {network!r} returns irreps {sorted(map(str, foreign))} that are not in outputs.")
    for irrep, channels in outputs:
        wanted = (len(inputs.kinds), channels.total, 2 * irrep.lam + 1)
        if irrep in result and jnp.shape(result[irrep]) != wanted:
            raise InputError(
                f"network {network!r} returns shape {jnp.shape(result[irrep])} for {irrep}; return {wanted}: "
                f"pairs, {channels.even} even and {channels.odd} odd channels, components."
            )
    if not getattr(network, "symmetric", False):
        other = module.apply(params, exchanged(inputs, species))
        unordered = jnp.asarray(~mixing(species))[inputs.kinds]
        for irrep, channels in outputs:
            if irrep in result:
                odd = jnp.arange(channels.total) >= channels.even
                sign = jnp.where(unordered[:, None] & odd, -1.0, 1.0)[:, :, None].astype(result[irrep].dtype)
                result[irrep] = (result[irrep] + sign * other[irrep]) / 2
    masks = output_mask(inputs, outputs)
    return {irrep: jnp.where(masks[irrep], y, 0.0) for irrep, y in result.items()}


def weight_masks(species: int, even: int, channels: int, outputs: tuple[int, int]) -> np.ndarray:
    """(kinds, channels of x, channels of y) True where a weight may be: even with even and odd with odd, or two
    elements.

    On site odd channels do not exist.

    Args:
        species: number of elements.
        even, channels: of x, even ones and all.
        outputs: even and odd ones of y.
    """
    odd_x, odd_y = np.arange(channels) >= even, np.arange(sum(outputs)) >= outputs[0]
    same = odd_x[:, None] == odd_y[None, :]
    masks = np.where(mixing(species)[:, None, None], True, same[None])
    masks[:species] &= ~odd_y
    return masks
