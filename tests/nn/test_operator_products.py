"""Learned products of hidden operators: norms, how far they reach, and what they do not depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vpotjax._checks import InputError
from vpotjax.batching import PairList
from vpotjax.nn.operator_products import OperatorProducts, unit_norm
from vpotjax.operators.blocks import ShellLayout, dense_blocks
from vpotjax.operators.features import NetworkInputs
from vpotjax.operators.pairs import pair_kinds

LAYOUT = ShellLayout((2, 1))
NETWORK = OperatorProducts(LAYOUT, species=2, layers=2, channels=2, shells=2, hidden=4, precision="float64")


def all_pairs(natm):
    first, second = np.triu_indices(natm, 1)
    atoms = np.arange(natm)
    first, second = np.concatenate([atoms, first]), np.concatenate([atoms, second])
    return PairList(first, second, np.zeros((len(first), 3), int), np.ones(len(first), bool))


def inputs_of(operators, elements):
    """From dense operators (count, natm, natm, width, width)."""
    pairs = all_pairs(len(elements))
    blocks = jnp.asarray(operators)[:, pairs.first, pairs.second]
    kinds = pair_kinds(elements, pairs, 2)
    return NetworkInputs({}, (), kinds, jnp.asarray(elements), pairs, blocks, LAYOUT)


def random_operators(natm, size=1.0, layout=LAYOUT, seed=0):
    operators = size * np.random.default_rng(seed).standard_normal((2, natm, natm, layout.width, layout.width))
    return operators + operators.transpose(0, 2, 1, 4, 3)


@functools.cache
def parameters(network):
    return jax.jit(network.init)(jax.random.key(0), inputs_of(random_operators(5), np.array([0, 1, 0, 1, 1])))


@functools.partial(jax.jit, static_argnums=0)
def dense(network, params, inputs):
    """Hidden operators as matrices, (channels, natm, width, natm, width)."""
    return dense_blocks(network.apply(params, inputs), len(inputs.elements), inputs.pairs)


def hidden(network, inputs):
    return np.asarray(dense(network, parameters(network), inputs))


def test_norm_of_a_normalised_operator_is_at_most_one():
    """Schur's test is met where all blocks are one positive number; random blocks stay far below."""
    layout = ShellLayout((4, 3, 2))
    one_function = np.zeros((1, 30, 30, layout.width, layout.width))
    one_function[..., 0, 0] = 50.0
    random = random_operators(30, 50.0, layout)[:1]
    for operators, least in ((one_function, 0.999), (random, 0.01), (random[:, :1, :1], 0.1)):
        flat = np.asarray(jax.jit(unit_norm)(operators.swapaxes(2, 3)))[0]
        norm = np.abs(np.linalg.eigvalsh(flat.reshape(operators.shape[1] * layout.width, -1))).max()
        assert least < norm < 1 + 1e-4  # norms of blocks count for 1e-3 less than they are


def test_deep_stacks_stay_small():
    """A layer adds at most four, with `coupling` five, to the norm of a hidden operator, at first at most one."""
    elements, layers = np.random.default_rng(2).integers(0, 2, 8), 3
    network = dataclasses.replace(NETWORK, layers=layers, coupling=True)
    operators = hidden(network, inputs_of(random_operators(8, 50.0), elements))
    for matrix in operators:
        flat = matrix.reshape(8 * network.hidden_layout.width, -1)
        np.testing.assert_allclose(flat, flat.T, rtol=0, atol=1e-12)  # rounding
        assert 0.1 < np.abs(np.linalg.eigvalsh(flat)).max() < 1 + 5 * layers


def test_a_layer_reaches_one_centre_more():
    """Operators of a chain whose atoms see their neighbours only."""
    natm = 5
    steps = np.abs(np.subtract.outer(np.arange(natm), np.arange(natm)))
    operators = random_operators(natm) * (steps < 2)[:, :, None, None]
    for layers in (1, 2):
        network = dataclasses.replace(NETWORK, layers=layers)
        matrices = hidden(network, inputs_of(operators, np.array([0, 1, 0, 1, 1])))
        sizes = np.abs(matrices).max(axis=(0, 2, 4))
        assert np.all((sizes > 1e-6) == (steps <= layers + 1))


def test_permutation_of_atoms_and_far_molecules():
    network, rng = dataclasses.replace(NETWORK, coupling=True), np.random.default_rng(3)
    elements, order = rng.integers(0, 2, 6), rng.permutation(6)
    near = (np.arange(6) < 3)[:, None] == (np.arange(6) < 3)  # two molecules of three atoms
    operators = random_operators(6) * near[:, :, None, None]
    whole = hidden(network, inputs_of(operators, elements))
    permuted = hidden(network, inputs_of(operators[:, order][:, :, order], elements[order]))
    assert np.abs(permuted - whole).max() > 0.1
    expected = whole[:, order][:, :, :, order]
    np.testing.assert_allclose(permuted, expected, rtol=0, atol=1e-12)  # rounding
    for atoms in (slice(3), slice(3, 6)):
        alone = hidden(network, inputs_of(operators[:, atoms, atoms], elements[atoms]))
        np.testing.assert_allclose(whole[:, atoms][:, :, :, atoms], alone, rtol=0, atol=1e-12)
    assert not np.any(whole[:, :3, :, 3:])


def test_checkpoints_change_nothing_but_memory():
    inputs = inputs_of(random_operators(5), np.array([0, 1, 0, 1, 1]))
    results = [
        jax.jit(jax.value_and_grad(lambda p, n=network: jnp.sum(n.apply(p, inputs) ** 3)))(parameters(NETWORK))
        for network in (NETWORK, dataclasses.replace(NETWORK, checkpoint=True))
    ]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.abs(one).max() > 1e-6
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)  # rounding


def test_operators_are_needed():
    inputs = dataclasses.replace(inputs_of(random_operators(5), np.zeros(5, int)), operators=None)
    with pytest.raises(InputError, match="inputs have no operators; make the features with operators=True"):
        NETWORK.apply(parameters(NETWORK), inputs)
