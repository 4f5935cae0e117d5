"""PySCF's integrals in the names, signs and shapes of this package, and their derivatives in the positions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import vpotjax as vp

ORIGIN = np.array([0.3, -1.2, 0.7])
OPERATORS = {
    "overlap": vp.overlap,
    "kinetic": vp.kinetic,
    "external_potential": vp.external_potential,
    "position": lambda basis, positions, **kw: vp.position_integrals(basis, positions, jnp.asarray(ORIGIN), **kw),
    "second_moment": lambda basis, positions, **kw: vp.second_moment_integrals(
        basis, positions, jnp.asarray(ORIGIN), **kw
    ),
    "momentum": vp.momentum_integrals,
}


def all_operators(basis, positions):
    return {name: function(basis, positions) for name, function in OPERATORS.items()}


def reference(mole, name):
    nao = mole.nao_cart() if mole.cart else mole.nao
    with mole.with_common_origin(ORIGIN):
        if name == "second_moment":
            return mole.intor("int1e_rr").reshape(3, 3, nao, nao)
        if name == "momentum":
            return -mole.intor("int1e_ipovlp")
        names = {"overlap": "ovlp", "kinetic": "kin", "external_potential": "nuc", "position": "r"}
        return mole.intor(f"int1e_{names[name]}")


def reference_gradient(mole, name, weights):
    """∂ Σ_μν W_μν O_μν / ∂R, (natm, 3), for symmetric weights and the operators S, T, V."""
    names = {"overlap": "ipovlp", "kinetic": "ipkin", "external_potential": "ipnuc"}
    # ⟨∇μ|O|ν⟩; the centre of μ moves against the electron's coordinate
    bra = mole.intor(f"int1e_{names[name]}")
    gradient = np.zeros((mole.natm, 3))
    for atom, (_, _, start, stop) in enumerate(mole.aoslice_by_atom()):
        gradient[atom] -= 2 * np.einsum("xpq,pq->x", bra[:, start:stop], weights[start:stop])
        if name == "external_potential":
            with mole.with_rinv_at_nucleus(atom):
                rinv = mole.intor("int1e_iprinv")
            gradient[atom] -= 2 * mole.atom_charge(atom) * np.einsum("xpq,pq->x", rinv, weights)
    return gradient
