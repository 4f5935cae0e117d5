"""The comment line of an xyz frame: which ones carry a meaning.

- `key=value` (extended xyz), and `key: value` or `key value` where the key is a name of charge, spin or multiplicity;
- two integers and nothing else, or ORCA's `* xyz 2 1`: charge and multiplicity;
- `units=`, `pbc=`, `Lattice=`, and i-PI's `positions{atomic_unit}`;
- words such as "anion" or "triplet", and a formula with a charge, state nothing, but must fit charge and spin.

Other text is free, unless it talks of charge, spin, bohr or a cell: that is refused rather than ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vpotjax._structure_files.statements import PERIODIC, Claim, Place, Statement, keyed, normalised
from vpotjax.units import ANGSTROM_TO_BOHR

_VALUE = r"""("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s,;]+)"""
_PREFIX = r"(?:(?:total|net|spin|molecular|nuclear|core|partial|unpaired|formal|magnetic|length|unit)\s+)?"
_PAIR = re.compile(rf"""["']?\b({_PREFIX}[A-Za-z0-9_][\w.+-]*)["']?\s*([=:])\s*{_VALUE}""", re.IGNORECASE)
_SPACED = re.compile(
    rf"\b({_PREFIX}(?:charge|chrg|multiplicity|mult|spin|unpaired electrons))\s+(?:of\s+|is\s+)?([+-]?\d[^\s,;]*)",
    re.IGNORECASE,
)
_ABOUT = re.compile(
    r"charge|chrg|^chg$|spin|mult|unpaired|magmom|moment|unit|pbc|lattice|cell|box|^2s(\+1)?$|^[qsm]$|^uhf$"
    r"|^n?elec(trons?)?$"
)
_TWO_INTEGERS = re.compile(r"\s*(?:\*\s*xyz\s)?\s*([+-]?\d+)[\s,]+([+-]?\d+)\s*", re.IGNORECASE)
_TWO_AND_TEXT = re.compile(r"\s*[+-]?\d[\s,]+[1-9][\s,;]+[A-Za-z]")
_TALK = re.compile(r"\b(charges?|charged|chrg|multiplicity|spins?|unpaired|magmoms?)\b", re.IGNORECASE)
_BOHR = re.compile(
    r"\bbohrs?\b|\b(?:coord|geom|position|unit|length|distance)\w*\b[^,;]*?(?:\ba\.?u\b|\batomic\b|\b[np]m\b|nanomet|picomet)",
    re.IGNORECASE,
)
_ION = re.compile(  # SO4 2-, SO4^2-, [SO4]2-, SO4(2-), Na+, OH-
    r"(?<!\w)[\[(]*(?:[A-Z][a-z]?\d*|[\])]\d*)+(?:[\s^(]{1,2}\d|\d?)([+\u2212-]){1,3}\)?(?=[\s,;.]|$)"
)
_FRACTIONAL = re.compile(
    r"\b(?:frac\w*|crystal|direct|scaled|reduced)\s+(?:\w+\s+)?(?:coord|position)\w*|\bfractional\b", re.IGNORECASE
)
_CELL_LENGTHS = re.compile(r"\ba\s*=\s*[\d.].*\bb\s*=\s*[\d.].*\bc\s*=\s*[\d.]", re.IGNORECASE)
_CELL = re.compile(r"\b(?:unit[ _-]?cell|cell|lattice|box|pbc|crystal)\b\W*(?:\(\w+\))?\W*[-+.\d]", re.IGNORECASE)
_IPI_UNIT = re.compile(r"\bpositions\{(\w+)\}", re.IGNORECASE)

_UNIT_KEYS = re.compile(r"(?:length|position|pos|coordinate|coord|distance)?s?units?")
_UNITS = {
    **dict.fromkeys(["angstrom", "angstroms", "ang", "å", "\u212b", "a"], ANGSTROM_TO_BOHR),
    **dict.fromkeys(["bohr", "bohrs", "au", "a.u.", "a.u", "atomic", "atomicunit", "atomicunits"], 1.0),
}
_CELL_KEYS = frozenset({"lattice", "cell", "unitcell", "box"})
_FLAGS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_CLAIM_WORDS = re.compile(
    r"\b(?:(?:di|tri|radical[ -])?(cation|anion)|(singlet|doublet|triplet|quartet|quintet|neutral))s?\b", re.IGNORECASE
)
_SPIN_WORDS = {"singlet": 0, "doublet": 1, "triplet": 2, "quartet": 3, "quintet": 4}
_SIGN_WORDS = {"cation": 1, "anion": -1, "neutral": 0}


@dataclass(frozen=True)
class Comment:
    """What a comment line says.

    Args:
        statements: of charge, spin and multiplicity.
        claims: words that charge and spin must fit.
        bohr_per_unit: the length unit of the positions.
        properties: the columns of extended xyz, "" where there are four.
    """

    statements: tuple[Statement, ...] = ()
    claims: tuple[Claim, ...] = ()
    bohr_per_unit: float = ANGSTROM_TO_BOHR
    properties: str = ""


def parsed_comment(text: str, place: Place, numbers_alone: bool = True) -> Comment:
    """What the line says.

    Args:
        text: the line.
        place: for messages.
        numbers_alone: True where two integers alone are charge and multiplicity.

    Raises:
        InputError: it talks of charge, spin, units or a cell in a way that has no single meaning, or is periodic.
    """
    pairs, rest = _pairs(text)
    if numbers_alone and (two := _TWO_INTEGERS.fullmatch(rest.replace(";", " "))):
        pairs, rest = [*pairs, ("charge", two[1]), ("multiplicity", two[2])], ""
    elif numbers_alone and _TWO_AND_TEXT.match(rest):
        raise place.error(
            f"{text.strip()!r} begins with two integers; write charge= and multiplicity= if they are these, or put the "
            "text first."
        )
    _refuse_periodic(pairs, rest, place)
    _refuse_talk(rest, place)
    statements = [said for key, value in pairs if not _is_other(key) for said in keyed(key, value, place)]
    properties = [value for key, value in pairs if normalised(key) == "properties"]
    if len(properties) > 1:
        raise place.error("has Properties= twice; keep one.")
    return Comment(tuple(statements), _claims(rest), _unit(pairs, rest, place), "".join(properties))


def _pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """Keys with their values, and the text that is left."""
    pairs = []

    def take(found: re.Match[str]) -> str:
        key, sign, value = found[1], found[2], found[3]
        about = bool(_ABOUT.search(normalised(key))) or normalised(key) == "properties"
        if not about and (sign == ":" or value[0] not in "\"'{["):
            return found[0]
        pairs.append((key, value.strip("\"'{}[] ")))
        return " ; "

    rest = _SPACED.sub(lambda found: pairs.append((found[1], found[2])) or " ; ", _PAIR.sub(take, text))
    return pairs, rest


def _is_other(key: str) -> bool:
    name = normalised(key)
    return name in _CELL_KEYS or name == "pbc" or bool(_UNIT_KEYS.fullmatch(name))


def _refuse_periodic(pairs: list[tuple[str, str]], rest: str, place: Place) -> None:
    named = [(normalised(key), value) for key, value in pairs]
    flags = [flag for key, value in named if key == "pbc" for flag in re.split(r"[\s,]+", value.lower())]
    unknown = [flag for flag in flags if flag not in _FLAGS]
    if unknown or (flags and len(flags) not in {1, 3}):
        raise place.error(f'pbc is {" ".join(flags)!r}; write pbc="F F F".')
    if any(_FLAGS[flag] for flag in flags):
        raise place.error(f'pbc="{" ".join(flags).upper()}" is periodic; {PERIODIC}')
    cells = [f"{key}={value}" for key, value in named if key in _CELL_KEYS and re.search("[1-9A-Za-z]", value)]
    found = _CELL.search(rest) or _CELL_LENGTHS.search(rest) or _FRACTIONAL.search(rest)
    if not flags and (cells or found):
        words = cells[0][:60] if cells else found[0] if found else ""
        raise place.error(f"{words!r} states a cell, which is periodic unless pbc says otherwise; {PERIODIC}")


def _refuse_talk(rest: str, place: Place) -> None:
    talk, bohr = _TALK.search(rest), _BOHR.search(rest)
    if talk:
        raise place.error(
            f"the comment talks of {talk[0]!r} without a value that is read; write charge= and spin= (nα − nβ) or "
            "multiplicity=, or reword it."
        )
    if bohr and not _IPI_UNIT.search(rest):
        raise place.error(f"the comment talks of {bohr[0]!r}; write units=bohr or units=angstrom, or reword it.")


def _unit(pairs: list[tuple[str, str]], rest: str, place: Place) -> float:
    stated = [value for key, value in pairs if _UNIT_KEYS.fullmatch(normalised(key))] + _IPI_UNIT.findall(rest)
    factors = set()
    for value in stated:
        factor = _UNITS.get(normalised(value))
        if factor is None:
            raise place.error(f"the unit of length is {value!r}; write units=angstrom or units=bohr.")
        factors.add(factor)
    if len(factors) > 1:
        raise place.error(f"states the units {stated}; keep one.")
    return factors.pop() if factors else ANGSTROM_TO_BOHR


def _claims(rest: str) -> tuple[Claim, ...]:
    """Words that name a charge or a spin; two of a kind, as in "singlet and triplet", claim nothing."""
    words = {(found[1] or found[2]).lower() for found in _CLAIM_WORDS.finditer(rest)}
    claims = [Claim(found[0].strip(), "charge", 1 if found[1] == "+" else -1) for found in _ION.finditer(rest)]
    claims = claims if len(claims) == 1 else []
    signs, spins = words & _SIGN_WORDS.keys(), words & _SPIN_WORDS.keys()
    if len(signs) == 1:
        word = signs.pop()
        claims.append(Claim(word, "charge", _SIGN_WORDS[word]))
    if len(spins) == 1:
        word = spins.pop()
        claims.append(Claim(word, "spin", _SPIN_WORDS[word]))
    return tuple(claims)
