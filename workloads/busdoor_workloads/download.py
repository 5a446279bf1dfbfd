"""Download of a file: resumed, of limited size, never into another process's file."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from uuid import uuid4

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and the bytes in all (None while unknown)."""

# A few updates of the bar per second on a slow line, few calls on a fast one.
_CHUNK_BYTES = 1 << 18
_MOST_BYTES = 256 << 20  # the largest of these traces, BurstGPT_1.csv, has 52,283,111
_TIMEOUT_S = 30.0  # of silence, not of the whole download
_RANGE_NOT_SATISFIABLE = 416  # RFC 9110, section 15.5.17
_PARTIAL_CONTENT = 206  # RFC 9110, section 15.3.7


@contextmanager
def own_part(target: Path) -> Iterator[Path]:
    """Open a file of this process for a download; continue what an interrupted one left.

    The file is taken by a rename, in which only one of several processes succeeds. An unfinished
    file is left for the next process, unless it is the wrong file.
    """
    left = target.with_name(target.name + ".part")
    own = target.with_name(f"{target.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
    with suppress(FileNotFoundError):
        left.rename(own)
    try:
        yield own
    except ValueError:
        own.unlink(missing_ok=True)
        raise
    finally:
        with suppress(FileNotFoundError):
            own.replace(left)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(url: str, part: Path, progress: Progress) -> None:
    """Download a file; continue where an earlier attempt stopped: `part` may hold the beginning.

    ``progress(bytes_at_hand, bytes_in_all)`` is called meanwhile. Raises OSError if the server
    cannot be reached, has no such file, or stopped early (the received part is kept), and
    ValueError if it sends more than any known file has.
    """
    at_hand = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={at_hand}-"} if at_hand else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            _receive(response, part, at_hand, progress)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and at_hand:
            return  # nothing is left to send; the hash is checked later
        raise OSError(f"{url} answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(
            f"{url} cannot be fetched: {reason}; run again to go on from what has come"
        ) from None


def _refuse_too_much(num_bytes: int) -> None:
    if num_bytes > _MOST_BYTES:
        raise ValueError(
            f"the server sends {num_bytes:,} bytes or more, but no public trace here has "
            f"{_MOST_BYTES:,}"
        )


def _receive(response: HTTPResponse, part: Path, at_hand: int, progress: Progress) -> None:
    if response.status != _PARTIAL_CONTENT:
        at_hand = 0  # the server ignores the range and sends the whole file
    length = response.headers.get("Content-Length")
    in_all = at_hand + int(length) if length else None
    _refuse_too_much(in_all or 0)
    with part.open("ab" if at_hand else "wb") as file:
        progress(at_hand, in_all)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            at_hand += len(chunk)
            _refuse_too_much(at_hand)
            progress(at_hand, in_all)
    if in_all is not None and at_hand < in_all:
        raise ConnectionError(f"the line broke after {at_hand} of {in_all} bytes")
