"""Run folders: configuration, metrics, checkpoint. A model in a folder carries all that prediction needs."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vpotjax._checks import InputError
from vpotjax.model import Model, ModelConfig
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import FeatureStatistics
from vpotjax.property_model import PropertyConfig, PropertyModel

FORMAT = "vpotjax-run"
VERSION = 2
CONFIG_FILE = "config.json"
CHECKPOINT = "checkpoint"
C = TypeVar("C", ModelConfig, PropertyConfig)
T = TypeVar("T")
KINDS = {ModelConfig: "matrix", PropertyConfig: "property"}


def new_run_folder(path: str | Path) -> Path:
    """Make an empty run folder.

    Raises:
        InputError: the folder has content; nothing in it is touched.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"run folder {str(path)!r} exists and is not empty; choose another name or delete it.")
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_config(folder: Path, config: ModelConfig | PropertyConfig, settings: Mapping[str, Any]) -> None:
    """The configuration of a run as JSON: model, and `settings` for everything else."""
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
        **settings,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")


def write_metrics(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows` as CSV, one column per key of the first."""
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def save_model(folder: Path, model: Model | PropertyModel) -> None:
    """Parameters and normalisation as an Orbax checkpoint; the configuration is written by `write_config`."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        arrays = _property_arrays(model) if isinstance(model, PropertyModel) else _model_arrays(model)
        checkpointer.save((folder / CHECKPOINT).absolute(), arrays)


def load_model(path: str | Path) -> Model:
    """The model of matrices in a run folder.

    Raises:
        InputError: the folder is no run folder, is from another version, holds a model of a property, or its
            checkpoint is incomplete.
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


def _load(folder: Path, config_type: type[C], build: Callable[[C, dict[str, Any]], T]) -> T:
    import orbax.checkpoint as ocp

    content = _read_config(folder)
    if content.get("kind") != KINDS[config_type]:
        other = "load_property_model" if config_type is ModelConfig else "load_model"
        raise InputError(
            f"run={str(folder)!r} holds a model of kind {content.get('kind')!r}; load it with vpotjax.io.run.{other}."
        )
    config = _config(folder, content["model"], config_type)
    if not (folder / CHECKPOINT).is_dir():
        raise InputError(f"run folder {str(folder)!r} has no {CHECKPOINT}; the run did not finish, start it again.")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            return build(config, checkpointer.restore((folder / CHECKPOINT).absolute()))
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"checkpoint in {str(folder)!r} cannot be read ({error}); run the training again.") from None


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"run={str(folder)!r} holds no {CONFIG_FILE}; give a folder that 'vpotjax demo' wrote.")
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{str(file)!r} is not JSON ({error}); run the training again.") from None
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise InputError(
            f"run={str(folder)!r} is {content.get('format', 'of unknown format')} version {content.get('version')} "
            f"(written by vpotjax {content.get('vpotjax_version', '?')}), this program reads {FORMAT} {VERSION}; "
            "train again, or install the version that wrote it."
        )
    return content


def _config(folder: Path, values: dict[str, Any], config_type: type[C]) -> C:
    fields = {f.name for f in dataclasses.fields(config_type)}
    if set(values) != fields:
        raise InputError(
            f"run={str(folder)!r}: {CONFIG_FILE} has model entries {sorted(set(values) ^ fields)} that do not fit; "
            "train again, or install the version that wrote it."
        )
    fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return config_type(**fitting)


def _model_arrays(model: Model) -> dict[str, Any]:
    return {"params": model.params, "statistics": {k: _to_statistics(s) for k, s in model.statistics.items()}}


def _property_arrays(model: PropertyModel) -> dict[str, Any]:
    arrays: dict[str, Any] = {"weights": _by_text(model.weights), "regularisers": _by_text(model.regularisers)}
    arrays["per_atom"] = np.asarray(model.per_atom)
    if model.statistics is not None:
        arrays |= {"params": model.params, "statistics": _to_statistics(model.statistics)}
    return arrays


def _to_statistics(statistics: FeatureStatistics) -> dict[str, Any]:
    return {name: _by_text(getattr(statistics, name)) for name in ("mean", "transform")}


def _from_statistics(values: Mapping[str, Any]) -> FeatureStatistics:
    return FeatureStatistics(_by_irrep(values["mean"]), _by_irrep(values["transform"]))


def _by_text(values: Mapping[Irrep, Any]) -> dict[str, np.ndarray]:
    return {str(irrep): np.asarray(value) for irrep, value in values.items()}


def _by_irrep(values: Mapping[str, Any]) -> dict[Irrep, Any]:
    return {Irrep(int(key[:-1]), 1 if key[-1] == "+" else -1): np.asarray(value) for key, value in values.items()}
