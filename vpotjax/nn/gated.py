"""The gated network: features of a pair times functions of its invariants."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax

from vpotjax._checks import InputError
from vpotjax.nn.network import Outputs
from vpotjax.nn.pair_map import GatedMap, PairInvariants
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import NetworkInputs


@dataclasses.dataclass(frozen=True)
class Gated:
    """Gates that an MLP makes of the invariants of pair and atoms.

    Attributes:
        gated: hidden features of each irrep.
        hidden: widths of the MLP.
    """

    gated: int = 32
    hidden: tuple[int, ...] = (64, 64)
    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_sizes(gated=self.gated, hidden=self.hidden)

    def module(self, outputs: Outputs, species: int) -> nn.Module:
        """A Flax module."""
        return GatedModule(outputs, species, self.hidden, self.gated)


class GatedModule(nn.Module):
    """Invariants, then gates; see `Gated`."""

    outputs: Outputs
    species: int
    hidden: tuple[int, ...]
    gated: int

    @nn.compact
    def __call__(self, inputs: NetworkInputs) -> dict[Irrep, jax.Array]:
        """By irrep (npair, channels, 2λ+1)."""
        invariants = PairInvariants(self.species, self.hidden, name="invariants")(inputs)
        return GatedMap(self.outputs, self.gated, name="map")(inputs, invariants)


def require_sizes(**sizes: int | tuple[int, ...]) -> None:
    """Raise InputError unless sizes and all widths are at least 1."""
    for name, value in sizes.items():
        widths = value if isinstance(value, tuple) else (value,)
        if not widths or min(widths) < 1:
            raise InputError(f"{name} is {value}; give at least 1, of widths at least one.")
