"""ASE: a calculator of observables, from a trained model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ase
import jax
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from vpotjax._checks import InputError
from vpotjax._programs import potentials, quick_jit
from vpotjax.molecule import Molecule
from vpotjax.units import BOHR_TO_ANGSTROM, HARTREE_TO_EV

if TYPE_CHECKING:
    from vpotjax.models import Ensemble

UNITS = {
    "energy": HARTREE_TO_EV,
    "dipole": BOHR_TO_ANGSTROM,
    "charges": 1.0,
    "polarizability": BOHR_TO_ANGSTROM**3,
    "mo_energies": HARTREE_TO_EV,
    "homo_lumo_gap": HARTREE_TO_EV,
}
"""From atomic units: energies and levels eV, dipole e·Å about the origin, Löwdin charges e, polarizability as a
volume, Å³.
"""
OBSERVABLE = {"charges": "lowdin_charges"}  # where the name is another one in the table
UNCERTAINTY, EXCESS, WARNINGS = "_uncertainty", "excess", "warnings"


class VpotjaxCalculator(Calculator):
    """Observables of a model, by ASE's interface: a dipole, charges, a polarizability, levels and the gap::

        atoms.calc = VpotjaxCalculator(load_model("runs/demo"))
        atoms.get_dipole_moment(); atoms.calc.results["polarizability"]

    `results` has the quantities of UNITS without the energy, or the one that a model of a property has;
    "dipole_uncertainty" and so on, see `vpotjax.models.Prediction`; "excess", how far a pair of atoms is outside the
    range of the training molecules: above 1 it is, and the numbers are not to be trusted; infinite where none of them
    had the charge; and "warnings", of charge, size and bonds, in words. There are no forces. Charge and spin are what
    the atoms state, see `Molecule.from_ase`.

    Args:
        model: from `vpotjax.io.load_model`, of F or of a property.

    Raises:
        InputError: on calculation, where the model does not know an element, or the atoms are an open shell or
            periodic.
    """

    def __init__(self, model: Ensemble[Any], **options: Any) -> None:
        super().__init__(**options)
        self.model = jax.tree.map(jax.numpy.asarray, model)
        target = model.settings.target
        self.implemented_properties = [
            name for name in UNITS if name == target or (target == "fock" and name != "energy")
        ]
        if not self.implemented_properties:
            raise InputError(f"model is one of {target!r}; give one of F or of a property.")

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; charge and spin, which may be stated in `info`, too."""
        changes = super().check_state(atoms, tol)
        if self.atoms is not None and not changes:
            now, before = (Molecule.from_ase(own.copy()) for own in (atoms, self.atoms))  # without results
            changes = [] if (now.charge, now.spin) == (before.charge, before.spin) else ["initial_charges"]
        return changes

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("dipole",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """All quantities at once; atoms of the same elements use one compiled program."""
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        molecule = Molecule.from_ase(self.atoms)
        batch = self.model.settings.batch([molecule])
        names = tuple(OBSERVABLE.get(name, name) for name in self.implemented_properties)
        first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], batch)
        prediction = _predicted(self.model, first, potentials(self.model.settings, first), names)
        for name, own in zip(self.implemented_properties, names, strict=True):
            factor = UNITS[name]
            self.results[name] = _plain(prediction.values[own], factor)
            if own in prediction.uncertainties:
                self.results[name + UNCERTAINTY] = _plain(prediction.uncertainties[own], factor)
        self.results[WARNINGS] = list(self.model.domain.doubts(molecule))
        foreign = self.model.domain.foreign(molecule.charge)
        self.results[EXCESS] = np.inf if foreign else float(np.max(prediction.excess))


def _plain(value: Any, factor: float) -> Any:
    array = factor * np.asarray(value)
    return array if array.ndim else float(array)


@functools.partial(quick_jit, static_argnums=3)
def _predicted(model: Ensemble[Any], molecule: Any, own: Any, names: tuple[str, ...]) -> Any:
    return model.prediction(model.model.prepared(model.settings.geometry(molecule, own)), names)
