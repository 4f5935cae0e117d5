"""The models that the package ships: their files, their cards, and that they are as good as those say."""

import json
import re

import jax
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import g2
from vpotjax.cli import main
from vpotjax.io.dataset import embedded_dataset_path, read_dataset
from vpotjax.io.pretrained import PRETRAINED, checksum, pretrained_path


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_model_loads_and_is_what_its_card_says(name):
    folder = pretrained_path(name)
    card = (folder / "MODEL_CARD.md").read_text()
    assert checksum(folder / "checkpoint") in card
    model = vp.load_pretrained(name)
    assert model.settings.species == (1, 6, 7, 8)
    assert model.domain.charges == (0,)
    assert (model.domain.size, model.domain.checked) == (7, 14 if name == "levels" else 7)
    assert any(own.grows for own in model.calibration.values()) == (name == "levels")
    assert {"mo_energies", "homo_lumo_gap", "dipole", "polarizability"} <= model.calibration.keys()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model))
    assert f"Networks: {model.members}" in card
    assert not re.search(r'"(/|[A-Z]:)', json.dumps(json.loads((folder / "config.json").read_text())))  # no place
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 10e6


def test_predictions_without_a_run_are_those_of_the_shipped_model(tmp_path, capsys):
    """Of molecules that it was tested on, as good as its card says for them, within a factor of three."""
    samples = [s for s in read_dataset(embedded_dataset_path()).split("test") if s.molecule.natm <= 4]
    sample = max(samples, key=lambda s: np.linalg.norm(s.labels["def2-tzvp"]["dipole"]))
    sample.molecule.to_ase().write(tmp_path / "one.xyz")
    assert main(["predict", str(tmp_path / "one.xyz")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Model: ε, gap, μ")
    assert "MODEL_CARD.md" in out
    assert "Mean errors of the model's validation molecules" in out
    norm = float(re.search(r"norm ([0-9.]+) ±", out)[1])
    wanted = float(np.linalg.norm(sample.labels["def2-tzvp"]["dipole"]))
    assert wanted > 0.3
    assert norm == pytest.approx(wanted, abs=3 * card_error("embedded", "μ (e·bohr)") * sample.molecule.natm)


def card_error(row, column):
    table = [line.split("|") for line in (pretrained_path() / "MODEL_CARD.md").read_text().splitlines() if "|" in line]
    place = [cell.strip() for cell in table[0]].index(column)
    (own,) = [cells for cells in table if re.fullmatch(rf"{row}, \d+", cells[1].strip())]
    return float(own[place])


def test_what_it_does_not_know_is_refused(tmp_path):
    with pytest.raises(vp.InputError, match="name is 'zinc'; the package ships levels"):
        vp.load_pretrained("zinc")
    with pytest.raises(vp.InputError, match=r"the elements \[17\]"):
        list(vp.train.predictions(vp.load_pretrained(), [("chloromethane", g2("CH3Cl"))]))
