"""Pair features → a property: gated sums over pairs."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.nn.pair_map import PairInvariants, PairMap
from vpotjax.operators.blocks import Coupled, Irrep


class PropertyMap(nn.Module):
    """Pair features → the irreps of a property, (2λ+1,) each, zero at first: what gates add to a linear model.

    The sum over pairs is multiplied by `scale`, a number in the parameters for the size of that correction.

    Attributes:
        irreps: of the property.
        species: number of elements.
        kinds: number of kinds of pairs.
        hidden: widths of the MLP of the pairs' invariants.
        gated: channels per irrep that the MLP gates.
    """

    irreps: Sequence[Irrep]
    species: int
    kinds: int
    hidden: Sequence[int]
    gated: int

    @nn.compact
    def __call__(self, x: Coupled, kinds: Array) -> dict[Irrep, jax.Array]:
        """From normalised features `x` of pairs of `kinds`."""
        invariants = PairInvariants(self.species, self.hidden, name="invariants")(x, jnp.diagonal(kinds))
        outputs = tuple((irrep, 1) for irrep in self.irreps)
        gates = PairMap(outputs, self.kinds, self.gated, linear=False, name="gates")
        per_pair = gates(x, kinds, invariants)
        real = (kinds >= 0)[:, :, None]
        scale = self.param("scale", nn.initializers.ones, (), invariants.dtype)
        return {i: scale * jnp.sum(jnp.where(real, y[..., 0, :], 0.0), axis=(0, 1)) for i, y in per_pair.items()}
