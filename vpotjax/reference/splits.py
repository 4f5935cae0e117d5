"""Which molecules train, which decide, and which test: splits by chance, molecule, size, element, or coverage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.dataset import DatasetFile, DatasetWriter
from vpotjax.io.sample import SPLITS
from vpotjax.molecule import Molecule
from vpotjax.reference.structures import bond_graph_labels

CHUNK = 256  # molecules of one call
WAYS = ("molecule", "random", "size", "element", "farthest")
TRAIN, VALIDATION, TEST = SPLITS


def split_parts(
    names: Sequence[str],
    molecules: Sequence[Molecule],
    by: str = "molecule",
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    elements: Sequence[int] = (),
) -> list[str]:
    """The part of each geometry: "train", "validation" or "test".

    Args:
        names, molecules: of the geometries.
        by: "molecule", at random, geometries of one name or with the same bonds in the same part; "random", each
            geometry alone; "size", the largest molecules test, the next ones validate; "element", those with one of
            `elements` test; "farthest", those that are farthest from each other train, so that the others are within
            their range.
        validation, test: fractions of the molecules, of "random" of the geometries; for "element" the latter follows.
        seed: of what is random.
        elements: atomic numbers.

    Raises:
        InputError: an unknown way; fractions or elements that leave a part empty.
    """
    if by not in WAYS:
        raise InputError(f"by is {by!r}; give one of {', '.join(WAYS)}.")
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        raise InputError(f"validation={validation} and test={test} leave no training molecules; give a sum below 1.")
    groups = list(range(len(names))) if by == "random" else _molecules(names, molecules)
    count = max(groups) + 1
    first: dict[int, int] = {}
    for i, group in enumerate(groups):
        first.setdefault(group, i)
    chosen = [molecules[i] for i in first.values()]
    order = np.random.default_rng(seed).permutation(count)
    ntest = round(test * count)
    if by == "size":
        sizes = np.array([m.natm for m in chosen])
        order = order[np.argsort(-sizes[order], kind="stable")]
    elif by == "element":
        holds = np.array([bool(set(m.numbers.tolist()) & set(elements)) for m in chosen])
        order, ntest = order[np.argsort(~holds[order], kind="stable")], int(holds.sum())
    elif by == "farthest":
        order = order[::-1] if count < 3 else _farthest(descriptors(chosen), int(order[0]))[::-1]
        rest = order[: ntest + round(validation * count)]
        order[: len(rest)] = np.random.default_rng(seed).permutation(rest)
    nvalidation = round(validation * (count - ntest if by == "element" else count))
    parts = np.full(count, TRAIN, dtype=object)
    parts[order[:ntest]] = TEST
    parts[order[ntest : ntest + nvalidation]] = VALIDATION
    wanted = {TRAIN} | ({VALIDATION} if validation else set()) | ({TEST} if test or by == "element" else set())
    if lacking := [part for part in SPLITS if part in wanted - set(parts)]:
        none = f"none of {count} molecules for {', '.join(lacking)}"
        raise InputError(f"split by {by!r} leaves {none}; change validation, test or elements.")
    return [str(parts[group]) for group in groups]


def _molecules(names: Sequence[str], molecules: Sequence[Molecule]) -> list[int]:
    """Numbers of molecules: geometries of one name are one, and so are those of one charge with the same bonds."""
    parent: dict[object, object] = {}

    def root(key: object) -> object:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for name, molecule in zip(names, molecules, strict=True):
        bonds = (bond_graph_labels(molecule.to_ase()), molecule.charge)
        parent[root(bonds)] = root(("name", name))
    numbers: dict[object, int] = {}
    return [numbers.setdefault(root(("name", name)), len(numbers)) for name in names]


def descriptors(molecules: Sequence[Molecule]) -> np.ndarray:
    """(molecules, channels) scalars of T and the screened potential in STO-3G, on site and of pairs, summed by kind."""
    import jax
    import jax.numpy as jnp

    from vpotjax.batching import buckets, pad_batch
    from vpotjax.operators.features import SCALAR
    from vpotjax.operators.pairs import kind_count
    from vpotjax.operators.representation import Representation

    species = tuple(sorted({int(z) for m in molecules for z in m.numbers if z}))
    bases = {"potential": "sto-3g"}
    representation = Representation(species, bases["potential"], ("overlap", "kinetic", "sap"), 1)

    def one(molecule: object) -> jax.Array:
        features = representation.features(molecule, ())  # type: ignore[arg-type]
        member = jax.nn.one_hot(features.kinds, kind_count(len(species)), dtype=features.values[SCALAR].dtype)
        return jnp.einsum("pk,pc->kc", member, features.values[SCALAR][..., 0]).ravel()

    ((_, shape),) = buckets(molecules, bases, 1)  # to compile a second program takes longer than it saves
    program = jax.jit(lambda batch: jax.lax.map(one, batch))
    rows = []
    for start in range(0, len(molecules), CHUNK):
        own = [molecules[min(i, len(molecules) - 1)] for i in range(start, start + min(CHUNK, len(molecules)))]
        rows.append(np.asarray(program(jax.tree.map(jnp.asarray, pad_batch(own, bases, shape)))))
    table = np.concatenate(rows)[: len(molecules)]
    scale = table.std(axis=0)
    return (table - table.mean(axis=0)) / np.where(scale > 1e-6 * scale.max(initial=1e-300), scale, np.inf)


def _farthest(points: np.ndarray, first: int) -> np.ndarray:
    """All numbers, each the farthest from those before (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5)."""
    order, distance = [first], np.linalg.norm(points - points[first], axis=1)
    distance[first] = -1.0
    for _ in range(len(points) - 1):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        distance[order] = -1.0
    return np.array(order)


def add_split(path: str | Path, name: str, parts: Sequence[str]) -> None:
    """Store a split by name in a data set file; the file is replaced by the one with it, whole or not at all.

    Raises:
        InputError: the file has a split of that name, or as of `DatasetFile` and `DatasetWriter`.
    """
    path = Path(path)
    changed = path.with_name(path.name + ".split")
    with DatasetFile(path) as file:
        if name in file.splits:
            known = ", ".join(map(repr, file.splits))
            raise InputError(f"name is {name!r}, which the file has already, of {known}; give another.")
        changed.unlink(missing_ok=True)  # left by a kill
        with DatasetWriter(changed) as writer:
            for sample in file:
                writer.append(sample)
            writer.attributes |= file.attributes
            writer.methods |= file.methods
            writer.splits |= {**file.splits, name: list(parts)}
    changed.replace(path)
