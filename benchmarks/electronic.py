"""The electronic layer: loss on ε, μ and α with its gradient in F, against PySCFAD and against bare eigenproblems.

    python -m benchmarks.electronic                     all runs, each in its own process; writes the tables
    python -m benchmarks.electronic qm7 sto-3g float64  one of them, with the threads of the environment

The peer is the published route for training through observables (Suman et al. 2025): for one molecule after the other
a PySCFAD molecule and mean-field object are built, F and S go through its eigensolver, the dipole through its
`dip_moment`, the polarizability is the Jacobian of the dipole in a field, and JAX differentiates all of it, without
jit, because every molecule has another shape. "PySCFAD, jitted" is the most that a user could make of it: one program
per molecule, compilation not counted, α as the closed sum over its orbitals, integrals given.

Finished runs are kept in --partial and not repeated. The QM7 molecules need the shared data.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.integrals import QM7, molecules_of
from benchmarks.runs import interleaved, resumed
from benchmarks.structures import alkane

SIZES = [(32, 40), (32, 80), (32, 160), (32, 320), (8, 160), (128, 160)]


def loss_functions(targets: Any, max_occupied: int | None = None) -> Callable[..., Any]:
    """Loss of one molecule as a function of F; `targets` are (ε, μ, α), `max_occupied` as in `orbitals`."""
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.electronic.polarizability import dipole_and_polarizability

    def loss(fock: Any, overlap: Any, position: Any, positions: Any, charges: Any, nelec: Any, mask: Any) -> Any:
        orbitals = vp.orbitals(fock, overlap, nelec, mask, max_occupied=max_occupied)
        dipole, alpha = dipole_and_polarizability(orbitals, position, positions, charges)
        error = jnp.where(mask, orbitals.mo_energies[0] - targets[0], 0.0)
        return jnp.sum(error**2) + jnp.sum((dipole - targets[1]) ** 2) + jnp.sum((alpha - targets[2]) ** 2)

    return loss


def batch_of(molecules: list[Any], basis: str, dtype: str) -> tuple[Any, ...]:
    """F (T + SAP), S, r, positions, charges, electrons and mask of a padded batch."""
    import jax
    import jax.numpy as jnp

    import vpotjax as vp
    from vpotjax.models.matrix_model import baseline_fock

    batch = jax.tree.map(jnp.asarray, vp.pad_batch(molecules, basis))

    def matrices(molecule: Any) -> Any:
        basis, positions = molecule.basis, molecule.positions
        position = vp.position_integrals(basis, positions, jnp.zeros(3))
        fock, mask = baseline_fock(basis, positions, "sap"), basis.ao_mask
        return fock, vp.overlap(basis, positions), position, positions, basis.nuclear_charges, molecule.nelec, mask

    results = jax.block_until_ready(jax.jit(lambda b: jax.lax.map(matrices, b))(batch))
    return tuple(r.astype(dtype) if jnp.issubdtype(r.dtype, jnp.floating) else r for r in results)


def zero_targets(nao: int) -> tuple[Any, ...]:
    import numpy as np

    return np.zeros(nao), np.ones(3), np.eye(3)


def bare_eigh(arrays: tuple[Any, ...]) -> Any:
    """Batched `jnp.linalg.eigh` of the same matrices in an orthonormal basis, the yardstick."""
    import jax
    import jax.numpy as jnp

    from vpotjax.electronic.orthogonalisation import orthogonal_fock, orthogonaliser

    matrices = jax.vmap(lambda f, s, m: orthogonal_fock(f, orthogonaliser(s, m)))(arrays[0], arrays[1], arrays[-1])
    function = jax.jit(jnp.linalg.eigh)
    return lambda: function(matrices)


def run_qm7(basis: str, dtype: str) -> dict[str, Any]:
    """32 QM7 molecules in one program."""
    import jax

    import vpotjax as vp
    from vpotjax.electronic.purification import purified_density_matrix

    jax.config.update("jax_enable_x64", True)
    molecules = molecules_of("QM7")
    arrays = batch_of(molecules, basis, dtype)
    nao = arrays[0].shape[-1]
    loss = loss_functions(zero_targets(nao), max(m.nelec(vp.load_basis(basis, m.numbers)) for m in molecules) // 2)
    gradient = jax.grad(loss)

    def batched(function: Callable[..., Any]) -> dict[str, Any]:
        mapped = jax.jit(lambda a: jax.lax.map(lambda one: function(*one), a))
        return {"map": lambda: mapped(arrays), "vmap": functools.partial(jax.jit(jax.vmap(function)), *arrays)}

    def density(f: Any, s: Any, _r: Any, _x: Any, _z: Any, n: Any, m: Any) -> Any:
        return vp.density_matrix(f, s, n, m)

    def purified(f: Any, s: Any, _r: Any, _x: Any, _z: Any, n: Any, m: Any) -> Any:
        return purified_density_matrix(f, s, n, m)

    functions: dict[str, Callable[[], Any]] = {"eigh": bare_eigh(arrays)}
    for name, function in {"loss": loss, "gradient": gradient, "P": density, "P purified": purified}.items():
        functions |= {f"{name} {way}": call for way, call in batched(function).items()}
    functions["gradient in buckets"] = bucketed_gradient(molecules, basis, dtype)
    if dtype == "float64":
        functions |= pyscfad_routes(molecules, basis, arrays)
    row = {"basis": basis, "dtype": dtype, "nao": nao, "molecules": len(molecules)}
    if dtype == "float64":
        row["largest difference from PySCFAD, jitted"] = _difference(
            functions["gradient map"](), functions["PySCFAD, jitted"]()
        )
    seconds = interleaved(functions, 5)
    row["share of eigh in the gradient"] = seconds["eigh"] / seconds["gradient map"]
    return row | {name: 1e3 * value for name, value in seconds.items()}


def bucketed_gradient(molecules: list[Any], basis: str, dtype: str, count: int = 6) -> Callable[[], Any]:
    """The gradient of all molecules, in at most `count` batches of similar size, as in training."""
    import jax

    import vpotjax as vp
    from vpotjax.batching import buckets

    calls = []
    for group, _ in buckets(molecules, basis, count):
        own = [molecules[i] for i in group]
        arrays = batch_of(own, basis, dtype)
        most = max(m.nelec(vp.load_basis(basis, m.numbers)) for m in own) // 2
        gradient = jax.grad(loss_functions(zero_targets(arrays[0].shape[-1]), most))
        mapped = jax.jit(lambda a, f=gradient: jax.lax.map(lambda one: f(*one), a))
        calls.append((mapped, arrays))
    return lambda: [mapped(arrays) for mapped, arrays in calls]


def _difference(ours: Any, theirs: list[Any]) -> float:
    """Largest difference between gradients of molecules, relative to the largest element of each, symmetrised."""
    import numpy as np

    differences = []
    for i, other in enumerate(theirs):
        n = len(other)
        own = np.asarray(ours[i])[:n, :n]
        error = own + own.T - other - other.T
        differences.append(np.abs(error).max() / np.abs(own + own.T).max())
    return float(max(differences))


def pyscfad_routes(molecules: list[Any], basis: str, arrays: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Loss gradients by PySCFAD, molecule by molecule; see the head of this file."""
    import jax
    import jax.numpy as jnp
    from pyscfad import gto
    from pyscfad.ml.scf import hf

    from vpotjax.interop.pyscf import to_pyscf

    moles = [to_pyscf(m, basis) for m in molecules]
    focks = [jnp.asarray(arrays[0][i, : mole.nao, : mole.nao]) for i, mole in enumerate(moles)]
    shells = [mole._basis for mole in moles]

    def mean_field(i: int) -> Any:
        mol = gto.Mole()
        mol.atom = [(s, tuple(r)) for s, r in zip(molecules[i].symbols, molecules[i].positions, strict=True)]
        mol.unit, mol.basis, mol.verbose = "Bohr", shells[i], 0
        mol.build(trace_coords=False, trace_exp=False, trace_ctr_coeff=False)
        return hf.SCF(mol)

    def published(fock: Any, mf: Any, targets: Any) -> Any:
        overlap, position = mf.get_ovlp(), mf.mol.intor("int1e_r")

        def dipole(field: Any) -> Any:
            energies, coefficients = mf.eig(fock + jnp.einsum("x,xpq->pq", field, position), overlap)
            density = mf.make_rdm1(coefficients, mf.get_occ(energies, coefficients))
            return mf.dip_moment(mf.mol, density, unit="AU", verbose=0)

        energies, _ = mf.eig(fock, overlap)
        value, alpha = dipole(jnp.zeros(3)), jax.jacrev(dipole)(jnp.zeros(3))
        terms = (energies - targets[0], value - targets[1], alpha - targets[2])
        return sum(jnp.sum(t**2) for t in terms)

    def published_loop() -> Any:
        return [jax.grad(published)(f, mean_field(i), zero_targets(len(f))) for i, f in enumerate(focks)]

    def closed(fock: Any, mf: Any, nocc: int, constants: Any, targets: Any) -> Any:
        overlap, position, nuclear = constants
        energies, coefficients = mf.eig(fock, overlap)
        occupied, virtual = coefficients[:, :nocc], coefficients[:, nocc:]
        between = jnp.einsum("xpq,pi,qa->xia", position, occupied, virtual, optimize=True)
        alpha = 4 * jnp.einsum("xia,yia->xy", between / (energies[nocc:] - energies[:nocc, None]), between)
        value = nuclear - 2 * jnp.einsum("xpq,pi,qi->x", position, occupied, occupied, optimize=True)
        terms = (energies - targets[0], value - targets[1], alpha - targets[2])
        return sum(jnp.sum(t**2) for t in terms)

    programs = []
    for i, (mole, fock) in enumerate(zip(moles, focks, strict=True)):
        nuclear = mole.atom_charges() @ mole.atom_coords()
        constants = tuple(map(jnp.asarray, (mole.intor("int1e_ovlp"), mole.intor("int1e_r"), nuclear)))
        function = functools.partial(closed, mf=mean_field(i), nocc=mole.nelectron // 2, targets=zero_targets(mole.nao))
        programs.append((jax.jit(jax.grad(lambda f, c, g=function: g(f, constants=c))), fock, constants))
    return {
        "PySCFAD": published_loop,
        "PySCFAD, jitted": lambda: [program(fock, constants) for program, fock, constants in programs],
    }


def run_scaling(batch: str, nao: str, dtype: str) -> dict[str, Any]:
    """Random well-conditioned F and S with an open gap."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    count, n = int(batch), int(nao)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count, n, n)) / np.sqrt(n)
    levels = np.concatenate([np.linspace(-2.0, -0.4, n // 3), np.linspace(0.4, 3.0, n - n // 3)])
    fock = np.diag(levels) + 0.05 * (noise + noise.transpose(0, 2, 1))
    overlap = np.eye(n) + 0.05 * (noise @ noise.transpose(0, 2, 1))
    position = rng.standard_normal((count, 3, n, n))
    position = position + position.transpose(0, 1, 3, 2)
    arrays = [jnp.asarray(a, dtype) for a in (fock, overlap, position, np.zeros((count, 1, 3)), np.zeros((count, 1)))]
    arrays += [jnp.full(count, 2 * (n // 3)), jnp.ones((count, n), bool)]
    mapped = jax.jit(lambda a: jax.lax.map(lambda one: jax.grad(loss_functions(zero_targets(n)))(*one), a))
    functions = {"eigh": bare_eigh(tuple(arrays)), "gradient": lambda: mapped(tuple(arrays))}
    seconds = interleaved(functions, 3 if count * n > 8000 else 7)
    return {"batch": count, "nao": n, "dtype": dtype} | {name: 1e3 * s for name, s in seconds.items()}


def run_large(carbons: str, basis: str) -> dict[str, Any]:
    """One large molecule: milliseconds, and peak resident memory of the process, GiB."""
    import jax

    import vpotjax as vp

    jax.config.update("jax_enable_x64", True)
    arrays = batch_of([vp.Molecule.from_ase(alkane(int(carbons)))], basis, "float64")
    nao = arrays[0].shape[-1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    one = tuple(a[0] for a in arrays)
    gradient = jax.jit(jax.grad(loss_functions(zero_targets(nao))))
    seconds = interleaved({"eigh": bare_eigh(arrays), "gradient": lambda: gradient(*one)}, 3)
    row: dict[str, Any] = {"carbons": int(carbons), "basis": basis, "nao": nao, "integrals GiB": before}
    row |= {name: 1e3 * s for name, s in seconds.items()}
    return row | {"peak GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


RUNS: dict[str, Callable[..., dict[str, Any]]] = {"qm7": run_qm7, "scaling": run_scaling, "large": run_large}


def all_runs() -> list[tuple[str, ...]]:
    runs: list[tuple[str, ...]] = []
    if QM7.exists():
        runs += [("qm7", basis, dtype) for basis in ("sto-3g", "def2-svp") for dtype in ("float64", "float32")]
    runs += [("scaling", str(b), str(n), "float64") for b, n in SIZES]
    return [*runs, ("large", "41", "def2-svp")]


def report(results: dict[str, dict[str, Any]]) -> str:
    """Markdown tables; every row has its own keys as columns."""
    lines: list[str] = []
    for kind, text in RUNS.items():
        rows = [row for key, row in results.items() if key.split()[0] == kind]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines += [f"\n## {kind}: {text.__doc__}\n", "| | " + " | ".join(str(i + 1) for i in range(len(rows))) + " |"]
        lines.append("|---" * (len(rows) + 1) + "|")
        for column in columns:
            cells = [row.get(column, "") for row in rows]
            lines.append(
                f"| {column} | " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |"
            )
    return "\n".join(lines) + "\n"


def main(partial: Path = Path("electronic.partial.json"), output: Path = Path("electronic.results.md")) -> None:
    """Run what is missing, then print the tables and write them.

    Args:
        partial: finished runs, so that a run can be resumed.
        output: the tables.
    """
    results = resumed("benchmarks.electronic", all_runs(), partial)
    tables = report(results)
    output.write_text(tables)
    print(tables)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in RUNS:
        print(json.dumps(RUNS[sys.argv[1]](*sys.argv[2:])))
    else:
        import tyro

        tyro.cli(main)
