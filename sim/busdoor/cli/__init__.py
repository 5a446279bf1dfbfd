"""The `busdoor` command."""

from __future__ import annotations

import atexit
import codecs
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from busdoor.cli.app import app
from busdoor.core.interrupt import exit_code, interruptible
from busdoor_workloads.collector import seldom_collected

if TYPE_CHECKING:
    from cyclopts import CycloptsError, UnknownOptionError

__all__ = ["app", "main"]

USAGE_ERROR = 2
# Which extra brings what is imported only where it is needed.
EXTRA_OF = {
    "torch": "gpu",
    "triton": "gpu",
    "safetensors": "gpu",
    "distributed": "sweep",
    "aiohttp": "observe",
}
PIPE_CLOSED = 141  # 128 + SIGPIPE, as shells have it

# What tables and sentences hold beyond ASCII, for a terminal that has no more.
_ASCII = str.maketrans({"–": "-", "×": "x", "±": "+-", "≤": "<=", "…": "...", "·": "|", "→": "->"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; for bad input print one sentence to stderr and return exit code 2.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of the process's own.

    Returns
    -------
    int
        The exit code.
    """
    _write_what_the_terminal_can()
    # What is left at the end of the process goes with it: no last search for cycles.
    atexit.register(gc.freeze)
    try:
        with interruptible(), seldom_collected():
            code = _run(arguments)
            sys.stdout.flush()  # here, where a closed pipe can still be answered
            return code
    # the reader has read enough (`| head -1`); files are written before anything is printed
    except BrokenPipeError:
        _forget_stdout()
        return PIPE_CLOSED
    except SystemExit as end:  # rich's answer to the same
        if end.code != 1:
            raise
        return PIPE_CLOSED


def _run(arguments: Sequence[str] | None) -> int:
    from cyclopts import CycloptsError

    try:
        done = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(_sentence(error))
    except BrokenPipeError as error:
        if _stdout_is_closed():
            raise
        return _complain(str(error))
    except (ValueError, OSError) as error:
        return _complain(_os_sentence(error) if isinstance(error, OSError) else str(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        return _complain(
            f"this needs {error.name}, which is not installed: pip install "
            f"'busdoor[{EXTRA_OF[error.name]}]'"
        )
    except KeyboardInterrupt:
        print("busdoor: interrupted", file=sys.stderr)
        return exit_code()
    return done if isinstance(done, int) else 0


def _complain(sentence: str) -> int:
    from busdoor_workloads.text import printable

    print(f"busdoor: {printable(sentence)}", file=sys.stderr)
    return USAGE_ERROR


def _os_sentence(error: OSError) -> str:
    return (
        f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    )


def _sentence(error: CycloptsError) -> str:
    """Return the error of cyclopts in one line, with the nearest option for an unknown one."""
    from cyclopts import UnknownOptionError

    said = " ".join(str(error).split())
    return _unknown_option(said, error) if isinstance(error, UnknownOptionError) else said


def _unknown_option(said: str, error: UnknownOptionError) -> str:
    """Name the nearest option, where one is near; dashes make no two options alike."""
    from busdoor_workloads.nearest import nearest

    typed = (error.token.keyword or error.token.value).partition("=")[0].lstrip("-")
    options = {
        name.lstrip("-"): name for argument in error.argument_collection for name in argument.names
    }
    guess = nearest(typed, options)
    return said.partition(" Did you mean ")[0] + (
        f" Did you mean {options[guess]}?" if guess else ""
    )


def _write_what_the_terminal_can() -> None:
    """Write characters that the terminal's encoding lacks as near ones, or as question marks."""
    codecs.register_error("busdoor", _nearest)
    for stream in (sys.stdout, sys.stderr):
        # not of what stands in for a terminal, as in a notebook
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="busdoor")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_ASCII)
    return lost.encode("ascii", "replace").decode("ascii"), error.end


def _stdout_is_closed() -> bool:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    return False


def _forget_stdout() -> None:
    """Drop what could not be written, which Python would complain of once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
