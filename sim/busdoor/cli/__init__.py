"""The `busdoor` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from busdoor.cli.app import app

__all__ = ["app", "main"]

USAGE_ERROR = 2
# Which extra brings what is imported only where it is needed.
EXTRA_OF = {"torch": "gpu", "triton": "gpu", "safetensors": "gpu", "joblib": "sweep", "distributed": "sweep"}
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; bad input is answered with one sentence on stderr and exit code 2.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of the process's own.

    Returns
    -------
    int
        The exit code.
    """
    from cyclopts import CycloptsError

    try:
        done = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(_sentence(error))
    except (ValueError, OSError) as error:
        return _complain(_os_sentence(error) if isinstance(error, OSError) else str(error))
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        return _complain(
            f"this needs {error.name}, which is not installed: pip install 'busdoor[{EXTRA_OF[error.name]}]'"
        )
    except KeyboardInterrupt:
        print("busdoor: interrupted", file=sys.stderr)
        return INTERRUPTED
    return done if isinstance(done, int) else 0


def _complain(sentence: str) -> int:
    print(f"busdoor: {sentence}", file=sys.stderr)
    return USAGE_ERROR


def _os_sentence(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _sentence(error: object) -> str:
    """Put what cyclopts found wrong into one line."""
    return " ".join(str(error).split())
