"""From the spread of networks to the error to expect."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vpotjax._typing import Array
from vpotjax.electronic.observables import known_observable


class Calibration(NamedTuple):
    """Of one observable: u² = f² ((scale · s)² + floor²), with the standard deviation s over the networks.

    The scale is that of Imbalzano et al. 2021 (doi:10.1063/5.0036522); the floor is what networks that share data,
    features and linear map have in common, which no spread shows. Both are fitted to molecules of the training's size;
    f = jump · r^growth of those that are r > 1 times larger, and 1 of the others.

    Attributes:
        scale: ().
        floor: () atomic units; of an observable that grows with the molecule, of ‖Δ‖/natm.
        growth: () exponent, at least 0.
        jump: () at least 1. Where too few larger molecules were seen it is 1, and the growth 0.
    """

    scale: Array
    floor: Array
    growth: Array = np.zeros(())
    jump: Array = np.ones(())

    @property
    def grows(self) -> bool:
        """Whether u of larger molecules is more than scale and floor say."""
        return bool(self.growth > 0 or self.jump > 1)

    def beyond(self, ratio: Array | float) -> jax.Array:
        """f of molecules that are `ratio` r times larger than those of the training, 1 of those that are not; both
        are (...).
        """
        ratio = jnp.asarray(ratio)
        return jnp.where(ratio > 1, jnp.asarray(self.jump) * ratio ** jnp.asarray(self.growth), 1.0)

    def uncertainty(self, name: str, spread: Array, natm: Array, ratio: Array | float = 1.0) -> jax.Array:
        """u of each element, like `spread`.

        Args:
            name: of `vpotjax.electronic.observables.OBSERVABLES`.
            spread: s, atomic units.
            natm: () number of atoms.
            ratio: () r, heavy atoms of the molecule over the size of the training, at least 1; `Domain.ratio`.
        """
        spread, floor = jnp.asarray(spread), jnp.asarray(self.floor)
        if known_observable(name).extensive:  # the elements share it, so that a rotation leaves the norm as it is
            floor = floor * natm / spread.size**0.5
        return self.beyond(ratio) * jnp.hypot(jnp.asarray(self.scale) * spread, floor)
