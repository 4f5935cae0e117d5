"""Closed-form models of energies and dipoles: powers of V against ν = 2 λ-SOAP (featomic), the same ridge regression.

    pip install '.[bench]'
    python -m benchmarks.labels dimers qm7        an hour or two on one core, resumable
    python -m benchmarks.op2prop dimers           trained on d < 8 Å and d = 12 Å, tested on 8 Å ≤ d < 12 Å
    python -m benchmarks.op2prop qm7              learning curves, 200 test molecules
    python -m benchmarks.op2prop gated            what a gated correction adds to the ridge for 800 QM7 molecules

Labels: PBE/def2-TZVP for the water dimers, LDA (Slater, VWN)/def2-SVP for QM7 (1000 molecules drawn with seed 0; the
last fifth is the test set, training sets are the first n). λ-SOAP as in the V-power paper: cutoff 4 Å, max_radial 6,
max_angular 4, width 0.3 Å. Regularisers by five-fold cross-validation on the training set; energies after a fit of the
composition, which the ridge contains. With its cutoff λ-SOAP cannot see the other molecule of a distant dimer: that is
the point of the comparison. QM7 labels are density-fitted on PySCF's grid level 1. "Features, s" contains compilation.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.labels import labelled
from vpotjax.molecule import Molecule
from vpotjax.operators.blocks import Irrep
from vpotjax.property_model import PROPERTIES, PropertyConfig, composition
from vpotjax.train.descent import DescentConfig
from vpotjax.train.property_fit import fit_property, fold_numbers, inverse_scale, property_features, ridge
from vpotjax.units import HARTREE_TO_EV

KCAL = HARTREE_TO_EV * 23.0605478
SOAP = {
    "cutoff": {"radius": 4.0, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
    "density": {"type": "Gaussian", "width": 0.3},
    "basis": {"type": "TensorProduct", "max_angular": 4, "radial": {"type": "Gto", "max_radial": 6}},
}


def v_power(molecules: Sequence[Molecule], target: str, basis: str, kind: str) -> np.ndarray:
    """Features (n, kinds, matrices, channels, 2λ+1) of powers 0 … 4 of V."""
    species = tuple(sorted({int(z) for m in molecules for z in m.numbers}))
    config = PropertyConfig(species, target, potential_basis=basis, power_kind=kind)
    return property_features(molecules, config)[PROPERTIES[target][0]]


def soap(molecules: Sequence[Molecule], target: str) -> np.ndarray:
    """Features (n, elements, 1, channels, 2λ+1): the equivariant power spectrum, summed over atoms of each element."""
    from featomic import SphericalExpansion
    from featomic.clebsch_gordan import EquivariantPowerSpectrum
    from metatensor import Labels

    lam = PROPERTIES[target][0].lam
    species = sorted({int(z) for m in molecules for z in m.numbers})
    calculator = EquivariantPowerSpectrum(SphericalExpansion(**SOAP), neighbor_types=species)
    wanted = Labels(["o3_lambda", "o3_sigma"], np.array([[lam, 1]], dtype=np.int32))
    parts = []
    for start in range(0, len(molecules), 20):
        systems = [m.to_ase() for m in molecules[start : start + 20]]
        spectrum = calculator.compute(systems, selected_keys=wanted, neighbors_to_properties=True)
        blocks = [spectrum.block({"center_type": z}) if _has(spectrum, z) else None for z in species]
        size = next(b.values.shape[1:] for b in blocks if b is not None)
        sums = np.zeros((len(systems), len(species), 1, size[1], size[0]))
        for k, block in enumerate(blocks):
            if block is not None:
                np.add.at(sums[:, k, 0], np.asarray(block.samples["system"]), np.swapaxes(block.values, 1, 2))
        parts.append(sums)
    result = np.concatenate(parts)
    # e3nn's and featomic's order of l = 1 is y, z, x
    return result[..., [2, 0, 1]] if lam == 1 else result


def _has(spectrum: Any, z: int) -> bool:
    return z in set(np.asarray(spectrum.keys["center_type"]).tolist())


def errors(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, atoms: np.ndarray | None
) -> tuple[float, float]:
    """RMSE on `test` (over components) of the ridge fitted on `train`, and the regulariser."""
    flat = (x * inverse_scale(x[train])[None, :, :, None, None]).reshape(len(x), -1, x.shape[-1])
    seen = np.any(flat[train] != 0, axis=(0, 2))
    flat = flat[:, seen]
    constants = None if atoms is None else atoms[train]
    fit = ridge(flat[train], y[train], fold_numbers(np.arange(len(train))), constants)
    predicted = np.einsum("nkm,k->nm", flat[test], fit.weights)
    if atoms is not None:
        predicted += (atoms[test] @ fit.constants)[:, None]
    return float(np.sqrt(np.mean((predicted - y[test]) ** 2))), float(fit.regulariser)


def compare(name: str) -> None:
    """Print the table of one set."""
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
    species = sorted({int(z) for m in molecules for z in m.numbers})
    atoms = np.stack([composition(m.numbers, species) for m in molecules])
    print(f"{name}: {count} molecules with labels, test {len(next(iter(splits.values()))[1])}")
    print(f"| target | features | {' | '.join(f'{n} train' for n in splits)} | channels | features, s |")
    print("|---|---|" + "---|" * (len(splits) + 2))
    for target, unit in (("energy", KCAL), ("dipole", 1.0)):
        y = np.stack([np.atleast_1d(label[target]) for label in labels]) * unit
        for title, make in feature_makers(bases).items():
            start = time.perf_counter()
            x = make(molecules, target)
            seconds = time.perf_counter() - start
            constants = atoms if PROPERTIES[target][0] == Irrep(0, 1) else None
            cells = []
            for train, held in splits.values():
                error, regulariser = errors(x, y, train, held, constants)
                cells.append(f"{error:.4g} ({regulariser:.0e})")
            channels = int(np.prod(x.shape[1:4]))
            name_unit = "energy, kcal/mol" if target == "energy" else "dipole, e·bohr"
            print(f"| {name_unit} | {title} | {' | '.join(cells)} | {channels} | {seconds:.0f} |", flush=True)


def gated() -> None:
    """Print the errors of the ridge and of the ridge with a gated correction, powers of V in def2-SVP."""
    known, labels = labelled("qm7")
    molecules, count = known.molecules, len(known.molecules)
    ntest = count // 5
    species = tuple(sorted({int(z) for m in molecules for z in m.numbers}))
    print("| target | ridge | with gated correction | training, s |\n|---|---|---|---|")
    for target, unit in (("energy", KCAL), ("dipole", 1.0)):
        start = time.perf_counter()
        y = np.stack([np.asarray(label[target]) for label in labels])
        config = PropertyConfig(species, target, power_kind="metric", gated=8)
        settings = DescentConfig(steps=2000, batch_size=16)
        model = fit_property(molecules[:-ntest], y[:-ntest], config, settings=settings, report=_report)
        seconds = time.perf_counter() - start
        linear = dataclasses.replace(model, params=None, statistics=None)
        rmse = [
            unit * np.sqrt(np.mean((np.asarray(m.predict(molecules[-ntest:])) - y[-ntest:]) ** 2))
            for m in (linear, model)
        ]
        print(f"| {target} | {rmse[0]:.4g} | {rmse[1]:.4g} | {seconds:.0f} |", flush=True)


def _report(row: dict[str, Any]) -> None:
    print(f"# {row['step']} {row['training_loss']:.3g} {row['validation_loss']:.3g}", flush=True)


def feature_makers(bases: Sequence[str]) -> dict[str, Any]:
    """By title, functions of molecules and target."""
    makers: dict[str, Any] = {"λ-SOAP": soap}
    for basis in bases:
        for kind in ("raw", "metric"):
            makers[f"V powers, {kind}, {basis}"] = lambda m, t, b=basis, k=kind: v_power(m, t, b, k)
    return makers


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    for chosen in sys.argv[1:] or ("dimers", "qm7"):
        gated() if chosen == "gated" else compare(chosen)
