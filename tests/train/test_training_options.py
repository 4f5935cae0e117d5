"""Options of a training are used or refused, and losses with odd terms say so."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import vpotjax as vp
from tests.train.test_pipeline import Silent, dataset_of
from vpotjax.electronic.eigensolver import eigh
from vpotjax.electronic.observables import Reference
from vpotjax.losses import Alignment, ElectronDensity, MatrixElements, Observed, Sum, Weighted
from vpotjax.nn import Gated
from vpotjax.train.config import WEIGHTS, Training, read_config
from vpotjax.train.descent import Descent
from vpotjax.train.fit import aligned_matrices
from vpotjax.train.matrix_training import basis_of_matrices, labels_for
from vpotjax.train.pipeline import train_run


def names(loss):
    terms = loss.terms if isinstance(loss, Sum) else (loss,)
    return {(t.term.name if isinstance(t.term, Observed) else type(t.term)): t.weight for t in terms}


def test_weights_join_the_loss_on_matrices_when_they_are_given():
    assert names(Training().loss(1.0)) == WEIGHTS
    on_matrices = Training(elements=2.0, alignment=0.5)
    assert names(on_matrices.loss(1.0)) == {MatrixElements: 2.0, Alignment: 0.5}
    both = dataclasses.replace(on_matrices, alignment=0.0, weights={"dipole": 3.0})
    assert names(both.loss(1.0)) == {MatrixElements: 2.0, "dipole": 3.0}
    aligned = Training(alignment=1.0)
    assert names(aligned.loss(1.0)) == {Alignment: 1.0}  # elements have no weight unless given


def test_weights_may_change_with_the_progress(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("elements = [1.0, 0.0, 1]\nweights = {dipole = [0, 10, 0.5], polarizability = [0, 0]}\n")
    found = names(read_config(file)[1].loss(1.0))
    assert set(found) == {MatrixElements, "dipole"}
    assert [float(found["dipole"](p)) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 5.0, 10.0, 10.0]
    assert [float(found[MatrixElements](p)) for p in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]
    for wrong in ("[1]", "[1, 2, 3]", "[1, 2, 0.5, 1]", "[-1, 0]", '"much"', "[]"):
        with pytest.raises(vp.InputError, match="dipole"):
            read_config(None, [f"weights.dipole={wrong}"])


def test_weights_that_all_end_at_0_are_refused():
    """Those at the end decide which network is the best."""
    with pytest.raises(vp.InputError, match=r"all weights of the loss end at 0 \(elements\)"):
        Training(elements=(1.0, 0.0)).loss(1.0)
    assert names(Training(elements=(1.0, 0.0), density=1e4).loss(1.0)).keys() == {MatrixElements, ElectronDensity}


def test_a_density_needs_elements_and_no_levels():
    for options in ({}, {"alignment": 1.0}, {"elements": 1.0, "alignment": 1.0}):
        with pytest.raises(vp.InputError, match="target is 'density'"):
            Training(target="density", **options)
    assert names(Training(target="density", elements=1.0).loss(1.0)) == {MatrixElements: 1.0}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"elements": 1.0}, marks=pytest.mark.slow),
        pytest.param({"density": 1e4}, marks=pytest.mark.slow),
        {"elements": 1.0, "target": "density"},
    ],
)
def test_matrices_train_from_the_data_to_errors(tmp_path, options):
    """F and P of the small basis; errors are of what each of them holds, against the small basis."""
    dataset = dataset_of(train=("H2O", 2), validation=("H2O", 1), test=("H2O", 1))
    descent = Descent(steps=2, batch_size=2, evaluations=1)
    training = Training(Gated(2, (4,)), members=1, basis="sto-3g", power_order=1, descent=descent, buckets=1, **options)
    rows = train_run(dataset, tmp_path / "run", training, Silent()).rows
    assert [row["model"] for row in rows] == ["closed-form start", "trained"]
    assert ("mo_energies" in rows[0]) == ("target" not in options)
    assert 0 < rows[-1]["dipole"] < 0.1


def test_odd_terms_of_a_loss():
    natm = np.array([3, 3])
    reference = Reference({"dipole": np.zeros((2, 3))}, np.ones((2, 1), bool), natm, natm)
    silent = (0.0 * Observed("dipole")).fitted([reference])  # does not vary, and has no weight
    assert isinstance(silent, Weighted)
    with pytest.raises(vp.InputError, match="the weight 0"):
        (1.0 * Observed("dipole")).fitted([reference])
    assert sum([Observed("dipole"), Observed("polarizability")]).terms == (
        Observed("dipole"),
        Observed("polarizability"),
    )
    with pytest.raises(vp.InputError, match="a term of the loss is 3"):
        Observed("dipole") + 3


def test_padding_does_not_change_the_variance_of_what_atoms_have():
    charges = np.array([[-0.6, 0.3, 0.3], [-0.7, 0.4, 0.3]])
    found = []
    for natm in (3, 4):
        values = {"lowdin_charges": np.pad(charges, ((0, 0), (0, natm - 3)))}
        reference = Reference(values, np.ones((2, 1), bool), np.array([3, 3]), np.array([10, 10]))
        found.append(Observed("lowdin_charges").fitted([reference]).variance)
    assert found[0] == found[1] == pytest.approx(np.mean(np.sum(charges**2, axis=1)) / 9)


def test_levels_beyond_the_compared_ones_move_with_the_highest_of_these():
    """Orbitals stay, no levels cross, and what has no partner below (a core) keeps its energy; one AO is padding."""
    rng = np.random.default_rng(0)
    vectors, overlap, fock = rng.normal(size=(6, 6)), np.eye(7), np.zeros((7, 7))
    overlap[:6, :6] += 0.05 * (vectors + vectors.T)
    own = np.array([-10.0, -1.0, -0.5, 0.2, 0.6, 2.0])
    orbitals = eigh(np.diag(own) + 0.1 * vectors @ vectors.T, overlap[:6, :6])[1]
    half = overlap[:6, :6] @ orbitals
    fock[:6, :6] = (half * own) @ half.T
    real = np.arange(7) < 6
    compared = (np.arange(7) >= 1) & (np.arange(7) < 4)
    levels = np.array([0.0, -1.1, -0.4, 0.1, 0.15, 0.2, 0.0])
    space = SimpleNamespace(overlap=overlap[None], basis=SimpleNamespace(ao_mask=real[None]))
    reference = Reference({"fock": fock[None], "mo_energies": levels[None]}, compared[None], np.ones(1), np.ones(1))
    (aligned,) = aligned_matrices(
        SimpleNamespace(content=SimpleNamespace(space=space, baseline=None), reference=reference)
    )
    wanted = np.array([-10.0, -1.1, -0.4, 0.1, 0.5, 1.9])
    np.testing.assert_allclose(eigh(aligned[:6, :6], overlap[:6, :6])[0], wanted, atol=1e-12)
    np.testing.assert_allclose(aligned[:6, :6], (half * wanted) @ half.T, atol=1e-12)
    assert not aligned[6].any()


def test_the_basis_of_f_is_the_largest_with_matrices():
    """Unless one is chosen; without matrices in the chosen one, orbitals of the baseline start a fit to observables."""
    sample = dataset_of(train=("H2O", 1)).samples[0]
    assert set(sample.labels) == {"sto-3g", "6-31g", "def2-tzvp"}
    assert basis_of_matrices(sample) == "6-31g"
    none = dataclasses.replace(sample, labels={"def2-tzvp": sample.labels["def2-tzvp"]})
    assert basis_of_matrices(none) is None

    def labels(**options):
        training = Training(**options)
        return labels_for(training, training.settings((1, 8), "6-31g"), "sto-3g", "def2-tzvp", sample)

    assert labels().matrices == "6-31g"
    assert (labels().large, labels().small) == ("def2-tzvp", "sto-3g")
    assert labels(orbital_basis="STO-3G").matrices == "sto-3g"
    assert labels(orbital_basis="3-21g").matrices is None
    on_matrices = labels(elements=1.0)
    assert (on_matrices.large, on_matrices.small, on_matrices.matrices) == ("6-31g", "6-31g", "6-31g")
    with pytest.raises(vp.InputError, match="orbital_basis is '3-21g', but the data set has matrices in 6-31g, sto-3g"):
        labels(orbital_basis="3-21g", elements=1.0)
