"""Equivariant maps of pair features whose coefficients are functions of the invariants of pair and atoms.

An exchange of the two atoms of a pair leaves even features and hidden invariants e as they are and changes the sign of
odd ones and of o. With gates g that are functions of e, and h that are linear in o, both one number for each hidden
feature,

    y_even = A [ g(e) ∘ U x_even + h(o) ∘ W x_odd ],      y_odd = B [ g′(e) ∘ W x_odd + h′(o) ∘ U x_even ]

has the symmetry of a hermitian operator for any weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.nn.network import Outputs
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR, NetworkInputs
from vpotjax.operators.pairs import kind_count


class PairInvariants(nn.Module):
    """Hidden invariants of pairs: e, (npair, width), even under exchange, and o, (npair, width), odd.

    Attributes:
        species: number of elements.
        hidden: widths of the layers.
    """

    species: int
    hidden: Sequence[int]

    @nn.compact
    def __call__(self, inputs: NetworkInputs) -> tuple[jax.Array, jax.Array]:
        """e and o of one molecule."""
        even, odd = (jnp.arcsinh(x[..., 0]) for x in inputs.parts(SCALAR))
        dtype, width, natm = even.dtype, self.hidden[0], len(inputs.elements)

        def dense(name: str, size: int, bias: bool = True) -> nn.Dense:
            return nn.Dense(size, use_bias=bias, param_dtype=dtype, name=name)

        def table(name: str, count: int) -> jax.Array:
            return self.param(name, nn.initializers.normal(1.0), (count, width), dtype)

        atoms = nn.silu(dense("atom", width)(even[:natm]) + table("elements", self.species)[inputs.elements])
        left, right = atoms[inputs.pairs.first], atoms[inputs.pairs.second]
        soft = jnp.sqrt(1 + odd**2) - 1  # |odd| would have a kink where atoms are equivalent
        e = dense("even", width)(jnp.concatenate([even, soft, left + right, left * right], axis=-1))
        e = nn.silu(e + table("kinds", kind_count(self.species))[inputs.kinds])
        for i, size in enumerate(self.hidden[1:], start=1):
            e = nn.silu(dense(f"even_{i}", size)(e))
        narrow = max(width // 4, 1)
        o = jnp.tanh(dense("odd", narrow, bias=False)(jnp.concatenate([odd, left - right], axis=-1)))
        return e, o * nn.sigmoid(dense("odd_gate", narrow)(e))


class GatedMap(nn.Module):
    """Pair features → irreps of each pair, see the equation of the module; zero at first.

    Attributes:
        outputs: irreps and their channels; those that the features lack are left out.
        gated: hidden features of each irrep and parity under exchange.
    """

    outputs: Outputs
    gated: int

    @nn.compact
    def __call__(self, inputs: NetworkInputs, invariants: tuple[Array, Array]) -> dict[Irrep, jax.Array]:
        """By irrep (npair, channels, 2λ+1)."""
        result = {}
        for irrep, channels in self.outputs:
            if irrep not in inputs.values:
                continue
            even, odd = inputs.parts(irrep)
            hidden = {"even": self.mixed(f"{irrep}_even", even), "odd": self.mixed(f"{irrep}_odd", odd)}
            parts = []
            for name, other, count in (("even", "odd", channels.even), ("odd", "even", channels.odd)):
                terms = [
                    self.gates(f"{irrep}_{name}_{way}", invariants[way])[:, None] * hidden[source]
                    for way, source in ((0, name), (1, other))
                    if hidden[source] is not None and count
                ]
                parts.append(self.readout(f"{irrep}_{name}", terms, count, even))
            result[irrep] = jnp.swapaxes(jnp.concatenate(parts, axis=-1), 1, 2)
        return result

    def mixed(self, name: str, x: jax.Array) -> Any:
        """U x, (npair, 2λ+1, gated); None where there are no such channels."""
        channels = x.shape[1]
        if not channels:
            return None
        initial = nn.initializers.normal(channels**-0.5)
        weight = self.param(f"mix_{name}", initial, (channels, self.gated), x.dtype)
        return jnp.swapaxes(x, 1, 2) @ weight

    def gates(self, name: str, invariants: Array) -> jax.Array:
        """(npair, gated), without a bias where the invariants are odd."""
        dtype = jnp.asarray(invariants).dtype
        return nn.Dense(self.gated, use_bias=name.endswith("0"), param_dtype=dtype, name=f"gate_{name}")(invariants)

    def readout(self, name: str, terms: Sequence[jax.Array], count: int, like: jax.Array) -> jax.Array:
        """A Σ terms, (npair, 2λ+1, count), zero at first."""
        if not terms:
            return jnp.zeros((len(like), like.shape[2], count), like.dtype)
        weight = self.param(f"out_{name}", nn.initializers.zeros, (self.gated, count), like.dtype)
        return sum(terms[1:], start=terms[0]) @ weight
