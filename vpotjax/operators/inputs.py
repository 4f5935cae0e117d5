"""The operators that a network may see, as matrices in one basis, optionally cut off smoothly.

| name | operator |
|---|---|
| "overlap" | S |
| "kinetic" | T |
| "external" | V = Σ_A V^A of the bare nuclei |
| "sap" | V screened by superposed free atoms (`screened_potential`); neutral atoms, so it decays fast |
| "own_nuclei" | the terms of V of the two atoms at which an element's functions stand: its two-centre part |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from vpotjax._checks import InputError
from vpotjax._typing import Array
from vpotjax.basis import Basis, element_basis
from vpotjax.integrals.assemble import joint_matrices
from vpotjax.integrals.kinetic import KINETIC
from vpotjax.integrals.nuclear_attraction import external_potential, nuclear_attraction, screened_potential
from vpotjax.integrals.overlap import OVERLAP
from vpotjax.integrals.screening import pairs_of_program

POTENTIALS = ("external", "sap")
"""Of these, powers are taken."""
SEPARABLE = {"overlap": OVERLAP, "kinetic": KINETIC}
OPERATORS = (*SEPARABLE, *POTENTIALS, "own_nuclei")


def check_operators(names: Sequence[str]) -> None:
    """Raise InputError unless all names are among OPERATORS, none twice, and a potential is among them."""
    unknown = [n for n in names if n not in OPERATORS]
    if unknown or len(set(names)) < len(names) or not set(names) & set(POTENTIALS):
        raise InputError(
            f"inputs is {tuple(names)}; give different ones of {', '.join(OPERATORS)}, with external or sap among them."
        )


def check_cutoff(cutoff: float | None) -> None:
    """Raise InputError unless `cutoff` is None or a positive length."""
    if cutoff is not None and not cutoff > 0:
        raise InputError(f"cutoff is {cutoff}; give a length in bohr, or None.")


def require_all_electrons(argument: str, values: Sequence[str], basis: str, species: Sequence[int]) -> None:
    """Raise InputError where "sap" is among the values of `argument`, and `basis` has effective cores for `species`."""
    cores = [z for z in species if "sap" in values and element_basis(basis, z)[1]]
    if cores:
        raise InputError(
            f"{argument} has 'sap', but {basis!r} has effective cores for the elements {cores}, for which it is not "
            "defined; use an all-electron basis, or leave 'sap' out."
        )


def cutoff_function(distances: Array, cutoff: float) -> jax.Array:
    """1 − 10x³ + 15x⁴ − 6x⁵ with x = distance/cutoff up to 1, zero beyond; two continuous derivatives."""
    x = jnp.clip(jnp.asarray(distances) / cutoff, 0.0, 1.0)
    return 1 - x**3 * (10 - 15 * x + 6 * x**2)


def pair_cutoff(positions: Array, cutoff: float | None) -> jax.Array:
    """`cutoff_function` of all distances, (natm, natm); ones without a cutoff."""
    positions = jnp.asarray(positions)
    if cutoff is None:
        return jnp.ones((len(positions), len(positions)), positions.dtype)
    squares = jnp.sum((positions[:, None] - positions[None, :]) ** 2, axis=-1)
    same = squares == 0  # an atom and itself, or padding: no root is taken there, so derivatives are finite
    return jnp.where(same, 1.0, cutoff_function(jnp.sqrt(jnp.where(same, 1.0, squares)), cutoff))


def potential_matrices(
    basis: Basis, positions: Array, inputs: Sequence[str], cutoff: float | None = None
) -> dict[str, jax.Array]:
    """Those of `operator_matrices` that are integrals of potentials, with the same arguments."""
    check_operators(inputs)
    potentials = {"sap": screened_potential, "external": external_potential}
    per_nucleus = "own_nuclei" in inputs or (cutoff is not None and "external" in inputs)
    pairs = pairs_of_program(basis, positions, "sap" in inputs)
    terms = nuclear_attraction(basis, positions, pairs=pairs) if per_nucleus else None
    atoms = jnp.maximum(jnp.asarray(basis.ao_atom), 0)
    result = {}
    for name in inputs:
        if name in SEPARABLE:
            continue
        if terms is not None and name == "own_nuclei":
            here = jnp.arange(len(terms))[:, None] == atoms
            result[name] = jnp.einsum("apq,apq->pq", terms, (here[:, :, None] | here[:, None, :]).astype(terms.dtype))
        elif terms is not None and name == "external" and cutoff is not None:
            near = pair_cutoff(positions, cutoff)[:, atoms]
            result[name] = jnp.einsum("apq,ap,aq->pq", terms, near, near)
        else:
            result[name] = potentials[name](basis, positions, pairs=pairs)
    return result


def operator_matrices(
    basis: Basis,
    positions: Array,
    inputs: Sequence[str],
    cutoff: float | None = None,
    potentials: Mapping[str, Array] | None = None,
) -> dict[str, jax.Array]:
    """The operators by name, each (nao, nao), symmetric, zero on padding, in atomic units.

    With a cutoff, a bare nucleus A contributes f(R_iA) f(R_jA) V^A_ij to the element of functions at atoms i and j, so
    that nothing depends on nuclei that are farther away than that. The other operators are short-ranged themselves.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3), bohr.
        inputs: of OPERATORS.
        cutoff: in bohr; default: none.
        potentials: from `potential_matrices` of the same, where a program of its own makes them; default: made here.

    Raises:
        InputError: an unknown name.
    """
    check_operators(inputs)
    separable = {name: operator for name, operator in SEPARABLE.items() if name in inputs}
    known = dict(zip(separable, joint_matrices(tuple(separable.values()), basis, positions), strict=True))
    others = potential_matrices(basis, positions, inputs, cutoff) if potentials is None else potentials
    return {name: known[name] if name in known else jnp.asarray(others[name]) for name in inputs}
