"""Tables of the benchmark of the integrals, in Markdown."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def milliseconds(row: dict[str, Any], task: str) -> str:
    ours = row["ours"].get(task)
    if ours is None:
        return "–"
    ratios = [f"{ours / row[peer][task]:.2f}" for peer in ("libcint", "pyscfad") if task in row[peer]]
    return f"{1e3 * ours:.3g} ({', '.join(ratios)})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor()


def report(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The tables in Markdown."""
    import numpy as np

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cpu = _processor()
    versions = ", ".join(f"{p} {version(p)}" for p in ("jax", "jaxlib", "pyscf", "pyscfad"))
    lines = [f"Commit {commit}, {cpu}, one thread; {versions}.", ""]
    tasks = ["S", "T", "r", "V", "all", "gradient", "V per nucleus"]
    lines += ["Milliseconds in the steady state (ratio to libcint; and to PySCFAD).", ""]
    lines += ["| molecule, basis (nao) | " + " | ".join(tasks) + " | gradient / V |", "|" + "---|" * (len(tasks) + 2)]
    for r in rows["case"]:
        kind = f"{r['nao']}, lists" if r["screened"] else r["nao"]
        name = f"{r['molecule']}{' × 32' if r['molecules'] > 1 else ''} {r['basis']} ({kind})"
        cells = [milliseconds(r, task) for task in tasks] + [f"{r['ours']['gradient'] / r['ours']['V']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "Seconds to trace and compile on one core, without a cache.", ""]
    lines += ["| molecule, basis | " + " | ".join(tasks) + " |", "|" + "---|" * (len(tasks) + 1)]
    for r in rows["case"]:
        cells = [f"{r['compile'][t]:.1f}" if t in r["compile"] else "–" for t in tasks]
        lines.append(f"| {r['molecule']} {r['basis']} | " + " | ".join(cells) + " |")
    lines += ["", "S, T, V and r together for alkanes in def2-SVP, milliseconds (ratio to libcint).", ""]
    lines += ["| nao | all pairs | lists, made anew in each call |", "|---|---|---|"]
    by_size: dict[int, dict[bool, dict[str, Any]]] = {}
    for r in rows["scaling"]:
        by_size.setdefault(r["nao"], {})[r["lists"]] = r
    for nao, pair in by_size.items():
        cells = [
            f"{1e3 * pair[k]['ours']:.3g} ({pair[k]['ours'] / pair[k]['libcint']:.2f})"
            for k in (False, True)
            if k in pair
        ]
        lines.append(f"| {nao} | " + " | ".join(cells) + " |")
    for lists in (False, True):
        points = [(n, p[lists]["ours"], p[lists]["libcint"]) for n, p in by_size.items() if lists in p and n > 300]
        if len(points) > 1:
            nao, ours, theirs = np.log(np.array(points)).T
            kind = "lists" if lists else "all pairs"
            fits = f"{np.polyfit(nao, ours, 1)[0]:.2f} (libcint {np.polyfit(nao, theirs, 1)[0]:.2f})"
            lines.append(f"\nExponent of the time in nao, {kind}, nao > 300: {fits}.")
    lines += ["", "Seconds to trace and compile on all cores, without a cache.", ""]
    lines += ["| molecule, basis | V | gradient |", "|---|---|---|"]
    lines += [f"| {r['molecule']} {r['basis']} | {r['V']:.1f} | {r['gradient']:.1f} |" for r in rows["compile"]]
    lines += [
        "",
        "Recurrences over stacked arrays, and mixed as in the package: milliseconds (seconds to compile).",
        "",
    ]
    lines += ["| molecule, basis | code | V | gradient |", "|---|---|---|---|"]
    for r in rows["design"]:
        cells = [f"{1e3 * r[task]:.3g} ({r[f'{task} compile']:.0f})" for task in ("V", "gradient")]
        lines.append(f"| {r['molecule']} {r['basis']} | {r['design']} | " + " | ".join(cells) + " |")
    lines += ["", "Peak resident memory, GiB, of a process that compiles and runs V, then its position gradient.", ""]
    lines += ["| molecule, basis | before | V | gradient |", "|---|---|---|---|"]
    lines += [
        f"| {r['molecule']} {r['basis']} | {r['start']:.2f} | {r['V']:.2f} | {r['gradient']:.2f} |"
        for r in rows["memory"]
    ]
    for r in rows["programs"]:
        lines.append(
            f"\nV of all {r['molecules']} molecules of QM7 in def2-SVP, 64 a call: {r['programs']} programs, "
            f"{r['first']:.1f} s with compilation, {r['second']:.1f} s without."
        )
    return "\n".join(lines) + "\n"
