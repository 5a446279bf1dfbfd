"""The flags of every command that reads a trace file, and what reading it brought to light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

_PYTHON_NAMES = {"from_format": "format"}


@Parameter(name="*")
@dataclass(frozen=True)
class FileFlags:
    """How a trace file is written, where it does not say so itself.

    Parameters
    ----------
    from_format
        Format of the trace file; found out from its first record if left out.
    columns
        For a file of no known format, our name of a column and the file's: --columns.input_tokens prompt_len
    time_unit
        Unit of the file's arrival times; the format's own if left out.
    block_size
        Tokens that one of the file's hash ids stands for.
    run
        Which result of a vLLM result file to which several were appended; 1 is the first.
    skip_bad
        Leave bad rows of the file out and count them.
    max_bytes
        Largest file to read, counted unpacked.
    """

    from_format: Annotated[str | None, Parameter(name="--from")] = None
    columns: dict[str, str] = field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "ns", "datetime"] | None = None
    block_size: int | None = None
    run: int | None = None
    skip_bad: Annotated[bool, Parameter(negative="")] = False
    max_bytes: int | None = None

    def given(self) -> dict[str, Any]:
        """Return what differs from its default, under the names of `read_trace`."""
        empty = type(self)()
        return {
            _PYTHON_NAMES.get(one.name, one.name): value
            for one in fields(self)
            if (value := getattr(self, one.name)) != getattr(empty, one.name)
        }


AS_WRITTEN = FileFlags()
"""No flag given: the file says it all."""


def flag_of(option: str) -> str:
    """Return the flag of an option of `read_trace`.

    Examples
    --------
    >>> flag_of("time_unit"), flag_of("format")
    ('--time-unit', '--from')
    """
    names = {python: own for own, python in _PYTHON_NAMES.items()}
    return "--from" if names.get(option) else f"--{option.replace('_', '-')}"


def tell(notes: Iterable[str]) -> None:
    """Print on standard error what was done that a file does not say."""
    from busdoor.cli.telling import note
    from busdoor_workloads.text import printable

    for text in notes:
        note(f"busdoor: note: {printable(text)}")
