"""What feeds a network: powers of V, blocks, irreps."""
