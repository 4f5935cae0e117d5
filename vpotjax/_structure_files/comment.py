"""The comment line of an xyz frame: which ones carry a meaning.

- `key=value` (extended xyz), and `key: value` or `key value` where the key is a name of charge, spin or multiplicity;
- two integers and nothing else, or ORCA's `* xyz 2 1`: charge and multiplicity;
- `units=`, `pbc=`, `Lattice=`, and i-PI's `positions{atomic_unit}`;
- words such as "anion" or "triplet", and a formula with a charge, state nothing, but must fit charge and spin.

Other text is free, unless it talks of charge, spin, bohr or a cell: that is refused rather than ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vpotjax._structure_files.statements import KEYS, PERIODIC, TALKS, Claim, Place, Statement, keyed, normalised
from vpotjax.units import ANGSTROM_TO_BOHR

_VALUE = r"""("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s,;]+)"""
_PREFIX = r"(?:(?:total|net|spin|molecular|nuclear|core|partial|unpaired|formal|magnetic|length|unit)\s+)?"
_PAIR = re.compile(rf"""["']?\b({_PREFIX}[A-Za-z0-9_][\w.+-]*)["']?\s*([=:])\s*{_VALUE}""", re.IGNORECASE)
_SPACED = re.compile(
    rf"\b({_PREFIX}(?:charge|chrg|multiplicity|mult|spin|unpaired electrons))\s+(?:of\s+|is\s+)?([+-]?\d[^\s,;]*)",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"mult|moment|unit|pbc|lattice|cell|box|^properties$|^alpha$|^beta$")
_NEXT_NUMBER = re.compile(r"\s*,\s*[+-]?\d+(?![\w.])|\s+[+-]?\d+(?=\s*(?:[,;]|$))")
_TWO_INTEGERS = re.compile(r"\s*(?:\*\s*xyz\s)?\s*([+-]?\d+)[\s,]+([+-]?\d+)\s*", re.IGNORECASE)
_TWO_AND_TEXT = re.compile(r"\s*[+-]?\d[\s,]+[1-9][\s,;]+[A-Za-z]")
_TALK = re.compile(
    r"\b(charges?|charged|chrg|multiplicity|spins?|unpaired|magmoms?|n_?alpha|n_?beta|q_?tot|\d+\s+(?:\w+\s+)?electrons)\b",
    re.IGNORECASE,
)
_SIGN_ALONE = re.compile(r"\W*?(?:[+\u2212-]\d|\d[+\u2212-]|\+{1,3})[\])}]?\s*")
_OPEN_SHELL = re.compile(r"\b(?:(?:di|bi|tri)[- ]?radical|open[- ]shell)\w*", re.IGNORECASE)
_BOHR = re.compile(
    r"\bbohrs?\b|\b(?:coord|geom|position|unit|length|distance)\w*\b[^,;]*?(?:\ba\.?u\b|\batomic\b|\b[np]m\b|nanomet|picomet)",
    re.IGNORECASE,
)
_UNIT_WORD = re.compile(r"\b(?:a\.u\b\.?|A\.U\b\.?|au\b|AU\b|[np]m\b|(?i:atomic units?|nanomet\w*|picomet\w*))")
_MEASURED = re.compile(r"(?:\d\.?|\d\.\d*\s*[\[(])\s*$")  # a number before a unit; "frame 3 (a.u.)" has none
_QUANTITY = re.compile(  # what may have such a unit, other than a position
    r"energ|\b[eEV]\b|\bE_?(?:tot|pot|kin)|hartree|gnorm|norm\b|grad|force|dipole|time|freq|polari|wavelength",
    re.IGNORECASE,
)
_ION = re.compile(  # SO4 2-, SO4^2-, SO4^{2-}, [SO4]2-, SO4(2-), SO4(-2), SO4-2, Na+, OH-; but S22-3 is a name
    r"(?<!\w)(?!\(?[A-Z][a-z]?\d\d+-)[\[(]*(?:[A-Z][a-z]?\d*|[\])]\d*)+"
    r"(?:(?:[\s^({]{1,3}(?P<n>\d)|(?P<m>\d?)|[\^({]{1,2})(?P<sign>[+\u2212-]{1,3})"
    r"|[\^({]{1,2}(?P<sign2>[+\u2212-])(?P<n2>\d)|(?P<sign3>[+\u2212-])(?P<n3>\d))"
    r"[)}\]]*(?=[\s,;.]|$)"
)
_SUPERSCRIPTS = str.maketrans("\u207a\u207b\u2070\xb9\xb2\xb3\u2074", "+-01234")
_FRACTIONAL = re.compile(
    r"\b(?:frac\w*|crystal|direct|scaled|reduced)\s+(?:\w+\s+)?(?:coord|position)\w*|\bfractional\b", re.IGNORECASE
)
_CELL_LENGTHS = re.compile(r"\ba\s*=\s*[\d.].*\bb\s*=\s*[\d.].*\bc\s*=\s*[\d.]", re.IGNORECASE)
_CELL = re.compile(
    r"\b(?:unit[ _-]?cell|cell|lattice|box|pbc|crystal|abc)\b\W*(?:[({\[]\w+[)}\]])?\W*[-+.\d]", re.IGNORECASE
)
_SAYS_PERIODIC = re.compile(
    r"(?<!non-)(?<!non )(?<!not )(?<!no )\b(?:periodic|pbc)\b(?!\W*(?:table|trend|off|no|none|f|false|0)\b)",
    re.IGNORECASE,
)
_CELL_NUMBERS = re.compile(r"\s*(?:[+-]?[\d.]+(?:[eE][+-]?\d+)?(?:[\s,]+|$)){6}(?:(?:[+-]?[\d.]+(?:[\s,]+|$)){3})?")
_IPI_UNIT = re.compile(r"\bpositions\{(\w+)\}", re.IGNORECASE)

_UNIT_KEYS = re.compile(r"(?:length|position|pos|coordinate|coord|distance)?s?units?")
_UNITS = {
    **dict.fromkeys(["angstrom", "angstroms", "ang", "å", "\u212b", "a"], ANGSTROM_TO_BOHR),
    **dict.fromkeys(["bohr", "bohrs", "au", "a.u.", "a.u", "atomic", "atomicunit", "atomicunits"], 1.0),
}
_CELL_KEY = re.compile("lattice|cell|box")
_FLAGS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_CLAIM_WORDS = re.compile(
    r"\b(?:(?:radical[ -])?((?:di|tri)?(?:cation|anion))|(singlet|doublet|triplet|quartet|quintet|neutral))s?\b",
    re.IGNORECASE,
)
_SPIN_WORDS = {"singlet": 0, "doublet": 1, "triplet": 2, "quartet": 3, "quintet": 4}
_CHARGE_WORDS = {"dication": 2, "trication": 3, "dianion": -2, "trianion": -3}
_SIGN_WORDS = {"cation": 1, "anion": -1, "neutral": 0}


@dataclass(frozen=True)
class Comment:
    """What a comment line says.

    Args:
        statements: of charge, spin and multiplicity.
        claims: words that charge and spin must fit.
        bohr_per_unit: the length unit of the positions.
        properties: the columns of extended xyz, "" where there are four.
        name: of the structure, "" where there is none.
    """

    statements: tuple[Statement, ...] = ()
    claims: tuple[Claim, ...] = ()
    bohr_per_unit: float = ANGSTROM_TO_BOHR
    properties: str = ""
    name: str = ""


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
    shell = _OPEN_SHELL.search(rest)
    if shell and all(said.kind == "charge" for said in statements):
        raise place.error(f"the comment says {shell[0]!r}, but not how many electrons are unpaired; write spin= too.")
    properties = [value for key, value in pairs if normalised(key) == "properties"]
    if len(properties) > 1:
        raise place.error("has Properties= twice; keep one.")
    return Comment(tuple(statements), _claims(rest), _unit(pairs, rest, place), "".join(properties), _name(text))


def parsed_titles(titles: Iterable[tuple[str, Place]]) -> tuple[list[Statement], tuple[Claim, ...]]:
    """What titles and remarks of a format say whose positions are in Å.

    Raises:
        InputError: as `parsed_comment`; or a title states another unit than angstrom.
    """
    said: list[Statement] = []
    claims: tuple[Claim, ...] = ()
    for text, place in titles:
        comment = parsed_comment(text, place, numbers_alone=False)
        if comment.bohr_per_unit != ANGSTROM_TO_BOHR:
            raise place.error(f"{text.strip()[:60]!r} says bohr, but this format is in angstrom; convert it to xyz.")
        said += comment.statements
        claims += comment.claims
    return said, claims


def _pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """Keys with their values, and the text that is left."""
    pairs = []

    def take(found: re.Match[str]) -> str:
        key, sign, value = found[1], found[2], found[3]
        name = normalised(key)
        about = _ABOUT.search(name) or TALKS.search(name) or name in KEYS
        if not about and (sign == ":" or value[0] not in "\"'{["):
            return found[0]
        pairs.append((key, value.strip("\"'{}[] ") + _second(found)))
        return " ; "

    def take_spaced(found: re.Match[str]) -> str:
        pairs.append((found[1], found[2] + _second(found)))
        return " ; "

    return pairs, _SPACED.sub(take_spaced, _PAIR.sub(take, text))


def _name(text: str) -> str:
    """The value of name=, without its quotes; without quotes it ends at a space."""
    for found in _PAIR.finditer(text):
        if (found[1].lower(), found[2]) == ("name", "="):
            quoted = re.fullmatch(r"""(["'])(.*)\1""", found[3])
            return quoted[2].replace("\\\\", "\\") if quoted else re.split(r"\s", text[found.start(3) :])[0]
    return ""


def _second(found: re.Match[str]) -> str:
    """A second number after the value of a charge or spin, as in "charge=0,3", which makes it unreadable; else ""."""
    second = _NEXT_NUMBER.match(found.string, found.end()) if normalised(found[1]) in KEYS else None
    return second[0] if second else ""


def _is_other(key: str) -> bool:
    name = normalised(key)
    return bool(_CELL_KEY.search(name)) or name == "pbc" or bool(_UNIT_KEYS.fullmatch(name))


def _refuse_periodic(pairs: list[tuple[str, str]], rest: str, place: Place) -> None:
    named = [(normalised(key), value) for key, value in pairs]
    flags = [flag for key, value in named if key == "pbc" for flag in re.split(r"[\s,]+", value.lower())]
    unknown = [flag for flag in flags if flag not in _FLAGS]
    if unknown or (flags and len(flags) not in {1, 3}):
        raise place.error(f'pbc is {" ".join(flags)!r}; write pbc="F F F".')
    if any(_FLAGS[flag] for flag in flags):
        raise place.error(f'pbc="{" ".join(flags).upper()}" is periodic; {PERIODIC}')
    cells = [f"{key}={value}" for key, value in named if _CELL_KEY.search(key) and re.search("[1-9A-Za-z]", value)]
    searches = (_CELL.search, _CELL_LENGTHS.search, _FRACTIONAL.search, _SAYS_PERIODIC.search, _CELL_NUMBERS.fullmatch)
    found = next((found for search in searches if (found := search(rest))), None)
    if not flags and (cells or found):
        words = cells[0][:60] if cells else found[0] if found else ""
        raise place.error(f"{words!r} states a cell, which is periodic unless pbc says otherwise; {PERIODIC}")


def _refuse_talk(rest: str, place: Place) -> None:
    talk = _TALK.search(rest) or _SIGN_ALONE.fullmatch(rest)
    bohr = _BOHR.search(rest) or next(filter(None, map(_unit_of_length, re.split("[,;|]", rest))), None)
    if talk:
        raise place.error(
            f"the comment talks of {talk[0].strip()!r} without a value that is read; write charge= and spin= "
            "(nα − nβ) or multiplicity=, or reword it."
        )
    if bohr and not _IPI_UNIT.search(rest):
        raise place.error(f"the comment talks of {bohr[0]!r}; write units=bohr or units=angstrom, or reword it.")


def _unit_of_length(clause: str) -> re.Match[str] | None:
    """A unit without a number before it, in words that name no other quantity, such as "in a.u."."""
    found = _UNIT_WORD.search(clause)
    measured = found and (_MEASURED.search(clause[: found.start()]) or _QUANTITY.search(clause))
    return None if measured else found


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
    ions = [_ion(found) for found in _ION.finditer(rest.translate(_SUPERSCRIPTS)) if _is_formula(found[0])]
    claims = ions if len(ions) == 1 else []
    claims += [Claim(word, "charge", _CHARGE_WORDS[word]) for word in words & _CHARGE_WORDS.keys()]
    signs, spins = words & _SIGN_WORDS.keys(), words & _SPIN_WORDS.keys()
    if len(signs) == 1:
        word = signs.pop()
        claims.append(Claim(word, "sign", _SIGN_WORDS[word]))
    if len(spins) == 1:
        word = spins.pop()
        claims.append(Claim(word, "spin", _SPIN_WORDS[word]))
    return tuple(claims)


def _is_formula(text: str) -> bool:
    """True where all symbols are elements, which "TS-1" has not."""
    from ase.data import atomic_numbers

    return all(atomic_numbers.get(symbol, 1 if symbol == "D" else 0) for symbol in re.findall("[A-Z][a-z]?", text))


def _ion(found: re.Match[str]) -> Claim:
    """The charge that stands after a formula."""
    parts = found.groupdict()
    sign = next(text for key, text in parts.items() if key.startswith("sign") and text)
    digit = next((text for key, text in parts.items() if key[0] in "nm" and text), "")
    size = int(digit) if digit else len(sign)
    either = size == 1 and re.search(r"\d[+\u2212-]", found[0])  # Ca2+ has charge 2, NH4+ has 1
    return Claim(found[0].strip(), "sign" if either else "charge", size if sign[0] == "+" else -size)
