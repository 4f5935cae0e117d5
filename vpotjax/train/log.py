"""Metrics of a training as they come: CSV, TensorBoard, and Weights & Biases where it is asked for."""

from __future__ import annotations

import csv
import importlib
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vpotjax._checks import InputError

CSV_FILE, EVENTS = "training.csv", "tensorboard"


class TrainingLog:
    """Rows of metrics of the networks of a run, one line of CSV and one set of scalars each.

    A training that goes on tells all of its rows again; what was written before is replaced.

    Args:
        folder: of the run.
        project: of Weights & Biases; None: not there.

    Raises:
        InputError: a project is given, and wandb is not installed.
    """

    def __init__(self, folder: Path, project: str | None = None) -> None:
        self.folder = folder
        self.writers: dict[int, Any] = {}
        shutil.rmtree(folder / EVENTS, ignore_errors=True)
        self.file = (folder / CSV_FILE).open("w", newline="")
        self.table: csv.DictWriter[str] | None = None
        self.remote = None
        if project is not None:
            try:
                wandb = importlib.import_module("wandb")
            except ImportError:
                raise InputError(f"wandb is {project!r}, which needs its package; pip install wandb.") from None
            self.remote = wandb.init(project=project, name=folder.name, dir=str(folder))

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        for writer in self.writers.values():
            writer.close()
        if self.remote is not None:
            self.remote.finish()

    def write(self, row: Mapping[str, Any]) -> None:
        """One row, with "network" and "step"."""
        if self.table is None:
            self.table = csv.DictWriter(self.file, fieldnames=list(row))
            self.table.writeheader()
        self.table.writerow(row)
        self.file.flush()
        network, numbers = row["network"], {k: v for k, v in row.items() if isinstance(v, int | float)}
        writer = self._writer(network)
        for key, value in numbers.items():
            if key not in ("network", "step") and math.isfinite(value):  # it warns of others
                writer.add_scalar(key, value, row["step"])
        if self.remote is not None:
            self.remote.log({f"network-{network}/{key}": value for key, value in numbers.items()})

    def _writer(self, network: int) -> Any:
        from tensorboardX import SummaryWriter

        if network not in self.writers:
            self.writers[network] = SummaryWriter(str(self.folder / EVENTS / f"network-{network}"))
        return self.writers[network]
