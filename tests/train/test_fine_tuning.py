"""Trainings that start from a model: on other labels, with parts that stay, and refused where they do not fit."""

import dataclasses

import jax
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from tests.train.test_pipeline import TINY, Silent, dataset_of
from vpotjax.io.dataset import Dataset
from vpotjax.io.model import load_model
from vpotjax.models import Domain
from vpotjax.nn import MatrixPower
from vpotjax.train.descent import Descent
from vpotjax.train.pipeline import train_run
from vpotjax.train.predict import predictions

WEIGHTS = {"polarizability": 1.0}


def of_polarizabilities(dataset):
    """Nothing but coupled polarizabilities, here 1.1 times the uncoupled ones, under another name."""
    labels = [{"ccsd": {"polarizability": 1.1 * s.labels["def2-tzvp"]["polarizability"]}} for s in dataset.samples]
    samples = [dataclasses.replace(s, labels=own) for s, own in zip(dataset.samples, labels, strict=True)]
    return Dataset(samples, dataset.attributes | {"large_basis": "ccsd"})


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    dataset = dataset_of(train=("H2O", 3), validation=("H2O", 1), test=("H2O", 1))
    run = tmp_path_factory.mktemp("before") / "run"
    train_run(dataset, run, TINY, Silent())
    return of_polarizabilities(dataset), run


def tuned(before, folder, **changes):
    dataset, run = before
    descent = Descent(steps=20, batch_size=2, evaluations=4, learning_rate=1e-2, **changes.pop("descent", {}))
    training = dataclasses.replace(TINY, **{"start": str(run), "weights": WEIGHTS, "descent": descent, **changes})
    return train_run(dataset, folder, training, Silent())


def test_a_model_learns_polarizabilities_of_another_method(before, tmp_path):
    outcome = tuned(before, tmp_path / "run")
    assert [row["model"] for row in outcome.rows] == ["before", "trained"]
    assert set(outcome.rows[0]) >= {"polarizability"}
    assert "mo_energies" not in outcome.rows[0]
    old, new = load_model(before[1]).model, load_model(tmp_path / "run").model
    np.testing.assert_array_equal(old.whitening.reach, new.whitening.reach)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), old.params, new.params)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert outcome.rows[1]["polarizability"] < outcome.rows[0]["polarizability"]


@pytest.mark.slow
def test_without_a_model_they_are_learned_from_the_baseline(before, tmp_path):
    rows = train_run(before[0], tmp_path / "run", dataclasses.replace(TINY, weights=WEIGHTS), Silent()).rows
    assert [row["model"] for row in rows] == ["closed-form start", "trained"]
    with pytest.raises(vp.InputError, match=r"labels 'ccsd' lack mo_energies, dipole; add them"):
        train_run(before[0], tmp_path / "other", TINY, Silent())


def test_frozen_parts_stay(before, tmp_path):
    tuned(before, tmp_path / "run", descent={"frozen": ("invariants",), "optimizer": "adamw"})
    old, new = (load_model(run).model.params["params"] for run in (before[1], tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, old["invariants"], new["invariants"])
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), old["map"], new["map"]))) > 1e-5
    with pytest.raises(vp.InputError, match="frozen has 'head', but the network has invariants, map"):
        tuned(before, tmp_path / "other", descent={"frozen": ("head",)})
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("levels", [True, False])
def test_a_model_learns_another_element(before, tmp_path, levels):
    """Nitrogen beside H and O; what was predicted of water stays until the networks move."""
    data = dataset_of(train=("NH3", 3), validation=("H2O", 1), test=("NH3", 1))
    data = data if levels else of_polarizabilities(data)
    run, old = tmp_path / "run", load_model(before[1])
    outcome = tuned((data, before[1]), run, **({"weights": {"mo_energies": 1.0}} if levels else {}))
    new = load_model(run)
    assert (old.settings.species, new.settings.species) == ((1, 8), (1, 7, 8))
    both = ("H(O)", "O(H,H)"), ("H(N)", "H(O)", "N(H,H,H)", "O(H,H)")
    assert (old.domain, new.domain) == tuple(Domain((0,), 1, 1, own) for own in both)
    water = [s.molecule for s in dataset_of(test=("H2O", 1)).samples]
    kept = dataclasses.replace(new, model=dataclasses.replace(new.model, params=grown(old, new)))
    for name in ("dipole", "mo_energies"):
        found, wanted = (observed(model, water[0])[name] for model in (kept, old))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())  # float32 networks
    name = "mo_energies" if levels else "polarizability"
    assert outcome.rows[-1][name] < outcome.rows[-2][name]
    assert new.model.whitening.reach[1] > 0  # of one nitrogen atom


def observed(model, molecule):
    ((_, found),) = [(p.name, p.values) for p in predictions(model, [("one", molecule)], ("dipole", "mo_energies"))]
    return found


def grown(old, new):
    """Parameters of the old networks for the elements of the new model; N has those of O, which is next to it."""
    more = {2: np.array([0, 1, 1]), 5: np.array([0, 1, 1, 2, 3, 3, 4, 4, 4])}

    def one(own, like):
        for axis in range(own.ndim):
            own = own if own.shape[axis] == like.shape[axis] else np.take(own, more[own.shape[axis]], axis)
        return own

    return jax.tree.map(one, old.model.params, new.model.params)


def test_other_settings_and_elements_are_refused(before, tmp_path):
    with pytest.raises(vp.InputError, match=r"network is MatrixPower.*in the model of start="):
        tuned(before, tmp_path / "run", network=MatrixPower())
    with pytest.raises(vp.InputError, match="frame is 'ao', but 'lowdin' in the model"):
        tuned(before, tmp_path / "run", frame="ao")
    chlorine = [dataclasses.replace(s, molecule=g2("HCl")) for s in before[0].samples]
    with pytest.raises(vp.InputError, match=r"elements \[17\] have more shells in 'sto-3g' than those of the model"):
        tuned((Dataset(chlorine, before[0].attributes), before[1]), tmp_path / "run")
    with pytest.raises(vp.InputError, match=r"none.*holds no config\.json"):
        tuned((before[0], tmp_path / "none"), tmp_path / "run")
