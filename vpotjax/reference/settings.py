"""How labels are made."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.interop.pyscf_labels import AUXILIARY, OBSERVED, require_quantities


@dataclasses.dataclass(frozen=True)
class ReferenceSettings:
    """How labels are made.

    Attributes:
        small_basis: labels with matrices.
        effective_basis: likewise, for effective Hamiltonians of more functions, with density fitting; None: none.
        large_basis: of the targets of an effective Hamiltonian, with density fitting; None: none.
        xc: functional (PySCF's name), or "hf".
        matrices: what is stored in the small and in the effective basis, beside the observables.
        observables: what is stored in all bases.
        density_fitting: in all bases but the small one.
        unrestricted: closed shells too; open ones always are.
        geometries: per molecule, drawn from the harmonic ensemble of RHF/STO-3G; None: the molecule as it is.
        temperature: of that ensemble, kelvin.
        grid_level: PySCF's integration grid, 0 to 9.
        validation, test: fractions of the molecules in these splits; a molecule is never in two.
        seed: of the displacements and of the split.

    Raises:
        InputError: a value is out of range. Names of bases and functional are checked by `generate`.
    """

    small_basis: str = "sto-3g"
    effective_basis: str | None = "6-31g"
    large_basis: str | None = "def2-tzvp"
    xc: str = "b3lyp"
    matrices: tuple[str, ...] = ("fock", "overlap")
    observables: tuple[str, ...] = OBSERVED
    density_fitting: bool = True
    unrestricted: bool = False
    geometries: int | None = None
    temperature: float = 300.0
    grid_level: int = 3
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("small_basis", "effective_basis", "large_basis", "xc"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name in ("effective_basis", "large_basis") and value is None):
                raise InputError(f"{name} is {value!r}; give a name.")
        for name, low, high in (("geometries", 1, math.inf), ("grid_level", 0, 9), ("seed", 0, math.inf)):
            value = getattr(self, name)
            if name == "geometries" and value is None:
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
                limit = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
                raise InputError(f"{name} is {value!r}; give an integer {limit}.")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature} K; give a finite value ≥ 0.")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise InputError(
                f"validation={self.validation} and test={self.test} leave no training molecules; give fractions "
                "whose sum is below 1."
            )
        names = [basis.casefold() for basis in self.bases]
        if twice := next((basis for basis in names if names.count(basis) > 1), None):
            raise InputError(f"two of small_basis, effective_basis and large_basis are {twice!r}; give different ones.")
        for name in ("matrices", "observables"):
            require_quantities(name, getattr(self, name))

    @property
    def bases(self) -> list[str]:
        """All of them."""
        return [basis for basis in (self.small_basis, self.effective_basis, self.large_basis) if basis is not None]

    def quantities(self, basis: str) -> tuple[str, ...]:
        """What is stored in one of the bases."""
        return self.observables if basis == self.large_basis else tuple(dict.fromkeys(self.observables + self.matrices))

    def calculation(self, basis: str) -> dict[str, Any]:
        """Options of PySCF's calculation in one of the bases."""
        fit = self.density_fitting and basis != self.small_basis
        return {"density_fit": fit, "grid_level": self.grid_level, "unrestricted": self.unrestricted}

    def stated(self) -> dict[str, Any]:
        """All of them, as they stand in a file."""
        fitting = AUXILIARY if self.density_fitting else None
        return json.loads(json.dumps(dataclasses.asdict(self) | versions() | {"fitting": fitting}, default=int))


def versions() -> dict[str, str]:
    """Of what decides the labels."""
    import basis_set_exchange
    import pyscf

    from vpotjax._version import __version__

    return {
        "pyscf_version": pyscf.__version__,
        "basis_set_exchange_version": basis_set_exchange.__version__,
        "vpotjax_version": __version__,
    }
