"""Operators to Fock and density matrices: linear (closed form), gated, and matrix-power networks.

    python -m benchmarks.labels water       ten minutes on one core, resumable
    python -m benchmarks.op2op water        1000 monomers (PBE/def2-SVP): 500 train, 100 validation, 400 test
    python -m benchmarks.op2op ethane       200 distorted ethanes (B3LYP/STO-3G): 120 train, 30 validation, 50 test

Splits: a random permutation with seed 0. Errors: mean absolute over test molecules and elements or levels. Rows of
finished models are kept in runs/op2op and not trained again.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks.labels import SHARED, labelled
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule
from vpotjax.nn import Gated, Linear, MatrixPower
from vpotjax.train.config import Training
from vpotjax.train.descent import Descent
from vpotjax.units import ANGSTROM_TO_BOHR

RESULTS = Path(__file__).parents[1] / "runs" / "op2op"
BASIS = {"water": "def2-svp", "ethane": "sto-3g"}
SPLIT = {"water": (500, 100, 400), "ethane": (120, 30, 50)}
STEPS = {"water": 8000, "ethane": 4000}
ROWS = [("linear", "fock"), ("gated", "fock"), ("matrix-power", "fock"), ("matrix-power", "density")]


def samples_of(name: str) -> list[Sample]:
    """Molecules with F, S, ε and μ."""
    if name == "water":
        known, labels = labelled("water")
        return [Sample("water", "train", m, {BASIS[name]: x}) for m, x in zip(known.molecules, labels, strict=True)]
    with np.load(SHARED / "cookbook_ethane_200.npz") as file:
        data = dict(file)
    samples = []
    for i, start in enumerate(data["offsets"][:-1]):
        atoms = slice(start, start + data["natoms"][i])
        n = int(data["nao_sto3g"][i])
        labels = {
            "fock": data["fock_sto3g"][i * n * n : (i + 1) * n * n].reshape(n, n),
            "overlap": data["overlap_sto3g"][i * n * n : (i + 1) * n * n].reshape(n, n),
            "mo_energies": data["eps_sto3g"][i * n : (i + 1) * n],
            "dipole": data["mu_sto3g"][i],
            "polarizability": data["alpha_uncoupled_sto3g"][i],
        }
        molecule = Molecule(data["Z"][atoms], data["R"][atoms] * ANGSTROM_TO_BOHR)
        samples.append(Sample("ethane", "train", molecule, {"sto-3g": labels}))
    return samples


def training(network: str, target: str, steps: int) -> Training:
    """Of one row."""
    networks = {"linear": Linear(), "gated": Gated(64, (64, 64)), "matrix-power": MatrixPower(64, (64, 64), 2, 2, 2)}
    return Training(
        networks[network],
        members=1,
        inputs=("overlap", "kinetic", "external", "sap"),
        power_order=4,
        target=target,
        elements=1.0,
        alignment=1.0 if target == "fock" else 0.0,
        descent=Descent(steps, batch_size=25, learning_rate=2e-3, final=1e-4),
        buckets=1,
    )


def run(name: str, network: str, target: str, steps: int) -> dict[str, Any]:
    """Train one model and measure it on the test molecules."""
    import jax
    import jax.numpy as jnp

    from vpotjax.train.arrays import in_chunks, over_molecules
    from vpotjax.train.fit import fit, linear_fit, prepared, whitened
    from vpotjax.train.matrix_training import labels_for
    from vpotjax.train.samples import with_model
    from vpotjax.train.stages import split_buckets

    jax.config.update("jax_enable_x64", True)
    start, basis, chosen = time.perf_counter(), BASIS[name], training(network, target, steps)
    settings = chosen.settings((1, 8) if name == "water" else (1, 6), basis)
    samples = samples_of(name)
    if len(samples) != sum(SPLIT[name]):
        raise SystemExit(f"{name} has {len(samples)} molecules, the split needs {sum(SPLIT[name])}")
    order = np.random.default_rng(0).permutation(len(samples))
    edges = np.cumsum([0, *SPLIT[name]])
    parts = {
        part: [samples[i] for i in order[edges[k] : edges[k + 1]]]
        for k, part in enumerate(("train", "validation", "test"))
    }
    buckets = split_buckets(parts, settings, labels_for(chosen, settings, basis, basis, parts["train"][0]), 1)
    train, validation, (test,) = buckets["train"], buckets["validation"], buckets["test"]
    closed = linear_fit(train, validation, settings, whitened(train, settings), lambda b: b.reference.values[target])
    print(f"# prepared {time.perf_counter() - start:.0f} s, residual {float(closed.scale):.2e}", flush=True)
    train, validation = prepared(train, closed), prepared(validation, closed)
    model = fit(closed, settings, train, validation, chosen.loss(float(closed.scale)), chosen.descent, report=_report)
    ensemble = model.model
    predict = jax.jit(lambda content: over_molecules(lambda one: jnp.mean(ensemble.outputs(one), axis=0), content))
    predicted = in_chunks(predict, with_model(test, ensemble.model).content)
    row: dict[str, Any] = {"set": name, "network": network, "target": target, "train": SPLIT[name][0]}
    row |= {"parameters": int(sum(np.size(x) for x in jax.tree.leaves(ensemble.model.params)))}
    row |= {"seconds": round(time.perf_counter() - start), "steps": 0 if network == "linear" else steps}
    return row | matrix_errors(predicted, test, parts["test"], target, name)


def _report(row: dict[str, Any]) -> None:
    print(f"# {row['step']} {row['training_loss']:.3e} {row['validation_loss']:.3e}", flush=True)


def matrix_errors(predicted: np.ndarray, test: Any, samples: list[Sample], target: str, name: str) -> dict[str, float]:
    """Mean absolute errors; ε of a predicted density come from the Fock matrix that PySCF builds from it."""
    import jax

    from vpotjax.electronic.density import density_matrix
    from vpotjax.electronic.eigensolver import eigh
    from vpotjax.electronic.multipoles import dipole
    from vpotjax.electronic.populations import mulliken_charges

    space, focks = test.content.space, test.reference.values["fock"]
    mask = np.asarray(space.basis.ao_mask)
    n = int(mask[0].sum())  # one molecule, so no padding
    solve = jax.jit(jax.vmap(density_matrix))
    densities = np.asarray(solve(focks, space.overlap, space.nelec, mask))

    def of_density(p: Any, own: Any) -> Any:
        moment = dipole(p, own.position, own.positions, own.basis.nuclear_charges)
        return moment, mulliken_charges(p, own.overlap, own.basis)

    if target == "fock":
        density = np.asarray(solve(predicted, space.overlap, space.nelec, mask))
        fock = predicted
    else:
        density, fock = predicted, np.stack([rebuilt(p, s, name) for p, s in zip(predicted, samples, strict=True)])
    energies = np.asarray(jax.jit(jax.vmap(eigh))(fock, space.overlap, mask)[0])
    moments, charges = jax.jit(jax.vmap(of_density))(density, space)
    expected_moments, expected_charges = jax.jit(jax.vmap(of_density))(densities, space)
    stored = [s.labels[BASIS[name]] for s in samples]
    reference = np.stack([scipy.linalg.eigh(x["fock"], x["overlap"], eigvals_only=True) for x in stored])
    occupied = int(space.nelec[0]) // 2
    errors = np.abs(energies[:, :n] - reference)
    row = {
        "eps_uEh": 1e6 * errors.mean(),
        "eps_occupied_uEh": 1e6 * errors[:, :occupied].mean(),
        "dipole_1e6": 1e6 * np.abs(moments - expected_moments).mean(),
        "charges_1e6": 1e6 * np.abs(charges - expected_charges).mean(),
        "density_1e6": 1e6 * np.abs(density - densities)[:, :n, :n].mean(),
    }
    if target == "fock":
        row["fock_uEh"] = 1e6 * np.abs(predicted - focks)[:, :n, :n].mean()
    return {key: float(value) for key, value in row.items()}


def rebuilt(density: np.ndarray, sample: Sample, name: str) -> np.ndarray:
    """F that PySCF builds from a density, by the functional of the labels."""
    from pyscf import dft

    from vpotjax.interop.pyscf import to_pyscf

    mf = dft.RKS(to_pyscf(sample.molecule, BASIS[name]), xc="pbe" if name == "water" else "b3lyp")
    return np.asarray(mf.get_fock(dm=density))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, errors in µhartree and 1e-6."""
    columns = ["set", "target", "network", "fock_uEh", "eps_uEh", "eps_occupied_uEh", "dipole_1e6", "charges_1e6"]
    columns += ["density_1e6", "parameters", "steps", "seconds"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.3g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(name: str) -> None:
    """All rows of a set."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = []
    for network, target in ROWS:
        what = repr((training(network, target, STEPS[name]), SPLIT[name]))
        path = RESULTS / f"{name}-{network}-{target}-{zlib.crc32(what.encode()):08x}.json"
        if not path.exists():
            path.write_text(json.dumps(run(name, network, target, STEPS[name])))
        rows.append(json.loads(path.read_text()))
        print(table(rows), flush=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ("water", "ethane"):
        main(chosen)
