"""From a molecule to its pair features: which operators, in which basis, which products."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._guards import flag
from vpotjax._typing import Array
from vpotjax.batching import Batch, PairList
from vpotjax.integrals.overlap import overlap
from vpotjax.operators.blocks import Irrep, ShellLayout, couple, irreps, pair_blocks, shell_layout
from vpotjax.operators.features import SCALAR, PairFeatures
from vpotjax.operators.inputs import (
    POTENTIALS,
    check_cutoff,
    check_operators,
    cutoff_function,
    operator_matrices,
    potential_matrices,
    require_all_electrons,
)
from vpotjax.operators.pairs import element_indices, even_channels, known_elements, pair_kinds, to_exchange
from vpotjax.operators.powers import check_power, lowdin, potential_powers

FACTOR_LAST = ("kinetic", "own_nuclei", "sap", "external")
"""Order of the operators of a network that multiplies: the last one that is there is the factor of its products."""


@dataclasses.dataclass(frozen=True)
class Representation:
    """How a molecule becomes features; hashable.

    Attributes:
        species: atomic numbers that it knows, ascending.
        basis: in which the operators are represented, a name of basis-set-exchange.
        inputs: operators whose blocks are features, see `operator_matrices`; of potentials the powers.
        power_order: highest power.
        power_kinds: products, see `potential_powers`; of several the features stand side by side.
        cutoff: in bohr, smooth, of nuclei and pairs of atoms; None for none.

    Raises:
        InputError: an unknown name, an order below 1, effective cores with "sap".
    """

    species: tuple[int, ...]
    basis: str = "def2-svp"
    inputs: tuple[str, ...] = ("overlap", "kinetic", "sap")
    power_order: int = 3
    power_kinds: tuple[str, ...] = ("metric",)
    cutoff: float | None = None

    def __post_init__(self) -> None:
        if not self.species or list(self.species) != sorted(set(self.species)) or min(self.species) < 1:
            raise InputError(f"species is {self.species}; give different atomic numbers in ascending order.")
        check_cutoff(self.cutoff)
        check_operators(self.inputs)
        if not self.power_kinds or len(set(self.power_kinds)) < len(self.power_kinds):
            raise InputError(f"power_kinds is {self.power_kinds}; give each kind of product once, at least one.")
        for kind in self.power_kinds:
            check_power(self.power_order, kind)
        require_all_electrons("inputs", self.inputs, self.basis, self.species)

    @property
    def layout(self) -> ShellLayout:
        """Of the blocks."""
        return shell_layout(self.basis, self.species)

    @property
    def matrix_count(self) -> int:
        """Matrices that features are made of."""
        powers = sum(
            self.power_order if i == 0 or kind not in ("raw", "metric") else self.power_order - 1
            for i, kind in enumerate(self._kinds())
        )
        potentials = sum(name in POTENTIALS for name in self.inputs)
        return potentials * powers + len(self.inputs) - potentials

    def _kinds(self) -> list[str]:
        """Raw and metric first, whose first powers are the same matrix."""
        return sorted(self.power_kinds, key=lambda kind: kind not in ("raw", "metric"))

    def channels(self, wanted: Iterable[Irrep]) -> dict[Irrep, tuple[int, int]]:
        """Even and odd channels of each irrep of `wanted`."""
        every, even = irreps(self.layout), even_channels(self.layout)
        count = self.matrix_count
        return {i: (count * even[i] + (i == SCALAR), count * (every[i] - even[i])) for i in self._made(wanted)}

    def _made(self, wanted: Iterable[Irrep]) -> list[Irrep]:
        every = irreps(self.layout)
        return sorted(i for i in {*wanted, SCALAR} if i in every)

    def potentials(self, molecule: Batch) -> dict[str, jax.Array]:
        """Those of `inputs`, by name, (nao, nao), hartree; `features` takes them from a program of their own."""
        return potential_matrices(molecule.bases["potential"], molecule.positions, self.inputs, self.cutoff)

    def features(
        self,
        molecule: Batch,
        wanted: Iterable[Irrep],
        potentials: Mapping[str, Array] | None = None,
        *,
        operators: bool = False,
    ) -> PairFeatures:
        """Of one molecule of a batch that has the basis of the representation under the role "potential".

        Args:
            molecule: see `pad_batch`, with `pair_cutoff` = `cutoff`.
            wanted: irreps to make; scalars are there in any case.
            potentials: from `potentials` of the molecule; default: made here, as derivatives in positions need it.
            operators: whether `PairFeatures.operators` are made.
        """
        basis, positions, pairs = molecule.bases["potential"], jnp.asarray(molecule.positions), molecule.pairs
        layout, mask = self.layout, jnp.asarray(basis.ao_mask)
        matrices = operator_matrices(basis, positions, self.inputs, self.cutoff, potentials)
        metric = matrices["overlap"] if "overlap" in matrices else overlap(basis, positions)
        stacked = []
        for name, matrix in matrices.items():
            if name not in POTENTIALS:
                stacked.append(jnp.asarray(matrix)[None])
                continue
            for i, kind in enumerate(self._kinds()):
                powers = potential_powers(matrix, metric, self.power_order, kind, mask)
                stacked.append(powers[1:] if i and kind in ("raw", "metric") else powers)
        near = self._near(positions, pairs)
        known = flag(known_elements(molecule.numbers, self.species)).astype(positions.dtype)
        blocks = pair_blocks(jnp.concatenate(stacked), basis, layout, pairs) * (near * known)[:, None, None]
        elements = element_indices(molecule.numbers, self.species)
        products = None
        if operators:
            chosen = jnp.stack([matrices[name] for name in FACTOR_LAST if name in matrices])
            products = pair_blocks(lowdin(chosen, metric, mask), basis, layout, pairs) * near[:, None, None]
        return PairFeatures(
            values=_by_irrep(blocks, layout, self._made(wanted), pairs),
            even=tuple((i, n) for i, (n, _) in self.channels(wanted).items()),
            kinds=pair_kinds(elements, pairs, len(self.species)),
            elements=elements,
            pairs=jax.tree.map(jnp.asarray, pairs),
            operators=products,
            layout=layout,
            near=None if self.cutoff is None else near,
        )

    def _near(self, positions: Array, pairs: PairList) -> jax.Array:
        """(npair,) factor of each pair: 1, or the cutoff function of the distance."""
        first, second = jnp.asarray(pairs.first), jnp.asarray(pairs.second)
        if self.cutoff is None:
            return jnp.ones(len(first), positions.dtype)
        squares = jnp.sum((positions[first] - positions[second]) ** 2, axis=-1)
        same = squares == 0  # no root is taken there, so derivatives are finite
        return jnp.where(same, 1.0, cutoff_function(jnp.sqrt(jnp.where(same, 1.0, squares)), self.cutoff))


def _by_irrep(blocks: Array, layout: ShellLayout, wanted: Sequence[Irrep], pairs: PairList) -> dict[Irrep, jax.Array]:
    """(matrices, npair, width, width) → by irrep (npair, channels, 2λ+1)."""
    even, result = even_channels(layout), {}
    for irrep, x in to_exchange(couple(blocks, layout, wanted), layout).items():
        npair, rows = x.shape[1], jnp.moveaxis(x, 0, 1)
        parts = [rows[:, :, : even[irrep]], rows[:, :, even[irrep] :]]
        parts = [part.reshape(npair, -1, 2 * irrep.lam + 1) for part in parts]
        if irrep == SCALAR:
            onsite = (jnp.asarray(pairs.first) == jnp.asarray(pairs.second)) & jnp.asarray(pairs.mask)
            parts.insert(1, onsite.astype(x.dtype)[:, None, None])
        result[irrep] = jnp.concatenate(parts, axis=1)
    return result
