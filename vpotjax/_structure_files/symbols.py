"""Labels of atoms and numbers as they stand in structure files."""

from __future__ import annotations

import math
import re

import numpy as np

from vpotjax._structure_files.statements import Place

_MASS_TOLERANCE = 1e-3  # relative; tables, and the most common isotope of a light element, differ by less
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:(?:[eEdD]|\*\^)[+-]?\d+)?")
_EXPONENT = re.compile(r"[dD]|\*\^")
_LABEL = re.compile(r"([A-Za-z]{1,2})(?:[_@#-]?\d+)?")
_GHOST = re.compile(r"(?:gh|ghost|bq)(?:[-_:(\d].*)?|x[-_:(@].*|@.+|.+:", re.IGNORECASE)
_DUMMY = frozenset({"q", "du", "*", "da", "xx", "lp", "ep", "m", "mw", "r", "r#", "a", "l", "vs"})
# Upper-case labels that are also names of atoms in a protein or nucleotide: CA is calcium, or the alpha carbon.
_ALSO_NAMES = frozenset({"CA", "CD", "CE", "HE", "HG", "HO", "NA", "NB", "ND", "NE", "SG", "PA", "PB"})


def atomic_number(label: str, place: Place, upper_case: bool = False) -> int:
    """The atomic number of a label: "Cl", "cl", "CL", "Cl2", "17"; "X" is 0, a ghost atom.

    Args:
        label: as it stands in the file.
        place: for messages.
        upper_case: True where the format writes elements in upper case, so that CA is calcium alone.

    Raises:
        InputError: the label has no meaning, or more than one.
    """
    from ase.data import atomic_numbers

    number = atomic_numbers.get(label)
    if number is not None:
        return number
    if label.isascii() and label.isdigit() and 1 <= int(label) <= 118:
        return int(label)
    found = _LABEL.fullmatch(label)
    letters = found[1] if found else ""
    if found and (letters.capitalize() in {"D", "T"} or "-" in label):
        raise place.error(f"{label!r} is {_isotope(letters)}")
    number = atomic_numbers.get(letters.capitalize(), 0) if found else 0
    if number and not (upper_case and letters == label) and _is_a_name(letters, label):
        raise place.error(
            f"{label!r} is {letters.capitalize()}, or the name of an atom of {letters[0]}; write "
            f"{letters.capitalize()!r} or {letters[0]!r}."
        )
    if number:
        return number
    raise place.error(_refusal(label))


def _isotope(letters: str) -> str:
    symbol = "H" if letters.capitalize() in {"D", "T"} else letters.capitalize()
    return f"an isotope, and masses are not kept; write {symbol!r}, which stands for the natural mix of isotopes."


def check_masses(numbers: np.ndarray, masses: np.ndarray, place: Place) -> None:
    """Refuse masses of isotopes, since a molecule does not keep them.

    Args:
        numbers: (natm,) atomic numbers; 0 is a ghost atom, whose mass means nothing.
        masses: (natm,) in u.
        place: for messages.

    Raises:
        InputError: a mass is not the element's mean.
    """
    from ase.data import atomic_masses

    means = atomic_masses[numbers]
    if masses.shape != means.shape:
        raise place.error(f"the masses have shape {masses.shape}, one number per atom is read; remove them.")
    wrong = np.flatnonzero((numbers > 0) & ~(np.abs(masses / means - 1) < _MASS_TOLERANCE))
    if len(wrong):
        i = wrong[0]
        raise place.error(
            f"the mass of atom {i} is {masses[i]:g} u, that of its element {means[i]:g} u: it is an isotope, and "
            "masses are not kept; remove the masses."
        )


def _is_a_name(letters: str, label: str) -> bool:
    numbered = label != letters and len(letters) == 2 and letters.isupper() and letters[0] in "HCNOPS"
    return letters in _ALSO_NAMES or (numbered and letters != "CL")


def _refusal(label: str) -> str:
    if _GHOST.fullmatch(label):
        return (
            f"{label!r} is a ghost atom with the basis functions of an element, which a structure cannot hold; use "
            "vpotjax.interop.pyscf.from_pyscf, or write 'X' for a place without functions."
        )
    if label.lower() in _DUMMY:
        return f"{label!r} is a dummy atom; remove its line, and correct the number of atoms."
    if label.lower() == "tv":
        return "'Tv' is a translation vector; this is a molecule code: remove its line, unwrap the molecule."
    return f"{label!r} is not an element; write a chemical symbol such as 'O' or an atomic number such as '8'."


def coordinates(fields: list[str], place: Place) -> list[float]:
    """Numbers of one atom; exponents may be written with e, with D as in Fortran, or with *^.

    Raises:
        InputError: a field is not a number, or not finite.
    """
    values = []
    for text in fields:
        if not _NUMBER.fullmatch(text):
            hint = " with a decimal point" if "," in text else ""
            raise place.error(f"coordinate {text!r} is not a finite number; write it as 1.0 or 1.0e0{hint}.")
        values.append(float(_EXPONENT.sub("e", text)))
    if not all(map(math.isfinite, values)):
        raise place.error(f"coordinates {fields} are not finite; correct them.")
    return values
