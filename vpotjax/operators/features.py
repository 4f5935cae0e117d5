"""What a network sees of a molecule: powers of its external potential, coupled to irreps per pair of atoms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete
from vpotjax._pytree import pytree
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.operators.blocks import Coupled, Irrep, ShellLayout, atom_pair_blocks, couple
from vpotjax.operators.external_potential import POTENTIALS
from vpotjax.operators.matrix_power import potential_powers

SCALAR = Irrep(0, 1)


def operator_features(
    basis: Basis,
    operators: Mapping[str, Array],
    overlap: Array,
    layout: ShellLayout,
    order: int,
    kind: str,
    wanted: Iterable[Irrep],
    near: Array,
) -> dict[Irrep, jax.Array]:
    """Operators and powers of the potentials among them, coupled: by irrep (natm, natm, channels, 2λ+1).

    Channels run over operators (see `matrix_count`), then shells. The overlap is the power zero of V as an operator.
    The scalars get one more channel, 1 on site and 0 off site: the constant that symmetry allows.

    Args:
        basis: in which the operators are represented.
        operators: see `operator_matrices`.
        overlap: S in that basis, (nao, nao).
        layout: that holds the basis.
        order, kind: see `potential_powers`.
        wanted: irreps to make.
        near: factor of each pair of atoms, (natm, natm), see `pair_cutoff`.
    """
    mask = jnp.asarray(basis.ao_mask)
    matrices = [
        potential_powers(matrix, overlap, order, kind, mask) if name in POTENTIALS else jnp.asarray(matrix)[None]
        for name, matrix in operators.items()
    ]
    blocks = atom_pair_blocks(jnp.concatenate(matrices), basis, layout) * near[:, :, None, None]
    features = {}
    for irrep, x in couple(blocks, layout, wanted).items():
        features[irrep] = jnp.concatenate(list(x), axis=-2)
    onsite = jnp.eye(basis.natm, dtype=features[SCALAR].dtype)[:, :, None, None]
    features[SCALAR] = jnp.concatenate([features[SCALAR], onsite], axis=-2)
    return features


def matrix_count(names: Sequence[str], order: int) -> int:
    """How many matrices `operator_features` makes channels of."""
    return sum(order if name in POTENTIALS else 1 for name in names)


def known_elements(numbers: Array, species: Sequence[int]) -> jax.Array:
    """() True where all atomic numbers, 0 for padding, are among `species`."""
    return jnp.all(jnp.any(jnp.asarray(numbers)[:, None] == jnp.array([0, *species]), axis=1))


def pair_types(numbers: Array, species: Sequence[int]) -> jax.Array:
    """(natm, natm) kind of each ordered pair of atoms: on site by species, off site by both; −1 where one is padding.

    Raises:
        InputError: an element is not among `species` (checked where `numbers` has values).
    """
    if is_concrete(numbers):
        foreign = set(np.asarray(numbers).ravel().tolist()) - {0, *species}
        if foreign:
            raise InputError(
                f"numbers contains the elements {sorted(foreign)}, the model knows {sorted(species)}; train with them."
            )
    table = np.full(max(species) + 1, -1)
    table[list(species)] = np.arange(len(species))
    index = jnp.asarray(table)[jnp.asarray(numbers)]
    offsite = len(species) * (1 + index[:, None]) + index[None, :]
    kinds = jnp.where(jnp.eye(len(index), dtype=bool), index[:, None], offsite)
    return jnp.where((index[:, None] >= 0) & (index[None, :] >= 0), kinds, -1)


def pair_type_count(species: Sequence[int]) -> int:
    """Number of kinds that `pair_types` tells apart."""
    return len(species) * (len(species) + 1)


@pytree
class FeatureStatistics:
    """Mean and whitening transform per kind of pair, from the training set.

    Only scalars on site have a mean; off site it would not vanish with distance, and elsewhere symmetry forbids it.

    Attributes:
        mean: by irrep, (kinds, channels).
        transform: by irrep, (kinds, channels, channels).
    """

    mean: dict[Irrep, np.ndarray]
    transform: dict[Irrep, np.ndarray]


def feature_statistics(
    features: Coupled, kinds: np.ndarray, species: Sequence[int], operators: int, noise: float = 1e-2
) -> FeatureStatistics:
    """Statistics over a batch.

    Channels are divided by their root mean square; those that symmetry makes zero for a kind of pair (such as the
    quadrupole of an on-site overlap), so that only rounding is left of them, get zero. The transform is then
    (C + noise)^{−1/2} with their second moments C, so that powers of V, which are nearly parallel, become independent,
    and directions below `noise` stay small.

    Args:
        features: (nbatch, natm, natm, channels, 2λ+1) by irrep.
        kinds: (nbatch, natm, natm), see `pair_types`.
        species: atomic numbers of the kinds.
        operators: how many matrices the channels come from, see `matrix_count`.
        noise: relative second moment below which a direction counts as noise.
    """
    scalars = np.abs(np.asarray(features[SCALAR])[..., :-1, 0])
    magnitude = scalars.reshape(-1, operators, scalars.shape[-1] // operators).max(axis=(0, 2))
    means, transforms = {}, {}
    for irrep, x in features.items():
        count, channels = pair_type_count(species), x.shape[-2]
        means[irrep], transforms[irrep] = np.zeros((count, channels)), np.zeros((count, channels, channels))
        largest = np.ones(channels)  # the constant channel has size one
        largest[: operators * (channels // operators)] = np.repeat(magnitude, channels // operators)
        for kind in range(count):
            rows = np.swapaxes(np.asarray(x)[kinds == kind], 1, 2).reshape(-1, channels).astype(float)
            if not len(rows):
                continue
            if irrep == SCALAR and kind < len(species):
                means[irrep][kind, :-1] = rows.mean(axis=0)[:-1]  # the constant channel stays
            centred = rows - means[irrep][kind]
            size = np.sqrt(np.mean(centred**2, axis=0))
            scale = np.where(size > rounding(x.dtype) * largest, 1 / np.maximum(size, 1e-300), 0.0)
            values, vectors = np.linalg.eigh((centred * scale).T @ (centred * scale) / len(rows))
            whitening = (vectors / np.sqrt(np.maximum(values, 0) + noise)) @ vectors.T
            transforms[irrep][kind] = scale[:, None] * whitening
    return FeatureStatistics(means, transforms)


def rounding(dtype: np.dtype) -> float:
    """Channels below this share of the largest scalar of a matrix are rounding: 1e-6 in float32, 1e-8 in float64."""
    return float(max(8 * np.finfo(dtype).eps, 1e-8))


def normalised(features: Coupled, kinds: Array, statistics: FeatureStatistics) -> dict[Irrep, jax.Array]:
    """Features of one molecule minus mean, times transform; zero on padding."""
    real = (kinds >= 0)[..., None, None]
    result = {}
    for irrep, x in features.items():
        mean, transform = (jnp.asarray(s[irrep], x.dtype)[kinds] for s in (statistics.mean, statistics.transform))
        centred = jnp.where(real, x - mean[..., None], 0.0)
        result[irrep] = jnp.einsum("ijkc,ijkm->ijcm", transform, centred)
    return result
