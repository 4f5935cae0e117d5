"""One-electron integrals against PySCF (libcint) and PySCFAD, in one process, interleaved, one thread each.

    python -m benchmarks.integrals                     all cases, each in its own process; writes the tables
    python -m benchmarks.integrals case aspirin def2-tzvp   one of them, with the threads of the environment

Finished cases are kept in --partial and not run again. The 32 QM7 molecules need the shared data.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.runs import interleaved, resumed

MOLECULES = ["H2O", "C6H6", "aspirin", "C20H42", "QM7"]
BASES = ["sto-3g", "def2-svp", "def2-tzvp"]
QM7 = Path(__file__).parents[2] / "shared" / "data" / "qm7.extxyz.gz"
SCALING_CARBONS = [2, 4, 8, 16, 31, 62]
ORIGIN = (0.0, 0.0, 0.0)


def operators() -> dict[str, Callable[..., Any]]:
    """Functions of (basis, positions, pairs)."""
    import jax.numpy as jnp

    import vpotjax as vp

    single = {
        "S": lambda b, r, p: vp.overlap(b, r, pairs=p),
        "T": lambda b, r, p: vp.kinetic(b, r, pairs=p),
        "r": lambda b, r, p: vp.position_integrals(b, r, jnp.array(ORIGIN), pairs=p),
        "V": lambda b, r, p: vp.external_potential(b, r, pairs=p),
    }
    return single | {"all": lambda b, r, p: tuple(function(b, r, p) for function in single.values())}


LIBCINT = {"S": ["int1e_ovlp"], "T": ["int1e_kin"], "r": ["int1e_r"], "V": ["int1e_nuc"]}
LIBCINT["all"] = [name for names in LIBCINT.values() for name in names]


def molecules_of(name: str) -> list[Any]:
    """One molecule, or the 32 of QM7 that stand at equal distances in the file."""
    if name != "QM7":
        from benchmarks.structures import structure

        return [structure(name)]
    from ase.io import iread

    from vpotjax.molecule import Molecule

    return [Molecule.from_ase(atoms) for i, atoms in enumerate(iread(QM7)) if i % 220 == 7][:32]


def per_nucleus(mole: Any) -> list[Any]:
    """libcint's terms of V."""
    terms = []
    for atom in range(mole.natm):
        with mole.with_rinv_at_nucleus(atom):
            terms.append(-mole.atom_charge(atom) * mole.intor("int1e_rinv"))
    return terms


def pyscfad_functions(molecule: Any, basis: str, mole: Any, weights: Any) -> dict[str, Callable[[], Any]]:
    """PySCFAD's jitted V and gradient of tr(W V)."""
    import jax
    import jax.numpy as jnp
    from pyscfad.gto import MoleLite

    shells = mole._basis

    def value(coords: Any) -> Any:
        own = MoleLite(symbols=tuple(molecule.symbols), coords=coords, basis=shells, verbose=0)
        return jnp.sum(weights * own.intor("int1e_nuc"))

    positions, jitted, gradient = jnp.asarray(molecule.positions), jax.jit(value), jax.jit(jax.grad(value))
    return {"V": lambda: jitted(positions), "gradient": lambda: gradient(positions)}


def run_case(name: str, basis_name: str) -> dict[str, Any]:
    """All figures of one molecule (or batch) and basis."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import vpotjax as vp
    from tests.integrals.reference import reference_gradient
    from vpotjax.interop.pyscf import to_pyscf

    jax.config.update("jax_enable_x64", True)
    molecules = molecules_of(name)
    moles = [to_pyscf(m, basis_name) for m in molecules]
    batch = vp.pad_batch(molecules, basis_name)
    one = len(molecules) == 1
    basis, positions = (batch[0].basis, jnp.asarray(batch[0].positions)) if one else (batch.basis, batch.positions)
    screened = one and sum(len(s.exponents) for s in basis.shells) > 400
    capacity = vp.significant_pairs(basis, positions).capacity if screened else None

    def whole(function: Callable[..., Any]) -> Callable[..., Any]:
        def single(arguments: tuple[Any, Any]) -> Any:
            pairs = None if capacity is None else vp.significant_pairs(*arguments, capacity=capacity)
            return function(*arguments, pairs)

        return jax.jit(single if one else lambda arguments: jax.lax.map(single, arguments))

    nao = basis.nao if one else max(m.nao for m in moles)
    weights = np.random.default_rng(0).standard_normal((nao, nao))
    weights = weights + weights.T
    tasks = dict(operators())
    tasks["gradient"] = jax.grad(lambda b, r, p: jnp.sum(weights * vp.external_potential(b, r, pairs=p)), argnums=1)
    if one:
        tasks["V per nucleus"] = lambda b, r, p: vp.nuclear_attraction(b, r, pairs=p)
    arguments = jax.device_put((basis, positions))
    row: dict[str, Any] = {"molecule": name, "basis": basis_name, "nao": int(nao), "molecules": len(molecules)}
    row |= {"screened": screened, "compile": {}, "ours": {}, "libcint": {}, "pyscfad": {}}
    for task, function in tasks.items():
        start = time.perf_counter()
        jitted: Any = whole(function)
        program = jitted.lower(arguments).compile()
        row["compile"][task] = time.perf_counter() - start
        functions: dict[str, Callable[[], Any]] = {"ours": lambda p=program: p(arguments)}
        if task in LIBCINT:
            functions["libcint"] = lambda t=task: [mole.intor(n) for mole in moles for n in LIBCINT[t]]
        elif task == "gradient":
            functions["libcint"] = lambda: [
                reference_gradient(m, "external_potential", weights[: m.nao, : m.nao]) for m in moles
            ]
        else:
            functions["libcint"] = lambda: [per_nucleus(mole) for mole in moles]
        if one and task in ("V", "gradient"):
            functions["pyscfad"] = pyscfad_functions(molecules[0], basis_name, moles[0], weights)[task]
        start = time.perf_counter()
        functions[list(functions)[-1]]()
        repeats = int(min(15, max(3, 20 / (time.perf_counter() - start + 1e-4))))
        for who, seconds in interleaved(functions, repeats).items():
            row[who][task] = seconds
    return row


def run_memory(name: str, basis_name: str) -> dict[str, Any]:
    """Peak resident memory, GiB, after imports, after V, and after its gradient as well, compilation included."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp

    jax.config.update("jax_enable_x64", True)
    molecule = molecules_of(name)[0]
    basis, positions = vp.load_basis(basis_name, molecule.numbers), jnp.asarray(molecule.positions)
    row: dict[str, Any] = {"molecule": name, "basis": basis_name, "nao": basis.nao}
    row["start"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    functions = {
        "V": lambda r: jnp.sum(vp.external_potential(basis, r) ** 2),
        "gradient": jax.grad(lambda r: jnp.sum(vp.external_potential(basis, r) ** 2)),
    }
    for task, function in functions.items():
        jax.block_until_ready(jax.jit(function)(positions))
        row[task] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def run_compile(name: str, basis_name: str) -> dict[str, Any]:
    """Seconds to trace and compile V and its gradient, without a cache, on all cores."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp

    jax.config.update("jax_enable_x64", True)
    molecule = molecules_of(name)[0]
    basis, positions = vp.load_basis(basis_name, molecule.numbers), jnp.asarray(molecule.positions)
    row: dict[str, Any] = {"molecule": name, "basis": basis_name}
    functions = {
        "V": vp.external_potential,
        "gradient": jax.grad(lambda b, r: jnp.sum(vp.external_potential(b, r)), argnums=1),
    }
    for task, function in functions.items():
        start = time.perf_counter()
        jax.jit(function).lower(basis, positions).compile()
        row[task] = time.perf_counter() - start
    return row


def run_scaling(carbons: str, screened: str) -> dict[str, Any]:
    """S, T, V and r together for an alkane in def2-SVP, with and without lists of pairs."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from benchmarks.structures import alkane
    from vpotjax.interop.pyscf import to_pyscf

    jax.config.update("jax_enable_x64", True)
    molecule = vp.Molecule.from_ase(alkane(int(carbons)))
    basis, positions = vp.load_basis("def2-svp", molecule.numbers), jnp.asarray(molecule.positions)
    capacity = vp.significant_pairs(basis, positions).capacity if screened == "lists" else None

    @jax.jit
    def together(r: Any) -> Any:
        pairs = None if capacity is None else vp.significant_pairs(basis, r, capacity=capacity)
        return operators()["all"](basis, r, pairs)

    mole = to_pyscf(molecule, "def2-svp")
    functions = {
        "ours": lambda: together(positions),
        "libcint": lambda: [mole.intor(name) for name in LIBCINT["all"]],
    }
    seconds = interleaved(functions, 5 if int(carbons) > 20 else 11)
    return {"carbons": int(carbons), "nao": basis.nao, "lists": screened == "lists"} | seconds


def run_programs() -> dict[str, Any]:
    """V of all of QM7 in def2-SVP: programs compiled, seconds with compilation and without."""
    import jax
    from ase.io import iread

    import vpotjax as vp
    from vpotjax.batching import buckets

    jax.config.update("jax_enable_x64", True)
    molecules = [vp.Molecule.from_ase(atoms) for atoms in iread(QM7)]
    groups = buckets(molecules, "def2-svp")

    @jax.jit
    def potentials(basis: Any, positions: Any) -> Any:
        return jax.lax.map(lambda arguments: vp.external_potential(*arguments), (basis, positions))

    row: dict[str, Any] = {"molecules": len(molecules)}
    for label in ("first", "second"):
        seconds = 0.0
        for group, shape in groups:
            for start in range(0, len(group), 64):
                part = [molecules[i] for i in group[start : start + 64]]
                batch = vp.pad_batch(part + part[:1] * (64 - len(part)), "def2-svp", shape)
                begin = time.perf_counter()
                potentials(batch.basis, batch.positions).block_until_ready()
                seconds += time.perf_counter() - begin
        row[label] = seconds
    jitted: Any = potentials
    return row | {"programs": jitted._cache_size()}


DESIGNS = {"stacked": -1, "written out": 99, "mixed": None}


def run_design(kind: str, name: str, basis_name: str) -> dict[str, Any]:
    """V and its gradient with recurrences over stacked arrays, written out, or mixed as in the package."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.integrals import charges, hermite

    jax.config.update("jax_enable_x64", True)
    highest = DESIGNS[kind]
    if highest is not None:
        charges.WRITTEN_OUT = hermite.WRITTEN_OUT = highest
    molecule = molecules_of(name)[0]
    basis, positions = vp.load_basis(basis_name, molecule.numbers), jnp.asarray(molecule.positions)
    functions = {
        "V": lambda r: jnp.sum(vp.external_potential(basis, r) ** 2),
        "gradient": jax.grad(lambda r: jnp.sum(vp.external_potential(basis, r) ** 2)),
    }
    row: dict[str, Any] = {"design": kind, "molecule": name, "basis": basis_name}
    for task, function in functions.items():
        start = time.perf_counter()
        program = jax.jit(function).lower(positions).compile()
        row[f"{task} compile"] = time.perf_counter() - start
        row[task] = interleaved({task: lambda p=program: p(positions)}, 9)[task]
    return row


RUNS = {
    "case": run_case,
    "design": run_design,
    "memory": run_memory,
    "scaling": run_scaling,
    "compile": run_compile,
    "programs": run_programs,
}


def all_runs() -> list[tuple[str, ...]]:
    names = [m for m in MOLECULES if m != "QM7" or QM7.exists()]
    runs: list[tuple[str, ...]] = [("case", m, b) for m in names for b in BASES]
    runs += [("scaling", str(n), kind) for n in SCALING_CARBONS for kind in ("all", "lists")]
    runs += [("design", kind, "C6H6", "def2-svp") for kind in DESIGNS]
    runs += [("design", kind, "aspirin", "def2-tzvp") for kind in ("stacked", "mixed")]
    runs += [("compile", m, "def2-tzvp") for m in ("H2O", "aspirin")]
    runs += [("memory", "aspirin", "def2-tzvp"), ("memory", "C20H42", "def2-tzvp")]
    return runs + ([("programs",)] if QM7.exists() else [])


def main(partial: Path = Path("integrals.partial.json"), output: Path = Path("integrals.results.md")) -> None:
    """Run what is missing, then print the tables and write them.

    Args:
        partial: finished cases, so that a run can be resumed.
        output: the tables.
    """
    results = resumed("benchmarks.integrals", all_runs(), partial, all_cores=("compile",))
    from benchmarks.integrals_report import report

    tables = report({kind: [r for key, r in results.items() if key.split()[0] == kind] for kind in RUNS})
    output.write_text(tables)
    print(tables)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in RUNS:
        print(json.dumps(RUNS[sys.argv[1]](*sys.argv[2:])))
    else:
        import tyro

        tyro.cli(main)
