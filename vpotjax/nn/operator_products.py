"""Layers of learned products of hidden operators with the potential.

A hidden operator M_c is a symmetric matrix over hidden shells, `shells` of each l on every atom, here an array
(natm, width, natm, width), so that it is a matrix without a transposition. One layer is

    M_c ← M_c + sym( g_c · N[Σ_d a_cd M_d] N[Ṽ_c] · g_c ),      sym(X) = (X + Xᵀ)/2

where Ṽ_c is the potential mixed into the hidden shells by weights that depend on the element and on l and leave m
alone, the gates g, one number for each hidden shell, are functions of each atom's invariants between 0 and 2, and N
normalises. With `coupling` a layer also adds N[U_c M_c], where U mixes the coupled blocks of one irrep of each pair of
atoms: of all pairs (l₁, l₂) that couple to it. A product with V adds one centre (Nigam, Smidt,
Dusson 2026, arXiv:2602.15345), so K layers reach K+1 of them.

Stable at any depth and in any basis: N divides by √(n_i n_j) with n_i = Σ_j ‖M_ij‖ (Frobenius norms of the blocks of
atoms), after which the norm of the operator is at most about one (Schur's test; blocks below 1e-3 count less), so a
layer adds at most four, with `coupling` five, to the norm of a hidden operator.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.operators.blocks import Irrep, ShellLayout, couple, dense_blocks, uncouple
from vpotjax.operators.features import NetworkInputs

SMALL = 1e-6  # square of the block norm below which the normalisation fades out, operators being of order one or more


class OperatorProducts(nn.Module):
    """Operators of `NetworkInputs` → blocks of hidden operators, (channels, npair, width, width).

    Attributes:
        layout: of the operators' blocks.
        species: number of elements.
        layers: products in a row.
        channels: hidden operators.
        shells: hidden shells of each l.
        hidden: width of the MLP that makes the gates.
        precision: of the products, a dtype name; sums are taken in that of the operators.
        coupling: whether layers mix the pairs (l₁, l₂) of one irrep.
        checkpoint: recompute layers in reverse mode instead of keeping them in memory.
    """

    layout: ShellLayout
    species: int
    layers: int = 3
    channels: int = 8
    shells: int = 4
    hidden: int = 32
    precision: str = "float32"
    coupling: bool = False
    checkpoint: bool = False

    @property
    def hidden_layout(self) -> ShellLayout:
        """Of the hidden operators."""
        return ShellLayout((self.shells,) * len(self.layout.counts))

    @nn.compact
    def __call__(self, inputs: NetworkInputs) -> jax.Array:
        """(channels, npair, width, width) over the shells of `hidden_layout`; the potential comes last of the
        operators.
        """
        if inputs.operators is None:
            raise InputError("inputs have no operators; make the features with operators=True.")
        elements, pairs = jnp.asarray(inputs.elements), inputs.pairs
        operators = dense_blocks(inputs.operators, len(elements), pairs)  # (count, natm, width, natm, width)
        layer = nn.remat(ProductLayer) if self.checkpoint else ProductLayer
        state = self.mix("start", operators, elements)
        for i in range(self.layers):
            factor = self.mix(f"factor_{i}", operators[-1:], elements)
            settings = (self.hidden_layout, self.species, self.hidden, self.precision, self.coupling)
            state = layer(*settings, name=f"layer_{i}")(state, factor, elements)
        chosen = _blocks(state)[:, jnp.asarray(pairs.first), jnp.asarray(pairs.second)]
        if inputs.near is not None:  # a product reaches farther than its factors, and ends where the list of pairs does
            chosen = chosen * inputs.near[:, None, None]
        return jnp.where((inputs.kinds >= 0)[:, None, None], chosen, 0.0)

    def mix(self, name: str, operators: jax.Array, elements: Array) -> jax.Array:
        """Normalised symmetric Σ_o W_co O_o W_coᵀ over hidden shells, (channels, natm, width, natm, width)."""
        shape = (self.species, self.channels * len(operators))
        mixing = self.shell_mixing(name, self.layout, shape, operators.dtype)[elements]
        mixing = mixing.reshape(len(elements), self.channels, len(operators), *mixing.shape[2:])
        half = jnp.einsum("oipjq,jcoqb->coipjb", operators, mixing)
        return unit_norm(jnp.einsum("icopa,coipjb->ciajb", mixing, half))

    def shell_mixing(self, name: str, source: ShellLayout, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """(*shape, width, hidden width): a learned matrix for every l, the same for all m."""
        rows = []
        target = self.hidden_layout
        for l, count in enumerate(source.counts):
            initial = nn.initializers.normal(max(count, 1) ** -0.5)
            weight = self.param(f"{name}_{l}", initial, (*shape, count, self.shells), dtype)
            block = jnp.einsum("...nk,mM->...nmkM", weight, jnp.eye(2 * l + 1, dtype=dtype))
            block = block.reshape(*shape, count * (2 * l + 1), self.shells * (2 * l + 1))
            before = int(target.starts[l])
            after = target.width - before - block.shape[-1]
            rows.append(jnp.pad(block, [(0, 0)] * (len(shape) + 1) + [(before, after)]))
        return jnp.concatenate(rows, axis=-2)


class ProductLayer(nn.Module):
    """One layer: see the module's equation.

    Attributes:
        layout: of the hidden operators.
        species, hidden, precision, coupling: see `MatrixPower`.
    """

    layout: ShellLayout
    species: int
    hidden: int
    precision: str
    coupling: bool = False

    @nn.compact
    def __call__(self, state: jax.Array, factor: jax.Array, elements: Array) -> jax.Array:
        """(channels, natm, width, natm, width) from hidden operators and the mixed potential."""
        channels, size = len(state), state.shape[1] * state.shape[2]
        weight = self.param("channels", nn.initializers.normal(channels**-0.5), (channels, channels), state.dtype)
        left = unit_norm(jnp.einsum("cd,dipjq->cipjq", weight, state))
        left, right = (x.reshape(channels, size, size) for x in (left, factor))
        product = _matmul(left, right, self.precision).reshape(state.shape)
        gates = self.gates(state, elements)
        product = gates[..., None, None] * product * gates[:, None, None]
        step = _symmetric(product)
        if self.coupling:
            step = step + unit_norm(_symmetric(self.coupled_mixing(state)))
        return state + step

    def coupled_mixing(self, state: jax.Array) -> jax.Array:
        """U_c M_c: every irrep of each pair of atoms times a learned matrix over pairs of shells."""
        mixed = {}
        for irrep, x in couple(_blocks(state), self.layout).items():
            channels, count = len(x), x.shape[-2]
            shape = (channels, count, count)
            weight = self.param(f"coupling_{irrep}", nn.initializers.normal(count**-0.5), shape, state.dtype)
            mixed[irrep] = jnp.einsum("ckn,cijnm->cijkm", weight, x)
        return _blocks(uncouple(mixed, self.layout))

    def gates(self, state: jax.Array, elements: Array) -> jax.Array:
        """(channels, natm, width): one number per hidden shell, from the scalars on the atom and its element."""
        channels, natm = state.shape[:2]
        diagonal = jnp.einsum("cipiq->cipq", state)
        scalars = couple(diagonal, self.layout, [Irrep(0, 1)])[Irrep(0, 1)][..., 0]
        scalars = scalars.transpose(1, 0, 2).reshape(natm, -1)
        dtype = state.dtype
        embedding = self.param("elements", nn.initializers.normal(1.0), (self.species, self.hidden), dtype)
        h = nn.silu(nn.Dense(self.hidden, param_dtype=dtype, name="gate_0")(scalars) + embedding[elements])
        count = sum(self.layout.counts)
        shells = 2 * nn.sigmoid(nn.Dense(channels * count, param_dtype=dtype, name="gate_1")(h))
        repeats = np.concatenate([np.repeat(2 * l + 1, n) for l, n in enumerate(self.layout.counts)])
        per_slot = jnp.repeat(
            shells.reshape(natm, channels, count), repeats, axis=-1, total_repeat_length=self.layout.width
        )
        return per_slot.transpose(1, 0, 2)


def unit_norm(operators: jax.Array) -> jax.Array:
    """Operators (channels, natm, width, natm, width) over √(n_i n_j), n_i = Σ_j ‖M_ij‖: norm about one at most.

    Of the norm of each block 1e-3 is not counted, so that the derivative is finite at zero.
    """
    norms = jnp.sqrt(jnp.sum(operators**2, axis=(2, 4)) + SMALL) - SMALL**0.5
    scale = jax.lax.rsqrt(jnp.sum(norms, axis=-1) + SMALL**0.5)
    return operators * scale[:, :, None, None, None] * scale[:, None, None, :, None]


def _symmetric(operators: jax.Array) -> jax.Array:
    return (operators + operators.transpose(0, 3, 4, 1, 2)) / 2


def _blocks(operators: jax.Array) -> jax.Array:
    """(channels, natm, natm, width, width) from (channels, natm, width, natm, width), or back."""
    return operators.swapaxes(2, 3)


def _matmul(a: jax.Array, b: jax.Array, precision: str) -> jax.Array:
    dtype = a.dtype
    return jnp.matmul(a.astype(precision), b.astype(precision), preferred_element_type=dtype)
