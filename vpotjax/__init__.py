"""vpotjax: differentiable electronic structure on matrices of the external potential, in JAX."""

__version__ = "0.1.0"
