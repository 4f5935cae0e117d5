"""Predictions of any number of molecules in constant memory, with their uncertainty and with warnings."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError
from vpotjax._programs import quick_jit
from vpotjax.batching import Batch, BatchShape
from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.models.ensemble import Ensemble, Prediction
from vpotjax.models.property_model import PROPERTIES
from vpotjax.molecule import Molecule
from vpotjax.shape_pool import ShapePool
from vpotjax.train.arrays import over_molecules
from vpotjax.train.geometry import geometry_program
from vpotjax.units import BOHR_TO_ANGSTROM

PREDICTED = ("mo_energies", "homo_lumo_gap", "dipole", "polarizability", "lowdin_charges", "mayer_bond_orders")
CHUNK = 64  # molecules that are sorted by size together
BATCH = 16  # of them in one call, on other devices than CPUs
AT_A_TIME = 16  # of them with 1000 AOs on CPUs, at most: each takes 0.7 GB
NAMED = 3  # pairs in a warning
SETTINGS_KEPT = 4  # of models whose programs are kept


@dataclasses.dataclass(frozen=True)
class MoleculePrediction:
    """Of one molecule, without padding.

    Attributes:
        name: of the molecule.
        molecule: that was predicted.
        values: observables by name, in atomic units.
        uncertainties: likewise, of each that has one, see `vpotjax.models.Prediction`.
        warnings: reasons to distrust it, in words.
    """

    name: str
    molecule: Molecule
    values: dict[str, np.ndarray]
    uncertainties: dict[str, np.ndarray]
    warnings: list[str]


def predictions(
    ensemble: Ensemble[Any],
    molecules: Iterable[tuple[str, Molecule]],
    names: Sequence[str] | None = None,
    left_out: Callable[[str], None] | None = None,
) -> Iterator[MoleculePrediction]:
    """Predictions in the order of the molecules; a few dozen at a time are in memory.

    Args:
        ensemble: of F, P or a property.
        molecules: with their names.
        names: of the table; default: PREDICTED, of a model of P those that a density has, of a property its own.
        left_out: is told which molecule the model cannot predict, and why; default: the first of them is an error.

    Raises:
        InputError: an element that the model does not know, an open shell, or an observable that F does not hold; names
            the molecule.
    """
    if names is None:
        target = ensemble.settings.target
        names = [name for name in PREDICTED if target == "fock" or OBSERVABLES[name].of_density]
        names = [target] if target in PROPERTIES else names
    pool, stream = ShapePool(), _fitting(ensemble, molecules, left_out)
    ensemble, program = jax.tree.map(jnp.asarray, ensemble), _geometry_program(ensemble.settings)

    def predicted(batch: Batch) -> Prediction:
        return _predicted(ensemble, program(jax.tree.map(jnp.asarray, batch)), tuple(names))

    while chunk := list(itertools.islice(stream, CHUNK)):
        yield from _chunk(ensemble, chunk, predicted, pool)


def _fitting(
    ensemble: Ensemble[Any], molecules: Iterable[tuple[str, Molecule]], left_out: Callable[[str], None] | None
) -> Iterator[tuple[str, Molecule]]:
    for name, molecule in molecules:
        try:
            ensemble.settings.require(molecule)
        except InputError as error:
            text = f"molecule {name!r}: {error}"
            if left_out is None:
                raise InputError(text) from None
            left_out(text)
        else:
            yield name, molecule


def _chunk(
    ensemble: Ensemble[Any],
    chunk: Sequence[tuple[str, Molecule]],
    predicted: Callable[[Batch], Prediction],
    pool: ShapePool,
) -> Iterator[MoleculePrediction]:
    """On CPUs several molecules at a time, each by itself, on other devices one batch after the other."""
    cpu = jax.default_backend() == "cpu"
    settings = ensemble.settings
    size = 1 if cpu else BATCH
    groups = pool.groups([m for _, m in chunk], settings.bases, settings.representation.cutoff)

    def of_rows(rows: list[int], shape: BatchShape) -> dict[int, MoleculePrediction]:
        filled = rows + [rows[-1]] * (size - len(rows))
        batch = settings.batch([chunk[i][1] for i in filled], shape)
        result = jax.tree.map(np.asarray, predicted(batch))
        return {
            i: _unpadded(ensemble, *chunk[i], batch[place], jax.tree.map(lambda x, p=place: x[p], result))
            for place, i in enumerate(rows)
        }

    done: dict[int, MoleculePrediction] = {}
    with ThreadPoolExecutor(_at_a_time([shape for _, shape in groups]) if cpu else 1) as workers:
        try:
            firsts = {workers.submit(of_rows, places[:size], shape): (places, shape) for places, shape in groups}
            others = []
            for first in as_completed(firsts):  # it has compiled
                done.update(first.result())
                places, shape = firsts[first]
                parts = [places[start : start + size] for start in range(size, len(places), size)]
                others += [workers.submit(of_rows, part, shape) for part in parts]
            for other in as_completed(others):
                done.update(other.result())
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise
    for i in range(len(chunk)):
        yield done[i]


def _at_a_time(shapes: Sequence[BatchShape]) -> int:
    """Molecules, as many as there are processors and memory for, which goes with the square of the number of AOs."""
    most = max(sum(sizes.nao for _, sizes in shape.bases) for shape in shapes)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, int(AT_A_TIME * (1000 / most) ** 2)))


_geometry_program = functools.lru_cache(SETTINGS_KEPT)(geometry_program)


@functools.partial(quick_jit, static_argnums=2)
def _predicted(ensemble: Ensemble[Any], geometry: Any, names: tuple[str, ...]) -> Prediction:
    return over_molecules(lambda one: ensemble.prediction(ensemble.model.prepared(one), names), geometry)


def _unpadded(
    ensemble: Ensemble[Any], name: str, molecule: Molecule, batch: Batch, prediction: Prediction
) -> MoleculePrediction:
    sizes = {"atom": molecule.natm, "xyz": 3}
    if "orbital" in batch.bases:
        sizes["orbital"] = int(np.sum(batch.bases["orbital"].ao_mask))

    def cut(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {key: x[tuple(slice(sizes[a]) for a in OBSERVABLES[key].axes)] for key, x in values.items()}

    values = cut(prediction.values)
    doubts = [*ensemble.domain.doubts(molecule)]
    doubts += warnings_of(molecule, batch, prediction.excess, values)
    return MoleculePrediction(name, molecule, values, cut(prediction.uncertainties), doubts)


def warnings_of(molecule: Molecule, batch: Batch, excess: Any, values: dict[str, np.ndarray]) -> list[str]:
    """Atoms and pairs whose features lie outside the range of the training molecules, and values not finite."""
    result = []
    lost = [key for key, x in values.items() if not np.isfinite(x).all()]
    if lost:
        result.append(f"{', '.join(lost)} not finite: no HOMO–LUMO gap, or no such level")
    far = np.flatnonzero(excess > 1)
    for p in far[np.argsort(-excess[far])][:NAMED]:
        i, j = int(batch.pairs.first[p]), int(batch.pairs.second[p])
        a, b = molecule.symbols[i], molecule.symbols[j]
        distance = float(np.linalg.norm(molecule.positions[i] - molecule.positions[j])) * BOHR_TO_ANGSTROM
        what = f"atom {i} ({a})" if i == j else f"pair {a}{i}–{b}{j} ({distance:.2f} Å)"
        reason = (
            "of a kind that no training molecule has" if np.isinf(excess[p]) else "outside the training set's range"
        )
        more = "" if np.isinf(excess[p]) else f" by a factor of {excess[p]:.1f}"
        result.append(f"{what} {reason}{more}")
    if len(far) > NAMED:
        result.append(f"{len(far) - NAMED} more pairs out of range")
    return result
