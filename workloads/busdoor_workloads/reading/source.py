"""Foreign files: compressed or not, a pipe or not, and never larger than allowed."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

MAX_BYTES = 8 << 30
"""Largest file read by default, unpacked; the largest trace, Azure 2024, has 1.1 GB."""

# Few calls of the counting reader, and little to decompress for a first line.
_BUFFER_BYTES = 1 << 16
_MAGIC_BYTES = 16
PARQUET = b"PAR1"  # Apache Parquet, File Format
_ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878, section 3.1.1


def _open_zstd(path: Path) -> BinaryIO:
    """Decompress with the first library found: Python's from 3.14 on, pyarrow, zstandard."""
    ways: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("compression.zstd", lambda zstd: zstd.open(path, "rb")),
        ("pyarrow", lambda arrow: arrow.input_stream(str(path), compression="zstd")),
        ("zstandard", lambda zstd: zstd.open(path, "rb")),
    )
    for module, opened in ways:
        try:
            return cast("BinaryIO", opened(importlib.import_module(module)))
        except ModuleNotFoundError:
            continue
    raise ValueError(
        f"{path} is packed with zstd, which needs pyarrow or zstandard: unpack it, or pip install "
        f"pyarrow"
    )


_OPENERS: Mapping[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,  # RFC 1952, section 2.3.1
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,  # The .xz File Format, section 2.1.1.1
    _ZSTD: _open_zstd,
}
_NAMED = {
    b"PK\x03\x04": "a zip archive (or Excel workbook): unpack it, or save it as CSV",
    b"\x89HDF": "an HDF5 file: export its table as CSV",
    b"SQLite format 3": "an SQLite database: export its table as CSV",
    b"\x04\x22\x4d\x18": "packed with lz4: unpack it",
    b"\xff\xfe": "no UTF-8 text but UTF-16: save it as UTF-8",
    b"\xfe\xff": "no UTF-8 text but UTF-16: save it as UTF-8",
    PARQUET: "a Parquet table, which is not read here: export it as CSV",
}
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@contextmanager
def open_text(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[TextIO]:
    """Open a text file, packed or not; what makes it unreadable becomes one sentence.

    Raises FileNotFoundError, ValueError: the file is absent, too large, no text, or its packing is
    damaged.
    """
    path = settled(path, max_bytes)
    start = magic_of(path)
    for magic, what in _NAMED.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is {what}")
    opener = next(
        (opener for magic, opener in _OPENERS.items() if start.startswith(magic)), _open_plain
    )
    try:
        with opener(path) as raw:
            counted = io.BufferedReader(_Counted(raw, path, max_bytes), _BUFFER_BYTES)
            yield io.TextIOWrapper(counted, encoding="utf-8-sig", newline="")
    except _DAMAGED as error:
        raise ValueError(f"{path} is a damaged {_packing(start)} file: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); convert it, or name "
            f"another file"
        ) from None
    except OSError as error:
        if error.errno is None:  # bz2 and pyarrow report damaged data so
            raise ValueError(f"{path} is a damaged {_packing(start)} file: {error}") from None
        raise


def magic_of(path: Path) -> bytes:
    """Return the first bytes of a file, which identify its compression."""
    with path.open("rb") as file:
        return file.read(_MAGIC_BYTES)


def settled(path: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Return a file that can be read more than once: itself, or a temporary copy of a pipe.

    Raises FileNotFoundError, ValueError: the file is absent; or the pipe has more than `max_bytes`.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_file() or path.is_dir():
        return path
    about = path.stat()
    key = (about.st_dev, about.st_ino)
    if key not in _PIPES:
        _PIPES[key] = _kept(path, max_bytes)
    return _PIPES[key] / "pipe"


_PIPES: dict[tuple[int, int], Path] = {}
_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


def _kept(path: Path, max_bytes: int) -> Path:
    _KEPT.append(tempfile.TemporaryDirectory(prefix="busdoor-pipe-"))
    folder = Path(_KEPT[-1].name)
    with path.open("rb", buffering=0) as pipe, (folder / "pipe").open("wb") as file:
        left = max_bytes
        while chunk := os.read(pipe.fileno(), _BUFFER_BYTES):
            left -= len(chunk)
            if left < 0:
                raise _too_large(path, max_bytes)
            file.write(chunk)
    return folder


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _packing(start: bytes) -> str:
    names = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", _ZSTD: "zstd"}
    return next((name for magic, name in names.items() if start.startswith(magic)), "text")


def _too_large(path: Path, max_bytes: int) -> ValueError:
    return ValueError(
        f"{path} holds more than {max_bytes:,} bytes (unpacked); if that is meant, raise "
        f"max_bytes (--max-bytes)"
    )


class _Counted(io.RawIOBase):
    """A stream that raises ValueError when it exceeds its limit."""

    def __init__(self, raw: BinaryIO, path: Path, max_bytes: int) -> None:
        self._raw, self._path, self._max_bytes, self._left = raw, path, max_bytes, max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise _too_large(self._path, self._max_bytes)
        buffer[: len(data)] = data
        return len(data)
