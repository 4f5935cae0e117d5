"""Finished molecules in files of their own until all are: what they are known by, and how they become one file."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vpotjax._checks import InputError
from vpotjax.interop.pyscf_labels import method_description
from vpotjax.io.dataset import Dataset, DatasetFile, DatasetWriter, read_dataset, write_dataset
from vpotjax.io.sample import SOURCE, Sample, require_sample
from vpotjax.molecule import Molecule
from vpotjax.reference.settings import ReferenceSettings, versions

LOCK, SETTINGS, WHOLE = "lock", "settings.json", "whole.h5"
"""Files beside the parts."""
CONTENT = "content"
"""Label of the set SOURCE: the digest of a structure, its number among equal ones, and the settings."""


FEW = 3
"""Molecules; frames of fewer are split one by one."""


class Job(NamedTuple):
    """One molecule: its split, what it is known by, the file of its part, and the seed of its displacements."""

    name: str
    molecule: Molecule
    split: str
    digest: str
    part: Path
    seed: int


def assign_splits(names: list[str], validation: float, test: float, seed: int) -> dict[str, str]:
    """Split molecules at random (numpy's default generator with `seed`, over the sorted names)."""
    order = [str(n) for n in np.random.default_rng(seed).permutation(sorted(names))]
    ntest, nvalidation = round(test * len(names)), round(validation * len(names))
    return {
        name: "test" if i < ntest else "validation" if i < ntest + nvalidation else "train"
        for i, name in enumerate(order)
    }


def jobs_of(molecules: Mapping[str, Molecule], parts: Path, settings: ReferenceSettings) -> list[Job]:
    """A job for each molecule, whose part is in the folder `parts`."""
    decisive = settings.stated()
    del decisive["validation"], decisive["test"]
    contents = {name: _content(molecule) for name, molecule in molecules.items()}
    first = {content: name for name, content in reversed(contents.items())}
    groups = {name: _molecule_of(name, molecules) for name in first.values()}
    if len(set(groups.values())) < FEW:
        groups = {name: name for name in groups}
    splits = assign_splits(list(dict.fromkeys(groups.values())), settings.validation, settings.test, settings.seed)
    seen: Counter[str] = Counter()
    jobs = []
    for name, content in contents.items():
        molecule = molecules[name]
        positions = np.asarray(molecule.positions, dtype=float)
        plain = Molecule(molecule.numbers, positions, molecule.charge, molecule.spin)
        place = (content, seen[content])  # the second of equal structures is another draw
        seen[content] += 1
        digest, seed = _digest(*place, decisive), int(_digest(*place, int(settings.seed)), 16)
        jobs.append(Job(name, plain, splits[groups[first[content]]], digest, parts / f"{digest}.h5", seed))
    return jobs


def _molecule_of(name: str, molecules: Mapping[str, Molecule]) -> str:
    """The first of the frames of one name, of which the others are numbered: "ethanol" of "ethanol#7"."""
    first, mark, number = name.rpartition("#")
    return first if mark and number.isdigit() and first in molecules else name


def _content(molecule: Molecule) -> str:
    positions = np.asarray(molecule.positions, dtype=float) + 0.0  # no negative zeros
    return json.dumps([molecule.numbers.tolist(), positions.tolist(), molecule.charge, molecule.spin])


def _digest(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@contextlib.contextmanager
def own_folder(parts: Path, out: Path, settings: ReferenceSettings) -> Iterator[None]:
    """The folder of parts for this process alone, with the settings that they are of."""
    import filelock

    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {str(parts)!r} cannot be made ({error.strerror}); choose another out.") from None
    lock = filelock.FileLock(parts / LOCK, timeout=0)
    try:
        with lock:  # which the system releases when the process is killed
            note = parts / SETTINGS
            stated = _stated(note)
            if stated is None or not any(parts.glob("*.h5")):  # nothing is lost by other settings
                _write_text(note, json.dumps(settings.stated(), indent=2))
            else:
                require_same(f"folder {str(parts)!r}", stated, settings)
            try:
                yield
            finally:
                if parts.is_dir() and not any(parts.glob("*.h5")):
                    remove_parts(parts)
    except filelock.Timeout:
        raise InputError(
            f"out={str(out)!r} is being made by another process; wait for it, or choose another."
        ) from None


def _stated(note: Path) -> Any:
    """What is in it; None where there is nothing whole."""
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        unfinished.write_text(text)
        unfinished.rename(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}); check folder and disk.") from None


def settings_of(out: Path) -> Any:
    """What `ReferenceSettings.stated` was when a file was made; InputError where it does not say."""
    try:
        with DatasetFile(out) as file:
            return json.loads(str(file.attributes["settings"]))
    except (InputError, KeyError, ValueError):
        raise InputError(
            f"out={str(out)!r} exists and was not made by 'vpotjax reference'; choose another name."
        ) from None


def require_same(where: str, stated: Any, settings: ReferenceSettings) -> None:
    """Raise InputError with the difference unless settings and versions are those that were stated."""
    own, before = settings.stated(), stated if isinstance(stated, dict) else {}
    differences = [
        f"{key} {before.get(key)!r} there, {own.get(key)!r} now"
        for key in sorted(own.keys() | before.keys())
        if own.get(key) != before.get(key)
    ]
    if differences:
        raise InputError(
            f"{where} was made with other settings: {'; '.join(differences)}. Take those, choose "
            "another name for out, or delete it."
        )


def keep(job: Job, samples: Sequence[Sample]) -> str | None:
    """Write the part of a molecule; returns why its labels will not do.

    Raises:
        InputError: the disk refuses.
    """
    try:
        for sample in samples:
            require_sample(sample)
    except InputError as error:
        return str(error)
    job.part.unlink(missing_ok=True)  # a damaged one
    write_dataset(job.part, Dataset(samples))
    return None


def is_whole(job: Job, settings: ReferenceSettings) -> bool:
    """Whether the part of a molecule is there and sound."""
    wanted = {basis: set(settings.quantities(basis)) for basis in settings.bases} | {SOURCE: {CONTENT}}
    try:
        samples = read_dataset(job.part).samples
    except InputError:
        return False
    return len(samples) == (settings.geometries or 1) and all(
        {name: set(labels) for name, labels in sample.labels.items()} == wanted
        and _hexadecimal(sample.labels[SOURCE][CONTENT]) == job.digest
        and np.array_equal(sample.molecule.numbers, job.molecule.numbers)
        for sample in samples
    )


def _hexadecimal(content: np.ndarray) -> str:
    return bytes(content.astype(np.uint8)).hex()


def finished(out: Path) -> dict[str, list[int]]:
    """Places of the samples that a file has, if it is there, by the digests of their jobs."""
    known: dict[str, list[int]] = {}
    if out.exists():
        with DatasetFile(out) as file:
            for row, content in enumerate(file.labels(SOURCE, CONTENT)):
                if content is not None:
                    known.setdefault(_hexadecimal(content), []).append(row)
    return known


def write_whole(
    out: Path,
    done: Sequence[Job],
    known: Mapping[str, list[int]],
    settings: ReferenceSettings,
    failures: dict[str, str],
) -> None:
    """All that is finished into `out`, whole or not at all, in the order of the jobs; then what was there besides."""
    whole = done[0].part.parent / WHOLE
    whole.unlink(missing_ok=True)
    elements: set[int] = set()
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(DatasetFile(out)) if out.exists() else None
        writer = stack.enter_context(DatasetWriter(whole))
        for sample in _samples(done, known, before):
            writer.append(sample)
            elements |= set(sample.molecule.numbers.tolist())
        writer.attributes |= _attributes(settings, failures)
        for basis in settings.bases:
            options = settings.calculation(basis)
            writer.methods[basis] = method_description(basis, settings.xc, elements, **options)
    whole.replace(out)


def _samples(done: Sequence[Job], known: Mapping[str, list[int]], before: DatasetFile | None) -> Iterator[Sample]:
    for job in done:
        if before and job.digest in known:  # the split stays, however many molecules have come
            yield from (dataclasses.replace(sample, name=job.name) for sample in before[known[job.digest]])
        else:
            samples = read_dataset(job.part).samples
            yield from (dataclasses.replace(sample, name=job.name, split=job.split) for sample in samples)
    others = known.keys() - {job.digest for job in done}
    if before:
        for row in sorted(row for digest in others for row in known[digest]):
            yield before[row]


def _attributes(settings: ReferenceSettings, failures: Mapping[str, str]) -> dict[str, Any]:
    said = {key: value for key, value in dataclasses.asdict(settings).items() if value is not None}
    about = {"ao_order": "pyscf", "units": "atomic units; polarizability uncoupled"}
    texts = {"settings": json.dumps(settings.stated()), "failed": json.dumps(failures)}
    return {**said, **about, **versions(), **texts}


def listed(failures: Mapping[str, str]) -> str:
    """The first of them, in one line."""
    return "; ".join(f"{name!r}: {reason}" for name, reason in list(failures.items())[:5])


def remove_parts(folder: Path) -> None:
    """Remove what this package has put into the folder, and the folder where nothing else is in it."""
    for file in folder.iterdir():
        if re.fullmatch(rf"([0-9a-f]{{64}}\.h5|{WHOLE}|{SETTINGS})(\.unfinished)?|{LOCK}", file.name):
            file.unlink()
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()
