"""Networks in settings as JSON: those of the package, and those of a user, which are never imported."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.io.samples import DATA, GATED, PROPERTY, random_model, refused, saved
from vpotjax.io.model import load_model, settings_from_json, settings_json
from vpotjax.io.run import write_config
from vpotjax.nn import Gated, Linear, MatrixPower
from vpotjax.operators.features import SCALAR

NAME = f"{__name__}:Scalars"


class Dense:
    """Not of Flax; its parameters are no dict."""

    def __init__(self, outputs, width):
        self.channels, self.width = dict(outputs)[SCALAR].total, width

    def init(self, key, inputs):
        channels = inputs.values[SCALAR].shape[1]
        return [jax.random.normal(key, (channels, self.width)), {"b": (jnp.ones((self.width, self.channels)),)}]

    def apply(self, params, inputs):
        first, second = params
        return {SCALAR: jnp.einsum("pcm,cw,wo->pom", inputs.values[SCALAR], first, second["b"][0])}


@dataclasses.dataclass(frozen=True)
class Scalars:
    width: int = 3
    sizes: tuple[float, ...] = (0.1, 2.0)
    activation: Callable[..., Any] = jax.nn.silu  # known by its name
    other: Any = dataclasses.field(default=None, compare=False)

    def module(self, outputs, species):
        return Dense(outputs, self.width)


class Plain:
    def module(self, outputs, species):
        return Dense(outputs, 2)


@dataclasses.dataclass(frozen=True)
class Named(Plain):
    name: str = "mine"


class Wide(Gated):
    """A network of a user that inherits from one of the package."""


OWN = dataclasses.replace(GATED, network=Scalars(other=object()))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (GATED, {"name": "Gated", "gated": 2, "hidden": [4]}),
        (dataclasses.replace(GATED, network=Linear()), {"name": "Linear"}),
        (
            dataclasses.replace(PROPERTY, network=MatrixPower(hidden=(3, 2))),
            {
                "name": "MatrixPower",
                "gated": 8,
                "hidden": [3, 2],
                "layers": 2,
                "channels": 4,
                "shells": 3,
                "coupling": False,
                "product_precision": "float32",
                "checkpoint": False,
            },
        ),
        (
            OWN,
            {"name": NAME, "width": 3, "sizes": [0.1, 2.0], "activation": "silu"},
        ),
        (dataclasses.replace(GATED, network=Plain()), {"name": f"{__name__}:Plain"}),
        (
            dataclasses.replace(GATED, network=Wide(1, (5,))),
            {"name": f"{__name__}:Wide", "gated": 1, "hidden": [5]},
        ),
    ],
)
def test_settings_are_nested_json(settings, expected):
    values = settings_json(settings)
    assert json.loads(json.dumps(values)) == values
    assert values["network"] == expected
    assert values["representation"]["species"] == [1, 8]
    kind = "property" if type(settings) is type(PROPERTY) else "matrix"
    if ":" not in expected["name"]:
        assert settings_from_json(kind, values) == settings
    assert settings_from_json(kind, values, settings.network) == settings


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), random_model(OWN))


def test_models_with_a_network_of_a_user_come_back(run):
    fresh, model = random_model(OWN), load_model(run, network=Scalars())
    assert model.settings == OWN
    assert jax.tree.structure(model) == jax.tree.structure(fresh)
    jax.tree.map(np.testing.assert_array_equal, model, fresh)
    assert isinstance(model.model.params[1]["b"], tuple)


def test_a_property_with_a_network_of_a_user_comes_back(tmp_path):
    settings = dataclasses.replace(PROPERTY, target="energy", network=Plain())
    fresh = random_model(settings)
    jax.tree.map(np.testing.assert_array_equal, load_model(saved(tmp_path, fresh), settings.network), fresh)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, f"model.network is '{NAME}', which is not of vpotjax; give an equal object as network"),
        (Scalars(4), f"network is .*'width': 4.*, but model.network is .*{NAME}.*'width': 3"),
        (Scalars(activation=jnp.tanh), "tanh.*silu"),
        (Plain(), f"network is .*:Plain.* but model.network is .*{NAME}"),
        (Gated(), f"network is .*'Gated', .* but model.network is .*{NAME}"),
    ],
)
def test_another_network_is_refused(run, network, message):
    with refused(message):
        load_model(run, network=network)


def test_a_network_that_is_given_for_one_of_the_package_must_be_equal(tmp_path):
    saved(tmp_path, random_model(GATED))
    assert load_model(tmp_path, network=GATED.network).settings == GATED
    with refused("network is .*'gated': 3.*, but model.network is .*'gated': 2"):
        load_model(tmp_path, network=Gated(3, (4,)))


def test_no_name_in_a_file_is_imported(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    content = json.loads((run / "config.json").read_text())
    (tmp_path / "hostile.py").write_text("raise SystemExit")
    content["model"]["network"] = {"name": "hostile:Network"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with contextlib.chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with refused("'hostile:Network', which is not of vpotjax"):
            load_model(tmp_path)


def test_edited_fields_of_a_network_of_a_user_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    content = json.loads((run / "config.json").read_text())
    content["model"]["network"]["sizes"] = [0.1, 3.0]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with refused("network is .*2.0.*but model.network is .*3.0"):
        load_model(tmp_path, network=Scalars())
    with refused(r"contradicts the checkpoint: network.sizes is \[0.1, 3.0\] in config.json and \[0.1, 2.0\] in it"):
        load_model(tmp_path, network=Scalars(sizes=(0.1, 3.0)))


def test_a_field_that_is_called_name_is_refused(tmp_path):
    with refused("has a field 'name'"):
        write_config(tmp_path, dataclasses.replace(GATED, network=Named()), {"data": DATA})
    assert not list(tmp_path.iterdir())
