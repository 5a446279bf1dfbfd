"""Download of public traces from their publishers, verified by hash and cached."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from busdoor_workloads.download import Progress, download, own_part, sha256_of
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.text import printable

_FILE = files("busdoor_workloads") / "data" / "public_traces.toml"


@dataclass(frozen=True, kw_only=True)
class PublicTrace:
    """A published trace file at a fixed commit or release, and the hash that identifies it.

    `licence` and `attribution` are terms of use and the authors to name.
    """

    name: str
    url: str
    sha256: str
    licence: str
    attribution: str
    num_requests: int | None = None

    @property
    def filename(self) -> str:
        """The file's name in the cache, different for traces of the same upstream name."""
        return f"{self.name}{Path(self.url).suffix}"


PUBLIC_TRACES: Mapping[str, PublicTrace] = {
    name: PublicTrace(name=name, **table)
    for name, table in tomllib.loads(_FILE.read_text("utf-8")).items()
}


def public_trace(name: str) -> PublicTrace:
    """Return the public trace of a name.

    Raises ValueError: the name is unknown; the message has the nearest one.

    >>> public_trace("azure-2023-conv").licence
    'CC-BY-4.0'
    """
    if name not in PUBLIC_TRACES:
        raise ValueError(
            f"no public trace is called {printable(name)!r}; {did_you_mean(name, PUBLIC_TRACES)}"
        )
    return PUBLIC_TRACES[name]


def cache_folder() -> Path:
    """Return the folder of fetched files: BUSDOOR_CACHE, or the platform's folder for caches."""
    if chosen := os.environ.get("BUSDOOR_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
            / "busdoor"
            / "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "busdoor"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "busdoor"


def cached(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """Return a public trace's file if it has been fetched, else None.

    Raises ValueError: the name is unknown, or the file in the cache is not the published one.
    """
    trace = public_trace(name)
    path = _target(trace, cache_dir)
    if not path.exists():
        return None
    if (found := sha256_of(path)) != trace.sha256:
        raise ValueError(
            f"{path} is not the published {name}: its sha256 is {found[:12]}… and must be "
            f"{trace.sha256[:12]}…; fetch it anew: busdoor trace fetch {name}"
        )
    return path


def _target(trace: PublicTrace, cache_dir: str | Path | None) -> Path:
    return (Path(cache_dir) if cache_dir is not None else cache_folder()) / trace.filename


def fetch(
    name: str,
    cache_dir: str | Path | None = None,
    url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download one of `PUBLIC_TRACES`, or return it from the cache, by default `cache_folder()`.

    `url` is a mirror's; the hash must still be the publisher's. ``progress(bytes_at_hand,
    bytes_in_all)`` is called meanwhile. Raises ValueError if the name is unknown, or the downloaded
    file is not the publisher's (it is then deleted), and OSError if the download failed; the
    received part is kept, and the next call continues from there.
    """
    trace = public_trace(name)
    target = _target(trace, cache_dir)
    if target.exists() and sha256_of(target) == trace.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    source = url or trace.url
    with own_part(target) as part:
        download(source, part, progress or _silent)
        if (found := sha256_of(part)) != trace.sha256:
            raise ValueError(
                f"{source} is not the published {name}: its sha256 is {found[:12]}… and must be "
                f"{trace.sha256[:12]}…"
            )
        part.replace(target)
    return target


def _silent(_at_hand: int, _in_all: int | None) -> None:
    pass
