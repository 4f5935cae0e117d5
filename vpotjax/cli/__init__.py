"""The command line: vpotjax demo | train | evaluate | calibrate | predict | reference | import | export | split |
info.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, Union

import tyro

from vpotjax._checks import InputError
from vpotjax.cli import data, prediction, training
from vpotjax.cli.session import end_if_joined, one_blas_thread

EXIT_BAD_INPUT = 2
COMMANDS = training.COMMANDS | prediction.COMMANDS | data.COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run a command; bad input is one line on stderr and exit code 2."""
    one_blas_thread()
    try:
        command = _parsed(arguments)
        return COMMANDS[type(command)](command) or 0
    except (InputError, OSError) as error:  # bad input, or a file system that refuses
        print(f"vpotjax: {' '.join(str(error).split())}", file=sys.stderr)
        end_if_joined(EXIT_BAD_INPUT)
        return EXIT_BAD_INPUT
    except BaseException as error:
        end_if_joined(1, error)
        raise


def _parsed(arguments: list[str] | None) -> Any:
    """The command; what a setting refuses is one line, not tyro's box, which is kept for everything else.

    Raises:
        InputError: a setting is out of range.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            commands: Any = Union[tuple(COMMANDS)]  # noqa: UP007  as many as there are
            return tyro.cli(commands, args=arguments, prog="vpotjax")
    except SystemExit:
        text = printed.getvalue()
        refused = "Value error" in text
        if not refused:
            print(text, file=sys.stderr, end="")
            raise
    words = " ".join(line.strip("│╭╮╰╯─ ") for line in text.splitlines()[1:])
    raise InputError(words.split("For full helptext")[0].replace("Error parsing __tyro-dummy-inner__.", "").strip())
