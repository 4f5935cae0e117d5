"""The matrix-power network: gated, with features from layers of learned matrix products."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax.nn.gated import require_sizes
from vpotjax.nn.network import Outputs
from vpotjax.nn.operator_products import OperatorProducts
from vpotjax.nn.pair_map import GatedMap, PairInvariants
from vpotjax.operators.blocks import Irrep, ShellLayout, couple
from vpotjax.operators.features import NetworkInputs
from vpotjax.operators.pairs import even_channels, to_exchange

PRECISIONS = ("float32", "float64", "bfloat16")


@dataclasses.dataclass(frozen=True)
class MatrixPower:
    """Gates on the features and on those of hidden operators, see `OperatorProducts`.

    Attributes:
        gated, hidden: see `Gated`.
        layers, channels, shells, coupling, checkpoint: see `OperatorProducts`.
        product_precision: of its matrix products, "float32", "float64" or "bfloat16".
    """

    gated: int = 8
    hidden: tuple[int, ...] = (64, 64)
    layers: int = 2
    channels: int = 4
    shells: int = 3
    coupling: bool = False
    product_precision: str = "float32"
    checkpoint: bool = False
    symmetric: ClassVar[bool] = True
    operators: ClassVar[bool] = True

    def __post_init__(self) -> None:
        names = ("gated", "hidden", "layers", "channels", "shells")
        require_sizes(**{name: getattr(self, name) for name in names})
        if self.product_precision not in PRECISIONS:
            raise InputError(f"product_precision is {self.product_precision!r}; give one of {', '.join(PRECISIONS)}.")

    def module(self, outputs: Outputs, species: int) -> nn.Module:
        """A Flax module."""
        return MatrixPowerModule(self, outputs, species)


class MatrixPowerModule(nn.Module):
    """Hidden operators, whose blocks join the features, then invariants and gates; see `MatrixPower`."""

    settings: MatrixPower
    outputs: Outputs
    species: int

    @nn.compact
    def __call__(self, inputs: NetworkInputs) -> dict[Irrep, jax.Array]:
        """By irrep (npair, channels, 2λ+1)."""
        s = self.settings
        products = OperatorProducts(
            inputs.layout,
            self.species,
            s.layers,
            s.channels,
            s.shells,
            precision=s.product_precision,
            coupling=s.coupling,
            checkpoint=s.checkpoint,
            name="products",
        )
        every = _extended(inputs, products(inputs), products.hidden_layout)
        invariants = PairInvariants(self.species, s.hidden, name="invariants")(every)
        return GatedMap(self.outputs, s.gated, name="map")(every, invariants)


def _extended(inputs: NetworkInputs, blocks: jax.Array, layout: ShellLayout) -> NetworkInputs:
    """Inputs with the channels of hidden operators (channels, npair, width, width) beside their own."""
    counts, even = even_channels(layout), dict(inputs.even)
    values = dict(inputs.values)
    for irrep, x in to_exchange(couple(blocks, layout, tuple(values)), layout).items():
        own, rows = inputs.parts(irrep), jnp.moveaxis(x, 0, 1)
        new = (rows[:, :, : counts[irrep]], rows[:, :, counts[irrep] :])
        new = [part.reshape(len(rows), -1, 2 * irrep.lam + 1) for part in new]
        values[irrep] = jnp.concatenate([new[0], own[0], own[1], new[1]], axis=1)  # constant last of the even ones
        even[irrep] += new[0].shape[1]
    return dataclasses.replace(inputs, values=values, even=tuple(even.items()))
