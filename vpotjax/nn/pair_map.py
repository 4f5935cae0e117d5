"""Equivariant maps of pair features: linear by kind of pair, and gated by invariants."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpotjax._typing import Array
from vpotjax.operators.blocks import Coupled, Irrep
from vpotjax.operators.features import SCALAR


class PairInvariants(nn.Module):
    """MLP of the scalars of pair and atoms, (natm, natm, hidden[-1]), told the elements by learned embeddings."""

    species: int
    hidden: Sequence[int]

    @nn.compact
    def __call__(self, x: Coupled, elements: Array) -> jax.Array:
        """Hidden invariants of features `x`; `elements` (natm,) count from 0, −1 for padding."""
        scalars = x[SCALAR][..., 0]
        dtype, width = scalars.dtype, self.hidden[0]
        atoms = jnp.einsum("iik->ik", scalars)
        natm = len(atoms)
        left = jnp.broadcast_to(atoms[:, None], scalars.shape)
        right = jnp.broadcast_to(atoms[None, :], (natm, *atoms.shape))
        h = jnp.arcsinh(jnp.concatenate([scalars, left, right], axis=-1))
        embedding = self.param("elements", nn.initializers.normal(1.0), (2, self.species, width), dtype)
        onsite = self.param("onsite", nn.initializers.normal(1.0), (width,), dtype)
        bias = embedding[0, elements][:, None] + embedding[1, elements][None, :]
        bias += jnp.eye(natm, dtype=dtype)[..., None] * onsite
        h = nn.silu(nn.Dense(width, param_dtype=dtype, name="layer_0")(h) + bias)
        for i, width in enumerate(self.hidden[1:], start=1):
            h = nn.silu(nn.Dense(width, param_dtype=dtype, name=f"layer_{i}")(h))
        return h


class PairMap(nn.Module):
    """Pair features → irreps of each pair: y_c = Σ_k W_kc x_k + Σ_h G_ch Σ_k U_kh x_k, or one of the two terms.

    W goes by kind of pair, the gates G are functions of the invariants. All outputs are zero at first.

    Attributes:
        outputs: irreps and their channels; those that the features lack are left out.
        kinds: number of kinds of pairs.
        gated: channels per irrep that the invariants gate; 0 for a linear map.
        linear: whether there is a linear part.
    """

    outputs: Sequence[tuple[Irrep, int]]
    kinds: int
    gated: int
    linear: bool = True

    @nn.compact
    def __call__(self, x: Coupled, kinds: Array, invariants: Array | None) -> dict[Irrep, jax.Array]:
        """By irrep (natm, natm, channels, 2λ+1), for pairs of `kinds`."""
        result = {}
        for irrep, channels in self.outputs:
            if irrep not in x:
                continue
            terms = [self.linear_part(irrep, x, kinds, channels)] if self.linear else []
            if self.gated and invariants is not None:
                terms.append(self.gated_part(irrep, x, invariants, channels))
            result[irrep] = sum(terms[1:], start=terms[0])
        return result

    def linear_part(self, irrep: Irrep, x: Coupled, kinds: Array, channels: int) -> jax.Array:
        """Σ_k W_kc x_k with W by kind of pair."""
        shape = (self.kinds, x[irrep].shape[-2], channels)
        weight = self.param(f"linear_{irrep}", nn.initializers.zeros, shape, x[irrep].dtype)
        return jnp.einsum("ijkc,ijkm->ijcm", weight[kinds], x[irrep])

    def gated_part(self, irrep: Irrep, x: Coupled, invariants: Array, channels: int) -> jax.Array:
        """Σ_h G_ch Σ_k U_kh x_k."""
        dtype = x[irrep].dtype
        shape = (x[irrep].shape[-2], self.gated)
        mixing = self.param(f"mixing_{irrep}", nn.initializers.normal(shape[0] ** -0.5), shape, dtype)
        gates = nn.Dense(
            channels * self.gated, kernel_init=nn.initializers.zeros, param_dtype=dtype, name=f"gate_{irrep}"
        )
        gate = gates(invariants).reshape(*invariants.shape[:2], channels, self.gated)
        return jnp.einsum("ijch,ijhm->ijcm", gate, jnp.einsum("kh,ijkm->ijhm", mixing, x[irrep]))
