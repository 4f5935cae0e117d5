"""One fit for all models: a closed-form start, then a network's correction of what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._typing import Array
from vpotjax.electronic.comparison import fock_with_levels
from vpotjax.electronic.eigensolver import eigh
from vpotjax.io.checkpoint import Checkpoints
from vpotjax.losses import Loss
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.linear_map import LinearMap, weight_masks
from vpotjax.models.matrix_model import Geometry, MatrixModel, MatrixSettings
from vpotjax.models.property_model import PropertyModel, PropertySettings
from vpotjax.nn.linear import Linear
from vpotjax.operators.blocks import Coupled, couple, pair_blocks
from vpotjax.operators.features import PairFeatures
from vpotjax.operators.pairs import to_exchange
from vpotjax.operators.whitening import Whitening, fitted_whitening
from vpotjax.train.arrays import chunks, in_chunks, over_molecules
from vpotjax.train.descent import Descent
from vpotjax.train.devices import Sharing
from vpotjax.train.loop import Descended, EndedError, descend_all
from vpotjax.train.ridge import FOLDS, Moments, fold_numbers, joint_ridge
from vpotjax.train.samples import Bucket, with_model
from vpotjax.train.trainable import trainable


class Fitted(NamedTuple):
    """Models, one for each seed, rows of metrics, and how often each molecule was left out."""

    model: Ensemble[Any]
    history: list[dict[str, Any]]
    left_out: Counter[str]


def whitened(train: Sequence[Bucket], settings: MatrixSettings | PropertySettings, noise: float = 1e-2) -> Whitening:
    """The whitening of training molecules with geometry for content, and the range that they span."""
    return fitted_whitening(_Features(train), len(settings.species), settings.representation.matrix_count, noise)


class _Features:
    """Features of buckets, some molecules at a time, as often as they are asked for."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = buckets

    def __iter__(self) -> Iterator[PairFeatures]:
        for bucket in self.buckets:
            yield from chunks(bucket.content.features)


def aligned_matrices(bucket: Bucket) -> np.ndarray:
    """Where training on observables starts: the reference F with the levels of the large basis, (molecules, nao, nao).

    Levels above those that are compared move with the highest of these: one by one they would come down to diffuse
    functions of the large basis, which theirs are not. Where the labels have no F, the orbitals are those of the
    baseline.
    """
    space, reference = bucket.content.space, bucket.reference
    matrices = reference.values.get("fock", bucket.content.baseline)
    levels = reference.values["mo_energies"]
    return in_chunks(_aligned, (matrices, space.overlap, levels, space.basis.ao_mask, reference.level_mask))


@jax.jit
def _aligned(arrays: Any) -> jax.Array:
    def one(matrix: Array, own_overlap: Array, levels: Array, ao_mask: Array, compared: Array) -> jax.Array:
        own = eigh(matrix, own_overlap, ao_mask)[0]
        own = jnp.where(jnp.isfinite(own), own, 0.0)  # infinite on padding
        place = jnp.arange(len(own))
        last = jnp.max(jnp.where(compared, place, 0))
        above = own + jnp.where((place > last) & jnp.any(compared), levels[last] - own[last], 0.0)
        return fock_with_levels(matrix, own_overlap, jnp.where(compared, levels, above), ao_mask)

    return over_molecules(one, *arrays)


def linear_fit(
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    settings: MatrixSettings,
    whitening: Whitening,
    matrices: Callable[[Bucket], Array],
) -> MatrixModel:
    """The closed-form linear map to matrices of the training molecules, its regulariser by cross-validation over them.

    Args:
        train, validation: with `Geometry` content; of the first, geometries of one name are in one fold, and the
            second are one more set that fits do not see.
        settings: of the model.
        whitening: of the training molecules.
        matrices: F or P of a bucket to fit, (molecules, nao, nao).

    Returns:
        A model without correction; its scale is the root mean square of what maps leave of blocks that they do not see.
    """
    names = sorted({name for bucket in train for name in bucket.names})
    folds = dict(zip(names, fold_numbers(np.array(names)).tolist(), strict=True))
    moments: dict[tuple[Any, int], list[Moments]] = {}
    for buckets, seen in ((train, True), (validation, False)):
        for bucket in buckets:
            for part in bucket.parts():
                blocks = _target_blocks(settings, part.content, matrices(part))
                own = np.array([folds[name] if seen else FOLDS for name in part.names])
                _add_moments(moments, own, part.content.features, whitening, blocks)
    species, weights, scales = len(settings.species), {}, []
    for irrep, channels in settings.outputs:
        if irrep not in whitening.transform:
            continue
        even, width = dict(train[0].content.features.even)[irrep], np.shape(whitening.transform[irrep])[-1]
        masks = weight_masks(species, even, width, channels)
        chosen = [
            (kind, rows, columns, [m.part(rows, columns) for m in moments[irrep, kind]])
            for kind in range(len(masks))
            if (irrep, kind) in moments
            for rows, columns in _separate(masks[kind])
        ]
        solved, held_out = joint_ridge([own for *_, own in chosen])
        scales.append(held_out)
        own = np.zeros((len(masks), width, channels.total))
        for (kind, rows, columns, _), w in zip(chosen, solved, strict=True):
            own[kind][np.ix_(rows, columns)] = w
        weights[irrep] = _on_raw(own, whitening, irrep, even)
    squares, count = np.sum(scales, axis=0)
    still = dataclasses.replace(settings, network=Linear())
    scale = max(float(np.sqrt(squares / max(count, 1))), 1e-9)
    return MatrixModel(still, whitening, LinearMap(weights), np.asarray(scale), None)


def _on_raw(weights: np.ndarray, whitening: Whitening, irrep: Any, even: int) -> np.ndarray:
    """Weights on features as they are from those on whitened ones; the mean goes to the constant channel."""
    raw = np.einsum("kcd,kdo->kco", whitening.transform[irrep], weights)
    mean = np.asarray(whitening.mean[irrep])
    raw[:, even - 1] -= np.einsum("kc,kco->ko", mean, raw) if mean.any() else 0.0
    return raw


def _separate(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of the parts of a weight matrix that are fitted apart."""
    patterns, parts = {}, []
    for column, pattern in enumerate(mask.T):
        patterns.setdefault(pattern.tobytes(), []).append(column)
    for columns in patterns.values():
        rows = np.flatnonzero(mask[:, columns[0]])
        if len(rows):
            parts.append((rows, np.array(columns)))
    return parts


def _add_moments(
    moments: dict[tuple[Any, int], list[Moments]],
    folds: np.ndarray,
    features: PairFeatures,
    whitening: Whitening,
    blocks: Mapping[Any, np.ndarray],
) -> None:
    """Add the rows of molecules to those of their folds, of which FOLDS is not fitted, by irrep and kind."""
    kinds = np.asarray(features.kinds)
    for irrep in features.values.keys() & blocks.keys():
        for fold in np.unique(folds):
            of_fold = np.where((folds == fold)[:, None], kinds, -1)
            for kind in np.unique(of_fold[of_fold >= 0]):
                chosen = of_fold == kind
                x = whitening.rows(features, irrep, int(kind), chosen)
                y = np.swapaxes(np.asarray(blocks[irrep])[chosen], 1, 2).reshape(len(x), -1)
                own = moments.setdefault((irrep, int(kind)), [Moments.empty(x, y)] * (FOLDS + 1))
                own[fold] = own[fold].add(x, y)


@functools.partial(jax.jit, static_argnums=0)
def _coupled_changes(settings: MatrixSettings, arrays: Any) -> Any:
    def one(matrix: Array, baseline: Array, frame: Array | None, basis: Any, pairs: Any) -> Coupled:
        change = matrix - baseline
        if frame is not None:
            inverse = jnp.linalg.inv(frame)
            change = inverse @ change @ inverse
        return to_exchange(couple(pair_blocks(change, basis, settings.layout, pairs), settings.layout), settings.layout)

    return over_molecules(one, *arrays)


def _target_blocks(settings: MatrixSettings, geometry: Geometry, matrices: Array) -> dict[Any, np.ndarray]:
    """Coupled blocks of matrices minus baseline in the frame, even channels first."""
    arrays = matrices, geometry.baseline, geometry.frame, geometry.space.basis, geometry.features.pairs
    return in_chunks(functools.partial(_coupled_changes, settings), arrays)


def trains_together(wanted: bool | None) -> bool:
    """What `together` of `fit` is on this machine."""
    return (jax.device_count() > 1 or jax.default_backend() != "cpu") if wanted is None else wanted


def fit(
    start: MatrixModel | PropertyModel,
    settings: MatrixSettings | PropertySettings,
    train: Sequence[Bucket],
    validation: Sequence[Bucket],
    loss: Loss,
    descent: Descent,
    *,
    members: int = 1,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    together: bool | None = None,
    states: Path | None = None,
    before: Ensemble[Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """Train networks on what a linear map leaves, each alone, from seeds that follow on that of `descent`.

    With one loss for their mean the networks would learn to cancel each other's errors; alone, their mean is better
    than each of them. Where there are several devices, the molecules of each batch are shared among all of them.

    Args:
        start: from `linear_fit` or `linear_property`; its linear map stays as it is.
        settings: of the model, with its network.
        train, validation: with the content of `start`, see `with_model`.
        loss: what is minimised.
        descent: how.
        members: how many networks.
        together: whether they are trained in one program, or each in a program of its own, on CPUs as many at a time as
            there are processors. Default: the first on accelerators and on several devices.
        report: is told a row of metrics after every evaluation, with "network".
        say: is told of damaged states.
        before: from whose networks, by turns, these start; default: from random ones.
        states: folder in which the state of each network is kept, and from which a training that was ended goes on.

    Raises:
        InputError: too many gradients were not finite, or a state cannot be written or read.
    """
    whole = loss.fitted([b.reference for b in train if len(b)])
    programs: dict[str, Any] = {}
    ended, sharing = threading.Event(), Sharing.of_all()
    if isinstance(settings.network, Linear):
        return Fitted(Ensemble.of([start]), [], Counter())
    together = trains_together(together)

    def group(first: int, count: int) -> list[Descended]:
        models = [
            trainable(settings, float(start.scale), None if before is None else before.member(first + i).params)
            for i in range(count)
        ]
        tell = lambda number, row: report({"network": number, **row})  # noqa: E731
        with contextlib.ExitStack() as stack:
            keeper = None
            if states is not None:
                name = f"network-{first}" if count == 1 else "networks"
                keeper = stack.enter_context(contextlib.closing(Checkpoints(states / name, say)))
            how = programs, keeper, ended.is_set
            return descend_all(models, train, validation, whole, descent, tell, *how, first=first, sharing=sharing)

    groups = [(0, members)] if together else [(number, 1) for number in range(members)]
    threads = sharing is None and jax.default_backend() == "cpu"  # devices need one order of programs
    workers = min(len(groups), os.cpu_count() or 1) if threads else 1
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(group, *own) for own in groups]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in running):  # an error of one network, or Ctrl-C, ends all
                ended.set()
    errors = [error for future in running if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, EndedError))
    results = [result for future in running for result in future.result()]
    trained: list[Any] = [
        dataclasses.replace(start, settings=settings, params=jax.tree.map(np.asarray, r.params)) for r in results
    ]
    history = [{"network": i, **row} for i, r in enumerate(results) for row in r.history]
    return Fitted(Ensemble.of(trained), history, sum((r.left_out for r in results), Counter()))


def prepared(buckets: Sequence[Bucket], model: MatrixModel | PropertyModel, folder: Path | None = None) -> list[Bucket]:
    """Buckets with the content that `fit` needs, in files of `folder` where there is one."""
    return [with_model(b, model, folder) if len(b) else b for b in buckets]
