"""Reading a trace file of any known format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from busdoor_workloads.collector import seldom_collected
from busdoor_workloads.formats.base import Format
from busdoor_workloads.formats.registry import FORMATS, known_format, refuse_unused
from busdoor_workloads.given import path_of
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.reading.draft import UNITS_PER_SECOND, ReadOptions, TimeUnit
from busdoor_workloads.reading.frame import checked_fields
from busdoor_workloads.reading.sniff import sniff
from busdoor_workloads.reading.source import MAX_BYTES, settled
from busdoor_workloads.trace import Trace


def read_trace(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    time_unit: TimeUnit | None = None,
    time_scale: float = 1.0,
    start_s: float = 0.0,
    duration_s: float = np.inf,
    max_requests: int | None = None,
    max_total_tokens: int | None = None,
    too_long: Literal["drop", "clip"] = "drop",
    skip_bad: bool = False,
    jitter: bool = True,
    seed: int = 0,
    model: str | None = None,
    normalize_duration: bool = False,
    name: str | None = None,
    block_size: int | None = None,
    run: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Trace:
    r"""Read a trace file (or ServeGen folder).

    The file may be CSV (with commas, semicolons or tabs), JSON lines, a JSON array, Parquet (if
    pyarrow is installed) or a vLLM result; compressed with gzip, bzip2, xz or zstd; or a pipe.
    Every column is used or refused by name, and assumptions about the file are in the trace's
    `notes`.

    Parameters
    ----------
    path : str or Path
        The file. Requests need not be sorted, except in our own formats.
    format : str, optional
        Name of the format; by default detected from the file's first record.
    columns : mapping, optional
        For any other CSV or JSONL: from our column name to the file's, as in ``{"input_tokens":
        "prompt_len"}``.
    time_unit : {"s", "ms", "us", "ns", "datetime"}, optional
        Unit of the arrival times (and think times); the format's own by default, seconds in our
        formats. Times that count from 1970 are counted from the first request.
    time_scale : float
        Stretches time: 2 halves the rate.
    start_s : float
        Start of the part of the file to read, in seconds from the file's; it becomes time 0.
    duration_s : float
        Length of the part of the file to read, in seconds.
    max_requests : int, optional
        Number of requests to read from the start.
    max_total_tokens : int, optional
        Longest request, prompt and output together; any by default.
    too_long : {"drop", "clip"}
        Treatment of longer ones: leave them out, or cut the output (and the prompt if it alone is
        too long).
    skip_bad : bool
        Leave bad rows out and count them instead of raising an error.
    jitter : bool
        Spread arrivals over the tick if a Mooncake file's timestamps are so coarse that most gaps
        are 0.
    seed : int
        For the jitter, and for ServeGen, whose folders hold distributions to draw from.
    model : str, optional
        Read only this model's requests (BurstGPT).
    normalize_duration : bool
        Rescale gaps so that each ServeGen window holds exactly its expected number of requests, as
        its authors do.
    name : str, optional
        Name of the trace; by default the file's.
    block_size : int, optional
        Tokens per hash id, if the file does not contain it or differs from its format.
    run : int, optional
        Number of the result (1 first) in a vLLM result file to which several were appended.
    max_bytes : int
        Largest file that is read, counted uncompressed.

    Returns
    -------
    Trace
        In order of arrival. Its metadata has the number of rows that were read, dropped, clipped or
        jittered; its `notes` list changes and assumptions of the reader.

    Raises
    ------
    ValueError
        A bad row (file, line, column, value, wanted value), or an unknown format or column (nearest
        known name).
    FileNotFoundError
        The file is absent.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "two.csv"
    >>> _ = path.write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n0.5,200,20\n")
    >>> read_trace(path).output_tokens
    array([10, 20])
    """
    path = path_of("path", path)
    _require_sense(
        time_unit,
        time_scale,
        duration_s,
        max_requests,
        max_total_tokens,
        too_long,
        block_size,
        max_bytes,
    )
    options = ReadOptions(
        columns=columns or {},
        time_unit=time_unit,
        time_scale=time_scale,
        start_s=start_s,
        duration_s=duration_s,
        max_requests=max_requests,
        max_total_tokens=max_total_tokens,
        too_long=too_long,
        skip_bad=skip_bad,
        jitter=jitter,
        seed=seed,
        model=model,
        normalize_duration=normalize_duration,
        name=name,
        block_size=block_size,
        run=run,
        max_bytes=max_bytes,
    )
    path = settled(path, max_bytes)
    kind = known_format(format) if format else _detected(path, bool(columns), max_bytes)
    refuse_unused(kind, path, options)
    with seldom_collected():
        return Trace(**checked_fields(kind.read(path, options), kind.name, options))


def detect_format(path: str | Path) -> str:
    """Return the format of a file, by its first record.

    Returns
    -------
    str
        A key of `FORMATS`; "csv" or "jsonl" if the file has no known format.

    Raises
    ------
    ValueError, FileNotFoundError
        The file cannot be read.
    """
    return _detected(Path(path), False).name


# Content of a file, and the containers whose formats it may have; the first is ours.
_MAY_BE = {"csv": ("csv",), "jsonl": ("jsonl",), "array": ("jsonl",), "parquet": ("csv", "jsonl")}


def _detected(path: Path, mapped: bool, max_bytes: int = MAX_BYTES) -> Format:
    holds, columns = sniff(path, max_bytes)
    if holds == "folder" and (format := _of_folder(path, max_bytes)):
        return format
    kinds = _MAY_BE.get(holds, (holds,))
    fitting = [f for f in FORMATS.values() if f.container in kinds and f.marks <= set(columns)]
    if fitting and not mapped:
        # the more marks a format has, the surer the match
        return max(fitting, key=lambda f: len(f.marks))
    if holds not in _MAY_BE:
        raise ValueError(f"{path.name} is a {holds} of no format known: {', '.join(FORMATS)}")
    return FORMATS[kinds[0]]


def _of_folder(folder: Path, max_bytes: int) -> Format | None:
    """Return the format of a folder's files, by the first JSON file; None if it has none."""
    files = (path for path in sorted(folder.iterdir()) if {".json", ".jsonl"} & set(path.suffixes))
    if (first := next(files, None)) is None:
        return None
    holds, columns = sniff(first, max_bytes)
    several = (f for f in FORMATS.values() if f.in_folders and f.container == holds)
    return next((f for f in several if f.marks <= set(columns)), None)


def _require_sense(
    time_unit: str | None,
    time_scale: float,
    duration_s: float,
    max_requests: int | None,
    max_total_tokens: int | None,
    too_long: str,
    block_size: int | None,
    max_bytes: int,
) -> None:
    units = (*UNITS_PER_SECOND, "datetime")
    if time_unit is not None and time_unit not in units:
        raise ValueError(f"time_unit is {time_unit!r}; {did_you_mean(time_unit, units)}")
    if too_long not in ("drop", "clip"):
        raise ValueError(f"too_long is {too_long!r}; it is drop or clip")
    for key, value, least in (
        ("time_scale", time_scale, 0),
        ("duration_s", duration_s, 0),
        ("max_requests", max_requests, 0),
        ("max_total_tokens", max_total_tokens, 1),
        ("block_size", block_size, 0),
        ("max_bytes", max_bytes, 0),
    ):
        if value is not None and not value > least:
            raise ValueError(f"{key} is {value}; it must be more than {least}")
