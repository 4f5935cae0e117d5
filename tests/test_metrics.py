"""Intervals of errors against the known distribution of a mean."""

import numpy as np
import pytest

from vpotjax.metrics import MoleculeErrors, bootstrap_interval


@pytest.mark.parametrize("mean_absolute", [True, False])
def test_bootstrap_intervals_are_those_of_a_mean(mean_absolute):
    """Of many draws, two standard errors of the mean on each side; of levels weighted by their number."""
    rng = np.random.default_rng(0)
    norms, counts = rng.exponential(1.0, 2000), np.full(2000, 3.0)
    low, high = bootstrap_interval(MoleculeErrors(3 * norms, counts, norms), mean_absolute)
    error = 1.96 * norms.std() / np.sqrt(2000)
    np.testing.assert_allclose([low, high], [norms.mean() - error, norms.mean() + error], rtol=0.01)


def test_one_molecule_and_none_compared():
    one = MoleculeErrors(np.array([2.0]), np.array([4.0]), np.array([1.0]))
    assert bootstrap_interval(one, True) == (0.5, 0.5)
    assert np.isnan(bootstrap_interval(one._replace(compared=np.zeros(1)), True)).all()
