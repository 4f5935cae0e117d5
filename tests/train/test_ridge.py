"""The ridge fit recovers linear maps and shrinks what it knows little about."""

import numpy as np

from vpotjax.operators.blocks import Irrep
from vpotjax.train.ridge import ridge_weights


def test_recovers_a_linear_map_per_kind():
    rng = np.random.default_rng(0)
    kinds = np.arange(20 * 9).reshape(20, 3, 3) % 2
    x = rng.standard_normal((20, 3, 3, 4, 3))
    truth = rng.standard_normal((2, 4, 2))
    y = np.einsum("bijkc,bijkm->bijcm", truth[kinds], x)
    irrep = Irrep(1, -1)
    weights, chosen = ridge_weights({irrep: x}, {irrep: y}, kinds, 2, np.arange(20) >= 15)
    # The smallest regulariser, 1e-8, is chosen for exact data and leaves an error of its own size.
    np.testing.assert_allclose(weights["linear_1-"], truth, atol=1e-6)
    assert chosen["1-"] == 1e-8


def test_noise_raises_the_regulariser_and_absent_kinds_get_zero():
    rng = np.random.default_rng(1)
    kinds = np.zeros((12, 2, 2), dtype=int)
    x = rng.standard_normal((12, 2, 2, 30, 1))
    y = rng.standard_normal((12, 2, 2, 1, 1))
    irrep = Irrep(0, 1)
    weights, chosen = ridge_weights({irrep: x}, {irrep: y}, kinds, 2, np.arange(12) >= 8)
    assert chosen["0+"] >= 1e-1
    assert not np.any(weights["linear_0+"][1])
