"""Kinds of pairs, and even and odd channels: what an exchange of the two atoms of a pair does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.batching import PairList, pad_batch
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import ShellLayout, couple, irreps, uncouple
from vpotjax.operators.features import SCALAR, NetworkInputs, exchanged
from vpotjax.operators.pairs import (
    element_indices,
    even_channels,
    exchange,
    from_exchange,
    kind_count,
    kind_elements,
    known_elements,
    mixing,
    pair_kinds,
    to_exchange,
)

LAYOUTS = [ShellLayout((1,)), ShellLayout((3, 2, 1)), ShellLayout((1, 0, 1)), ShellLayout((2, 1, 1, 1))]
TOLERANCE = 1e-13  # rounding of orthogonal transformations of numbers of order one


def jitted_channels(layout):
    return jax.jit(lambda blocks: to_exchange(couple(blocks, layout), layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_transposition_is_the_sign_of_odd_channels(layout):
    blocks, channels = (
        np.random.default_rng(0).standard_normal((2, layout.width, layout.width)),
        jitted_channels(layout),
    )
    plain, transposed = channels(blocks), channels(np.swapaxes(blocks, 1, 2))
    symmetric = channels(blocks + np.swapaxes(blocks, 1, 2))
    every, even = irreps(layout), even_channels(layout)
    # A symmetric matrix has n(n+1)/2 elements, and so many components have the even channels.
    assert sum((2 * i.lam + 1) * even[i] for i in every) == layout.width * (layout.width + 1) // 2
    for irrep, x in plain.items():
        sign = np.where(np.arange(every[irrep]) < even[irrep], 1.0, -1.0)[:, None]
        np.testing.assert_allclose(transposed[irrep], sign * x, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(symmetric[irrep], (1 + sign) * x, rtol=0, atol=TOLERANCE)  # on one atom: no odd ones
        assert np.abs(x).min() > 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_exchange_channels_are_another_orthogonal_basis(layout):
    for irrep, (change, even) in exchange(layout).items():
        count = irreps(layout)[irrep]
        assert 0 <= even <= count
        np.testing.assert_allclose(change @ change.T, np.eye(count), rtol=0, atol=TOLERANCE)
    block = np.random.default_rng(1).standard_normal((layout.width, layout.width))
    again = jax.jit(lambda b: uncouple(from_exchange(to_exchange(couple(b, layout), layout), layout), layout))(block)
    np.testing.assert_allclose(again, block, rtol=0, atol=TOLERANCE)


def test_kinds_are_counted_on_site_first():
    assert kind_elements(2).tolist() == [[0, 0], [1, 1], [0, 0], [0, 1], [1, 1]]
    assert mixing(2).tolist() == [False, False, False, True, False]
    for species in (1, 2, 3, 5):
        assert kind_count(species) == species + species * (species + 1) // 2
    molecule = Molecule(np.array([8, 1, 6, 1, 8]), np.random.default_rng(2).normal(0, 4, (5, 3)))
    numbers, pairs = (getattr(pad_batch([molecule, g2("C6H6")], "sto-3g")[0], x) for x in ("numbers", "pairs"))
    elements = element_indices(numbers, (1, 6, 8))
    assert elements.tolist() == [2, 0, 1, 0, 2, *[-1] * 7]
    kinds = np.asarray(pair_kinds(elements, pairs, 3))
    table = kind_elements(3)
    for first, second, real, kind in zip(pairs.first, pairs.second, pairs.mask, kinds, strict=True):
        if not real:
            assert kind == -1
            continue
        assert (kind < 3) == (first == second)
        assert table[kind].tolist() == [elements[first], elements[second]]
    assert np.sum(kinds >= 0) == 15


def test_elements_that_are_not_known():
    numbers = np.array([8, 1, 9, 0])
    with pytest.raises(InputError, match=r"contains the elements \[9\], the model knows \[1, 8\]"):
        element_indices(numbers, (1, 8))
    assert not known_elements(numbers, (1, 8))
    assert known_elements(numbers, (1, 8, 9))
    traced = jax.jit(lambda n: element_indices(n, (1, 8)))(numbers[[0, 1, 3]])
    assert traced.tolist() == [1, 0, -1]


def inputs_of(blocks, numbers, pairs, layout, species):
    """Channels and operators of blocks, as features have them."""
    elements = element_indices(numbers, species)
    values = jitted_channels(layout)(blocks)
    even = tuple(even_channels(layout).items())
    kinds = pair_kinds(elements, pairs, len(species))
    return NetworkInputs(values, even, kinds, elements, pairs, jnp.asarray(blocks)[None], layout)


def test_exchanged_names_the_atoms_of_pairs_of_one_element_in_the_other_order():
    """As if the blocks had been cut out of the matrix in that order; pairs of two elements have only one."""
    layout, numbers = ShellLayout((2, 1)), np.array([8, 1, 1, 0])
    first, second = np.array([0, 1, 2, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 0, 2, 0])
    pairs = PairList(first, second, np.zeros((7, 3), int), np.arange(7) != 3)
    matrix = np.random.default_rng(3).standard_normal((4, layout.width, 4, layout.width))
    matrix = (matrix + matrix.transpose(2, 3, 0, 1))[:, :, :3]
    blocks = matrix[first, :, second] * pairs.mask[:, None, None]
    inputs = inputs_of(blocks, numbers, pairs, layout, (1, 8))
    turned = dataclasses.replace(pairs, first=first.copy(), second=second.copy())
    turned.first[5], turned.second[5] = 2, 1  # H–H; H–O stays
    expected = inputs_of(
        matrix[turned.first, :, turned.second] * pairs.mask[:, None, None], numbers, turned, layout, (1, 8)
    )
    result = exchanged(inputs, 2)
    assert np.abs(inputs.values[SCALAR][5] - result.values[SCALAR][5]).max() > 0.01
    np.testing.assert_array_equal([result.pairs.first, result.pairs.second], [turned.first, turned.second])
    np.testing.assert_array_equal(result.operators, expected.operators)
    for irrep, x in expected.values.items():
        np.testing.assert_allclose(result.values[irrep], x, rtol=0, atol=TOLERANCE)
