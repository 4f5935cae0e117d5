"""The design space of Suman et al. 2025 (JCTC 21, 6505): which matrix, which targets, and models of properties.

    python -m benchmarks.pretrained labels              F in 6-31G of QM7, half an hour on two cores
    python -m benchmarks.design_space labels            QM9 and chains in def2-TZVP, two processes
    python -m benchmarks.design_space run [SPLIT ...]   models of splits 0, 1, 2; an hour for each on one core
    python -m benchmarks.design_space measure [SPLIT …] errors of what is trained and labelled
    python -m benchmarks.design_space report            tables of them

700 QM7 molecules train, 45 choose the weights, 60 test; three random splits, and 30 QM9 molecules and chains that are
the same for all. Errors are RMSE of ‖Δ‖/natm against B3LYP/def2-TZVP over those of STO-3G, the basis-set error.
One network of 600 steps for each row, settings of the package otherwise. With "bonds" only those of the training
molecules count that have bond orders, about five in six. Finished rows and errors are kept in runs/design_space.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.op2prop import Maker, Sums, soap, species_of, v_power
from benchmarks.qm7_data import (
    LARGE,
    MIDDLE,
    SMALL,
    TRANSFER,
    bond_orders,
    label_all,
    qm7_dataset,
    transfer_dataset,
    transfer_molecules,
)
from benchmarks.runs import SINGLE_THREAD
from vpotjax.io.sample import Sample
from vpotjax.train.config import CORRECTION, WEIGHTS, Scheduled, Training
from vpotjax.train.descent import Descent

RUNS = Path(__file__).parents[1] / "runs" / "design_space"
STEPS, SPECIES, SPLITS = 600, (1, 6, 7, 8), ("0", "1", "2")
SETS = {"test": "QM7 test", "QM9": "QM9", "chains": "chains"}
SIZED_BY = "direct, F"
BOND_PART, AGAINST, UNITS = "bonds", ", against STO-3G", ("eV", "eV", "e·bohr", "bohr³")
FAMILIES = {
    "polyene": ("polyene_C02", "polyene_C04", "polyene_C06", "polyene_C08", "polyene_C10", "polyene_C12"),
    "acene": ("acene_1", "acene_2", "acene_3", "acene_4"),
    "aminopolyenoic": tuple(f"aminopolyenoic_{n}" for n in range(1, 6)),
    "omega_amino_acid": tuple(f"omega_amino_acid_{n}" for n in range(1, 7)),
}
CHAINS = tuple(name for own in FAMILIES.values() for name in own)
OBSERVABLES = ("mo_energies", "homo_lumo_gap", "dipole", "polarizability")
BONDS = "mayer_bond_orders"
LEVELS: dict[str, Scheduled] = {name: WEIGHTS[name] for name in OBSERVABLES[:2]}
TARGETS: dict[str, dict[str, Scheduled]] = {
    "ε": LEVELS,
    "εμ": LEVELS | {"dipole": WEIGHTS["dipole"]},
    "εμα": {**WEIGHTS},
    "εμα, bonds": {**WEIGHTS, BONDS: WEIGHTS["dipole"]},
}


class Method(NamedTuple):
    """Basis of F, that of the labels, and the sets of targets; none: the elements of F."""

    orbital: str
    labels: str
    targets: tuple[str, ...] = ("ε", "εμ", "εμα")


METHODS = {
    "direct": Method(SMALL, SMALL, ()),
    "indirect": Method(SMALL, SMALL),
    "upscaled": Method(SMALL, LARGE),
    "upscaled, 6-31G": Method(MIDDLE, LARGE),
    "upscaled with bonds": Method(SMALL, LARGE, ("εμα, bonds",)),
    "6-31G with bonds": Method(MIDDLE, LARGE, ("εμα, bonds",)),
}
PROPERTIES = {
    "λ-SOAP": soap,
    "V powers": v_power(("overlap", "external"), "def2-svp", "raw"),
}


def labels() -> None:
    """What has none yet, small molecules first."""
    molecules = sorted(transfer_molecules(CHAINS).items(), key=lambda row: row[1].natm)
    label_all([(TRANSFER, name, m, (SMALL, LARGE)) for name, m in molecules])


def parts_of(split: str, bonds: bool) -> dict[str, list[Sample]]:
    """Samples by their use; with `bonds` those that have bond orders, which are QM7's alone."""
    dataset, known = qm7_dataset(seed=int(split)), bond_orders() if bonds else {}
    parts = {part: list(dataset.split(part)) for part in ("train", "validation", "test")}
    if bonds:
        return {part: [_with(s, known) for s in own if s.name in known] for part, own in parts.items()}
    transfer = transfer_dataset(CHAINS).samples
    parts["QM9"] = [s for s in transfer if s.name.startswith("qm9")]
    return parts | {"chains": [s for s in transfer if not s.name.startswith("qm9")]}


def _with(sample: Sample, known: Mapping[str, np.ndarray]) -> Sample:
    own = {**sample.labels[LARGE], BONDS: known[sample.name]}
    return dataclasses.replace(sample, labels={**sample.labels, LARGE: own})


def titles_of(name: str) -> dict[str, str]:
    """Titles of the rows of a method, the closed form first, and their folders."""
    method = METHODS[name]
    titles = [f"{name}, {targets}" for targets in ("closed form", *(method.targets or ("F",)))]
    return {title: title.replace(", ", "-").replace(" ", "_") for title in titles}


def train_rows(split: str, name: str) -> None:
    """The models of a method, for every set of targets."""
    from vpotjax.io.model import save_model
    from vpotjax.io.run import write_config
    from vpotjax.models.ensemble import Ensemble
    from vpotjax.train.fit import aligned_matrices, fit, linear_fit, prepared, whitened
    from vpotjax.train.samples import Labels
    from vpotjax.train.stages import split_buckets

    method, parts = METHODS[name], parts_of(split, "bonds" in name)
    settings = Training(orbital_basis=method.orbital).settings(SPECIES, SMALL)
    names = (*OBSERVABLES, *((BONDS,) if "bonds" in name else ()))
    learned = Labels(method.labels, SMALL, names, method.orbital)
    seen = {part: parts[part] for part in ("train", "validation")}
    train, validation = split_buckets(seen, settings, learned, 4).values()

    def keep(title: str, model: Any, start: float) -> None:
        folder = RUNS / split / titles_of(name)[title]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_config(folder, model.settings, {})
        (folder / "seconds.txt").write_text(f"{time.perf_counter() - start:.0f}\n")
        save_model(folder, model)  # last: with it the row is finished

    begun = time.perf_counter()
    matrices = aligned_matrices if method.targets else lambda b: b.reference.values["fock"]
    closed = linear_fit(train, validation, settings, whitened(train, settings), matrices)
    keep(f"{name}, closed form", Ensemble.of([closed]), begun)
    start = dataclasses.replace(closed, scale=np.asarray(CORRECTION)) if method.targets else closed
    train, validation = prepared(train, start), prepared(validation, start)
    if method.targets:
        train, validation = ([b.with_labels(learned.names) for b in own] for own in (train, validation))
    for targets in method.targets or ("F",):
        training = Training(weights=TARGETS[targets]) if method.targets else Training(elements=1.0)
        begun = time.perf_counter()
        fitted = fit(start, settings, train, validation, training.loss(float(closed.scale)), Descent(STEPS))
        keep(f"{name}, {targets}", fitted.model, begun)


def trained(split: str) -> Iterator[tuple[str, Method, Path]]:
    """Titles, methods and folders of the rows that are there."""
    from vpotjax.io.run import CHECKPOINT

    for name, method in METHODS.items():
        for title, folder in titles_of(name).items():
            own = RUNS / split / folder
            if (own / CHECKPOINT).exists():
                yield title, method, own


def measure_matrices(kept: Kept, split: str, part: str) -> None:
    """Of the rows that are there on one set, what is not known yet; bond orders where `part` says so."""
    from vpotjax.io.model import load_model
    from vpotjax.train.evaluate import evaluated, small_basis_errors
    from vpotjax.train.samples import Labels, prepared_buckets

    bonds, made = part == BOND_PART, {}
    wanted = parts_of(split, bonds)["test" if bonds else part]
    for title, method, folder in trained(split):
        stamp = [(folder / "seconds.txt").stat().st_mtime, len(wanted)]  # of what was trained, and labelled
        both = (part, method.labels) == ("test", SMALL)
        rows = {title: LARGE} | ({title + AGAINST: SMALL} if both else {})
        for name, basis in rows.items():
            if kept.of(part).get(name, {}).get("stamp") == stamp:
                continue
            model, names = load_model(folder), (BONDS,) if bonds else OBSERVABLES
            if (method.orbital, basis) not in made:
                labels = Labels(basis, SMALL, names)
                made[method.orbital, basis] = [b for _, b in prepared_buckets(wanted, model.settings, labels, 2)]
            buckets = made[method.orbital, basis]
            evaluation = evaluated(model, buckets, names)
            row: dict[str, Any] = {"errors": _errors(evaluation.summary), "stamp": stamp}
            row["seconds"] = int((folder / "seconds.txt").read_text())
            if not bonds and basis == LARGE:
                row["basis set"] = _errors(small_basis_errors(buckets, OBSERVABLES).summary)
                row |= {"names": evaluation.names, "natm": evaluation.natm.tolist()}
                row |= {key: _pairs(evaluation.pairs[key]) for key in OBSERVABLES[2:]}
            kept.add(part, name, row)


class Kept:
    """Rows by set and title, in a file that has each as soon as it is there."""

    def __init__(self, split: str) -> None:
        self.file = RUNS / f"errors-{split}.json"
        self.rows: dict[str, dict[str, Any]] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def of(self, part: str) -> dict[str, Any]:
        """Rows of a set."""
        return self.rows.setdefault(part, {})

    def add(self, part: str, title: str, row: dict[str, Any]) -> None:
        """One more."""
        self.of(part)[title] = row
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.rows, ensure_ascii=False))
        unfinished.rename(self.file)
        print(part, title, row["errors"], flush=True)


def _errors(summary: Mapping[str, Any]) -> dict[str, float]:
    """RMSE of norms, and of the gap the mean absolute error."""
    return {key: float(own.mean_absolute if key == OBSERVABLES[1] else own.rms_norm) for key, own in summary.items()}


def _pairs(pairs: tuple[np.ndarray, np.ndarray]) -> list[list[float]]:
    return [np.asarray(x).ravel().tolist() for x in pairs]


def property_errors(split: str, name: str) -> dict[str, dict[str, Any]]:
    """Of ridge regressions of the dipole and the polarizability, on training and validation molecules, by set."""
    from vpotjax.models.property_model import PROPERTIES as IRREPS
    from vpotjax.models.property_model import from_irreps, to_irreps
    from vpotjax.operators.features import SCALAR

    make: Maker = PROPERTIES[name]
    parts = parts_of(split, False)
    parts = {"train": [*parts.pop("train"), *parts.pop("validation")]} | parts
    every = [s for own in parts.values() for s in own]
    ends = np.cumsum([0, *(len(own) for own in parts.values())])
    places = {part: np.arange(*ends[i : i + 2]) for i, part in enumerate(parts)}
    molecules, begun = [s.molecule for s in every], time.perf_counter()
    natm = np.array([m.natm for m in molecules])
    atoms = np.array([[(np.asarray(m.numbers) == z).sum() for z in species_of(molecules)] for m in molecules], float)
    rows: dict[str, Any] = {part: {"errors": {}, "basis set": {}} for part in parts if part != "train"}
    for target in OBSERVABLES[2:]:
        wanted, small = (np.stack([s.labels[basis][target] for s in every]) for basis in (LARGE, SMALL))
        features, labels = make(molecules, target), to_irreps(wanted, target)
        values = {
            irrep: ridge_values(features[irrep], labels[irrep], places["train"], atoms if irrep == SCALAR else None)
            for irrep in IRREPS[target]
        }
        predicted = np.asarray(from_irreps(values, target))
        for part, own in rows.items():
            chosen = places[part]
            for key, other in (("errors", predicted), ("basis set", small)):
                norms = np.linalg.norm((other - wanted)[chosen].reshape(len(chosen), -1), axis=1) / natm[chosen]
                own[key][target] = float(np.sqrt(np.mean(norms**2)))
            own |= {"names": [every[i].name for i in chosen], "natm": natm[chosen].tolist()}
            own |= {target: _pairs((predicted[chosen], wanted[chosen]))}
            own["seconds"] = round(time.perf_counter() - begun)
    return rows


def ridge_values(x: Sums, y: np.ndarray, train: np.ndarray, atoms: np.ndarray | None) -> np.ndarray:
    """(n, 2λ+1) of all molecules by the ridge that is fitted on `train`."""
    from vpotjax.train.property_fit import fit_sums
    from vpotjax.train.ridge import fold_numbers

    constants = None if atoms is None else atoms[train]
    fit = fit_sums(x.values[train], y[train], x.matrices, fold_numbers(np.arange(len(train))), constants)
    values = np.einsum("nkcm,kc->nm", x.values, fit.weights)
    return values if atoms is None else values + atoms @ fit.constants


def run(*splits: str) -> None:
    """All models that are not there yet."""
    import jax

    from vpotjax.io.run import CHECKPOINT

    jax.config.update("jax_enable_x64", True)
    for split in splits or SPLITS:
        for name in METHODS:
            if not all((RUNS / split / folder / CHECKPOINT).exists() for folder in titles_of(name).values()):
                train_rows(split, name)
                print(split, name, flush=True)
                jax.clear_caches()


def measure(*splits: str) -> None:
    """Errors of what is trained, of molecules that have labels now; finished ones are kept."""
    import jax

    jax.config.update("jax_enable_x64", True)
    for split in splits or SPLITS:
        kept = Kept(split)
        for part in (*SETS, BOND_PART):
            measure_matrices(kept, split, part)
            jax.clear_caches()
        counts = {part: len(own) for part, own in parts_of(split, False).items() if part in SETS}
        for name in PROPERTIES:
            if any(len(kept.of(part).get(name, {}).get("names", ())) != n for part, n in counts.items()):
                for part, row in property_errors(split, name).items():
                    kept.add(part, name, row)


def report() -> None:
    """Tables of what is measured: errors by row, then of the chains one by one."""
    files = [RUNS / f"errors-{split}.json" for split in SPLITS]
    splits = [json.loads(file.read_text()) for file in files if file.exists()]
    for part, title in SETS.items():
        own = [s[part] for s in splits if SIZED_BY in s.get(part, {})]
        sizes = [s[SIZED_BY]["basis set"] for s in own]
        print(f"\n{title}: error over that of STO-3G, mean of the splits (their range)\n")
        print("| row | ε | gap | μ | α | training, s |\n|---|---|---|---|---|---|")
        for name, row in own[0].items():
            if not name.endswith(AGAINST):
                print(f"| {name} | {_cells(own, name, sizes)} | {row.get('seconds', '')} |")
        cells = [f"{np.mean([s[key] for s in sizes]):.4g} {u}" for key, u in zip(OBSERVABLES, UNITS, strict=True)]
        print(f"| STO-3G, {len(own[0][SIZED_BY]['names'])} molecules | {' | '.join(cells)} | |")
    own = [s["test"] for s in splits]
    print("\nQM7 test, against STO-3G's own observables\n\n| row | ε | gap | μ | α |\n|---|---|---|---|---|")
    for name in own[0]:
        if name.endswith(AGAINST):
            print(f"| {name.removesuffix(AGAINST)} | {_cells(own, name)} |")
    print("\nBond orders of QM7 test molecules that have them, rms of norms per atom\n\n| row | |\n|---|---|")
    own = [s.get(BOND_PART, {}) for s in splits]
    for name in own[0]:
        print(f"| {name} | {_cells(own, name, keys=(BONDS,))} |")
    chains([s["chains"] for s in splits])


def _cells(
    splits: Sequence[Mapping[str, Any]],
    name: str,
    sizes: Sequence[Mapping[str, float]] | None = None,
    keys: Sequence[str] = OBSERVABLES,
) -> str:
    """Of a row, over the splits that have it: the mean of each error, in units of `sizes`, and its range."""
    cells = []
    for key in keys:
        known = [
            own[name]["errors"][key] / (sizes[i][key] if sizes else 1.0)
            for i, own in enumerate(splits)
            if key in own.get(name, {}).get("errors", {})
        ]
        spread = f" ({np.ptp(known):.2g})" if len(known) > 1 else ""
        cells.append(f"{np.mean(known):#.3g}{spread}" if known else "")
    return " | ".join(cells)


def chains(splits: Sequence[Mapping[str, dict[str, Any]]]) -> None:
    """Isotropic polarizability per atom, and the norm of the dipole: means over the splits, and their range."""
    shown = ("λ-SOAP", "V powers", "direct, F", "upscaled, εμα", "upscaled, 6-31G, εμα")
    found = {name: [rows[name] for rows in splits] for name in shown if all(name in rows for rows in splits)}
    for key, families, head in (
        ("polarizability", ("polyene", "acene"), "α/3 tr per atom, bohr³"),
        ("dipole", ("aminopolyenoic", "omega_amino_acid"), "|μ|, e·bohr"),
    ):
        print(f"\n{head}\n\n| molecule | B3LYP/def2-TZVP | {' | '.join(found)} |\n|---|---|{'---|' * len(found)}")
        for name in (name for family in families for name in FAMILIES[family]):
            values = [[_value(own, name, key) for own in rows] for rows in found.values()]
            known = [np.array([v for v in own if v is not None]) for own in values]  # (splits, 2)
            if known and len(known[0]):
                cells = [f"{own[:, 0].mean():.3f} ({np.ptp(own[:, 0]):.2g})" for own in known]
                print(f"| {name} | {known[0][0, 1]:.3f} | {' | '.join(cells)} |")


def _value(own: Mapping[str, Any], name: str, key: str) -> tuple[float, float] | None:
    """Predicted and reference."""
    if name not in own["names"]:
        return None
    i = own["names"].index(name)
    tensors = (np.reshape(x, (len(own["names"]), -1))[i] for x in own[key])
    if key == "dipole":
        predicted, wanted = (float(np.linalg.norm(t)) for t in tensors)
    else:
        predicted, wanted = (float(np.trace(t.reshape(3, 3))) / 3 / own["natm"][i] for t in tensors)
    return predicted, wanted


if __name__ == "__main__":
    os.environ.update(SINGLE_THREAD)
    what, *rest = sys.argv[1:] or ["report"]
    {"labels": labels, "run": run, "measure": measure, "report": report}[what](*rest)
