"""`busdoor trace`: look at request traces, make them, convert them, and fetch public ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from busdoor.cli.flags import Rate

if TYPE_CHECKING:
    import pandas as pd

    from busdoor_workloads import Trace

trace = App(name="trace", help="Describe, generate, convert and fetch request traces.")


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """How to read a trace file.

    Parameters
    ----------
    from_format
        Format of the file; found out from its first record if left out.
    columns
        For any other CSV or JSONL, our name and the file's: --columns.input_tokens prompt_len
    time_unit
        Unit of the arrival times of a file read with --columns.
    time_scale
        Stretch time: 2 halves the rate.
    start_s
        Where in the file to begin, in seconds from its start.
    duration_s
        How many seconds of it to take.
    max_requests
        Take the first so many requests.
    max_total_tokens
        Longest request, prompt and answer together.
    too_long
        Leave longer requests out, or cut them.
    skip_bad
        Leave bad rows out and count them.
    model
        Take only this model's requests (BurstGPT).
    """

    from_format: Annotated[str | None, Parameter(name="--from")] = None
    columns: dict[str, str] = field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "ns", "datetime"] = "s"
    time_scale: float = 1.0
    start_s: float = 0.0
    duration_s: float = float("inf")
    max_requests: int | None = None
    max_total_tokens: int | None = None
    too_long: Literal["drop", "clip"] = "drop"
    skip_bad: Annotated[bool, Parameter(negative="")] = False
    model: str | None = None

    def read(self, path: Path, seed: int, name: str | None = None) -> Trace:
        """Read a file as these flags say."""
        from busdoor_workloads.formats import read_trace

        options = {key: value for key, value in vars(self).items() if key != "from_format"}
        return read_trace(path, self.from_format, seed=seed, name=name, **options)


@trace.command
def describe(
    source: str,
    /,
    *,
    reading: Reading = Reading(),  # frozen
    num_requests: int | None = None,
    seed: int = 0,
    json: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
) -> None:
    """Show a trace's lengths, arrivals, prefix reuse, and what static batching would make of it.

    Parameters
    ----------
    source
        A trace file, a fetched public trace, or a profile or preset to draw from.
    num_requests
        How many requests to draw from a profile or preset.
    seed
        For what is drawn, and for spreading arrivals with coarse timestamps.
    json
        Print one line of JSON instead of tables.
    out
        Folder for a picture, NAME.png.
    """
    from busdoor.cli.progress import progress_bar
    from busdoor_workloads.describe import describe, plot_describe

    with progress_bar(f"reading {source}"):
        described = _trace_of(source, reading, num_requests, seed)
        summary = describe(described)
    if json:
        print(_json(described, summary))
    else:
        from busdoor.cli.trace_tables import print_description

        print_description(described, summary)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        picture = out / f"{described.name}.png"
        plot_describe(described).savefig(picture, dpi=150)
        _say(f"wrote {picture}", quiet=json)


def _trace_of(source: str, reading: Reading, num_requests: int | None, seed: int) -> Trace:
    from busdoor_workloads import resolve, workload_names
    from busdoor_workloads.fetch import PUBLIC_TRACES, cached
    from busdoor_workloads.nearest import did_you_mean

    if Path(source).exists():
        return reading.read(Path(source), seed)
    if source in PUBLIC_TRACES:
        if (path := cached(source)) is None:
            raise ValueError(f"{source} is not on this machine yet; fetch it with: busdoor trace fetch {source}")
        return reading.read(path, seed, name=source)
    names = workload_names()
    if source not in names:
        hint = did_you_mean(source, [*names, *PUBLIC_TRACES])
        raise ValueError(f"{source!r} is neither a file nor a known trace; {hint}")
    return resolve(source).generate(seed, num_requests=num_requests)


def _json(described: Trace, summary: pd.Series[float]) -> str:
    import json
    import math

    # JSON has neither NaN nor infinity: what cannot be measured is null.
    values = {str(key): float(value) if math.isfinite(value) else None for key, value in summary.items()}
    return json.dumps({"name": described.name, **values, "metadata": dict(described.metadata)})


@trace.command
def generate(
    name: str,
    /,
    *,
    num_requests: int | None = None,
    rate: Rate = None,
    seed: int = 0,
    out: Path | None = None,
    to: str | None = None,
) -> None:
    """Draw a trace from a profile of a public trace, or from a preset.

    Parameters
    ----------
    name
        Profile or preset, such as azure-conv.
    num_requests
        How many requests; the workload's own number if left out.
    rate
        Requests a second; the workload's own arrivals if left out.
    seed
        Same seed, same trace.
    out
        File to write; NAME.csv if left out.
    to
        Format to write; told by the file's name if left out.
    """
    from busdoor_workloads import resolve

    _require_positive("--num-requests", num_requests)
    _require_positive("--rate", rate)
    _write(resolve(name).generate(seed, num_requests=num_requests, request_rate=rate), out or Path(f"{name}.csv"), to)


def _require_positive(flag: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{flag} is {value:g}; it must be more than 0")


@trace.command
def convert(
    source: Path,
    target: Path,
    /,
    *,
    to: str | None = None,
    reading: Reading = Reading(),  # frozen
    seed: int = 0,
) -> None:
    """Convert a trace file from one format to another.

    Parameters
    ----------
    source
        File to read (or ServeGen folder).
    target
        File to write; compressed if its name ends in .gz.
    to
        Format to write; told by the file's name if left out.
    seed
        For what is drawn (ServeGen) and for spreading arrivals with coarse timestamps.
    """
    _write(reading.read(source, seed), target, to)


def _write(written: Trace, target: Path, to: str | None) -> None:
    from busdoor_workloads.formats import FORMATS, format_to_write, write_trace

    name = format_to_write(target, to)
    write_trace(written, target, name)
    _say(f"wrote {len(written):,} requests to {target} ({FORMATS[name].title})")
    if lost := FORMATS[name].cannot_keep(written):
        _say(f"left out, as {name} files have no place for it: {', '.join(lost)}")
    for key, number in written.metadata.items():
        if key.startswith(("rows_dropped", "rows_clipped")) and number:
            _say(f"{key.replace('_', ' ')}: {number:,}")


@trace.command
def fetch(
    name: str | None = None, /, *, list_all: Annotated[bool, Parameter(name="--list", negative="")] = False
) -> None:
    """Fetch a public trace from its publisher, verify it, and keep it in the cache.

    Parameters
    ----------
    name
        Which one; see --list.
    list_all
        List the public traces, their licences and whether they are on this machine.
    """
    from busdoor.cli.trace_tables import download_bar, print_public_traces

    if list_all or name is None:
        print_public_traces()
        return
    from busdoor_workloads.fetch import fetch, public_trace

    known = public_trace(name)
    with download_bar(name) as progress:
        path = fetch(name, progress=progress)
    _say(f"{path}\n{known.attribution}; licence {known.licence}")


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        print(text)
