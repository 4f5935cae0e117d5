"""Run folders: configuration for people, metrics, and the checkpoint of a model, see `vpotjax.io.model`."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vpotjax._checks import InputError
from vpotjax.io.checkpoint import NotKeptError
from vpotjax.io.settings import KINDS, Settings, json_ready, settings_json

FORMAT = "vpotjax-run"
VERSION = 5
CONFIG_FILE, TOML_FILE = "config.json", "config.toml"
CHECKPOINT = "checkpoint"
STATES, FEATURES, LOCK = "states", "features-", "lock"
"""Of a training that goes on: where its states are, how folders of features begin, and what keeps others out."""
RECORDS = "_METADATA"  # that Orbax writes into each state
MADE_FOLDERS = (STATES, "tensorboard", "report")
MADE_FILES = (TOML_FILE, LOCK, "training.csv", "test_errors.csv", "validation_errors.csv")
"""What a training writes into a run folder beside its configuration, checkpoint and plots."""


def new_run_folder(path: str | Path) -> Path:
    """Make an empty run folder.

    Raises:
        InputError: the folder has content, or cannot be made; nothing in it is touched.
    """
    path = Path(path)
    try:
        if path.exists() and (not path.is_dir() or any(file.name != LOCK for file in path.iterdir())):
            raise InputError(f"run folder {str(path)!r} exists and is not empty; choose another name or delete it.")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"run folder {str(path)!r} cannot be made ({error}); choose another place.") from None
    return path


@contextlib.contextmanager
def started_run(path: str | Path, settings: Settings, entries: Mapping[str, Any]) -> Iterator[Path]:
    """A run folder with its configuration, new or of a training that was ended, for this process alone.

    Where the work in a new one fails by bad input, what this made is removed again; where it is ended in another way,
    states of the training in `STATES` stay, and the same call goes on from them. Nothing of a training that goes on is
    removed.

    Args:
        path: of the folder: new, empty, or with the same configuration and no model yet.
        settings, entries: see `write_config`.

    Raises:
        InputError: the folder has a model or other content, or was made with another configuration (it says how they
            differ), or another process works in it; as of `write_config`.
    """
    import filelock

    content, folder = _content(settings, entries), Path(path)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    resumed = (folder / CONFIG_FILE).exists() and not (folder / CHECKPOINT).exists()
    if not resumed:
        new_run_folder(folder)
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        with lock:
            if resumed:
                _require_same(folder, content)
            else:
                _write(folder, content)
            (folder / STATES).mkdir(exist_ok=True)
            for stale in folder.glob(f"{FEATURES}*"):
                shutil.rmtree(stale, ignore_errors=True)
            try:
                yield folder
            except BaseException as error:
                lost = isinstance(error, InputError) and not isinstance(error, NotKeptError)
                if not resumed and (lost or not any((folder / STATES).rglob(RECORDS))):
                    _discard(folder)
                raise
            shutil.rmtree(folder / STATES)
            (folder / LOCK).unlink(missing_ok=True)
    except filelock.Timeout:
        raise InputError(f"run folder {str(folder)!r} is in use by another process; choose another name.") from None
    except BaseException:
        with contextlib.suppress(OSError):  # others put files there, or states are
            for empty in made:
                empty.rmdir()
        raise


def _discard(folder: Path) -> None:
    """Remove what a training has made; its configuration last, without which nothing goes on."""
    for part in (
        *(folder / name for name in MADE_FOLDERS),
        *folder.glob(f"{CHECKPOINT}*"),
        *folder.glob(f"{FEATURES}*"),
    ):
        shutil.rmtree(part, ignore_errors=True)
    for file in (*(folder / name for name in MADE_FILES), *folder.glob("parity_*.png"), folder / CONFIG_FILE):
        file.unlink(missing_ok=True)


def _require_same(folder: Path, content: Mapping[str, Any]) -> None:
    """Raise InputError with the differences unless an unfinished run has this configuration."""
    before, now = (_flat(x) for x in (read_config(folder), content))
    differences = [
        f"{key} {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in ("device", "jax_version", "vpotjax_version")
    ]
    if differences:
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise InputError(
            f"run folder {str(folder)!r} has a training of other settings: {'; '.join(differences[:5])}{more}; "
            "take that, choose another name, or delete the folder."
        )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping):
        return {prefix: content}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items()]
    return {key: value for part in parts for key, value in part.items()}


def write_config(folder: str | Path, settings: Settings, entries: Mapping[str, Any]) -> None:
    """The configuration of a run as JSON: the settings of its model, and `entries` for everything else.

    Raises:
        InputError: the folder has one, or `entries` hold what JSON cannot.
    """
    _write(Path(folder), _content(settings, entries))


def _content(settings: Settings, entries: Mapping[str, Any]) -> dict[str, Any]:
    import jax

    from vpotjax._version import __version__

    content = {
        "format": FORMAT,
        "version": VERSION,
        "vpotjax_version": __version__,
        "jax_version": jax.__version__,
        "device": str(jax.devices()[0].device_kind),
        "kind": KINDS[type(settings)],
        "model": settings_json(settings),
    }
    taken = sorted(content.keys() & entries.keys())
    if taken:
        raise InputError(f"entries has {', '.join(taken)}, which write_config makes; rename them.")
    return content | json_ready(entries)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    file, text = folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n"
    try:
        with file.open("x") as stream:
            stream.write(text)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be written ({error.strerror}); choose another run folder.") from None


def write_metrics(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """`rows` as CSV, one column per key, empty where a row has none; no file without rows."""
    if not rows:
        return
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def read_config(folder: Path) -> dict[str, Any]:
    """What `write_config` wrote.

    Raises:
        InputError: there is none, or it is not of this version.
    """
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"run={str(folder)!r} holds no {CONFIG_FILE}; give a folder that 'vpotjax demo' wrote.")
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r} is not JSON ({error}); run the training again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(file)!r} holds a JSON {type(content).__name__}, not an object; run the training again.")
    version = content.get("version")
    if content.get("format") != FORMAT or version != VERSION:
        older = content.get("format") == FORMAT and isinstance(version, int) and version < VERSION
        fix = "train again: its features no longer exist" if older else "train again, or install the version of it"
        raise InputError(
            f"run={str(folder)!r} is {content.get('format', 'of unknown format')} version {version} (written by "
            f"vpotjax {content.get('vpotjax_version', '?')}), this program reads {FORMAT} {VERSION}; {fix}."
        )
    return content


def training_data(path: str | Path) -> dict[str, Any]:
    """Attributes of the data set that the model in a run folder was trained on, see `Dataset.attributes`.

    Raises:
        InputError: the folder is no run folder, or does not say.
    """
    data = read_config(Path(path)).get("data")
    if not isinstance(data, dict):
        raise InputError(
            f"run={str(path)!r}: {CONFIG_FILE} does not say what the model was trained on (data is {data!r}); train "
            "with 'vpotjax train', or write_config(..., {'data': attributes})."
        )
    return data
