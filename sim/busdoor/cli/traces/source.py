"""Where `busdoor trace` gets a trace: a file, a fetched public trace, a profile or a preset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from busdoor.cli.file_flags import ReadFlags, flag_of
from busdoor.cli.output import print_notes

if TYPE_CHECKING:
    from busdoor_workloads import Trace


def read_file(path: Path, reading: ReadFlags, seed: int, name: str | None = None) -> Trace:
    """Read a trace file as its flags ask, and print what its reader changed or left out."""
    from busdoor_workloads.formats import read_trace

    read = read_trace(path, seed=seed, name=name, **reading.given())
    print_notes(read.notes)
    return read


def trace_of(source: str, reading: ReadFlags, num_requests: int | None, seed: int) -> Trace:
    """Return the trace that a name or path stands for.

    Raises ValueError if there is no such trace, or flags do not apply to it.
    """
    from busdoor_workloads import resolve, workload_names
    from busdoor_workloads.fetch import PUBLIC_TRACES, cached
    from busdoor_workloads.nearest import did_you_mean

    profiles, path = workload_names(), Path(source)
    is_name = source in profiles or source in PUBLIC_TRACES
    if num_requests is not None and source not in profiles:
        raise ValueError(
            f"--num-requests is for a profile or preset; to take a part of {source}: --max-requests"
        )
    if path.exists() and is_name:
        print_notes(
            [
                f"{source} is the known trace of that name; for the file or folder here write "
                f"./{source}"
            ]
        )
    if path.exists() and not is_name:
        return read_file(path, reading, seed)
    if source in PUBLIC_TRACES:
        if (fetched := cached(source)) is None:
            raise ValueError(
                f"{source} is not on this machine yet; fetch it with: busdoor trace fetch {source}"
            )
        return read_file(fetched, reading, seed, name=source)
    if source not in profiles and ("/" in source or path.suffix):
        raise FileNotFoundError(f"there is no file {source}")
    if source not in profiles:
        hint = did_you_mean(source, [*profiles, *PUBLIC_TRACES])
        raise ValueError(f"{source!r} is neither a file nor a known trace; {hint}")
    if given := reading.given():
        flags = ", ".join(map(flag_of, given))
        raise ValueError(
            f"{flags}: only for a trace file, which {source} is not; it is drawn from a profile "
            f"or preset"
        )
    return resolve(source).generate(seed, num_requests=num_requests)
