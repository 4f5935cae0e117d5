"""One-electron integrals over contracted Gaussians, in pure JAX."""
