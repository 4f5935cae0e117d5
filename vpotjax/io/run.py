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
from vpotjax.io.settings import KINDS, Settings, json_ready, settings_json

FORMAT = "vpotjax-run"
VERSION = 5
CONFIG_FILE = "config.json"
CHECKPOINT = "checkpoint"


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
def started_run(path: str | Path, settings: Settings, entries: Mapping[str, Any]) -> Iterator[Path]:
    """A new run folder with its configuration; where the work in it fails, what this made is removed again.

    Args:
        path: of the folder, new or empty.
        settings, entries: see `write_config`.

    Raises:
        InputError: as of `new_run_folder` and `write_config`.
    """
    content = _content(settings, entries)
    made = [folder for folder in (Path(path), *Path(path).parents) if not folder.exists()]
    folder = new_run_folder(path)
    _write(folder, content)
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
    """`rows` as CSV, one column per key of the first; no file without rows."""
    if not rows:
        return
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
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
