"""A study's paths: files beside its folder, folders filled in steps, names within."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

from busdoor.core.study_folder import check_free, clear, entries

_LONGEST_NAME = 60  # characters: 240 bytes of any alphabet, where file systems take 255


def check_file(file: Path | None, flag: str, made: Path | None = None) -> None:
    """Raise ValueError if a file could not be written; the folder `made` will exist then."""
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"{flag} {file} is a folder; name a file")
    there = next(path for path in (file, *file.parents) if path.exists())
    if there not in (file, file.parent) and file.parent != made:
        raise ValueError(
            f"{flag} {file}: there is no folder {file.parent}; make it first, or choose another"
        )
    if there != file and not there.is_dir():
        raise ValueError(f"{flag} {file}: {there} is a file, not a folder; choose another")
    if not os.access(there, os.W_OK):
        raise ValueError(
            f"{flag} {file} cannot be written, as {there} is read-only; choose another"
        )


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a name for the folder of each label: one that any file system takes, and none twice.

    >>> folder_names(["static (batch_size 16)", "a b", "A-b", ".."])
    {'static (batch_size 16)': 'static-batch_size-16', 'a b': 'a-b', 'A-b': 'A-b-2', '..': 'policy'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        name = plain = re.sub(r"[^\w.]+", "-", label).strip("-.")[:_LONGEST_NAME] or "policy"
        for number in count(2):
            if name.casefold() not in taken:
                break
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names[label] = name
    return names


def resumed_folder(out: Path | None, command: str, marker: str, overwrite: bool = False) -> Path:
    """Return the folder of a study written in steps and resumed: free, or with its marker."""
    if out is None:
        return next(
            folder
            for number in count(1)
            if (folder := _made(Path(f"busdoor-{command}-{number:03}")))
        )
    if overwrite:
        check_free(out, overwrite)
        clear(out)
    elif not (out / marker).is_file():
        check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _made(folder: Path) -> Path | None:
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder to this process where possible; one still empty at the end is removed.

    Raises ValueError if another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{folder} is being written by another busdoor; wait for it, or choose another"
            ) from None
        except OSError:  # a network's file system without locks
            pass
        try:
            yield
        finally:
            (folder / ".lock").unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def rewritten(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files replace those of the same names in another one, each whole."""
    part = folder / f".{uuid4().hex[:8]}.part"
    part.mkdir(parents=True)
    try:
        yield part
        for name in reversed(entries(part)):
            (part / name).replace(folder / name)
    finally:
        rmtree(part, ignore_errors=True)
