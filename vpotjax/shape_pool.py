"""Shapes for molecules that come in a stream, so that few programs serve any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vpotjax.batching import BasisShape, BatchShape, joint_batch_shape, molecule_shapes
from vpotjax.conventions import function_count
from vpotjax.molecule import Molecule


class ShapePool:
    """Shapes for molecules that come one group after the other: few, so that there are few programs.

    A group gets the first known shape that holds it and has at most twice its AOs, squared; else a new one, with sizes
    rounded up.
    """

    LARGEST = 16
    """Molecules of one group."""

    def __init__(self) -> None:
        self.shapes: list[BatchShape] = []

    def groups(
        self, molecules: Sequence[Molecule], basis: Mapping[str, Any], pair_cutoff: float | None = None
    ) -> list[tuple[list[int], BatchShape]]:
        """Places of molecules of similar size, and the shape of each group."""
        sizes = molecule_shapes(molecules, basis, False, pair_cutoff)
        order = sorted(range(len(molecules)), key=lambda i: _cost(sizes[i]))
        result: list[tuple[list[int], BatchShape]] = []
        group: list[int] = []
        for i in order:
            if group and (len(group) == self.LARGEST or _cost(sizes[i]) > 2 * _cost(sizes[group[0]])):
                result.append((group, self._shape([sizes[k] for k in group])))
                group = []
            group.append(i)
        return [*result, (group, self._shape([sizes[k] for k in group]))]

    @staticmethod
    def count(molecules: int) -> int:
        """Places of a batch for so many molecules: a power of two."""
        return 1 << (molecules - 1).bit_length()

    def _shape(self, shapes: Sequence[BatchShape]) -> BatchShape:
        needed = joint_batch_shape(shapes)
        for known in self.shapes:
            same = tuple(role for role, _ in known.bases) == tuple(role for role, _ in needed.bases)
            if same and joint_batch_shape([known, needed]) == known and _cost(known) <= 2 * _cost(needed):
                return known
        self.shapes.append(_rounded(needed))
        return self.shapes[-1]


def _cost(shape: BatchShape) -> int:
    return sum(sizes.nao for _, sizes in shape.bases) ** 2


def _rounded(shape: BatchShape) -> BatchShape:
    """With sizes of the series 1, 2, 3, 4, 6, 8, 12, 16, 24, …; zero stays."""

    def up(n: int) -> int:
        return next(s for k in range(40) for s in (1 << k, 3 << k >> 1) if s >= n) if n else 0

    def of_basis(sizes: BasisShape) -> BasisShape:
        nshl = tuple(up(n) for n in sizes.nshl)
        room = sum(n * function_count(l, sizes.cartesian) for l, n in enumerate(nshl))
        return sizes._replace(nao=min(up(sizes.nao), room), nprim=tuple(up(n) for n in sizes.nprim), nshl=nshl)

    natm = up(shape.natm)
    return BatchShape(natm, tuple((role, of_basis(b)) for role, b in shape.bases), natm + up(shape.npair - shape.natm))
