"""From the spread of networks to the error to expect."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._typing import Array
from vpotjax.electronic.observables import known_observable


class Calibration(NamedTuple):
    """Of one observable: u² = r^(2 growth) ((scale · s)² + floor²), with the standard deviation s over the networks.

    The scale is that of Imbalzano et al. 2021 (doi:10.1063/5.0036522); the floor is what networks that share data,
    features and linear map have in common, which no spread shows. Both are fitted to molecules of the training's size;
    r is how many times larger a molecule is, at least 1.

    Attributes:
        scale: ().
        floor: () atomic units; of an observable that grows with the molecule, of ‖Δ‖/natm.
        growth: () exponent; 0 where no larger molecule shows one.
    """

    scale: Array
    floor: Array
    growth: Array = np.zeros(())

    def uncertainty(self, name: str, spread: Array, natm: Array, ratio: Array | float = 1.0) -> jax.Array:
        """u of each element, like `spread`.

        Args:
            name: of `vpotjax.electronic.observables.OBSERVABLES`.
            spread: s, atomic units.
            natm: () number of atoms.
            ratio: () r, heavy atoms of the molecule over those of the largest training molecule, at least 1.
        """
        spread, floor = jnp.asarray(spread), jnp.asarray(self.floor)
        if known_observable(name).extensive:  # the elements share it, so that a rotation leaves the norm as it is
            floor = floor * natm / spread.size**0.5
        return jnp.asarray(ratio) ** jnp.asarray(self.growth) * jnp.hypot(jnp.asarray(self.scale) * spread, floor)
