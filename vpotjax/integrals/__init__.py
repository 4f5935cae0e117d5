"""One-electron integrals over contracted Gaussians, spherical or Cartesian, up to l = 5, in pure JAX.

Every function takes a `Basis` and positions (natm, 3) in bohr, works under jit, vmap and grad, and has derivatives of
any order in positions, charges, exponents and coefficients (the `exponents` and `coefficients` of `Basis.shells`).

Precision: results have the dtype of the positions. In float64 they agree with libcint to 1e-10 of an atomic unit. In
float32 an element is off by at most 2e-5 of the largest one of its matrix, typically by 1e-6: coefficients are
normalised in float64 before they are rounded, products of tight primitives are placed relative to their own nucleus,
and nothing cancels for far nuclei.

Memory: pairs of primitives are handled in chunks (`shell_pairs.lanes`), in gradients too; only matrices of (pairs of
primitives) × (Cartesian components) are kept whole.

Checks: wrong shapes raise InputError always; positions that are not finite, and two nuclei at one place, where the
positions have values. Under jit both give NaN.
"""
