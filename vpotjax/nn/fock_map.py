"""From normalised pair features to the blocks of a Fock matrix.

    F_c = Σ_k W_kc x_k + Σ_h G_ch(s) Σ_k U_kh x_k

for every irrep: W is linear, per kind of pair; the gates G are an MLP of the invariants s of the pair and of its two
atoms. Channels mix, components do not, so the map is equivariant; G starts at zero, so that W alone is the ridge model.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.operators.blocks import Coupled, Irrep, ShellLayout, irreps, uncouple
from vpotjax.operators.features import SCALAR


class PairInvariants(nn.Module):
    """MLP of the scalars of pair and atoms, (natm, natm, hidden[-1]), with a learned bias per kind of pair."""

    kinds: int
    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x: Coupled, kinds: Array) -> jax.Array:
        """Hidden invariants of features `x`, for pairs of `kinds`."""
        scalars = x[SCALAR][..., 0]
        atoms = jnp.einsum("iik->ik", scalars)
        natm = len(atoms)
        left = jnp.broadcast_to(atoms[:, None], scalars.shape)
        right = jnp.broadcast_to(atoms[None, :], (natm, *atoms.shape))
        h = jnp.arcsinh(jnp.concatenate([scalars, left, right], axis=-1))
        bias = self.param("kind", nn.initializers.normal(1.0), (self.kinds, self.hidden[0]), h.dtype)
        h = nn.silu(nn.Dense(self.hidden[0], param_dtype=h.dtype, name="layer_0")(h) + bias[kinds])
        for i, width in enumerate(self.hidden[1:], start=1):
            h = nn.silu(nn.Dense(width, param_dtype=h.dtype, name=f"layer_{i}")(h))
        return h


class FockMap(nn.Module):
    """Pair features → blocks (natm, natm, width, width) of a symmetric matrix.

    Attributes:
        layout: of the blocks.
        kinds: number of kinds of pairs.
        hidden: widths of the MLP.
        gated: channels per irrep that the MLP gates.
    """

    layout: ShellLayout
    kinds: int
    hidden: Sequence[int]
    gated: int

    @nn.compact
    def __call__(self, x: Coupled, kinds: Array) -> jax.Array:
        """Blocks from features `x`, for pairs of `kinds`."""
        invariants = PairInvariants(self.kinds, self.hidden, name="invariants")(x, kinds)
        coupled = {}
        for irrep, table in irreps(self.layout).items():
            if irrep in x:
                coupled[irrep] = self.linear(irrep, x, kinds, table.shape[2])
                coupled[irrep] += self.gate(irrep, x, invariants, table.shape[2])
        blocks = uncouple(coupled, self.layout)
        blocks = jnp.where((kinds >= 0)[..., None, None], blocks, 0.0)
        return (blocks + blocks.transpose(1, 0, 3, 2)) / 2

    def linear(self, irrep: Irrep, x: Coupled, kinds: Array, channels: int) -> jax.Array:
        """Σ_k W_kc x_k with W by kind of pair."""
        shape = (self.kinds, x[irrep].shape[-2], channels)
        weight = self.param(f"linear_{irrep}", nn.initializers.zeros, shape, x[irrep].dtype)
        return jnp.einsum("ijkc,ijkm->ijcm", weight[kinds], x[irrep])

    def gate(self, irrep: Irrep, x: Coupled, invariants: Array, channels: int) -> jax.Array:
        """Σ_h G_ch Σ_k U_kh x_k."""
        dtype = x[irrep].dtype
        shape = (x[irrep].shape[-2], self.gated)
        mixing = self.param(f"mixing_{irrep}", nn.initializers.normal(shape[0] ** -0.5), shape, dtype)
        gates = nn.Dense(
            channels * self.gated, kernel_init=nn.initializers.zeros, param_dtype=dtype, name=f"gate_{irrep}"
        )
        gate = gates(invariants).reshape(*invariants.shape[:2], channels, self.gated)
        return jnp.einsum("ijch,ijhm->ijcm", gate, jnp.einsum("kh,ijkm->ijhm", mixing, x[irrep]))
