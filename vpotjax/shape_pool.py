"""Shapes for molecules that come in a stream: as few programs as are worth their compilation."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vpotjax.batching import BasisShape, BatchShape, joint_batch_shape, molecule_shapes
from vpotjax.conventions import function_count
from vpotjax.molecule import Molecule

POWER = 2.2
"""Of the number of AOs, which the time of a molecule goes with: 2.1 from 130 to 790 of them, 2.4 from 790 to 1580."""
COMPILATION = 3800.0**POWER
"""As much time as a molecule with so many AOs: a program compiles in that of 40 molecules with 730."""


class _Choice(NamedTuple):
    """What a group costs, its own shape, and the one that it gets."""

    cost: float
    own: BatchShape
    shape: BatchShape


@dataclasses.dataclass
class ShapePool:
    """Shapes, and hence programs, for molecules that come one chunk after the other.

    Of a chunk, sorted by size, the cut into groups is taken for which the time of all its molecules and of the
    compilations is least. A group whose own shape is not worth one gets the cheapest known shape that holds it; what it
    loses by that is counted, and once it is as much as a compilation, later groups of that shape get their own: over a
    long stream never more than about twice the time of the best shapes (as with skis, rented or bought).

    Attributes:
        shapes: that were given so far.
    """

    shapes: list[BatchShape] = dataclasses.field(default_factory=list)
    _lost: defaultdict[BatchShape, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def groups(
        self, molecules: Sequence[Molecule], basis: Mapping[str, Any], pair_cutoff: float | None = None
    ) -> list[tuple[list[int], BatchShape]]:
        """Places of molecules and their shape; each shape once."""
        sizes = molecule_shapes(molecules, basis, False, pair_cutoff)
        order = sorted(range(len(molecules)), key=lambda i: _cost(sizes[i]))
        best: list[tuple[float, int, _Choice | None]] = [(0.0, 0, None)]  # of the first k: cost, and the last group
        for k in range(1, len(order) + 1):
            options = []
            joint = sizes[order[k - 1]]
            for j in range(k - 1, -1, -1):
                joint = joint_batch_shape([joint, sizes[order[j]]])
                choice = self._choice(joint, k - j)
                options.append((best[j][0] + choice.cost, j, choice))
            best.append(min(options, key=lambda option: option[0]))
        result: dict[BatchShape, list[int]] = {}
        stop = len(order)
        while stop:
            _, start, choice = best[stop]
            assert choice is not None
            self._lost[choice.own] += (stop - start) * (_cost(choice.shape) - _cost(choice.own))
            result.setdefault(choice.shape, []).extend(order[start:stop])
            stop = start
        self.shapes.extend(shape for shape in result if shape not in self.shapes)
        return [(places, shape) for shape, places in result.items()]

    def _choice(self, joint: BatchShape, molecules: int) -> _Choice:
        own = _rounded(joint)
        known = [shape for shape in self.shapes if _holds(shape, joint)]
        options = [(molecules * _cost(shape), shape) for shape in known]
        options.append((molecules * _cost(own) + max(0.0, COMPILATION - self._lost[own]), own))
        cost, shape = min(options, key=lambda option: option[0])
        return _Choice(cost, own, shape)


def _holds(shape: BatchShape, joint: BatchShape) -> bool:
    same = tuple(role for role, _ in shape.bases) == tuple(role for role, _ in joint.bases)
    return same and joint_batch_shape([shape, joint]) == shape


def _cost(shape: BatchShape) -> float:
    return float(sum(sizes.nao for _, sizes in shape.bases)) ** POWER


def _rounded(shape: BatchShape) -> BatchShape:
    """With sizes of the series 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …; zero stays."""

    def up(n: int) -> int:
        step = 1 << max(0, (n - 1).bit_length() - 3)
        return -(-n // step) * step

    def of_basis(sizes: BasisShape) -> BasisShape:
        nshl = tuple(up(n) for n in sizes.nshl)
        room = sum(n * function_count(l, sizes.cartesian) for l, n in enumerate(nshl))
        return sizes._replace(nao=min(up(sizes.nao), room), nprim=tuple(up(n) for n in sizes.nprim), nshl=nshl)

    natm = up(shape.natm)
    return BatchShape(natm, tuple((role, of_basis(b)) for role, b in shape.bases), natm + up(shape.npair - shape.natm))
