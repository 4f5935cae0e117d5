"""Closed-form models of energies and dipoles: powers of V against ν = 2 λ-SOAP (featomic), the same ridge regression.

    pip install '.[bench]'
    python -m benchmarks.labels dimers qm7        an hour or two on one core, resumable
    python -m benchmarks.op2prop dimers           trained on d < 8 Å and d = 12 Å, tested on 8 Å ≤ d < 12 Å
    python -m benchmarks.op2prop qm7              learning curves, 200 test molecules
    python -m benchmarks.op2prop qm7 raw svp      of the rows whose titles have both words
    python -m benchmarks.op2prop gated energy     what a gated correction adds to the ridge for 800 QM7 molecules

Labels: PBE/def2-TZVP for the water dimers, LDA (Slater, VWN)/def2-SVP for QM7 (1000 molecules drawn with seed 0; the
last fifth is the test set, training sets are the first n). λ-SOAP as in the V-power paper: cutoff 4 Å, max_radial 6,
max_angular 4, width 0.3 Å. Regularisers by five-fold cross-validation on the training set; energies after a fit of the
composition, which the ridge contains. With its cutoff λ-SOAP cannot see the other molecule of a distant dimer: that is
the point of the comparison. QM7 labels are density-fitted on PySCF's grid level 1. "Features, s" contains compilation.
Finished rows are kept in runs/op2prop and not computed again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.labels import labelled
from vpotjax.models.property_model import PROPERTIES, PropertySettings, composition
from vpotjax.molecule import Molecule
from vpotjax.nn.gated import Gated
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR
from vpotjax.operators.representation import Representation
from vpotjax.train.descent import Descent
from vpotjax.train.property_fit import channel_matrices, fit_property, fit_sums, property_features
from vpotjax.train.ridge import fold_numbers
from vpotjax.units import HARTREE_TO_EV

RESULTS = Path(__file__).parents[1] / "runs" / "op2prop"
KCAL = HARTREE_TO_EV * 23.0605478
UNITS = {"energy": ("kcal/mol", KCAL), "dipole": ("e·bohr", 1.0)}
SOAP = {
    "cutoff": {"radius": 4.0, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
    "density": {"type": "Gaussian", "width": 0.3},
    "basis": {"type": "TensorProduct", "max_angular": 4, "radial": {"type": "Gto", "max_radial": 6}},
}


class Sums(NamedTuple):
    """Features of molecules, (n, kinds, channels, 2λ+1), and the matrix that each channel comes from."""

    values: np.ndarray
    matrices: np.ndarray


Maker = Callable[[Sequence[Molecule], str], dict[Irrep, Sums]]
"""Of the irreps of a property."""


def v_power(inputs: tuple[str, ...], basis: str, kind: str) -> Maker:
    """Powers 1 … 4 of the potentials among `inputs`, beside the other operators."""

    def make(molecules: Sequence[Molecule], target: str) -> dict[Irrep, Sums]:
        representation = Representation(species_of(molecules), basis, inputs, 4, (kind,))
        values = property_features(molecules, PropertySettings(representation, target))
        return {irrep: Sums(x, channel_matrices(representation, irrep)) for irrep, x in values.items()}

    return make


def species_of(molecules: Sequence[Molecule]) -> tuple[int, ...]:
    """Atomic numbers, ascending."""
    return tuple(sorted({int(z) for m in molecules for z in m.numbers}))


def soap(molecules: Sequence[Molecule], target: str) -> dict[Irrep, Sums]:
    """The equivariant power spectrum, summed over atoms of each element, which are the kinds here."""
    return {irrep: _soap(molecules, irrep.lam) for irrep in PROPERTIES[target]}


def _soap(molecules: Sequence[Molecule], lam: int) -> Sums:
    from featomic import SphericalExpansion  # pyright: ignore[reportMissingImports]
    from featomic.clebsch_gordan import EquivariantPowerSpectrum  # pyright: ignore[reportMissingImports]
    from metatensor import Labels  # pyright: ignore[reportMissingImports]

    species = list(species_of(molecules))
    calculator = EquivariantPowerSpectrum(SphericalExpansion(**SOAP), neighbor_types=species)
    wanted = Labels(["o3_lambda", "o3_sigma"], np.array([[lam, 1]], dtype=np.int32))
    parts = []
    for start in range(0, len(molecules), 20):
        systems = [m.to_ase() for m in molecules[start : start + 20]]
        spectrum = calculator.compute(systems, selected_keys=wanted, neighbors_to_properties=True)
        blocks = [spectrum.block({"center_type": z}) if _has(spectrum, z) else None for z in species]
        size = next(b.values.shape[1:] for b in blocks if b is not None)
        sums = np.zeros((len(systems), len(species), size[1], size[0]))
        for k, block in enumerate(blocks):
            if block is not None:
                np.add.at(sums[:, k], np.asarray(block.samples["system"]), np.swapaxes(block.values, 1, 2))
        parts.append(sums)
    result = np.concatenate(parts)
    # e3nn's and featomic's order of l = 1 is y, z, x
    return Sums(result[..., [2, 0, 1]] if lam == 1 else result, np.zeros(result.shape[2], int))


def _has(spectrum: Any, z: int) -> bool:
    return z in set(np.asarray(spectrum.keys["center_type"]).tolist())


def error(x: Sums, y: np.ndarray, train: np.ndarray, test: np.ndarray, atoms: np.ndarray | None) -> tuple[float, float]:
    """RMSE on `test` (over components) of the ridge fitted on `train`, and the regulariser."""
    constants = None if atoms is None else atoms[train]
    fit = fit_sums(x.values[train], y[train], x.matrices, fold_numbers(np.arange(len(train))), constants)
    predicted = np.einsum("nkcm,kc->nm", x.values[test], fit.weights)
    if atoms is not None:
        predicted += atoms[test] @ fit.constants
    return float(np.sqrt(np.mean((predicted - y[test]) ** 2))), float(fit.regulariser)


def compare(name: str, words: Sequence[str] = ()) -> None:
    """Print the rows of one set whose titles have all `words`."""
    known, labels = labelled(name)
    molecules, count = known.molecules, len(known.molecules)
    if name == "dimers":
        test = (known.distance >= 8 - 1e-9) & (known.distance < 12 - 1e-9)
        splits = {f"{int((~test).sum())}": (np.flatnonzero(~test), np.flatnonzero(test))}
        bases = ("cc-pvtz",)
    else:
        ntest = count // 5
        sizes = [50, 100, 200, 400, 800]
        splits = {str(n): (np.arange(n), np.arange(count - ntest, count)) for n in sizes}
        bases = ("def2-svp", "cc-pvtz")
    atoms = np.stack([np.asarray(composition(m.numbers, species_of(molecules)), float) for m in molecules])
    print(f"{name}: {count} molecules with labels, test {len(next(iter(splits.values()))[1])}")
    print(f"| target | features | {' | '.join(f'{n} train' for n in splits)} | channels | features, s |")
    print("|---|---|" + "---|" * (len(splits) + 2))
    for target, (unit, factor) in UNITS.items():
        y = np.stack([np.atleast_1d(label[target]) for label in labels]) * factor
        constants = atoms if PROPERTIES[target][0] == SCALAR else None
        for title, make in feature_makers(bases).items():
            if all(word in title for word in words):
                row = _kept(
                    name, f"{target}, {unit} | {title}", lambda m=make, t=target: m(molecules, t), splits, y, constants
                )
                cells = [f"{e:.4g} ({regulariser:.0e})" for e, regulariser in row["errors"]]
                print(
                    f"| {target}, {unit} | {title} | {' | '.join(cells)} | {row['channels']} | {row['seconds']:.0f} |",
                    flush=True,
                )


def _kept(
    name: str,
    key: str,
    make: Callable[[], dict[Irrep, Sums]],
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
    y: np.ndarray,
    constants: np.ndarray | None,
) -> dict[str, Any]:
    """A row, from the file of finished ones or computed now."""
    path = RESULTS / f"{name}.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if key not in rows:
        start = time.perf_counter()
        (x,) = make().values()
        seconds = time.perf_counter() - start
        errors = [error(x, y, train, held, constants) for train, held in splits.values()]
        rows[key] = {"errors": errors, "channels": int(np.any(x.values, axis=(0, 3)).sum()), "seconds": seconds}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    return rows[key]


def gated(targets: Sequence[str]) -> None:
    """Print the errors of the ridge and of the ridge with a gated correction, powers of V in def2-SVP."""
    known, labels = labelled("qm7")
    molecules, ntest = known.molecules, len(known.molecules) // 5
    representation = Representation(species_of(molecules), "def2-svp", ("overlap", "external"), 4, ("metric",))
    print("| target | ridge | with gated correction | training, s |\n|---|---|---|---|")
    for target in targets:
        unit, factor = UNITS[target]
        start = time.perf_counter()
        y = np.stack([np.asarray(label[target]) for label in labels])
        settings = PropertySettings(representation, target, Gated(8, (64, 64)))
        descent = Descent(steps=2000, batch_size=16)
        model = fit_property(molecules[:-ntest], y[:-ntest], settings, descent=descent, report=_report)
        seconds = time.perf_counter() - start
        linear = dataclasses.replace(model, params=None, whitening=None)
        rmse = [
            factor * np.sqrt(np.mean((np.asarray(m.predict(molecules[-ntest:])) - y[-ntest:]) ** 2))
            for m in (linear, model)
        ]
        print(f"| {target}, {unit} | {rmse[0]:.4g} | {rmse[1]:.4g} | {seconds:.0f} |", flush=True)


def _report(row: dict[str, Any]) -> None:
    print(f"# {row['step']} {row['training_loss']:.3g} {row['validation_loss']:.3g}", flush=True)


def feature_makers(bases: Sequence[str]) -> dict[str, Maker]:
    """By title."""
    makers: dict[str, Maker] = {"λ-SOAP": soap}
    for basis in bases:
        for kind in ("raw", "metric"):
            makers[f"V powers, {kind}, {basis}"] = v_power(("overlap", "external"), basis, kind)
    makers[f"V and SAP powers, raw, {bases[0]}"] = v_power(("overlap", "external", "sap"), bases[0], "raw")
    return makers


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    chosen = sys.argv[1:2] or ["dimers", "qm7"]
    for one in chosen:
        gated(sys.argv[2:] or list(UNITS)) if one == "gated" else compare(one, sys.argv[2:])
