"""Run folders: configuration, metrics, checkpoint. A model in a folder carries all that prediction needs."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpotjax._checks import InputError
from vpotjax.model import Model, ModelConfig
from vpotjax.operators.blocks import Irrep
from vpotjax.operators.features import FeatureStatistics

FORMAT = "vpotjax-run"
VERSION = 1
CONFIG_FILE = "config.json"
CHECKPOINT = "checkpoint"


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


def write_config(folder: Path, config: ModelConfig, settings: Mapping[str, Any]) -> None:
    """The configuration of a run as JSON: model, and `settings` for everything else."""
    import jax

    import vpotjax

    content = {
        "format": FORMAT,
        "version": VERSION,
        "vpotjax_version": vpotjax.__version__,
        "jax_version": jax.__version__,
        "device": str(jax.devices()[0].device_kind),
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


def save_model(folder: Path, model: Model) -> None:
    """Parameters and normalisation as an Orbax checkpoint; the configuration is written by `write_config`."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / CHECKPOINT).absolute(), _to_arrays(model))


def load_model(path: str | Path) -> Model:
    """The model of a run folder.

    Raises:
        InputError: the folder is no run folder, is from another version, or its checkpoint is incomplete.
    """
    import orbax.checkpoint as ocp

    folder = Path(path)
    content = _read_config(folder)
    config = _model_config(folder, content["model"])
    if not (folder / CHECKPOINT).is_dir():
        raise InputError(f"run folder {str(path)!r} has no {CHECKPOINT}; the run did not finish, start it again.")
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            restored = checkpointer.restore((folder / CHECKPOINT).absolute())
        statistics = {
            kind: FeatureStatistics(_by_irrep(values["mean"]), _by_irrep(values["transform"]))
            for kind, values in restored["statistics"].items()
        }
        return Model(config, restored["params"], statistics)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"checkpoint in {str(path)!r} cannot be read ({error}); run the training again.") from None


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


def _model_config(folder: Path, values: dict[str, Any]) -> ModelConfig:
    fields = {f.name for f in dataclasses.fields(ModelConfig)}
    if set(values) != fields:
        raise InputError(
            f"run={str(folder)!r}: {CONFIG_FILE} has model entries {sorted(set(values) ^ fields)} that do not fit; "
            "train again, or install the version that wrote it."
        )
    fitting: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**fitting)


def _to_arrays(model: Model) -> dict[str, Any]:
    statistics = {
        kind: {name: _by_text(getattr(values, name)) for name in ("mean", "transform")}
        for kind, values in model.statistics.items()
    }
    return {"params": model.params, "statistics": statistics}


def _by_text(values: Mapping[Irrep, Any]) -> dict[str, np.ndarray]:
    return {str(irrep): np.asarray(value) for irrep, value in values.items()}


def _by_irrep(values: Mapping[str, Any]) -> dict[Irrep, np.ndarray]:
    return {Irrep(int(key[:-1]), 1 if key[-1] == "+" else -1): np.asarray(value) for key, value in values.items()}
