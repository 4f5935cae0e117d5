"""What a network is to the package: an object that makes a module for given outputs.

A network corrects a linear model. Any object with a method `module(outputs, species)` is one, also from outside the
package. The module has Flax's `init(key, inputs)` and `apply(params, inputs)`, takes the `NetworkInputs` of one
molecule and returns by irrep (npair, channels, 2λ+1), even channels first, in the order of `outputs`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from vpotjax.operators.blocks import Irrep


class Channels(NamedTuple):
    """Numbers of even and odd channels of an irrep, see `vpotjax.operators.pairs`."""

    even: int
    odd: int

    @property
    def total(self) -> int:
        """Of both."""
        return self.even + self.odd


Outputs = tuple[tuple[Irrep, Channels], ...]


class Network(Protocol):
    """A network: hashable, and equal where its modules are.

    Two attributes may say more: `operators = True` asks for `NetworkInputs.operators`; `symmetric = True` promises that
    even outputs stay and odd ones change sign where the atoms of a pair of one element are exchanged. Without the
    promise the model evaluates the module for both orders and keeps what has that symmetry; that is enough for a
    module whose output for a pair depends on odd channels of this pair alone. Where there is a cutoff, a module that is
    not zero for zero features should multiply its output by `NetworkInputs.near`.
    """

    def module(self, outputs: Outputs, species: int) -> Any:
        """For the irreps and channels of `outputs` and a number of elements; None where there is no correction."""
