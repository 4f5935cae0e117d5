"""What a structure says of its charge and spin: names, numbers, sums over atoms; what contradicts is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from vpotjax._checks import InputError

PERIODIC = (
    "this is a molecule code: unwrap the molecule, then remove the cell or state that nothing is periodic "
    '(pbc="F F F" in extended xyz, atoms.pbc = False in ASE).'
)
SUM_TOLERANCE = 0.05  # rounding and grid errors of atomic charges or moments; far below the half that would mislead

Kind = Literal["charge", "spin", "multiplicity"]

KEYS: dict[str, Kind] = {
    **dict.fromkeys(["charge", "totalcharge", "netcharge", "formalcharge", "molecularcharge", "chrg", "chg"], "charge"),
    **dict.fromkeys(["spin", "unpaired", "unpairedelectrons", "nunpaired", "numunpaired", "uhf"], "spin"),
    **dict.fromkeys(["multiplicity", "mult", "multip", "spinmultiplicity", "spinmult", "2s+1"], "multiplicity"),
}
_MOMENTS = ("magmom", "totalmagmom", "magneticmoment", "totalmagneticmoment")  # in Bohr magnetons, so nα − nβ
TALKS = re.compile(
    r"charge|chrg|spin|multiplic|unpaired|magmom|magneticmoment|magneti[sz]ation|^[qsm]$|^2?(s|ms|sz)$"
    r"|^q(tot|total|net)$|^(tot|total|net)q$|^(n|num|nr|no|number|of|total|tot|valence|alpha|beta)*elec(trons?)?$"
    r"|^(n|num)(el)?(alpha|beta|up|down|dn)$|^n?(open|somo)(shells?)?$"
)
_OTHER_CHARGE = re.compile(r"nuclear|core|spread$|uncertainty$")  # known, but not the molecule's charge
_INTEGER = re.compile(r"([+-]?\d+)(?:\.0*)?|(\d+)([+-])")


@dataclass(frozen=True)
class Place:
    """Where something stands; frames and lines count from 1."""

    source: str
    frame: int | None = None
    line: int | None = None

    def at(self, frame: int | None = None, line: int | None = None) -> Place:
        """The same source at another frame or line."""
        return Place(self.source, frame or self.frame, line)

    def __str__(self) -> str:
        parts = [f"{word} {number}" for word, number in (("frame", self.frame), ("line", self.line)) if number]
        return ", ".join([self.source, *parts])

    def error(self, reason: str) -> InputError:
        """An error with one line: the place, then the reason."""
        return InputError(f"{self}{':' if self.frame or self.line else ''} {reason}")


class Statement(NamedTuple):
    """One thing said: which number, its value, and the words for a message."""

    kind: Kind
    value: int
    words: str


class Claim(NamedTuple):
    """Words such as "cation" (sign), "SO4 2-" (charge) or "triplet" (spin), which the molecule must fit."""

    word: str
    kind: Literal["charge", "sign", "spin"]
    value: int

    def holds(self, charge: int, spin: int) -> bool:
        """True where the molecule can be called so."""
        return self.value == {"charge": charge, "sign": np.sign(charge), "spin": abs(spin)}[self.kind]


@dataclass(frozen=True)
class Structure:
    """A molecule as a file states it.

    Args:
        numbers: (natm,) atomic numbers.
        positions: (natm, 3) in bohr.
        charge, spin: as stated, None where nothing is said; spin = nα − nβ.
        place: where it stands.
        claims: words of the comment that the charge and spin must fit.
        name: that the file gives it, "" where it gives none.
    """

    numbers: np.ndarray
    positions: np.ndarray
    charge: int | None
    spin: int | None
    place: Place
    claims: tuple[Claim, ...] = ()
    name: str = ""

    def settled(self, charge: int, spin: int) -> tuple[int, int]:
        """Charge and spin: its own where it states them, else the arguments.

        Raises:
            InputError: a word of the comment, such as "anion" or "triplet", contradicts the result.
        """
        charge = charge if self.charge is None else self.charge
        spin = spin if self.spin is None else self.spin
        for claim in self.claims:
            if not claim.holds(charge, spin):
                raise self.place.error(
                    f"the comment says {claim.word!r}, but charge={charge} and spin={spin}; write charge= and spin= "
                    "into the comment, or reword it."
                )
        return charge, spin


def normalised(key: str) -> str:
    """A key without case, spaces, hyphens and underscores: "Total_charge" and "total charge" are one."""
    return re.sub(r"[\s_-]|^data |^pubchem", "", key.lower())


def integer(value: Any) -> int | None:
    """The integer that a text ("2", "+2", "2+", "2.0") or a number states; None where it states none."""
    if isinstance(value, str):
        found = _INTEGER.fullmatch(value.strip())
        return None if not found else int(found[1] or found[3] + found[2])
    value = np.asarray(value)[()] if hasattr(value, "dtype") and np.ndim(value) == 0 else value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = float(value) if isinstance(value, float | np.integer | np.floating) else np.nan
    return int(number) if number.is_integer() else None


def keyed(key: str, value: Any, place: Place) -> list[Statement]:
    """What `key=value` says of charge and spin: a statement, or nothing where the key is about something else.

    Raises:
        InputError: the key talks of charge or spin, but not by a known name or not with an integer.
    """
    name = normalised(key)
    if name in _MOMENTS:
        return summed(key, _one(key, value, place), place, zeros_count=True)
    kind = KEYS.get(name)
    if kind is None:
        counts = name in {"alpha", "beta"} and integer(value) is not None
        if counts or (TALKS.search(name) and not _OTHER_CHARGE.search(name)):
            raise place.error(
                f"{key}={_short(value)} may state the charge or the spin, but this key is not known; write charge= and "
                "spin= (nα − nβ) or multiplicity=, and remove it."
            )
        return []
    number = integer(value)
    if number is None or (kind == "multiplicity" and number < 1):
        wanted = "a positive integer" if kind == "multiplicity" else "an integer"
        hint = " (spin = nα − nβ)" if kind == "spin" else ""
        raise place.error(f"{key} is {_short(value)}; give {wanted}{hint}.")
    return [Statement(kind, number, f"{key}={number}")]


def summed(name: str, values: Any, place: Place, zeros_count: bool = False) -> list[Statement]:
    """What numbers per atom say: atomic charges add up to the charge, magnetic moments to the spin.

    Args:
        name: of the column or array; other names say nothing.
        values: (natm,).
        place: for messages.
        zeros_count: True where zeros state zero; else they are what a program writes that knows nothing.

    Raises:
        InputError: the sum is not an integer to SUM_TOLERANCE.
    """
    key = normalised(name)
    if not TALKS.search(key) or _OTHER_CHARGE.search(key):
        return []
    kind: Kind = "charge" if re.search("charge|chrg|^q$", key) else "spin"
    values = _floats(name, values, place)
    if not zeros_count and not values.any():
        return []
    if values.ndim != 1:
        raise place.error(f"{name} has shape {values.shape}, one number per atom is read; remove it and state {kind}=.")
    total = float(values.sum())
    if abs(total - round(total)) > SUM_TOLERANCE:
        raise place.error(f"{name} adds up to {total:.4g}, not to an integer {kind}; remove it and state {kind}=.")
    return [Statement(kind, round(total), f"{name}, in sum {total:.4g}")]


def settle(statements: list[Statement], place: Place) -> tuple[int | None, int | None]:
    """Charge and spin from all that is said; None where nothing is.

    Raises:
        InputError: two statements contradict each other.
    """
    charges = [s for s in statements if s.kind == "charge"]
    spins = [s for s in statements if s.kind == "spin"]
    multiplicities = [s for s in statements if s.kind == "multiplicity"]
    for group in (charges, spins, multiplicities):
        for other in group[1:]:
            if other.value != group[0].value:
                raise _conflict(group[0], other, place)
    if spins and multiplicities and abs(spins[0].value) + 1 != multiplicities[0].value:
        raise _conflict(spins[0], multiplicities[0], place)
    spin = spins[0].value if spins else multiplicities[0].value - 1 if multiplicities else None
    return (charges[0].value if charges else None), spin


def _conflict(first: Statement, second: Statement, place: Place) -> InputError:
    return place.error(f"{first.words} contradicts {second.words} (spin = multiplicity − 1); keep the right one.")


def _floats(name: str, values: Any, place: Place) -> np.ndarray:
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise place.error(f"{name} is {_short(values)}; give numbers.") from None
    if not np.isfinite(numbers).all():
        raise place.error(f"{name} is {_short(values)}; give finite numbers.")
    return numbers


def _one(name: str, value: Any, place: Place) -> np.ndarray:
    """(1,), the one number that `value` is."""
    number = _floats(name, value, place)
    if number.size != 1:
        raise place.error(f"{name} is {_short(value)}; give one number, or remove it and state spin=.")
    return number.reshape(1)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
