"""Models that the package ships, with a card of each that says what it was trained on and how far it is off."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpotjax._checks import InputError

if TYPE_CHECKING:
    from vpotjax.models import Ensemble

SHIPPED = Path(__file__).parent.parent / "data" / "pretrained"
PRETRAINED = {
    "levels": "ε, gap, μ and uncoupled α of B3LYP/def2-TZVP, from an effective F in 6-31G",
    "scf": "F of B3LYP/def2-SVP, for densities with which an SCF starts",
}
"""Models of neutral closed-shell molecules of H, C, N and O, by name."""


def pretrained_path(name: str = "levels") -> Path:
    """The run folder of a shipped model, with its card, MODEL_CARD.md.

    Raises:
        InputError: there is no such model.
    """
    if name not in PRETRAINED:
        raise InputError(f"name is {name!r}; the package ships {', '.join(PRETRAINED)}.")
    return SHIPPED / name


def checksum(folder: Path) -> str:
    """SHA-256 of all files of a folder, in the order of their names; a card states that of its checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} ".encode() + file.read_bytes())
    return digest.hexdigest()


def load_pretrained(name: str = "levels") -> Ensemble[Any]:
    """A shipped model::

        model = vp.load_pretrained()
        vp.train.predictions(model, [("water", water)])  # with uncertainties, and warnings

    Args:
        name: of PRETRAINED.

    Raises:
        InputError: there is no such model.
    """
    from vpotjax.io.model import load_model

    return load_model(pretrained_path(name))
