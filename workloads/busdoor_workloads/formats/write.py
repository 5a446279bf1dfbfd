"""Writing a trace file."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from busdoor_workloads.formats.registry import FORMATS, known_format
from busdoor_workloads.trace import Trace


def write_trace(trace: Trace, path: str | Path, format: str | None = None) -> None:
    """Write a trace to a file; compressed where its name ends in .gz.

    Parameters
    ----------
    trace : Trace
        What to write.
    path : str or Path
        Where to.
    format : str, optional
        A key of `FORMATS` that can be written; by default csv or jsonl, as the file's name ends.

    Raises
    ------
    ValueError
        The format is unknown, cannot be written, or cannot be told from the name.

    Notes
    -----
    ``FORMATS[format].cannot_keep(trace)`` lists the columns that the format has no place for.
    An infinite `timeout_s` is written as empty, which means the same.
    """
    path = Path(path)
    write = FORMATS[format_to_write(path, format)].write
    assert write is not None  # format_to_write saw to it
    text = io.StringIO()
    write(trace, text)
    data = text.getvalue().encode()
    # No time of writing in the header: the same trace gives the same bytes.
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def format_to_write(path: str | Path, format: str | None = None) -> str:
    """Tell the format that `write_trace` writes: the one asked for, or the one the file's name ends in.

    Raises
    ------
    ValueError
        The format is unknown, cannot be written, or cannot be told from the name.

    Examples
    --------
    >>> format_to_write("trace.jsonl.gz"), format_to_write("trace.csv", "azure")
    ('jsonl', 'azure')
    """
    path = Path(path)
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    name = format or suffix.removeprefix(".")
    if not format and name not in ("csv", "jsonl"):
        raise ValueError(f"{path.name} ends in neither .csv nor .jsonl; say which format: {', '.join(FORMATS)}")
    if known_format(name).write is None:
        writable = ", ".join(f.name for f in FORMATS.values() if f.write)
        raise ValueError(f"the format {name} can be read but not written; these can: {writable}")
    return name
