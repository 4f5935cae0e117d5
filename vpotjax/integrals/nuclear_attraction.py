"""The potential of nuclei: V_μν = ⟨μ|−Σ_C Z_C / |r − R_C||ν⟩ (PySCF's `int1e_nuc`), its terms per nucleus, its
screened form, and the potential of any other charges.

Of an effective core potential only the charge of the core enters (see `Basis.nuclear_charges`); its semi-local part
does not.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._checks import InputError, is_concrete, require_shape
from vpotjax._guards import flag
from vpotjax._typing import Array
from vpotjax.basis import Basis
from vpotjax.integrals import charges as charge_sums
from vpotjax.integrals.assemble import PairLists, floating, symmetric_matrices
from vpotjax.integrals.screening import pairs_for


def external_potential(
    basis: Basis, positions: Array, nuclear_charges: Array | None = None, *, pairs: PairLists | None = None
) -> jax.Array:
    """V, (nao, nao), hartree, negative.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        nuclear_charges: (natm,), may be fractional and traced; default: those of `basis`.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`; nuclear charges of the wrong shape.
    """
    pairs = pairs_for(basis, positions, pairs)
    charges = basis.nuclear_charges if nuclear_charges is None else nuclear_charges
    require_shape("nuclear_charges", charges, (basis.natm,))
    return _potential(basis, positions, positions, charges, None, None, pairs)


def nuclear_attraction(basis: Basis, positions: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """The terms of V per nucleus, (natm, nao, nao), hartree, negative; their sum is `external_potential`.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`.
    """
    pairs = pairs_for(basis, positions, pairs)
    return _nuclear_attraction(basis, positions, pairs)


def charge_potential(
    basis: Basis,
    positions: Array,
    centres: Array,
    charges: Array,
    *,
    exponents: Array | None = None,
    omega: Array | None = None,
    pairs: PairLists | None = None,
) -> jax.Array:
    """Energy of an electron in the field of any charges, −Σ_C q_C ⟨μ|v(|r − R_C|)|ν⟩, (nao, nao), hartree.

    v(r) is 1/r for point charges; erf(√α r)/r for charges (α/π)^{3/2} exp(−α r²); with `omega` only the long-range
    part of these interactions, erf(ω r₁₂)/r₁₂. All arguments may be traced.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr, of the atoms that carry the basis.
        centres: (ncharge, 3) in bohr; a charge may stand anywhere, also on a nucleus.
        charges: (ncharge,), positive attracts electrons.
        exponents: α, (ncharge,) in bohr⁻²; default: point charges.
        omega: ω > 0 in 1/bohr, a number; default: the whole interaction.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`; centres, charges or exponents of the wrong shape; exponents or omega not positive.
    """
    pairs = pairs_for(basis, positions, pairs)
    require_shape("charges", charges, (None,))
    require_shape("centres", centres, (len(charges), 3))
    if exponents is not None:
        require_shape("exponents", exponents, (len(charges),))
        _require_positive("exponents", exponents, "leave the argument out for point charges")
    if omega is not None:
        require_shape("omega", omega, ())
        _require_positive("omega", omega, "for the short-range part subtract the long-range one from the whole")
    return _potential(basis, positions, centres, charges, exponents, omega, pairs)


def screened_potential(basis: Basis, positions: Array, *, pairs: PairLists | None = None) -> jax.Array:
    """Superposition of atomic potentials: nuclei screened by the electrons of free atoms, (nao, nao), hartree.

    The screening is a sum of Gaussian charges per atom (Lehtola, Visscher, Engel 2020, doi:10.1063/5.0004046, the fit
    "sap_grasp_small" of basis-set-exchange). With the kinetic energy it is a Fock matrix that needs no density
    (Lehtola 2019, doi:10.1021/acs.jctc.8b01089). All-electron bases only: the fits hold the potential of all electrons
    together, from which that of a core, which an effective core potential replaces, cannot be told apart.

    Args:
        basis: from `load_basis`.
        positions: (natm, 3) in bohr.
        pairs: from `significant_pairs`; default: see there.

    Raises:
        InputError: as `overlap`; a basis with effective core potentials.
    """
    pairs = pairs_for(basis, positions, pairs)
    known = is_concrete(basis.nuclear_charges, basis.numbers)
    if known and np.any(np.asarray(basis.nuclear_charges) != np.asarray(basis.numbers)):
        raise InputError(
            f"basis has the nuclear charges {np.asarray(basis.nuclear_charges).tolist()} for the elements "
            f"{np.asarray(basis.numbers).tolist()} (effective core potentials?), but all electrons of the free atoms "
            "would screen; use an all-electron basis."
        )
    whole = flag(jnp.asarray(basis.nuclear_charges) == jnp.asarray(basis.numbers))
    screening, exponents = jnp.asarray(basis.screening_charges), jnp.asarray(basis.screening_exponents)
    nuclei = jnp.asarray(basis.nuclear_charges, screening.dtype)[:, None]
    points = jnp.full_like(nuclei, jnp.inf)  # one program for point and Gaussian charges: half as much to compile
    charges, exponents = (jnp.concatenate(both, axis=1) for both in ((nuclei, screening), (points, exponents)))
    centres = jnp.repeat(jnp.asarray(positions), charges.shape[1], axis=0)
    total = _potential(basis, positions, centres, charges.ravel(), exponents.ravel(), None, pairs)
    return total * whole.astype(total.dtype)


def _require_positive(name: str, values: Array, fix: str) -> None:
    if is_concrete(values) and np.any(~(np.asarray(values) > 0)):
        raise InputError(f"{name} is {np.asarray(values).tolist()}, expected positive numbers; {fix}.")


def _positive(values: Array, dtype: jnp.dtype) -> jax.Array:
    """NaN where values are not positive."""
    return jnp.where(jnp.asarray(values) > 0, jnp.asarray(values, dtype), jnp.nan)


@jax.jit
def _potential(
    basis: Basis,
    positions: Array,
    centres: Array,
    charges: Array,
    exponents: Array | None,
    omega: Array | None,
    pairs: PairLists | None,
) -> jax.Array:
    positions = floating(positions)
    centres, charges = jnp.asarray(centres, positions.dtype), jnp.asarray(charges, positions.dtype)
    # 1/α + 1/ω²: erf(ω r)/r is the potential of a Gaussian charge, and Gaussians convolve to Gaussians.
    widths = jnp.zeros_like(charges) if exponents is None else 1 / _positive(exponents, positions.dtype)
    widths = widths if omega is None else widths + 1 / _positive(omega, positions.dtype) ** 2
    integrand = functools.partial(charge_sums.integrals, centres, charges, widths)
    return symmetric_matrices(integrand, basis, positions, pairs)[0]


@jax.jit
def _nuclear_attraction(basis: Basis, positions: Array, pairs: PairLists | None) -> jax.Array:
    charges = jnp.asarray(basis.nuclear_charges)

    def one_nucleus(source: tuple[Array, Array]) -> jax.Array:
        return _potential(basis, positions, source[0][None], source[1][None], None, None, pairs)

    return jax.lax.map(jax.checkpoint(one_nucleus), (jnp.asarray(positions), charges))
