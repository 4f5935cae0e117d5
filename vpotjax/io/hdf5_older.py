"""Labels of data set files of versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vpotjax.io.hdf5_arrays import COLUMNS, Stored, array, checked, expect, groups, stored, unquoted
from vpotjax.io.sample import MATRICES


def version_2_labels(group: Any, count: int) -> Iterator[tuple[str, Stored]]:
    """All samples have all labels; an attribute of the quantity says whether all are triangles."""
    for key, item in groups(group):
        expect(item, {"shapes", "values"})
        shapes = array(item, "shapes", "iu", (count, None)).astype(np.int64)
        triangles = np.full(count, bool(item.attrs.get("lower_triangle", False)))
        yield unquoted(key), stored(item, "values", count, np.arange(count), shapes, triangles)


class _Whole:
    """Values of one shape, with a leading axis of samples."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def read(self, rows: Sequence[int]) -> list[np.ndarray | None]:
        """Of these samples."""
        data = self.values[()]
        return [data[row] for row in rows]


def version_1_labels(file: Any, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Groups beside the columns: nao, matrices as triangles, mo_energies joined, all else of one shape."""
    columns = COLUMNS - {"spin"}
    expect(file, columns | {key for key, item in file.items() if hasattr(item, "items")})
    every = np.arange(count)
    for name, group in groups(file, columns):
        nao = array(group, "nao", "iu", (count,)).astype(np.int64)
        labels: dict[str, Any] = {}
        for key in group:
            if key in MATRICES or key == "mo_energies":
                square = key in MATRICES
                shapes = np.stack([nao] * (2 if square else 1), axis=1)
                labels[key] = stored(group, key, count, every, shapes, np.full(count, square))
            elif key != "nao":
                labels[key] = _Whole(checked(group, key, "biuf", (count, ...)))
        yield name, labels
