"""No network: the closed-form linear map alone."""

from __future__ import annotations

import dataclasses

from vpotjax.nn.network import Outputs


@dataclasses.dataclass(frozen=True)
class Linear:
    """A model without a correction."""

    def module(self, outputs: Outputs, species: int) -> None:
        """None."""
