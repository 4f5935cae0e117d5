"""The Boys function against the incomplete gamma function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma, gammainc

from vpotjax.integrals.boys import boys


@pytest.mark.parametrize("order", [0, 1, 4, 8, 12])
def test_values(order):
    arguments = np.concatenate([np.linspace(1e-3, 90, 4001), [150.0, 1e3, 1e5]])
    m = np.arange(order + 1)[:, None] + 0.5
    reference = gamma(m) * gammainc(m, arguments) / (2 * arguments**m)
    # Both branches lose some bits at the switch-over; SciPy's gammainc is good to about 1e-13.
    np.testing.assert_allclose(boys(order, jnp.asarray(arguments)), reference, rtol=2e-12)


def test_value_at_zero_and_all_derivatives():
    np.testing.assert_allclose(
        boys(5, jnp.zeros(())), 1 / (2 * np.arange(6) + 1), rtol=5e-15
    )  # a polynomial of degree 21 at its end
    derivative = lambda x: boys(2, x)[1]  # noqa: E731
    for n in range(1, 4):
        derivative = jax.grad(derivative)
        # dⁿF₁/dTⁿ = (−1)ⁿ F_{1+n}
        np.testing.assert_allclose(derivative(0.0), (-1) ** n / (2 * (1 + n) + 1), rtol=1e-12)
        np.testing.assert_allclose(derivative(80.0), (-1) ** n * boys(1 + n, jnp.asarray(80.0))[-1], rtol=1e-12)
