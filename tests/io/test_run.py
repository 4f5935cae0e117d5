"""Models in run folders: usable under every transformation, readable anywhere, and refused where they do not fit."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.molecules import central_difference
from vpotjax.io import checkpoint, fit_record
from vpotjax.io.checkpoint import read_checkpoint, write_checkpoint
from vpotjax.io.run import load_model, load_property_model, save_model, started_run, training_data, write_config
from vpotjax.model import Model, ModelConfig, initial_parameters, prepare
from vpotjax.operators.features import feature_statistics, matrix_count
from vpotjax.property_model import (
    PropertyConfig,
    PropertyModel,
    molecule_features,
    network_inputs,
    pair_features,
    property_network,
)

SMALL = {"species": (1, 2), "potential_basis": "sto-3g", "power_order": 1, "hidden": (4,), "gated": 1}
GATED = ModelConfig(**SMALL, power_kinds=("metric",), members=1, baseline="sap")
POWER = dataclasses.replace(GATED, network="matrix-power", frame="lowdin", layers=1, channels=1, shells=1)
PROPERTY = PropertyConfig(**SMALL, target="energy")
CONFIGS = {"gated": GATED, "matrix-power": POWER, "property": PROPERTY}
DATA = {"xc": "b3lyp", "small_basis": "sto-3g", "large_basis": "def2-tzvp", "geometries": np.int64(5)}
# HeH+ has a dipole, and functions of l = 0 only: it compiles fast.
MOLECULES = [vp.Molecule([2, 1], np.array([[0, 0, 0], [0.3, 0.4, z]]), charge=1) for z in (1.4, 1.6)]


@contextlib.contextmanager
def refused(match):
    with pytest.raises(vp.InputError, match=match) as error:
        yield
    assert "\n" not in str(error.value)


@functools.cache
def model_of(name, precision="float64"):
    """With random weights everywhere, so that no part is switched off."""
    config = dataclasses.replace(CONFIGS[name], precision=precision)
    one = jax.tree.map(jnp.asarray, config.batch(MOLECULES[:1])[0])
    if isinstance(config, ModelConfig):
        prepared = jax.jit(prepare, static_argnums=1)(one, config)
        features, kinds = prepared.features["metric"], prepared.kinds
    else:
        features, kinds = pair_features(one, config)
    count = matrix_count(config.inputs, config.power_order)
    statistics = feature_statistics(
        {i: np.asarray(x)[None] for i, x in features.items()}, np.asarray(kinds)[None], config.species, count
    )
    rng = np.random.default_rng(0)
    if isinstance(config, ModelConfig):
        params = initial_parameters(config, prepared, 0)
        return Model(config, noisy(params, rng), {"metric": statistics})
    inputs = network_inputs(features, kinds, statistics, config)
    params = property_network(config).init(jax.random.key(0), inputs, kinds)
    sums = molecule_features(one, config)
    weights = {i: rng.standard_normal(x.shape[:-1]) for i, x in sums.items()}
    regularisers = {i: np.asarray(1e-3) for i in sums}
    return PropertyModel(config, weights, rng.standard_normal(2), regularisers, noisy(params, rng), statistics)


def noisy(params, rng):
    return jax.tree.map(lambda x: x + jnp.asarray(0.01 * rng.standard_normal(x.shape), x.dtype), params)


def load(folder, config):
    return (load_model if isinstance(config, ModelConfig) else load_property_model)(folder)


def saved(folder, model, **settings):
    write_config(folder, model.config, {"data": DATA, **settings})
    save_model(folder, model, DATA)
    return folder


def close(result, expected, precision):
    # Other orders of summation; in float32 a network's rounding, 1e-7 of Fock elements up to 20, over gaps.
    tolerance = 1e-9 if precision == "float64" else 2e-4
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert np.abs(b).max() > 1e-2
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "precision"), [("gated", "float32"), ("property", "float64")])
def test_every_use_of_a_loaded_model_is_the_eager_call(tmp_path, name, precision):
    fresh = model_of(name, precision)
    model = load(saved(tmp_path, fresh), fresh.config)
    batch = model.config.batch(MOLECULES)
    expected = jax.tree.map(lambda *x: np.stack(x), *(fresh(batch[i]) for i in range(len(MOLECULES))))
    close(jax.lax.map(model, batch), expected, precision)
    close(jax.jit(jax.vmap(model))(batch), expected, precision)
    moved = jax.jit(lambda positions: model(dataclasses.replace(batch[0], positions=positions)))
    close(moved(batch[0].positions), jax.tree.map(lambda x: x[0], expected), precision)  # over model and molecule


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", CONFIGS)
def test_tracers_pass_through_fresh_and_loaded_models(tmp_path, name, precision):
    """Without compilation: what tracers cannot do fails while they are followed."""
    fresh = model_of(name, precision)
    model = load(saved(tmp_path, fresh), fresh.config)
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(fresh), strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_array_equal(a, b)
    batch = model.config.batch(MOLECULES)
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(model, batch[0]))]
    assert shapes[-1] == (() if name == "property" else (3, 3))
    pair = jax.tree.map(lambda x: np.stack([x] * 2), model)  # an ensemble as one model
    uses = [(jax.vmap(lambda one: one(batch[0])), pair)]
    for one in (fresh, model):
        uses += [(jax.vmap(one), batch), (functools.partial(jax.lax.map, one), batch)]
    for use, given in uses:
        traced = jax.tree.leaves(jax.eval_shape(use, given))
        assert [x.shape for x in traced] == [(2, *shape) for shape in shapes]


@pytest.mark.parametrize("name", ["gated", "property"])
def test_gradients_in_the_parameters_of_a_loaded_model(tmp_path, name):
    """Against a finite difference along the gradient."""
    model = load(saved(tmp_path, model_of(name)), CONFIGS[name])
    molecule = model.config.batch(MOLECULES)[0]

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        result = dataclasses.replace(model, params=params)(molecule)
        return jnp.sum(jnp.asarray(result if name == "property" else result.mo_energies) ** 2)

    _, gradient = loss(model.params)
    size = np.sqrt(sum(np.sum(np.asarray(g) ** 2) for g in jax.tree.leaves(gradient)))
    assert size > 1e-3

    def along(t):
        return float(loss(jax.tree.map(lambda p, g: p + t * g / size, model.params, gradient))[0])

    # 1e-6 is what AD against finite differences must reach; the quotient itself is good to about 1e-8.
    np.testing.assert_allclose(central_difference(along, 1e-4), size, rtol=1e-6)


OTHER_DEVICES = """
import json, pathlib, sys
import jax, numpy as np, orbax.checkpoint as ocp
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from vpotjax.io.checkpoint import read_checkpoint
from vpotjax.io.run import load_model, save_model, write_config
source, new, old = map(pathlib.Path, sys.argv[1:])
assert len(jax.devices()) == 4
mesh = Mesh(jax.devices(), ("x",))
def placed(leaf):
    if leaf.shape and leaf.shape[-1] % 4 == 0:
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "x")))
    return jax.device_put(leaf, jax.devices()[3])
model = jax.tree.map(placed, load_model(source))
data = json.loads((source / "config.json").read_text())["data"]
write_config(new, model.config, {"data": data})
save_model(new, model, data)
arrays, _ = read_checkpoint(source / "checkpoint")  # as earlier versions of the package saved them
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save((old / "checkpoint").absolute(), jax.tree.map(placed, arrays))
"""


def test_models_of_other_devices_load(tmp_path):
    """Saved by a process with four devices, on the last and over all of them, also as earlier versions did."""
    source, new, old = (tmp_path / name for name in ("source", "new", "old"))
    for folder in (source, new, old):
        folder.mkdir()
    saved(source, model_of("gated"))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", OTHER_DEVICES, *map(str, (source, new, old))], check=True, env=environment)
    config = json.loads((source / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**config, "version": 2}))
    assert not (new / "checkpoint" / "_sharding").exists()
    sharding = old / "checkpoint" / "_sharding"
    assert "cpu:3" in sharding.read_text()
    assert "NamedSharding" in sharding.read_text()
    expected = jax.tree.leaves(model_of("gated"))

    def same(loaded):
        for a, b in zip(jax.tree.leaves(loaded), expected, strict=True):
            np.testing.assert_array_equal(a, b)

    same(load_model(new))
    with pytest.warns(UserWarning, match="does not say which configuration"):
        same(load_model(old))
    sharding.write_text(sharding.read_text().replace("cpu:3", "cuda:0"))
    with pytest.warns(UserWarning, match="version 2"):
        same(load_model(old))
    sharding.unlink()
    with pytest.warns(UserWarning, match="version 2"):
        same(load_model(old))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), model_of("gated"))


def edited(run, folder, change):
    """A copy of a run whose configuration went through `change`."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(content)))
    return folder


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("species", [1, 6]),
        ("species", [2, 1]),
        ("orbital_basis", "6-31g"),
        ("potential_basis", "6-31g"),
        ("power_order", 2),
        ("power_kinds", ["lowdin"]),
        ("members", 2),
        ("baseline", "core"),
        ("hidden", [8]),
        ("gated", 2),
        ("precision", "float32"),
        ("network", "linear"),
        ("target", "density"),
        ("frame", "lowdin"),
        ("inputs", ["overlap", "sap"]),
        ("cutoff", 6.0),
        ("layers", 2),
        ("coupling", True),
        ("product_precision", "float64"),
    ],
)
def test_an_edited_configuration_is_refused(run, tmp_path, entry, value):
    before = dataclasses.asdict(model_of("gated").config)[entry]

    def change(content):
        content["model"][entry] = value
        return content

    both = f"{entry} is {value!r} in config.json and {list(before) if isinstance(before, tuple) else before!r} in it"
    with refused(re.escape(f"contradicts the checkpoint: {both}")):
        load_model(edited(run, tmp_path, change))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("data", {**DATA, "geometries": 5, "xc": "hf"}, "contradicts the checkpoint: data is .*'hf'.*'b3lyp'"),
        ("version", 2, "version is 2 in config.json and 3"),
        ("version", 99, "version 99"),
        ("kind", "property", "load_property_model"),
        ("model", ["sto-3g"], "model \\['sto-3g'\\], expected an object"),
        ("model", None, "model None, expected an object"),
        ("model", {"species": [1]}, "model entries .*'layers'.* do not fit"),
    ],
)
def test_other_entries_that_do_not_fit_are_refused(run, tmp_path, entry, value, message):
    with refused(message):
        load_model(edited(run, tmp_path, lambda content: {**content, entry: value}))


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("layers", "three", "model entry layers is 'three', expected int"),
        ("layers", True, "layers is True, expected int"),
        ("layers", 2.0, "layers is 2.0, expected int"),
        ("layers", 0, "layers is 0; give at least 1"),
        ("coupling", 1, "coupling is 1, expected bool"),
        ("cutoff", "6", "cutoff is '6', expected float"),
        ("species", [1, "O"], "species is \\[1, 'O'\\], expected tuple"),
        ("species", 8, "species is 8, expected tuple"),
        ("network", ["gated"], "network is \\['gated'\\], expected str"),
        ("orbital_basis", {"H": [[0, [1.0, 1.0]]]}, "orbital_basis is .*, expected str"),
        ("orbital_basis", "6-31", "6-31' is not known"),
    ],
)
def test_entries_of_the_wrong_type_are_refused(run, tmp_path, entry, value, message):
    def change(content):
        content["model"][entry] = value
        return content

    with refused(message):
        load_model(edited(run, tmp_path, change))


@pytest.mark.parametrize("text", ["[]", "3", "{", "", "\xff"])
def test_configurations_that_are_no_objects_are_refused(run, tmp_path, text):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with refused("config.json"):
        load_model(tmp_path)


def test_a_property_model_is_held_to_its_configuration_too(tmp_path):
    for name in ("run", "edited"):
        (tmp_path / name).mkdir()
    saved(tmp_path / "run", model_of("property"))

    def change(content):
        content["model"]["power_kind"] = "metric"
        return content

    with refused("power_kind is 'metric' in config.json and 'raw' in it"):
        load_property_model(edited(tmp_path / "run", tmp_path / "edited", change))


def test_other_data_of_a_basis_set_are_refused(run, monkeypatch):
    """As after an update of basis-set-exchange: an exponent of helium, or the fit of the atomic potential, differs."""
    real = fit_record.element_basis
    for basis, message in (("sto-3g", "orbital_basis 'sto-3g' of He"), ("sap_grasp_small", "'sap_grasp_small' of He")):

        def changed(name, number, basis=basis):
            shells, core = real(name, number)
            if (name, number) != (basis, 2):
                return shells, core
            (l, (exponent, *rest), *rows), *others = shells
            return [[l, [exponent * (1 + 1e-9), *rest], *rows], *others], core

        monkeypatch.setattr(fit_record, "element_basis", changed)
        with refused(f"{message}.* has other exponents or coefficients in basis-set-exchange"):
            load_model(run)
    monkeypatch.setattr(fit_record, "element_basis", lambda name, number: (real(name, number)[0], 2))
    with refused("of H.* has other"):  # core electrons change the nuclear charges
        load_model(run)


def old_run(folder, arrays):
    """As earlier versions wrote it, without a record and without any check."""
    import orbax.checkpoint as ocp

    write_config(folder, GATED, {})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "version": 2}))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "checkpoint").absolute(), arrays)


def arrays_of(run):
    return read_checkpoint(run / "checkpoint")[0]


def replaced(arrays, name, value):
    """A copy of nested dicts with one leaf, or one branch, replaced; None removes it."""
    first, _, rest = name.partition("/")
    content = dict(arrays)
    if rest:
        content[first] = replaced(arrays[first], rest, value)
    elif value is None:
        del content[first]
    else:
        content[first] = value
    return content


BIAS = "params/metric-0/params/invariants/layer_0/bias"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (BIAS, np.zeros(5), r"has shape \(5,\) and not \(4,\)"),
        (BIAS, None, "bias is missing"),
        ("params/raw-0", {"x": np.zeros(1)}, "raw-0/x is not part of it"),
        ("statistics/metric/mean/0+", np.zeros((6, 2)), "statistics/metric/mean/0+"),
        ("statistics/metric", None, "statistics/metric/.* is missing"),
        (BIAS, np.array([0, np.nan, 0, np.inf]), "2 of 4 numbers in params/.*/bias that are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run, tmp_path, name, value, message):
    """By the loader, in checkpoints of earlier versions, and before a new one is written."""
    message = message.replace("0+", "0\\+")
    arrays = replaced(arrays_of(run), name, value)
    old_run(tmp_path, arrays)
    with pytest.warns(UserWarning, match="version 2"), refused(message):
        load_model(tmp_path)
    model = load_model(run)
    if name.startswith("params"):
        with refused(message):
            save_model(tmp_path / "new", dataclasses.replace(model, params=arrays["params"]))
        assert not (tmp_path / "new").exists()


def test_a_checkpoint_without_record_is_no_run_of_this_version(run, tmp_path):
    arrays = arrays_of(run)
    old_run(tmp_path, arrays)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "version": 3}))
    with refused("does not say which configuration it fits"):
        load_model(tmp_path)


@pytest.mark.parametrize("damage", ["lost", "half", "other"])
@pytest.mark.parametrize("file", ["manifest.ocdbt", "d/*", "_METADATA"])
def test_damaged_checkpoints_are_refused(run, tmp_path, file, damage):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (damaged,) = (tmp_path / "checkpoint").glob(file)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2] if damage == "half" else b"other")
    if damage == "lost":
        damaged.unlink()
    with refused("cannot be read"):
        load_model(tmp_path)


def test_one_changed_bit_of_the_weights_is_seen(tmp_path, monkeypatch):
    """Storage that still reads, with other numbers than were written."""
    arrays = {"params": {"weight": np.arange(6.0).reshape(2, 3)}}
    write_checkpoint(tmp_path / "whole", arrays, {"model": {}})
    kept, record = read_checkpoint(tmp_path / "whole")
    np.testing.assert_array_equal(kept["params"]["weight"], arrays["params"]["weight"])
    assert record == {"model": {}}
    changed = np.array(arrays["params"]["weight"])
    changed.view(np.uint8)[0, 3] ^= 1
    true_digest = checkpoint._digest(arrays)
    assert true_digest != checkpoint._digest({"params": {"weight": changed}})
    monkeypatch.setattr(checkpoint, "_digest", lambda _: true_digest)  # a writer whose numbers change on the way
    write_checkpoint(tmp_path / "changed", {"params": {"weight": changed}}, {"model": {}})
    monkeypatch.undo()
    with refused("its numbers are not those that were written"):
        read_checkpoint(tmp_path / "changed")


def test_checkpoints_and_configurations_are_not_overwritten(run):
    before = (run / "config.json").read_bytes()
    with refused("exists"):
        save_model(run, model_of("gated"))
    with refused("File exists"):
        write_config(run, GATED, {})
    assert (run / "config.json").read_bytes() == before
    load_model(run)


def test_settings_that_json_cannot_hold_or_that_clash_are_refused(tmp_path):
    with refused("settings hold .* of type object"):
        write_config(tmp_path, GATED, {"data": object()})
    with refused("entries model, which write_config makes"):
        write_config(tmp_path, GATED, {"model": {}})
    assert not list(tmp_path.iterdir())


def test_the_attributes_of_the_data_are_kept(run, tmp_path):
    assert training_data(run) == {"xc": "b3lyp", "small_basis": "sto-3g", "large_basis": "def2-tzvp", "geometries": 5}
    write_config(tmp_path, GATED, {})
    with refused("does not say what the model was trained on"):
        training_data(tmp_path)
    with refused("holds no config.json"):
        training_data(tmp_path / "absent")


@pytest.mark.parametrize("error", [vp.InputError, KeyboardInterrupt])
def test_a_failed_run_removes_what_it_made_and_nothing_else(run, tmp_path, error):
    folder, notes = tmp_path / "runs" / "new", tmp_path / "runs" / "new" / "notes.txt"

    def failing(keep):
        with started_run(folder, GATED, {}) as made:
            write_checkpoint(made / "checkpoint", arrays_of(run), {})
            if keep:
                notes.write_text("of the user")
            raise error

    for _ in range(2):  # the second is not blocked by the first
        with pytest.raises(error):
            failing(keep=False)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(error):
        failing(keep=True)
    assert list(folder.iterdir()) == [notes]
    for path, message in ((folder, "not empty"), (notes / "run", "cannot be made")):
        with refused(message), started_run(path, GATED, {}):
            pass
    assert notes.read_text() == "of the user"
