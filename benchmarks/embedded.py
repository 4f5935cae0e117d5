"""The embedded data set: the molecules that ASE ships, five geometries each, and 142 more to train on, one each.

    vpotjax reference --out ase.h5 --geometries 5
    python -m benchmarks.embedded structures more.xyz        pip install rdkit
    vpotjax reference more.xyz --geometries 1 --out more.h5
    python -m benchmarks.embedded join ase.h5 more.h5 more.xyz hcno_b3lyp.h5

RDKit's geometries depend on its version. The splits are those of ASE's molecules; all others are for training, and none
has the bonds of one of ASE's.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from vpotjax.io.dataset import Dataset, read_dataset, write_dataset
from vpotjax.reference.structures import ase_molecules, bond_graph_labels

MAX_HEAVY = 5
SMILES = """
OCC=O C=CO C=CN CCC#C C=CC=O C#CC=O C#CC#C C=CC#C CNC=O CN(C)C=O CC(=O)NC CC(=O)OC CC(=O)C=O CC(=O)CC CCC=O CCCC=O
CC(C)C=O CCCO CCCCO CC(C)CO CC(C)(C)O CCC(C)O OCCO OCCCO COCO COCCO COCOC NCCO C(N)CN NCCCN CNCCN CCN(C)C CCNCC CC(C)N
CCCN CCCCN CC(C)(C)N CN=C C=N CC=N CN=NC N=N C=NO CC=NO NO CNO CON CONC NNC CNN(C) NN(C)C CN=C=O N=C=O N=C=N CCC#N
CCCC#N N#CCC#N NCC#N OCC#N OC#N NC#N CN(C)C#N C#CC#N CC=CC#N O=C=C=C=O CC=C=O C=C=CC C=C=CO CC=CC CCC=C CCCC=C
C=CCC=C CC=CC=C C=C(C)C=C C1CCCC1 CC1CC1 CC1CCC1 C1=CCCC1 C1=CC=CC1 C=C1CCC1 OC1CC1 NC1CC1 O=C1CC1 O=C1CCC1 CC1CO1
C1COC1 C1CCOC1 C1COCO1 C1CNC1 C1CCNC1 CN1CC1 c1cnc[nH]1 c1cn[nH]c1 c1cocn1 c1ccon1 c1nc[nH]n1 c1nnn[nH]1 c1ncon1
C1=CCOC1 C1=COCC1 C1=CCNC1 O=C1CCO1 O=C1CCN1 NC(N)=O CNC(N)=O NC(=O)CO OC(=O)CO OC(=O)CN OC(=O)C=O OC(=O)C=C
OC(=O)CC OC(=O)C#C NC(=O)OC NC(=N)N CC(N)=N NC=N COC=C C=COC=C CC(=O)C=C CC=CC=O NC=CC=O OC=CC=O O=CCC=O CCOCC
COC(C)C COCC=C OCC=C OCC#C NCC=C NCC#C CC[N+](=O)[O-] C=C[N+](=O)[O-] N1C=C1 C1=CO1 NC(=O)N=O C1C2CC1C2 C#CCC#C
C#CC=C=C N#CN=C O=C=CC=O CC(=O)C#N O=CC#N
"""
"""Common small molecules, by hand."""


def structures() -> Iterator[Atoms]:
    """Geometries of RDKit (ETKDG, then MMFF94), smallest first."""
    chem, embed = (importlib.import_module(f"rdkit.Chem{part}") for part in ("", ".AllChem"))
    known, names = {bond_graph_labels(m.to_ase()) for m in ase_molecules().values()}, ase_molecules().keys()
    chosen: list[Atoms] = []
    for smiles in SMILES.split():
        mol = chem.AddHs(chem.MolFromSmiles(smiles))
        if embed.EmbedMolecule(mol, randomSeed=7):
            raise SystemExit(f"{smiles} has no geometry")
        embed.MMFFOptimizeMolecule(mol, maxIters=2000)
        symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
        name = chem.CanonSmiles(smiles)
        name = smiles if name in names else name  # NCCN is cyanogen there
        atoms = Atoms(symbols, mol.GetConformer().GetPositions(), info={"name": name})
        bonds = bond_graph_labels(atoms)
        if bonds in known or _heavy(atoms) > MAX_HEAVY:
            raise SystemExit(f"{smiles} is there already, or too large")
        known.add(bonds)
        chosen.append(atoms)
    return iter(sorted(chosen, key=lambda atoms: (_heavy(atoms), len(atoms))))


def _heavy(atoms: Atoms) -> int:
    return int(np.sum(atoms.numbers > 1))


def join(first: str, more: str, xyz: str, out: str) -> None:
    """One data set of two; molecules of the second are named by their SMILES and are all for training."""
    ours, others = read_dataset(first), read_dataset(more)
    for name in ("xc", "small_basis", "effective_basis", "large_basis", "grid_level", "temperature"):
        if ours.attribute(name) != others.attribute(name):
            raise SystemExit(f"{name} differs")
    frames: Any = read(xyz, ":")
    names = [atoms.info["name"] for atoms in frames]
    added = [dataclasses.replace(s, name=name, split="train") for name, s in zip(names, others.samples, strict=True)]
    write_dataset(Path(out), Dataset([*ours.samples, *added], ours.attributes))


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    if what == "structures":
        write(files[0], list(structures()), format="extxyz")
    else:
        join(*files)
