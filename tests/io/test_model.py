"""Saved models: usable under every transformation, readable anywhere, and refused where they do not fit."""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vpotjax as vp
from tests.io.samples import GATED, PROPERTY, SMALL, random_model, refused, saved
from tests.molecules import central_difference
from vpotjax.io import checkpoint
from vpotjax.io import model as saved_model
from vpotjax.io.checkpoint import read_checkpoint, write_checkpoint
from vpotjax.io.model import load_model, replace_model, save_model
from vpotjax.models import Calibration, Domain, Ensemble, MatrixModel, PropertySettings
from vpotjax.nn import Linear, MatrixPower

SETTINGS = {
    "gated": GATED,
    "linear": dataclasses.replace(GATED, network=Linear(), frame="ao", target="density"),
    "matrix-power": dataclasses.replace(
        GATED, network=MatrixPower(gated=1, hidden=(4,), layers=1, channels=1, shells=1), precision="float32"
    ),
    "property": PROPERTY,
}
# HeH+ has a dipole, and functions of l = 0 only: it compiles fast.
HELIUM = dataclasses.replace(SMALL, species=(1, 2))
FAST = {
    "gated": dataclasses.replace(GATED, representation=HELIUM),
    "property": dataclasses.replace(PROPERTY, representation=HELIUM, target="energy"),
}
MOLECULES = [vp.Molecule([2, 1], np.array([[0, 0, 0], [0.3, 0.4, z]]), charge=1) for z in (1.4, 1.6)]
HYDROGEN = [vp.Molecule([1, 1], m.positions) for m in MOLECULES]  # models of properties see no charge
OBSERVABLES = ("mo_energies", "dipole")

model_of = functools.cache(random_model)


def molecules_for(settings):
    return HYDROGEN if isinstance(settings, PropertySettings) else MOLECULES


def output(model, molecule):
    """What a model is for, as a tree of arrays."""
    names = (model.settings.target,) if isinstance(model.settings, PropertySettings) else OBSERVABLES
    return model.prediction(model.model.prepared(model.settings.geometry(molecule)), names)


def same(loaded, fresh):
    """To the last bit, in arrays, their types, and settings."""
    assert jax.tree.structure(loaded) == jax.tree.structure(fresh)
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(fresh), strict=True):
        assert isinstance(a, np.ndarray)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SETTINGS)
def test_models_come_back(tmp_path, name):
    fresh = model_of(SETTINGS[name])
    same(load_model(saved(tmp_path, fresh)), fresh)


def test_one_model_of_matrices_comes_back_as_an_ensemble(tmp_path):
    fresh = model_of(GATED, 1)
    alone = dataclasses.replace(fresh.model, params=jax.tree.map(lambda x: x[0], fresh.model.params))
    assert isinstance(alone, MatrixModel)
    same(load_model(saved(tmp_path, alone)), dataclasses.replace(fresh, calibration={}, domain=Domain()))


@pytest.mark.parametrize("calibrated", [0, 2, 3])
def test_a_run_that_says_less_of_molecules_and_uncertainties_is_read(tmp_path, calibrated):
    """As older versions wrote them."""
    fresh = dataclasses.replace(model_of(GATED), domain=Domain((-1, 0) if calibrated else ()))
    less = {name: Calibration(*own[:calibrated]) for name, own in fresh.calibration.items() if calibrated}
    fresh = dataclasses.replace(fresh, calibration=less)
    folder = saved(tmp_path, fresh)
    arrays, record = read_checkpoint(folder / "checkpoint")
    assert record is not None
    if calibrated:
        arrays["calibration"] = {name: own[:calibrated] for name, own in arrays["calibration"].items()}
    shutil.rmtree(folder / "checkpoint")
    older = {k: v for k, v in record.items() if k not in ("domain", "sha256")}
    write_checkpoint(folder / "checkpoint", arrays, older | ({"charges": [-1, 0]} if calibrated else {}))
    same(load_model(folder), fresh)


def test_a_calibration_takes_the_place_of_another_or_nothing_changes(tmp_path, monkeypatch):
    fresh = model_of(GATED)
    folder = saved(tmp_path, fresh)
    files = sorted(file.name for file in folder.iterdir())
    other = {name: own._replace(growth=np.asarray(1.5)) for name, own in fresh.calibration.items()}
    other = dataclasses.replace(fresh, calibration=other, domain=Domain((0,), 3, 9))
    replace_model(folder, other)
    same(load_model(folder), other)
    assert sorted(file.name for file in folder.iterdir()) == files
    broken = dataclasses.replace(other, calibration={"dipole": Calibration(*map(np.asarray, (1.0, np.nan, 0.0)))})
    with pytest.raises(vp.InputError, match="not finite"):
        replace_model(folder, broken)
    moved = Path.rename

    def ended_at_the_new(own, target):
        if own.name == "checkpoint" and Path(target).name == "checkpoint":
            raise KeyboardInterrupt
        return moved(own, target)

    monkeypatch.setattr(Path, "rename", ended_at_the_new)
    with pytest.raises(KeyboardInterrupt):
        replace_model(folder, fresh)
    monkeypatch.undo()
    same(load_model(folder), other)
    assert sorted(file.name for file in folder.iterdir()) == files


def test_a_property_model_without_correction_comes_back(tmp_path):
    """As where the network did not help; or where it is linear, and knows its range."""
    own = model_of(PROPERTY).model
    for i, whitening in enumerate((None, own.whitening)):
        fresh = Ensemble.of([dataclasses.replace(own, whitening=whitening, params=None)])
        (tmp_path / str(i)).mkdir()
        same(load_model(saved(tmp_path / str(i), fresh)), fresh)


@pytest.mark.parametrize("name", FAST)
def test_every_use_of_a_loaded_model_is_a_call_of_the_fresh_one(tmp_path, name):
    fresh = model_of(FAST[name])
    model = load_model(saved(tmp_path, fresh))
    batch = model.settings.batch(molecules_for(model.settings))
    expected = jax.jit(output)(fresh, batch[0])

    def close(result, each):
        leaves = (jax.tree.leaves(tree) for tree in (result, expected))
        for a, b in zip(*leaves, strict=True):
            assert np.abs(b).max() > 1e-4  # far above rounding
            np.testing.assert_allclose(a[0] if each else a, b, rtol=1e-9, atol=1e-9)  # other orders of summation

    close(jax.jit(lambda b: jax.lax.map(functools.partial(output, model), b))(batch), each=True)
    close(jax.jit(jax.vmap(output, (None, 0)))(model, batch), each=True)
    if name == "property":  # is fast
        moved = jax.jit(lambda positions: output(model, dataclasses.replace(batch[0], positions=positions)))
        close(moved(batch[0].positions), each=False)  # over model and molecule


@pytest.mark.parametrize("name", SETTINGS)
def test_tracers_pass_through_fresh_and_loaded_models(tmp_path, name):
    """Without compilation: what tracers cannot do fails while they are followed."""
    settings = SETTINGS[name]
    settings = dataclasses.replace(settings, representation=HELIUM, target="energy" if name == "property" else "fock")
    fresh = model_of(settings)
    model = load_model(saved(tmp_path, fresh))
    batch = settings.batch(molecules_for(settings))
    shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(output, model, batch[0]))]
    pair = jax.tree.map(lambda x: np.stack([x] * 2), model)
    uses = [(jax.vmap(lambda one: output(one, batch[0])), pair)]
    for one in (fresh, model):
        use = functools.partial(output, one)
        uses += [(jax.vmap(use), batch), (functools.partial(jax.lax.map, use), batch)]
    for use, given in uses:
        traced = jax.tree.leaves(jax.eval_shape(use, given))
        assert [x.shape for x in traced] == [(2, *shape) for shape in shapes]


@pytest.mark.parametrize("name", FAST)
def test_gradients_in_the_parameters_of_a_loaded_model(tmp_path, name):
    """Against a finite difference along the gradient."""
    model = load_model(saved(tmp_path, model_of(FAST[name])))
    molecule = model.settings.batch(molecules_for(model.settings))[0]
    params = model.model.params

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        changed = dataclasses.replace(model, model=dataclasses.replace(model.model, params=params))
        if name == "property":
            return changed(molecule) ** 2
        return jnp.sum(changed(molecule).mo_energies ** 2)

    _, gradient = loss(params)
    size = np.sqrt(sum(np.sum(np.asarray(g) ** 2) for g in jax.tree.leaves(gradient)))
    assert size > 1e-3

    def along(t):
        return float(loss(jax.tree.map(lambda p, g: p + t * g / size, params, gradient))[0])

    # 1e-6 is what AD against finite differences must reach; the quotient itself is good to about 1e-8.
    np.testing.assert_allclose(central_difference(along, 1e-4), size, rtol=1e-6)


OTHER_DEVICES = """
import json, pathlib, sys
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from vpotjax.io.model import load_model, save_model
from vpotjax.io.run import training_data, write_config
source, new = map(pathlib.Path, sys.argv[1:])
assert len(jax.devices()) == 4
mesh = Mesh(jax.devices(), ("x",))
kinds = set()
def placed(leaf):
    if leaf.shape and leaf.shape[-1] % 4 == 0:
        leaf = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*[None] * (leaf.ndim - 1), "x")))
    else:
        leaf = jax.device_put(leaf, jax.devices()[3])
    kinds.add(type(leaf.sharding).__name__)
    return leaf
model = jax.tree.map(placed, load_model(source))
assert len(kinds) == 2
data = training_data(source)
write_config(new, model.settings, {"data": data})
save_model(new, model, data)
"""


def test_models_of_other_devices_load(tmp_path):
    """Saved by a process with four devices, on the last and over all of them."""
    source, new = (tmp_path / name for name in ("source", "new"))
    for folder in (source, new):
        folder.mkdir()
    saved(source, model_of(GATED))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    subprocess.run([sys.executable, "-c", OTHER_DEVICES, *map(str, (source, new))], check=True, env=environment)
    assert not (new / "checkpoint" / "_sharding").exists()
    same(load_model(new), model_of(GATED))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("run"), model_of(GATED))


def test_other_data_of_a_basis_set_are_refused(run, monkeypatch):
    """As after an update of basis-set-exchange: an exponent of oxygen, or the fit of the atomic potential, differs."""
    real = saved_model.element_basis
    for basis, message in (
        ("sto-3g", "representation.basis 'sto-3g' of O, orbital_basis 'sto-3g' of O"),
        ("sap_grasp_small", "sap 'sap_grasp_small' of O"),
    ):

        def changed(name, number, basis=basis):
            shells, core = real(name, number)
            if (name, number) != (basis, 8):
                return shells, core
            (l, (exponent, *rest), *rows), *others = shells
            return [[l, [exponent * (1 + 1e-9), *rest], *rows], *others], core

        monkeypatch.setattr(saved_model, "element_basis", changed)
        with refused(f"{message}.* has other exponents or coefficients in basis-set-exchange"):
            load_model(run)
    monkeypatch.setattr(saved_model, "element_basis", lambda name, number: (real(name, number)[0], 2))
    with refused("of H.* has other"):  # core electrons change the nuclear charges
        load_model(run)


def replaced(tree, name, value):
    """A copy of nested dicts with one leaf, or one branch, replaced; None removes it."""
    first, _, rest = name.partition("/")
    content = dict(tree)
    if rest:
        content[first] = replaced(tree[first], rest, value)
    elif value is None:
        del content[first]
    else:
        content[first] = value
    return content


BIAS = "params/params/invariants/atom/bias"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (BIAS, np.zeros((2, 5)), r"has shape \(2, 5\) and not \(2, 4\)"),
        (BIAS, np.zeros((3, 4)), r"has shape \(3, 4\) and not \(2, 4\)"),
        (BIAS, None, "bias is missing"),
        ("params/other", {"x": np.zeros(1)}, "params/other/x is not part of it"),
        ("params", None, r"params/.* is missing, .* and \d+ more"),
        ("whitening/mean/0+", np.zeros((5, 2)), r"whitening/mean/0\+ has shape \(5, 2\)"),
        ("whitening/support", np.zeros(4), r"support has shape \(4,\) and not \(5, "),
        ("whitening", None, "whitening/.* is missing"),
        ("linear/1-", None, "linear/1- is missing"),
        ("linear/2-", np.zeros(1), "linear/2- is not part of it"),
        ("scale", np.zeros(2), r"scale has shape \(2,\) and not \(\)"),
        (
            BIAS,
            np.array([[0, np.nan, 0, 0], [0, 0, 0, np.inf]]),
            "2 of 8 numbers in params/.*/bias that are not finite",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(run, tmp_path, monkeypatch, name, value, message):
    """By the loader, and before a checkpoint is written."""
    arrays, record = read_checkpoint(run / "checkpoint")
    changed = replaced(arrays, name, value)
    shutil.copy(run / "config.json", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "require_finite", lambda *_: None)
        write_checkpoint(tmp_path / "checkpoint", changed, record)
    with refused(message):
        load_model(tmp_path)
    if name.startswith("params") and value is not None:
        model = load_model(run)
        with refused(message):
            own = dataclasses.replace(model.model, params=changed["params"])
            save_model(tmp_path / "new", dataclasses.replace(model, model=own))
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("record", [None, {}, {"model": {}}])
def test_a_checkpoint_that_does_not_say_what_it_fits_is_refused(run, tmp_path, record):
    arrays, _ = read_checkpoint(run / "checkpoint")
    shutil.copy(run / "config.json", tmp_path)
    if record is None:
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "checkpoint", arrays)
    else:
        write_checkpoint(tmp_path / "checkpoint", arrays, record)
    with refused("does not say which settings it fits"):
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
