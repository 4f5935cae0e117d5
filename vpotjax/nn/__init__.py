"""Networks: what corrects the closed-form linear map of a model."""

from vpotjax.nn.gated import Gated
from vpotjax.nn.linear import Linear
from vpotjax.nn.matrix_power import MatrixPower
from vpotjax.nn.network import Channels, Network
from vpotjax.nn.pair_map import GatedMap, PairInvariants

__all__ = ["Channels", "Gated", "GatedMap", "Linear", "MatrixPower", "Network", "PairInvariants"]
