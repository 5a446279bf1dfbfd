"""Writing a trace file."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from busdoor_workloads.formats.registry import FORMATS, known_format
from busdoor_workloads.given import instance, path_of
from busdoor_workloads.trace import Trace


def write_trace(trace: Trace, path: str | Path, format: str | None = None) -> None:
    """Write a trace to a file; compressed if its name ends in .gz.

    Parameters
    ----------
    trace : Trace
        The trace.
    path : str or Path
        The file.
    format : str, optional
        A key of `FORMATS` that can be written; by default csv or jsonl, by the suffix of the file's
        name.

    Raises
    ------
    ValueError
        The format is unknown, cannot be written, or the name does not show it.

    Notes
    -----
    ``FORMATS[format].cannot_keep(trace)`` lists the columns that the format cannot hold.
    An infinite `timeout_s` is written as empty, which means the same.
    """
    path = path_of("path", path)
    instance("trace", trace, Trace, "a Trace")
    write = FORMATS[format_to_write(path, format)].write
    assert write is not None  # format_to_write saw to it
    text = io.StringIO()
    write(trace, text)
    data = text.getvalue().encode()
    # No time of writing in the header: the same trace gives the same bytes.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def largest_rounding_s(trace: Trace, tick_s: float) -> float:
    """Return the most seconds by which an arrival changes when it is written to `tick_s` seconds.

    Examples
    --------
    >>> largest_rounding_s(Trace(arrival_s=[0.0, 1.0004], input_tokens=[1, 1], output_tokens=[1, 1]), 0.001)
    0.0004
    """
    changes_s = np.abs(np.rint(trace.arrival_s / tick_s) * tick_s - trace.arrival_s)
    return float(changes_s.max(initial=0.0).round(12))


def format_to_write(path: str | Path, format: str | None = None) -> str:
    """Return the format that `write_trace` writes: the given one, or that of the file's suffix.

    Raises
    ------
    ValueError
        The format is unknown, cannot be written, or the name does not show it.

    Examples
    --------
    >>> format_to_write("trace.jsonl.gz"), format_to_write("trace.csv", "azure")
    ('jsonl', 'azure')
    """
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.suffix in (".bz2", ".xz", ".zst", ".zip"):
        raise ValueError(
            f"{path.name} ends in {path.suffix}, but files are written plain or packed with gzip: "
            f"use .gz"
        )
    name = format or suffix.removeprefix(".")
    if not format and name not in ("csv", "jsonl"):
        raise ValueError(
            f"{path.name} ends in neither .csv nor .jsonl; name the format: {', '.join(FORMATS)}"
        )
    if known_format(name).write is None:
        writable = ", ".join(f.name for f in FORMATS.values() if f.write)
        raise ValueError(f"the format {name} can be read but not written; these can: {writable}")
    return name
