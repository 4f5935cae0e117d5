"""Run folders: configuration, metrics, checkpoint. A model in a folder carries all that prediction needs."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.checkpoint import read_checkpoint, require_finite, write_checkpoint
from vpotjax.io.fit_record import fit_record, require_fitting_arrays, require_same_fit
from vpotjax.model import Model, ModelConfig
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import FeatureStatistics
from vpotjax.property_model import PropertyConfig, PropertyModel

FORMAT = "vpotjax-run"
VERSION = 3
WITHOUT_RECORD = 2
"""The version that is read, too; its checkpoints do not say which configuration they fit."""
CONFIG_FILE = "config.json"
CHECKPOINT = "checkpoint"
C = TypeVar("C", ModelConfig, PropertyConfig)
T = TypeVar("T")
KINDS = {ModelConfig: "matrix", PropertyConfig: "property"}


def new_run_folder(path: str | Path) -> Path:
    """Make an empty run folder.

    Raises:
        InputError: the folder has content, or cannot be made; nothing in it is touched.
    """
    path = Path(path)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"run folder {str(path)!r} exists and is not empty; choose another name or delete it.")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run folder {str(path)!r} cannot be made ({error}); choose another place.") from None
    return path


@contextlib.contextmanager
def started_run(path: str | Path, config: ModelConfig | PropertyConfig, settings: Mapping[str, Any]) -> Iterator[Path]:
    """A new run folder with its configuration; where the work in it fails, what this made is removed again.

    Args:
        path: of the folder, new or empty.
        config, settings: see `write_config`.

    Raises:
        InputError: as of `new_run_folder` and `write_config`.
    """
    settings = json_ready(settings)
    made = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
    folder = new_run_folder(path)
    write_config(folder, config, settings)
    try:
        yield folder
    except BaseException:
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for part in folder.glob(f"{CHECKPOINT}*"):  # or what is there of it
            shutil.rmtree(part, ignore_errors=True)
        with contextlib.suppress(OSError):  # others put files there
            for empty in made:
                empty.rmdir()
        raise


def write_config(folder: str | Path, config: ModelConfig | PropertyConfig, settings: Mapping[str, Any]) -> None:
    """The configuration of a run as JSON: model, and `settings` for everything else.

    Raises:
        InputError: the folder has one, or `settings` hold what JSON cannot.
    """
    import jax

    import vpotjax

    content = {
        "format": FORMAT,
        "version": VERSION,
        "vpotjax_version": vpotjax.__version__,
        "jax_version": jax.__version__,
        "device": str(jax.devices()[0].device_kind),
        "kind": KINDS[type(config)],
        "model": dataclasses.asdict(config),
    }
    taken = sorted(content.keys() & settings.keys())
    if taken:
        raise InputError(f"settings have the entries {', '.join(taken)}, which write_config makes; rename them.")
    text = json.dumps(json_ready({**content, **settings}), indent=2) + "\n"
    file = Path(folder) / CONFIG_FILE
    try:
        with file.open("x") as stream:
            stream.write(text)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be written ({error.strerror}); choose another run folder.") from None


def write_metrics(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows` as CSV, one column per key of the first."""
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def save_model(folder: str | Path, model: Model | PropertyModel, data: Mapping[str, Any] | None = None) -> None:
    """Parameters, normalisation, and the configuration and bases that they fit, as a checkpoint.

    The configuration that people read is written by `write_config`; `load_model` compares the two.

    Args:
        folder: of the run.
        model: on whatever devices.
        data: attributes of the data set that it was trained on, the same that `write_config` got as "data".

    Raises:
        InputError: the folder has a checkpoint, or the arrays are not finite or do not fit the configuration.
    """
    arrays = _property_arrays(model) if isinstance(model, PropertyModel) else _model_arrays(model)
    require_fitting_arrays("the model", arrays, model.config)
    record = {"kind": KINDS[type(model.config)], "version": VERSION, **fit_record(model.config)}
    write_checkpoint(Path(folder) / CHECKPOINT, arrays, json_ready(record | ({} if data is None else {"data": data})))


def load_model(path: str | Path) -> Model:
    """The model of matrices in a run folder; its arrays are NumPy arrays.

    Raises:
        InputError: the folder is no run folder, is from another version, holds a model of a property, its checkpoint
            is incomplete or damaged, or its configuration or the basis sets are not those that the weights fit.
    """

    def build(config: ModelConfig, restored: dict[str, Any]) -> Model:
        statistics = {kind: _from_statistics(values) for kind, values in restored["statistics"].items()}
        return Model(config, restored["params"], statistics)

    return _load(Path(path), ModelConfig, build)


def load_property_model(path: str | Path) -> PropertyModel:
    """The model of a property in a run folder; errors as of `load_model`."""

    def build(config: PropertyConfig, restored: dict[str, Any]) -> PropertyModel:
        statistics = _from_statistics(restored["statistics"]) if "statistics" in restored else None
        params = restored.get("params")
        weights, regularisers = _by_irrep(restored["weights"]), _by_irrep(restored["regularisers"])
        return PropertyModel(config, weights, restored["per_atom"], regularisers, params, statistics)

    return _load(Path(path), PropertyConfig, build)


def training_data(path: str | Path) -> dict[str, Any]:
    """Attributes of the data set that the model in a run folder was trained on, see `Dataset.attributes`.

    Raises:
        InputError: the folder is no run folder, or does not say.
    """
    data = _read_config(Path(path)).get("data")
    if not isinstance(data, dict):
        raise InputError(
            f"run={str(path)!r}: {CONFIG_FILE} does not say what the model was trained on (data is {data!r}); train "
            "with 'vpotjax train', or write_config(..., {'data': attributes})."
        )
    return data


def _load(folder: Path, config_type: type[C], build: Callable[[C, dict[str, Any]], T]) -> T:
    content = _read_config(folder)
    if content.get("kind") != KINDS[config_type]:
        other = "load_property_model" if config_type is ModelConfig else "load_model"
        raise InputError(
            f"run={str(folder)!r} holds a model of kind {content.get('kind')!r}; load it with vpotjax.io.run.{other}."
        )
    config = _config(folder, content.get("model"), config_type)
    if not (folder / CHECKPOINT).is_dir():
        raise InputError(f"run folder {str(folder)!r} has no {CHECKPOINT}; the run did not finish, start it again.")
    arrays, record = read_checkpoint(folder / CHECKPOINT)
    _check_record(folder, content, record, config)
    require_fitting_arrays(f"checkpoint in {str(folder)!r}", arrays, config)
    require_finite(arrays, f"checkpoint in {str(folder)!r}")
    return build(config, arrays)


def _check_record(
    folder: Path, content: Mapping[str, Any], record: Mapping[str, Any] | None, config: ModelConfig | PropertyConfig
) -> None:
    if record is None:
        if content["version"] != WITHOUT_RECORD:
            raise InputError(
                f"checkpoint in {str(folder)!r} does not say which configuration it fits, as version "
                f"{content['version']} does; it is from another run: restore the run's own, or train again."
            )
        warnings.warn(
            f"run={str(folder)!r} is of version {WITHOUT_RECORD}: its checkpoint does not say which configuration and "
            f"basis sets it fits, so {CONFIG_FILE} is trusted; train again to have it checked.",
            stacklevel=4,
        )
        return
    for name in ("kind", "version", "data"):
        if name in record and record[name] != content.get(name):
            raise InputError(
                f"run={str(folder)!r}: {CONFIG_FILE} contradicts the checkpoint: {name} is {content.get(name)!r} in "
                f"{CONFIG_FILE} and {record[name]!r} in it; undo the change of {CONFIG_FILE}."
            )
    require_same_fit(str(folder), CONFIG_FILE, record, fit_record(config))


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"run={str(folder)!r} holds no {CONFIG_FILE}; give a folder that 'vpotjax demo' wrote.")
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} is not JSON ({error}); run the training again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(file)!r} holds a JSON {type(content).__name__}, not an object; run the training again.")
    if content.get("format") != FORMAT or content.get("version") not in (WITHOUT_RECORD, VERSION):
        raise InputError(
            f"run={str(folder)!r} is {content.get('format', 'of unknown format')} version {content.get('version')} "
            f"(written by vpotjax {content.get('vpotjax_version', '?')}), this program reads {FORMAT} {VERSION}; "
            "train again, or install the version that wrote it."
        )
    return content


def _config(folder: Path, values: Any, config_type: type[C]) -> C:
    where = f"run={str(folder)!r}: {CONFIG_FILE}"
    if not isinstance(values, dict):
        raise InputError(f"{where} has the model {values!r}, expected an object with its entries; restore the file.")
    hints = typing.get_type_hints(config_type)
    if set(values) != set(hints):
        raise InputError(
            f"{where} has model entries {sorted(set(values) ^ set(hints))} that do not fit; "
            "train again, or install the version that wrote it."
        )
    fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in fitting.items():
        if not _is_of(value, hints[name]):
            expected = getattr(hints[name], "__name__", "") if isinstance(hints[name], type) else str(hints[name])
            raise InputError(f"{where}: model entry {name} is {values[name]!r}, expected {expected}; restore the file.")
    try:
        return config_type(**fitting)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value has the type of a field: bool, int, float, str, None, a tuple of one type, or a union."""
    if isinstance(hint, types.UnionType):
        return any(_is_of(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, typing.get_args(hint)[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def json_ready(value: Any) -> Any:
    """`value` with NumPy numbers and arrays, tuples and bytes as what JSON holds.

    Raises:
        InputError: something else that JSON cannot hold.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, np.ndarray | np.generic):
            return item.tolist()
        if isinstance(item, bytes):
            return item.decode()
        raise InputError(f"settings hold {item!r} of type {type(item).__name__}; give what JSON can hold.")

    return json.loads(json.dumps(value, default=plain))


def _model_arrays(model: Model) -> dict[str, Any]:
    return {"params": model.params, "statistics": {k: _to_statistics(s) for k, s in model.statistics.items()}}


def _property_arrays(model: PropertyModel) -> dict[str, Any]:
    arrays: dict[str, Any] = {"weights": _by_text(model.weights), "regularisers": _by_text(model.regularisers)}
    arrays["per_atom"] = model.per_atom
    if model.statistics is not None:
        arrays |= {"params": model.params, "statistics": _to_statistics(model.statistics)}
    return arrays


def _to_statistics(statistics: FeatureStatistics) -> dict[str, Any]:
    return {name: _by_text(getattr(statistics, name)) for name in ("mean", "transform")}


def _from_statistics(values: Mapping[str, Any]) -> FeatureStatistics:
    return FeatureStatistics(_by_irrep(values["mean"]), _by_irrep(values["transform"]))


def _by_text(values: Mapping[Irrep, Any]) -> dict[str, Any]:
    return {str(irrep): value for irrep, value in values.items()}


def _by_irrep(values: Mapping[str, Any]) -> dict[Irrep, Any]:
    return {Irrep(int(key[:-1]), 1 if key[-1] == "+" else -1): value for key, value in values.items()}
