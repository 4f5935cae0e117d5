"""What a saved model is: settings in the configuration of its run, arrays in a checkpoint, a record of what these fit.

The record lies in the checkpoint: settings, and digests of the basis sets. Whoever loads the model has them compared.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vpotjax._checks import InputError
from vpotjax.basis import element_basis
from vpotjax.batching import PairList
from vpotjax.electronic.observables import OBSERVABLES
from vpotjax.io.checkpoint import by_name, read_checkpoint, require_finite, write_checkpoint
from vpotjax.io.run import CHECKPOINT, CONFIG_FILE, VERSION, read_config
from vpotjax.io.settings import KINDS, Settings, json_ready, settings_from_json, settings_json
from vpotjax.models import Ensemble, MatrixModel, MatrixSettings, PropertyModel, PropertySettings
from vpotjax.models.calibration import Calibration
from vpotjax.models.domain import Domain
from vpotjax.models.linear_map import LinearMap
from vpotjax.nn import Network
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import SCALAR, NetworkInputs
from vpotjax.operators.pairs import kind_count
from vpotjax.operators.representation import FACTOR_LAST
from vpotjax.operators.whitening import Whitening

__all__ = ["load_model", "save_model", "settings_from_json", "settings_json"]

SCREENING_BASIS = "sap_grasp_small"  # the fits of `screened_potential`
CALIBRATION = "calibration"  # of a checkpoint: by observable, as many of the fields of `Calibration` as its version had
DOMAIN = "domain"  # of its record
SHOWN = 4  # differences in a message


def save_model(
    folder: str | Path, model: Ensemble[Any] | MatrixModel | PropertyModel, data: Mapping[str, Any] | None = None
) -> None:
    """Arrays with the calibration, and the settings and bases that they fit, as a checkpoint; `config.json` is not
    written.

    Args:
        folder: of the run.
        model: on whatever devices; a single one becomes an ensemble of one.
        data: attributes of the data set that it was trained on, the same that `write_config` got as "data".

    Raises:
        InputError: the folder has a checkpoint, or the arrays are not finite or do not fit the settings.
    """
    own: Ensemble[Any] = model if isinstance(model, Ensemble) else Ensemble.of([model])
    settings, arrays = own.settings, _arrays(own)
    _require_shapes("the model", arrays, _shapes(settings, own.members, arrays, initial_shapes(settings)))
    record = {"kind": KINDS[type(settings)], "version": VERSION, "members": own.members, **_fit_record(settings)}
    record[DOMAIN] = own.domain._asdict()
    if data is not None:
        record["data"] = json_ready(data)
    write_checkpoint(Path(folder) / CHECKPOINT, arrays, record)


def replace_model(folder: str | Path, model: Ensemble[Any]) -> None:
    """The checkpoint of a run again, with another calibration; the one before stays until the new one is in its place.

    Raises:
        InputError: the folder has no configuration of this model, or as of `save_model`.
    """
    place, data = Path(folder), read_config(Path(folder)).get("data")
    final, before = place / CHECKPOINT, place / f"{CHECKPOINT}-before"
    with tempfile.TemporaryDirectory(prefix=f"{CHECKPOINT}-", dir=place) as made:
        save_model(made, model, data)
        final.rename(before)
        try:
            (Path(made) / CHECKPOINT).rename(final)
        except BaseException:
            before.rename(final)
            raise
    shutil.rmtree(before)


def load_model(path: str | Path, network: Network | None = None) -> Ensemble[Any]:
    """The model in a run folder, of a matrix or of a property; its arrays are NumPy arrays.

    Args:
        path: of the folder.
        network: equal to that of the model; needed where it is not of the package.

    Raises:
        InputError: the folder is no run folder, is from another version, its checkpoint is incomplete or damaged, or
            its settings, network or basis sets are not those that the weights fit.
    """
    settings, arrays, record = _load(Path(path), network)
    members, known = record["members"], record.get(DOMAIN, {"charges": record.get("charges") or []})  # of older ones
    sizes = known.get("size", 0), known.get("checked", 0)
    domain = Domain(tuple(known["charges"]), *sizes, tuple(known.get("bonds", ())))
    whitening = _whitening(arrays["whitening"]) if "whitening" in arrays else None
    linear, scale, params = LinearMap(_by_irrep(arrays["linear"])), arrays["scale"], arrays.get("params")
    calibration = {name: Calibration(*map(np.asarray, own)) for name, own in arrays.get(CALIBRATION, {}).items()}
    if isinstance(settings, PropertySettings):
        model = PropertyModel(settings, whitening, linear, arrays["per_atom"], scale, params)
        return Ensemble(members, model, calibration, domain)
    assert whitening is not None  # by its shapes
    return Ensemble(members, MatrixModel(settings, whitening, linear, scale, params), calibration, domain)


def _load(folder: Path, network: Network | None) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """Settings, arrays and the record."""
    content = read_config(folder)
    kind = str(content.get("kind"))
    if kind not in KINDS.values():
        known = ", ".join(KINDS.values())
        raise InputError(
            f"run={str(folder)!r} holds a model of kind {kind!r}, this program reads {known}; train again."
        )
    try:
        settings = settings_from_json(kind, content.get("model"), network)
    except ValueError as error:
        raise InputError(f"run={str(folder)!r}: {CONFIG_FILE}: {error}") from None
    if not (folder / CHECKPOINT).is_dir():
        raise InputError(f"run folder {str(folder)!r} has no {CHECKPOINT}; the run did not finish, start it again.")
    arrays, record = read_checkpoint(folder / CHECKPOINT)
    _require_same_fit(folder, content, record, _fit_record(settings))
    if not record or record["members"] is None:
        raise InputError(f"checkpoint in {str(folder)!r} does not say how many networks it has; train again.")
    initial = initial_shapes(settings)
    wanted = _shapes(settings, record["members"], arrays, initial)
    _require_shapes(f"checkpoint in {str(folder)!r}", arrays, wanted)
    require_finite(arrays, f"checkpoint in {str(folder)!r}")
    if "params" in wanted:
        arrays["params"] = jax.tree_util.tree_map_with_path(lambda path, _: _at(arrays["params"], path), initial)
    return settings, arrays, record


def _fit_record(settings: Settings) -> dict[str, Any]:
    """The settings, and a digest of the functions of each basis and element."""
    import basis_set_exchange
    from ase.data import chemical_symbols

    bases = {"representation.basis": settings.representation.basis}
    if isinstance(settings, MatrixSettings):
        bases["orbital_basis"] = settings.orbital_basis
    if "sap" in (*settings.representation.inputs, getattr(settings, "baseline", None)):
        bases["sap"] = SCREENING_BASIS
    return {
        "model": settings_json(settings),
        "bases": {
            f"{key} {name!r} of {chemical_symbols[z]}": _digest(name, z)
            for key, name in bases.items()
            for z in settings.species
        },
        "basis_set_exchange": basis_set_exchange.__version__,
    }


def _digest(basis: str, number: int) -> str:
    """Of l, exponents, coefficients and core electrons of an element."""
    shells, core = element_basis(basis, number)
    plain = [[int(l), [[float(x) for x in row] for row in rows]] for l, *rows in shells]
    return hashlib.sha256(json.dumps([plain, int(core)]).encode()).hexdigest()[:16]


def _require_same_fit(
    folder: Path, content: Mapping[str, Any], written: Mapping[str, Any] | None, read: Mapping[str, Any]
) -> None:
    """Raise InputError unless the record `written` in the checkpoint fits `content`, with `read` from its settings."""
    if written is None or not {"kind", "version", "members", *read} <= written.keys():
        raise InputError(
            f"checkpoint in {str(folder)!r} does not say which settings it fits, as version {VERSION} does; it is from "
            "another run: restore the run's own, or train again."
        )
    names = [name for name in ("kind", "version", "data") if name in written]
    ours = {name: content.get(name) for name in names} | _flat(read["model"])
    theirs = {name: written[name] for name in names} | _flat(written["model"])
    lacking = "absent"
    differing = [
        f"{name} is {ours.get(name, lacking)!r} in {CONFIG_FILE} and {theirs.get(name, lacking)!r} in it"
        for name in ours | theirs
        if json.dumps(ours.get(name, lacking), sort_keys=True) != json.dumps(theirs.get(name, lacking), sort_keys=True)
    ]
    if differing:
        raise InputError(
            f"run={str(folder)!r}: {CONFIG_FILE} contradicts the checkpoint: {_listed(differing)}; undo the change of "
            f"{CONFIG_FILE}, or train with these settings."
        )
    changed = [name for name, digest in read["bases"].items() if written["bases"].get(name) != digest]
    if changed:
        raise InputError(
            f"run={str(folder)!r}: {_listed(changed)} has other exponents or coefficients in basis-set-exchange "
            f"{read['basis_set_exchange']} than the model was fitted with in {written['basis_set_exchange']}; install "
            "that version, or train again."
        )


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Entries of nested objects by names joined by dots."""
    result = {}
    for name, value in values.items():
        result |= _flat(value, f"{before}{name}.") if isinstance(value, dict) and value else {before + name: value}
    return result


def _arrays(model: Ensemble[Any]) -> dict[str, Any]:
    """Those of a model as nested dicts with text for keys."""
    own = model.model
    arrays: dict[str, Any] = {"linear": _by_text(own.linear.weights), "scale": own.scale}
    if isinstance(own, PropertyModel):
        arrays["per_atom"] = own.per_atom
    if own.whitening is not None:
        mean, transform = _by_text(own.whitening.mean), _by_text(own.whitening.transform)
        range_of = {"support": own.whitening.support, "reach": own.whitening.reach}
        arrays["whitening"] = {"mean": mean, "transform": transform, **range_of}
    if model.calibration:
        arrays[CALIBRATION] = {name: np.stack(own) for name, own in model.calibration.items()}
    return arrays | _nested(own.params)


def _nested(params: Any) -> dict[str, Any]:
    """Any tree of arrays as nested dicts under "params"; nothing where there are none."""
    result: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *before, last = ("params", *map(_key, path))
        branch = result
        for key in before:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return result


def _at(arrays: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        arrays = arrays[_key(key)]
    return arrays


def _key(entry: Any) -> str:
    """Text of one step of a path in a tree."""
    return jax.tree_util.keystr((entry,), simple=True)


def _shapes(settings: Settings, members: int, arrays: Mapping[str, Any], initial: Any) -> dict[str, Any]:
    """What `_arrays` returns for these settings, as shapes.

    Args:
        settings: of the model.
        members: length of the leading axis of parameters.
        arrays: that there are: a model of a property may do without parameters, and then without whitening; any without
            a calibration.
        initial: parameters of one network.
    """
    kinds, species = kind_count(len(settings.species)), len(settings.species)
    channels = {irrep: sum(n) for irrep, n in _channels(settings).items()}
    shapes: dict[str, Any] = {
        "linear": {str(irrep): _zeros(kinds, channels[irrep], out.total) for irrep, out in settings.outputs},
        "scale": _zeros(),
    }
    if isinstance(settings, PropertySettings):
        shapes["per_atom"] = _zeros(species)
    if CALIBRATION in arrays:
        known = {name: own for name, own in arrays[CALIBRATION].items() if name in OBSERVABLES}
        shapes[CALIBRATION] = {
            name: _zeros(min(max(np.size(own), 2), len(Calibration._fields))) for name, own in known.items()
        }
    linear = isinstance(settings, PropertySettings) and "params" not in arrays
    if linear and "whitening" not in arrays:
        return shapes
    shapes["whitening"] = {
        "mean": {str(irrep): _zeros(kinds, n) for irrep, n in channels.items()},
        "transform": {str(irrep): _zeros(kinds, n, n) for irrep, n in channels.items()},
        "support": _zeros(kinds, channels[SCALAR], channels[SCALAR]),
        "reach": _zeros(kinds),
    }
    return shapes if linear else shapes | _nested(jax.tree.map(lambda leaf: _zeros(members, *leaf.shape), initial))


def _channels(settings: Settings) -> dict[Irrep, tuple[int, int]]:
    return settings.representation.channels(irrep for irrep, _ in settings.outputs)


def initial_shapes(settings: Settings) -> Any:
    """Parameters of one network, as shapes; None where it has no module."""
    module = settings.network.module(settings.outputs, len(settings.species))
    if module is None:
        return None
    natm, npair, channels = 2, 3, _channels(settings)
    layout, count = settings.representation.layout, sum(name in settings.representation.inputs for name in FACTOR_LAST)
    of_pairs = _zeros(npair, dtype="int32")
    inputs = NetworkInputs(
        values={i: _zeros(npair, sum(n), 2 * i.lam + 1, dtype=settings.precision) for i, n in channels.items()},
        even=tuple((irrep, even) for irrep, (even, _) in channels.items()),
        kinds=of_pairs,
        elements=_zeros(natm, dtype="int32"),
        pairs=PairList(of_pairs, of_pairs, _zeros(npair, 3, dtype="int32"), _zeros(npair, dtype="bool")),
        operators=_zeros(count, npair, layout.width, layout.width, dtype=settings.precision)
        if getattr(settings.network, "operators", False)
        else None,
        layout=layout,
    )
    return jax.eval_shape(module.init, jax.random.key(0), inputs)


def _zeros(*shape: int, dtype: str = "float32") -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _require_shapes(owner: str, arrays: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError unless the arrays of `owner` have the names and shapes of `wanted`."""
    have = {name: np.shape(leaf) for name, leaf in by_name(arrays).items()}
    need = {name: leaf.shape for name, leaf in by_name(wanted).items()}
    differing = [
        f"{name} has shape {have[name]} and not {need[name]}"
        if name in have and name in need
        else f"{name} is {'missing' if name in need else 'not part of it'}"
        for name in sorted(have.keys() | need.keys())
        if have.get(name) != need.get(name)
    ]
    if differing:
        raise InputError(
            f"{owner} has arrays that do not fit its settings: {_listed(differing)}; give the settings that the arrays "
            "were trained with, or train again."
        )


def _listed(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _whitening(values: Mapping[str, Any]) -> Whitening:
    return Whitening(_by_irrep(values["mean"]), _by_irrep(values["transform"]), values["support"], values["reach"])


def _by_text(values: Mapping[Irrep, Any]) -> dict[str, Any]:
    return {str(irrep): value for irrep, value in values.items()}


def _by_irrep(values: Mapping[str, Any]) -> dict[Irrep, Any]:
    return {Irrep(int(key[:-1]), 1 if key[-1] == "+" else -1): value for key, value in values.items()}
