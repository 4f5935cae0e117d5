"""A file for HDF5 to write to on a disk that may be full, in a process that may be interrupted."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Iterator
from typing import Any


class RawFile(io.FileIO):
    """The file below an `h5py.File`. HDF5 crashes the process at its end where a write to its file has failed.

    Here a write that fails is kept as an error, and signals wait while HDF5 is at work; `at_work` raises them
    afterwards. All that HDF5 does with the file, closing included, has to be under it.
    """

    error: Exception | None = None

    def write(self, data: Any, /) -> int:
        """All of `data`, or as much as there is room for."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except Exception as error:
            self.error = self.error or error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        """The new size, which the file has where there is room for it."""
        try:
            return super().truncate(size)
        except Exception as error:
            self.error = self.error or error
            return size or 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Calls of HDF5; then raise what went wrong in this file, rather than what HDF5 makes of it."""
        try:
            with _signals_wait():
                yield
        finally:
            if self.error is not None:
                raise self.error from None


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Signals that Python handles, such as Ctrl-C, are handled at the end."""
    if threading.current_thread() is not threading.main_thread():  # where none is handled
        yield
        return
    waiting: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: waiting.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in waiting:
            signal.raise_signal(number)
