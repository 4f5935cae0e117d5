"""Molecules of eight to fourteen heavy atoms: some train the shipped model, others calibrate its uncertainties.

    python -m benchmarks.larger_molecules structures    benchmarks/larger_molecules.extxyz, GFN2-xTB minima; needs rdkit
                                                        and tblite, two minutes
    python -m benchmarks.larger_molecules labels        B3LYP/def2-TZVP of them, two processes, two hours;
                                                        F in 6-31G of those of the training, 20 minutes

LEARNED and HELD_OUT were each written down before any of them was labelled: solvents, terpenes, aromatics, dyes, drugs,
peptides, sugars; HELD_OUT are the first 22, in random order, of 28. None is among the molecules that test the model.
Labels are kept in runs/labels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.labels import LABELS
from benchmarks.qm7_data import ATTRIBUTES, LARGE, MIDDLE, SMALL, label_all, made
from vpotjax.io.dataset import Dataset
from vpotjax.io.sample import Sample
from vpotjax.molecule import Molecule

FOLDER, EFFECTIVE, STRUCTURES = LABELS / "larger", LABELS / "larger-6-31g", Path(__file__).with_suffix(".extxyz")
FORCE = 0.01  # eV/Å
LEARNED = {
    "2,2,4-trimethylpentane": "CC(C)CC(C)(C)C",
    "cyclooctane": "C1CCCCCCC1",
    "decalin": "C1CC[C@H]2CCCC[C@@H]2C1",
    "adamantane": "C1C2CC3CC1CC(C2)C3",
    "dipentyl ether": "CCCCCOCCCCC",
    "nonan-5-one": "CCCCC(=O)CCCC",
    "methyl octanoate": "CCCCCCCC(=O)OC",
    "tripropylamine": "CCCN(CCC)CCC",
    "limonene": "CC1=CC[C@@H](CC1)C(C)=C",
    "camphor": "CC1(C)[C@@H]2CC[C@@]1(C)C(=O)C2",
    "octa-2,4,6-trienal": "C/C=C/C=C/C=C/C=O",
    "styrene": "C=Cc1ccccc1",
    "1-phenylbutadiene": "C=C/C=C/c1ccccc1",
    "cinnamaldehyde": "O=C/C=C/c1ccccc1",
    "stilbene": "c1ccccc1/C=C/c1ccccc1",
    "azobenzene": "c1ccccc1/N=N/c1ccccc1",
    "biphenyl": "c1ccccc1-c1ccccc1",
    "azulene": "c1ccc2cccc2cc1",
    "quinoline": "c1ccc2ncccc2c1",
    "indole": "c1ccc2[nH]ccc2c1",
    "carbazole": "c1ccc2c(c1)[nH]c1ccccc12",
    "2-naphthol": "Oc1ccc2ccccc2c1",
    "1,4-naphthoquinone": "O=C1C=CC(=O)c2ccccc12",
    "4-nitroaniline": "Nc1ccc(cc1)[N+](=O)[O-]",
    "benzonitrile": "N#Cc1ccccc1",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "adenine": "Nc1ncnc2[nH]cnc12",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "nicotine": "CN1CCC[C@H]1c1cccnc1",
    "phenylalanine": "N[C@@H](Cc1ccccc1)C(=O)O",
    "glycylglycine": "NCC(=O)NCC(=O)O",
    "alanylalanine": "C[C@H](N)C(=O)N[C@@H](C)C(=O)O",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "ascorbic acid": "OC[C@H](O)[C@H]1OC(=O)C(O)=C1O",
}
HELD_OUT = {
    "p-xylene": "Cc1ccc(C)cc1",
    "bicyclo[2.2.2]octane": "C1CC2CCC1CC2",
    "2,3-dimethylhexane": "CCCC(C)C(C)C",
    "menthol": "CC(C)[C@@H]1CC[C@@H](C)C[C@H]1O",
    "alpha-pinene": "CC1=CC[C@H]2C[C@@H]1C2(C)C",
    "octanal": "CCCCCCCC=O",
    "dibutylamine": "CCCCNCCCC",
    "hexamethylenetetramine": "C1N2CN3CN1CN(C2)C3",
    "sorbic acid": "C/C=C/C=C/C(=O)O",
    "deca-2,4-dienal": "CCCCC/C=C/C=C/C=O",
    "cyclooctatetraene": "C1=CC=CC=CC=C1",
    "phenylacetylene": "C#Cc1ccccc1",
    "benzofuran": "c1ccc2occc2c1",
    "quinoxaline": "c1ccc2nccnc2c1",
    "acenaphthylene": "C1=Cc2cccc3cccc1c23",
    "phenanthrene": "c1ccc2c(c1)ccc1ccccc12",
    "benzophenone": "O=C(c1ccccc1)c1ccccc1",
    "nitrobenzene": "O=[N+]([O-])c1ccccc1",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1",
    "proline": "O=C(O)[C@@H]1CCCN1",
    "citric acid": "O=C(O)CC(O)(CC(=O)O)C(=O)O",
}


def structures() -> None:
    """Of those that have none, from SMILES by distance geometry (ETKDG, seed 0), MMFF94 and GFN2-xTB."""
    from ase import Atoms
    from ase.io import iread, write
    from ase.optimize import BFGS
    from rdkit import Chem  # pyright: ignore[reportMissingImports]
    from rdkit.Chem import AllChem  # pyright: ignore[reportMissingImports]
    from tblite.ase import TBLite  # pyright: ignore[reportMissingImports]

    frames = list(iread(STRUCTURES)) if STRUCTURES.exists() else []
    known = {atoms.info["name"] for atoms in frames}
    for name, smiles in (LEARNED | HELD_OUT).items():
        if name in known:
            continue
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=0)
        AllChem.MMFFOptimizeMolecule(mol, maxIters=2000)
        atoms = Atoms([a.GetSymbol() for a in mol.GetAtoms()], mol.GetConformer().GetPositions())
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        if not BFGS(atoms, logfile=None).run(fmax=FORCE, steps=500):
            raise SystemExit(f"{name} did not converge.")
        frames.append(Atoms(atoms.symbols, atoms.positions, info={"name": name}))
    write(STRUCTURES, frames, columns=["symbols", "positions"])


def molecules() -> dict[str, Molecule]:
    """By name."""
    from ase.io import iread

    return {atoms.info["name"]: Molecule.from_ase(atoms) for atoms in iread(STRUCTURES)}


def labels() -> None:
    """What has none yet, in random order: an unfinished set is like the whole."""
    every = list(molecules().items())
    shuffled = [every[i] for i in np.random.default_rng(0).permutation(len(every))]
    label_all([(FOLDER, name, molecule, (SMALL, LARGE)) for name, molecule in shuffled])
    label_all([(EFFECTIVE, name, molecule, (MIDDLE,)) for name, molecule in shuffled if name in LEARNED])


def larger_dataset(split: str) -> Dataset:
    """LEARNED as "train", or HELD_OUT as "validation".

    Raises:
        SystemExit: some have no labels yet.
    """
    names, bases = (LEARNED, {SMALL, MIDDLE, LARGE}) if split == "train" else (HELD_OUT, {SMALL, LARGE})
    samples = [
        Sample(name, split, molecule, made(FOLDER / f"{name}.npz") | made(EFFECTIVE / f"{name}.npz"))
        for name, molecule in molecules().items()
        if name in names
    ]
    if lacking := [s.name for s in samples if not bases <= s.labels.keys()]:
        raise SystemExit(f"no labels of {', '.join(lacking)}; python -m benchmarks.larger_molecules labels first")
    return Dataset(samples, ATTRIBUTES)


if __name__ == "__main__":
    {"structures": structures, "labels": labels}[sys.argv[1] if sys.argv[1:] else "labels"]()
