"""The lines of a text file, one by one in constant memory."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vpotjax._structure_files.statements import Place

PACKED: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_CHUNK = 1 << 16  # bytes
_LINE_END = re.compile(b"\r\n|\r|\n")  # no byte of a longer UTF-8 character is one of these


class TextLines:
    """The lines of a file in UTF-8, with or without a byte order mark, with any line ends, without these.

    Every iteration reads the file again. What follows the last line end is a line, too, and may be empty.

    Args:
        path: of the file.
        packing: a key of PACKED, or "" for plain text.
        place: for messages.

    Raises:
        InputError: while iterating: the file cannot be read, or a line is not UTF-8 or holds a null byte.
    """

    def __init__(self, path: Path, packing: str, place: Place) -> None:
        self._path, self._packing, self._place = path, packing, place

    def __iter__(self) -> Iterator[str]:
        for number, raw in enumerate(_split(self._chunks()), start=1):
            yield self._text(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, number)

    def _chunks(self) -> Iterator[bytes]:
        """The bytes of the file, never cut within a line end."""
        carry = b""
        try:
            with PACKED[self._packing](self._path) if self._packing else self._path.open("rb") as file:
                while data := file.read(_CHUNK):
                    data = carry + data
                    carry = b"\r" if data.endswith(b"\r") else b""
                    yield data.removesuffix(b"\r")
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = " ".join(str(error).split())
            raise self._place.error(f"cannot be read ({type(error).__name__}: {reason}); check the file.") from None
        yield carry

    def _text(self, raw: bytes, number: int) -> str:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            place = self._place.at(line=number)
            raise place.error(f"the byte {byte:#04x} is not UTF-8; save the file as UTF-8 text.") from None
        if "\0" in text:
            raise self._place.at(line=number).error("holds a null byte; save the file as UTF-8 text.")
        return text


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    pending: list[bytes] = []
    for chunk in chunks:
        first, *others = _LINE_END.split(chunk)
        pending.append(first)
        if others:
            yield b"".join(pending)
            yield from others[:-1]
            pending = [others[-1]]
    yield b"".join(pending)
