"""What is done with a Fock matrix: eigenproblem, density, response, observables."""
