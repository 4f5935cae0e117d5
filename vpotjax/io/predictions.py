"""Predictions of many molecules in one file, written as they come: extended xyz, HDF5 or CSV.

Everything is in atomic units, except positions in extended xyz, which are in Å. Keys in the text formats end in the
unit, as in "dipole_ebohr", and those of uncertainties in "_uncertainty" after it, see `vpotjax.models.Prediction`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from vpotjax._checks import InputError
from vpotjax.io.predictions_chunk import Observable, Prediction, check_shapes, checked_chunk, observables_of
from vpotjax.io.predictions_text import CsvSink, ExtxyzSink
from vpotjax.molecule import Molecule

__all__ = ["AXES", "ENDINGS", "UNITS", "Prediction", "PredictionWriter", "prediction_writer", "read_predictions"]

AXES: dict[str, tuple[str, ...]] = {
    "mo_energies": ("orbital",),
    "dipole": ("xyz",),
    "polarizability": ("xyz", "xyz"),
    "quadrupole": ("xyz", "xyz"),
    "lowdin_charges": ("atom",),
    "mulliken_charges": ("atom",),
    "mayer_bond_orders": ("atom", "atom"),
}
"""What the axes of known observables count."""
UNITS: dict[str, str] = {
    **dict.fromkeys(["energy", "mo_energies", "occupied", "frontier", "homo", "lumo", "homo_lumo_gap"], "hartree"),
    **dict.fromkeys(["lowdin_charges", "mulliken_charges"], "e"),
    "dipole": "e·bohr",
    "polarizability": "bohr³",
    "quadrupole": "e·bohr²",
}
"""Units of known observables."""
ENDINGS = (".extxyz", ".xyz", ".h5", ".hdf5", ".csv")


class Sink(Protocol):
    """An open file of some format."""

    def append(self, predictions: Sequence[Prediction], observables: Sequence[Observable]) -> None:
        """Write these after what is there; `observables` are the same in every call."""

    def close(self) -> None:
        """Finish the file."""


class PredictionWriter:
    """Takes predictions chunk by chunk; `prediction_writer` makes it."""

    def __init__(self, sink: Sink, path: Path, units: Mapping[str, str], axes: Mapping[str, tuple[str, ...]]) -> None:
        self._sink, self._path, self._units, self._axes = sink, path, units, axes
        self._observables: tuple[Observable, ...] | None = None

    def write(
        self,
        names: Sequence[str],
        molecules: Sequence[Molecule],
        values: Mapping[str, Sequence[np.ndarray]],
        uncertainties: Mapping[str, Sequence[np.ndarray]],
        warnings: Sequence[Sequence[str]],
    ) -> None:
        """Append one chunk. Line ends in names and warnings become spaces.

        Args:
            names, molecules: n of each.
            values: by observable n arrays in atomic units, whose shapes may differ between molecules as the axes say.
            uncertainties: standard deviations, of the same shapes, for all observables, some or none.
            warnings: n lists of texts.

        Raises:
            InputError: lengths, shapes or types that do not fit; other observables than in the first chunk; a name
                that a key in a file cannot have; the disk is full.
        """
        predictions = checked_chunk(names, molecules, values, uncertainties, warnings)
        if not predictions:
            return
        if self._observables is None:
            self._observables = observables_of(predictions[0], self._units, self._axes)
        for what, keys, known in (
            ("values", set(values), {o.name for o in self._observables}),
            ("uncertainties", set(uncertainties), {o.name for o in self._observables if o.uncertain}),
        ):
            if keys != known:
                raise InputError(f"{what} has {sorted(keys)}, before {sorted(known)}; give the same in every chunk.")
        for prediction in predictions:
            check_shapes(prediction, self._observables)
        with _one_line(self._path):
            self._sink.append(predictions, self._observables)


@contextlib.contextmanager
def prediction_writer(
    path: str | Path, units: Mapping[str, str] | None = None, axes: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[PredictionWriter]:
    """A writer for a new file, in constant memory; where the work under it fails, nothing is left.

    The file is `path` with ".unfinished" until all is written. Formats by ending:

    - .extxyz, .xyz: positions in Å; observables per atom are columns, others are in the comment line; all with 10
      digits. ASE reads them into `arrays` and `info`, `molecules_from_file` the molecules.
    - .h5, .hdf5: everything without rounding, see `vpotjax.io.predictions_hdf5`; `read_predictions` reads it.
    - .csv: a row per molecule with scalars, components of vectors and of symmetric tensors, and the isotropic mean of
      the latter, which has no uncertainty since the components are correlated. Levels, charges, bond orders and all
      else whose size depends on the molecule are left out.

    Args:
        path: of the file.
        units: by observable, such as "hartree" or "e·bohr", added to UNITS; others are without.
        axes: by observable what its axes count, added to AXES: "xyz" (3), "atom" (natm), or any other word; by default
            the axes of an unknown observable are of any size.

    Raises:
        InputError: on entering: the ending is another, the file exists or cannot be made. Then as of
            `PredictionWriter.write`.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(
            f"{str(path)!r} has the ending {path.suffix!r}; predictions are written to {', '.join(ENDINGS)}."
        )
    unfinished = path.with_name(path.name + ".unfinished")
    with _one_line(path):
        _refuse_existing(path)
        _claim(unfinished)
    try:
        with _one_line(path):
            sink = _opened(unfinished, path.suffix.lower())
        with contextlib.ExitStack() as stack:
            stack.callback(_close_quietly, sink)
            yield PredictionWriter(sink, path, {**UNITS, **(units or {})}, {**AXES, **(axes or {})})
            with _one_line(path):
                sink.close()
        with _one_line(path):
            _refuse_existing(path)
            unfinished.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def read_predictions(path: str | Path) -> list[Prediction]:
    """Everything that a writer wrote to HDF5.

    Raises:
        InputError: the file is absent, damaged, or of another format or version.
    """
    from vpotjax.io.predictions_hdf5 import read

    return read(Path(path))


def _claim(path: Path) -> None:
    """Make an empty file that no other run writes to."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise InputError(
            f"{str(path)!r} exists: a run is writing it, or was killed; delete it if none is, or choose another name."
        ) from None


def _opened(path: Path, ending: str) -> Sink:
    if ending in {".h5", ".hdf5"}:
        from vpotjax.io.predictions_hdf5 import Hdf5Sink

        return Hdf5Sink(path)
    return CsvSink(path) if ending == ".csv" else ExtxyzSink(path)


def _close_quietly(sink: Sink) -> None:
    """Close what may be closed already; where it fails, an error before counts."""
    with contextlib.suppress(Exception):
        sink.close()


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise InputError(f"{str(path)!r} exists; delete it or choose another name.")


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """What the file system refuses, as one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # the latter from h5py
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"predictions {str(path)!r} cannot be written: {reason}; check the folder and the space on the disk."
        ) from None
