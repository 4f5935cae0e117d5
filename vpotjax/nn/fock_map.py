"""Pair features and operators → F or P: linear, gated, or with hidden operators from learned matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.nn.matrix_power import MatrixPower
from vpotjax.nn.pair_map import PairInvariants, PairMap
from vpotjax.operators.blocks import Coupled, ShellLayout, irreps, uncouple


class FockMap(nn.Module):
    """Pair features → blocks (natm, natm, width, width) of a symmetric matrix.

    A linear map, whose weights a ridge regression can find, plus a correction by gates and hidden operators times
    `scale`, a number in the parameters for the size of that correction.

    Attributes:
        layout: of the blocks.
        species: number of elements.
        kinds: number of kinds of pairs.
        hidden: widths of the MLP of the pairs' invariants.
        gated: channels per irrep that the MLP gates; 0 for a linear map.
        power: makes hidden operators, whose blocks are features too; default: none.
        linear: whether the linear map is there, or the correction alone; the correction needs `gated`.
    """

    layout: ShellLayout
    species: int
    kinds: int
    hidden: Sequence[int]
    gated: int
    power: MatrixPower | None = None
    linear: bool = True

    @nn.compact
    def __call__(self, x: Coupled, kinds: Array, operators: Array | None = None) -> jax.Array:
        """Blocks from features `x` of pairs of `kinds`, and from Löwdin `operators`, see `MatrixPower`."""
        outputs = tuple(irreps(self.layout).items())
        elements = jnp.diagonal(kinds)
        every, learned, parts = x, {}, []
        if self.power is not None and operators is not None:
            learned = self.power(operators, elements, tuple(x))
            every = {irrep: jnp.concatenate([value, learned[irrep]], axis=-2) for irrep, value in x.items()}
        if self.linear:
            parts.append(PairMap(outputs, self.kinds, 0, name="map")(x, kinds, None))
        if self.gated:
            invariants = PairInvariants(self.species, self.hidden, name="invariants")(every, elements)
            scale = self.param("scale", nn.initializers.ones, (), invariants.dtype)
            gates = PairMap(outputs, self.kinds, self.gated, linear=False, name="gates")(x, kinds, invariants)
            parts.append(jax.tree.map(lambda y: scale * y, gates))
            if self.power is not None:
                hidden = PairMap(outputs, self.kinds, self.gated, name="learned")(learned, kinds, invariants)
                parts.append(jax.tree.map(lambda y: scale * y, hidden))
        coupled = jax.tree.map(lambda *terms: sum(terms[1:], start=terms[0]), *parts)
        blocks = jnp.where((kinds >= 0)[..., None, None], uncouple(coupled, self.layout), 0.0)
        return (blocks + blocks.transpose(1, 0, 3, 2)) / 2
