"""Flags that say how a trace file is written, and which part of it is read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from cyclopts import Parameter

_PYTHON_NAMES = {"from_format": "format"}


@Parameter(name="*")
@dataclass(frozen=True)
class FileFlags:
    """How a trace file is written, where that is not in the file.

    Parameters
    ----------
    from_format
        Format of the trace file; by default recognized from its first record.
    columns
        For a file of no known format, our name of a column and the file's: --columns.input_tokens
        prompt_len
    time_unit
        Unit of the file's arrival times; by default the format's own.
    block_size
        Tokens that one of the file's hash ids stands for; by default what the file or its format says.
    run
        Which result of a vLLM result file to which several were appended; 1 is the first. A file of
        one needs no number.
    skip_bad
        Leave bad rows of the file out and count them.
    max_bytes
        Largest file to read, in bytes after decompression; 8 GiB unless given.
    """

    from_format: Annotated[str | None, Parameter(name="--from")] = None
    columns: dict[str, str] = field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "ns", "datetime"] | None = None
    block_size: int | None = None
    run: int | None = None
    skip_bad: bool = False
    max_bytes: int | None = None

    def given(self) -> dict[str, Any]:
        """Return what differs from its default, under the names of `read_trace`."""
        empty = type(self)()
        return {
            _PYTHON_NAMES.get(one.name, one.name): value
            for one in fields(self)
            if (value := getattr(self, one.name)) != getattr(empty, one.name)
        }


@Parameter(name="*")
@dataclass(frozen=True)
class ReadFlags(FileFlags):
    """Which part of a trace file is read, and how: flags of trace describe and trace convert.

    Parameters
    ----------
    time_scale
        Stretch time: 2 halves the rate.
    start_s
        Start of the part to read, in seconds after the start of the file.
    duration_s
        Length of the part to read, in seconds.
    max_requests
        Number of requests to take from the start of that part; all unless given.
    max_total_tokens
        Longest request, prompt and answer together, in tokens; any unless given.
    too_long
        Leave longer requests out, or cut them.
    model
        Take only this model's requests (BurstGPT); all unless given.
    """

    time_scale: float = 1.0
    start_s: float = 0.0
    duration_s: float = float("inf")
    max_requests: int | None = None
    max_total_tokens: int | None = None
    too_long: Literal["drop", "clip"] = "drop"
    model: str | None = None


def flag_of(option: str) -> str:
    """Return the flag of an option of `read_trace`.

    >>> flag_of("time_unit"), flag_of("format")
    ('--time-unit', '--from')
    """
    return "--from" if option == "format" else f"--{option.replace('_', '-')}"
