"""`busdoor trace`: look at request traces, make them, convert them, and fetch public ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from busdoor.cli.file_flags import ReadFlags
from busdoor.cli.flags import Json, Rate
from busdoor.cli.traces.source import read_file, trace_of

if TYPE_CHECKING:
    from busdoor_workloads import Trace

trace = App(name="trace", help="Describe, generate, convert and fetch request traces.")


@trace.command(help_epilogue="Example: busdoor trace describe azure-conv")
def describe(
    source: str,
    /,
    *,
    reading: ReadFlags = ReadFlags(),
    num_requests: int | None = None,
    seed: int = 0,
    json: Json = False,
    out: Path | None = None,
) -> None:
    """Show a trace's lengths, arrivals, prefix reuse, and the slot share of static batching.

    Parameters
    ----------
    source
        A trace file, a fetched public trace, or a profile or preset to draw from.
    num_requests
        Number of requests to draw from a profile or preset; its own unless given.
    seed
        Seed for what is drawn, and for spreading arrivals with coarse timestamps.
    out
        Folder for a picture, NAME.png.
    """
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.render import print_description
    from busdoor_workloads.describe import describe

    _check_folder(out)
    with progress_bar(f"reading {source}"):
        described = trace_of(source, reading, num_requests, seed)
        summary = describe(described)
    picture = None if out is None else _drawn(described, out)
    with output(json) as answer:
        if not json:
            print_description(described, summary)
        if picture is not None:
            print(f"wrote {picture}")
        answer(
            lambda: {
                "name": described.name,
                **summary.to_dict(),
                "metadata": dict(described.metadata),
            }
        )


def _check_folder(out: Path | None) -> None:
    """Raise ValueError for what is no folder; pictures may go beside others."""
    from busdoor.core.study_folder import check_free

    if out is not None:
        check_free(out, mixed=True)


def _drawn(described: Trace, out: Path) -> Path:
    from busdoor_workloads.describe import plot_describe

    out.mkdir(parents=True, exist_ok=True)
    picture = out / f"{described.name}.png"
    plot_describe(described).savefig(picture, dpi=150)
    return picture


@trace.command(help_epilogue="Example: busdoor trace generate azure-conv --rate 4 --out trace.csv")
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
        Number of requests; by default the workload's own.
    seed
        Seed of what is drawn: the same seed gives the same trace.
    out
        File to write; by default NAME.csv.
    to
        Format to write; by default the one of the file's name.
    """
    from busdoor.core.study_paths import check_file
    from busdoor_workloads import resolve

    _require_positive("--num-requests", num_requests)
    _require_positive("--rate", rate)
    target = out or Path(f"{name}.csv")
    check_file(target, "--out")
    _write(resolve(name).generate(seed, num_requests=num_requests, request_rate=rate), target, to)


def _require_positive(flag: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{flag} is {value:g}; it must be more than 0")


@trace.command(help_epilogue="Example: busdoor trace convert requests.csv mine.jsonl")
def convert(
    source: Path,
    target: Path,
    /,
    *,
    to: str | None = None,
    reading: ReadFlags = ReadFlags(),
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
        Format to write; by default the one of the file's name.
    seed
        Seed for what is drawn (ServeGen) and for spreading arrivals with coarse timestamps.
    """
    from busdoor.core.study_paths import check_file

    check_file(target, "TARGET")
    _write(read_file(source, reading, seed), target, to)


def _write(written: Trace, target: Path, to: str | None) -> None:
    from busdoor_workloads.formats import FORMATS, format_to_write, largest_rounding_s, write_trace

    name = format_to_write(target, to)
    write_trace(written, target, name)
    print(f"wrote {len(written):,} requests to {target} ({FORMATS[name].title})")
    if lost := FORMATS[name].cannot_keep(written):
        print(f"left out, as {name} files have no place for it: {', '.join(lost)}")
    if tick_s := FORMATS[name].tick_s:
        change_s = largest_rounding_s(written, tick_s)
        print(f"arrivals are written to {tick_s:g} s; the largest change is {change_s:.3g} s")


@trace.command(help_epilogue="Example: busdoor trace fetch azure-2023-conv")
def fetch(
    name: str | None = None,
    /,
    *,
    list_all: Annotated[bool, Parameter(name="--list", negative="")] = False,
) -> None:
    """Fetch a public trace from its publisher, verify it, and keep it in the cache.

    Parameters
    ----------
    name
        Name of the trace; see --list.
    list_all
        List the public traces, their licences and whether they are on this machine.
    """
    from busdoor.cli.progress import download_bar
    from busdoor.cli.render import print_public_traces

    if list_all and name is not None:
        raise ValueError(
            f"--list shows every public trace; leave out {name!r}, or --list to fetch it"
        )
    if name is None:
        print_public_traces()
        return
    from busdoor_workloads.fetch import fetch, public_trace

    known = public_trace(name)
    with download_bar(name) as progress:
        path = fetch(name, progress=progress)
    print(f"{path}\n{known.attribution}; licence {known.licence}")
