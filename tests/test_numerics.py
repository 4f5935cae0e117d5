"""LAPACK is called with one matrix at a time on CPUs, also under vmap: batched calls of jaxlib can wait for ever."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from vpotjax._numerics import inverse_cholesky, inverse_square_root, spectrum, square_root
from vpotjax.electronic.comparison import fock_with_levels, projected_fock
from vpotjax.operators.powers import KINDS

N, BATCH = 4, 3


def batch():
    rng = np.random.default_rng(0)
    fock, overlap, position = (rng.standard_normal((BATCH, *s, N, N)) for s in ((), (), (3,)))
    fock, overlap, position = (m + np.swapaxes(m, -1, -2) for m in (fock, overlap, position))
    return jnp.asarray(fock), jnp.asarray(np.eye(N) + 0.02 * overlap), jnp.asarray(position)


FUNCTIONS = {
    "eigh": lambda f, s, r: vp.eigh(f, s)[0],
    "eigh, threshold": lambda f, s, r: vp.eigh(f, s, threshold=1e-7)[0],
    "density": lambda f, s, r: vp.density_matrix(f, s, 4),
    "density, α and β": lambda f, s, r: vp.density_matrix(jnp.stack([f, 2 * f]), s, jnp.array([2, 1])),
    "density, smeared": lambda f, s, r: vp.density_matrix(f, s, 4, smearing=0.1),
    "polarizability": lambda f, s, r: vp.polarizability(f, s, r, 4),
    "projected F": lambda f, s, r: projected_fock(f, s, s[:, :2]),
    "levels": lambda f, s, r: fock_with_levels(f, s, jnp.arange(4.0)),
    "roots": lambda f, s, r: square_root(s) + inverse_square_root(s),
    **{f"powers, {kind}": lambda f, s, r, kind=kind: vp.potential_powers(-s, s, 3, kind) for kind in KINDS},
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_call_of_lapack_is_batched(name):
    def loss(f, s, r):
        return jnp.sum(FUNCTIONS[name](f, s, r) ** 2)

    def second(f, s, r):
        return jax.grad(lambda *args: jnp.sum(jax.grad(loss, argnums=1)(*args) ** 2), argnums=(0, 1))(f, s, r)

    one = batch()
    for function, arguments in (
        (jax.vmap(loss), one),
        (jax.vmap(second), one),
        (jax.vmap(jax.vmap(loss)), tuple(x[None] for x in one)),
    ):
        calls = [line for line in jax.jit(function).lower(*arguments).as_text().splitlines() if "lapack_" in line]
        assert calls or name == "powers, raw"
        for call in calls:
            assert max(shape.count("x") for shape in re.findall(r"tensor<([^>]*)>", call)) <= 2, call  # "4x4xf64"


def test_one_matrix_and_many_agree():
    overlap = batch()[1]
    for function in (inverse_cholesky, lambda s: spectrum(s)[0]):
        single = jnp.stack([function(s) for s in overlap])
        np.testing.assert_allclose(jax.jit(jax.vmap(function))(overlap), single, rtol=0, atol=1e-14)
        nested = jax.jit(jax.vmap(jax.vmap(function)))(overlap[None])[0]
        np.testing.assert_allclose(nested, single, rtol=0, atol=1e-14)


def test_a_matrix_that_is_not_positive_leaves_its_neighbours_alone():
    overlap = batch()[1].at[1].set(-jnp.eye(N))
    inverse = jax.jit(jax.vmap(inverse_cholesky))(overlap)
    assert np.isnan(inverse).any(axis=(1, 2)).tolist() == [False, True, False]


SINGLE = """
import warnings
import numpy as np
import vpotjax as vp
warnings.simplefilter("error")
fock, overlap, position = np.diag([-2.0, -1, 1, 2]), np.eye(4) + 0.01, np.zeros((3, 4, 4))
density = vp.density_matrix(fock, overlap, 4)
basis = vp.load_basis({"H": [[0, [0.8, 1.0]], [0, [0.2, 1.0]]]}, [1, 1])
results = [
    *vp.eigh(fock, overlap), density, vp.density_matrix(fock, overlap, 4, smearing=0.01),
    vp.polarizability(fock, overlap, position, 4), vp.potential_powers(-overlap, overlap, 2, "lowdin"),
    vp.dipole(np.asarray(density), position, np.zeros((2, 3)), np.ones(2)),
    vp.lowdin_charges(density, overlap, basis), vp.mayer_bond_orders(density, overlap, basis),
]
assert {str(r.dtype) for r in results} == {"float32"}
"""


def test_arrays_of_numpy_are_taken_without_a_warning_in_single_precision():
    """In a process where double precision is off, as it is by default."""
    subprocess.run([sys.executable, "-c", SINGLE], check=True, env={**os.environ, "JAX_ENABLE_X64": "0"})
