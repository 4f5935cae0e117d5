"""Derivatives of predicted observables in the geometry, through integrals, network and eigenproblem."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vpotjax._programs import quick_jit
from vpotjax._typing import Array
from vpotjax.models.ensemble import Ensemble
from vpotjax.models.matrix_model import MatrixModel
from vpotjax.molecule import Molecule


def geometric_derivatives(
    model: Ensemble[MatrixModel], molecule: Molecule, names: Sequence[str] = ("dipole", "polarizability")
) -> dict[str, jax.Array]:
    """∂(observable)/∂R of the mean Fock matrix of an ensemble, by name, (*shape of the observable, natm, 3).

    In forward mode; atomic units, as dμ/dR in e and dα/dR in bohr² for `vpotjax.vibrations`.

    Args:
        model: of F.
        molecule: where.
        names: of `vpotjax.electronic.observables.OBSERVABLES`.

    Raises:
        InputError: an element that the model does not know, an open shell, or an observable that F does not hold.
    """
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], model.settings.batch([molecule]))
    return _derivatives(jax.tree.map(jnp.asarray, model), batch, tuple(names))


@functools.partial(quick_jit, static_argnums=2)
def _derivatives(model: Ensemble[MatrixModel], molecule: Any, names: tuple[str, ...]) -> dict[str, jax.Array]:
    def observed(positions: Array) -> dict[str, jax.Array]:
        solution = model(dataclasses.replace(molecule, positions=positions))
        return {name: solution.observable(name) for name in names}

    return jax.jacfwd(observed)(molecule.positions)
