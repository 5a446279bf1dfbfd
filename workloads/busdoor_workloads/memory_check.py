"""Refuse work that does not fit into the machine's memory, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GIB = 2**30


def check_memory(needed_bytes: float, what: str) -> None:
    """Raise ValueError if `what` needs more bytes than this process can still allocate.

    >>> check_memory(1e18, "a trace of 10,000,000,000,000,000 requests")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: a trace of 10,000,000,000,000,000 requests needs 931,000,000 GiB, the machine has ...
    """
    free = available_bytes()
    if needed_bytes > free:
        needed, has = (gib(count) for count in (needed_bytes, free))
        raise ValueError(f"{what} needs {needed} GiB, the machine has {has} GiB free; ask for less")


def available_bytes() -> float:
    """Return the bytes this process can still allocate: machine, control groups, own limit.

    Infinity if the system does not report them.
    """
    return max(0.0, min((*_machine(), *_control_groups(), *_process_limit()), default=float("inf")))


def gib(count: float) -> str:
    """Return bytes in GiB with three digits, and no exponent.

    >>> gib(2**30 * 1234.5), gib(2**29)
    ('1,230', '0.5')
    """
    return f"{float(f'{count / GIB:.3g}'):,.15g}"


def _machine() -> Iterator[float]:
    kib = _fields(Path("/proc/meminfo")).get("MemAvailable:")
    if kib is not None:
        yield kib * 1024
        return
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows reports neither
        return


def _process_limit() -> Iterator[float]:
    """Return the bytes that `ulimit -v` leaves."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield limit - _fields(Path("/proc/self/status")).get("VmSize:", 0) * 1024


def _control_groups() -> Iterator[float]:
    """Return the bytes each control group (v1 or v2) leaves; file pages can be reclaimed."""
    root = Path("/sys/fs/cgroup")
    v1, v2 = root / "memory", root
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            yield from _group(v2, name, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            yield from _group(
                v1, name, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            )


def _group(mount: Path, name: str, limit: str, usage: str, cache: str) -> Iterator[float]:
    """Return the bytes the group and its parents leave; in a container, the mount's."""
    inside = mount / name.strip().lstrip("/")
    for folder in (inside, *inside.parents):
        if mount not in (folder, *folder.parents):
            return
        most, used = (_number(folder / file) for file in (limit, usage))
        if most is not None and used is not None:
            yield most - used + _fields(folder / "memory.stat").get(cache, 0)


def _number(path: Path) -> float | None:
    """Return the number in a file; None without the file, or if it contains "max"."""
    text = "".join(_lines(path)).strip()
    return float(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, float]:
    """Return a file's lines of name and whole number."""
    words = [line.split() for line in _lines(path)]
    return {line[0]: float(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
