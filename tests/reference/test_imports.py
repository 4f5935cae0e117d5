"""PySCF's objects and checkpoint files as samples."""

import json

import h5py
import numpy as np
import pytest
from pyscf import dft, gto, scf

from tests.molecules import g2
from vpotjax._checks import InputError
from vpotjax.interop.pyscf import to_pyscf
from vpotjax.interop.pyscf_labels import reference_labels
from vpotjax.reference.imports import OF_PYSCF, sample_from_chkfile, sample_from_pyscf


def calculation(kind, basis="6-31g", spin=0, **options):
    molecule = g2("NH3")
    mol = to_pyscf(molecule, basis)
    if spin:
        atoms = list(zip("NHH", molecule.positions[:3].tolist(), strict=True))
        mol = gto.M(atom=atoms, unit="Bohr", basis={s: mol._basis[s] for s in "NH"}, spin=spin, verbose=0)
    mf = kind(mol)
    for key, value in {"conv_tol": 1e-11, **options}.items():
        setattr(mf, key, value)
    return mf.run()


@pytest.mark.parametrize(("kind", "spin"), [(scf.RHF, 0), (dft.RKS, 0), (scf.UHF, 1)])
def test_an_object_and_its_checkpoint_give_the_same_sample(tmp_path, kind, spin):
    mf = calculation(kind, spin=spin, chkfile=str(tmp_path / "a.chk"))
    xc = "lda,vwn" if kind is dft.RKS else "hf"
    stored = sample_from_chkfile("ammonia", tmp_path / "a.chk", "6-31g", xc)
    sample = sample_from_pyscf("ammonia", mf, "6-31g")
    assert (sample.name, sample.molecule.spin, set(sample.labels["6-31g"])) == ("ammonia", spin, set(OF_PYSCF))
    for key, value in sample.labels["6-31g"].items():
        np.testing.assert_allclose(stored.labels["6-31g"][key], value, atol=1e-7, err_msg=key)
    if kind is scf.RHF:
        expected = reference_labels(g2("NH3"), "6-31g", "hf", quantities=OF_PYSCF)
        for key, value in expected.items():
            np.testing.assert_allclose(sample.labels["6-31g"][key], value, atol=1e-5, err_msg=key)


def test_objects_that_will_not_do(tmp_path):
    not_converged = calculation(scf.RHF, max_cycle=1)
    with pytest.raises(InputError, match="mf is RHF with converged=False"):
        sample_from_pyscf("a", not_converged, "6-31g")
    with pytest.raises(InputError, match="mf is ROHF with converged=True"):
        sample_from_pyscf("a", calculation(scf.ROHF, spin=1), "6-31g")
    mf = calculation(scf.RHF)
    with pytest.raises(InputError, match=r"mf of 'a': overlap (has shape|differs)"):
        sample_from_pyscf("a", mf, "3-21g")
    with pytest.raises(InputError, match="quantities has 'scf_densities', but mf keeps no iterations"):
        sample_from_pyscf("a", mf, "6-31g", ["scf_densities"])
    optimised = scf.RHF(
        gto.M(atom=[("N", (0, 0, 0)), ("N", (0, 0, 2.1))], unit="Bohr", basis="cc-pvtz", verbose=0)
    ).run()
    with pytest.raises(InputError, match="another contraction of the same primitives"):
        sample_from_pyscf("N2", optimised, "cc-pvtz")
    calculation(scf.RHF, chkfile=str(tmp_path / "evil.chk"))
    with h5py.File(tmp_path / "evil.chk", "r+") as file:
        content = json.loads(file["mol"][()])
        content["atom"] = f"open({str(tmp_path / 'ran')!r}, 'w')"
        del file["mol"]
        file["mol"] = json.dumps(content)
    with pytest.raises(InputError, match=r"evil\.chk' cannot be read .*its atom is no plain data, but Python code"):
        sample_from_chkfile("a", tmp_path / "evil.chk", "6-31g", "hf")
    assert not (tmp_path / "ran").exists()
    (tmp_path / "text.chk").write_text("no HDF5")
    with h5py.File(tmp_path / "empty.chk", "w"):
        pass
    calculation(scf.RHF, max_cycle=1, chkfile=str(tmp_path / "early.chk"))
    calculation(scf.RHF, chkfile=str(tmp_path / "hf.chk"))
    for name, xc in (("early.chk", "hf"), ("hf.chk", "pbe")):
        with pytest.raises(InputError, match=rf"{name}': with xc='{xc}' F mixes .*has not converged, or is of another"):
            sample_from_chkfile("a", tmp_path / name, "6-31g", xc)
    for name in ("none.chk", "text.chk", "empty.chk"):
        with pytest.raises(InputError, match=f"{name}' cannot be read as a checkpoint of PySCF"):
            sample_from_chkfile("a", tmp_path / name, "6-31g", "hf")
