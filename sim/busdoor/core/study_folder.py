"""One folder, one study: checked before it runs, written whole beside it, then moved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

# A file of the study itself, by which its folder is known; only such a folder is ever replaced.
MARKERS = (
    "comparison.json",
    "curve.json",
    "map.json",
    "capacity.json",
    "sweep.json",
    "sweep.csv",
    "recommend.json",
    "validation.json",
    "replay.json",
    "observe.json",
    "twin.json",
    "hours.csv",
    "meta.json",
    "bus-and-door.svg",
)


class StudyFolder:
    """Where a study goes: the folder `out`, or the first free busdoor-COMMAND-001, -002 ... here.

    `overwrite` replaces an earlier study in it whole. Write to `part`, a folder beside the place,
    which is not taken for the study; set `kept` once that is worth keeping, should the rest fail or
    be interrupted. Raises ValueError if the place is a file, or holds something and may not be
    replaced, OSError if it cannot be written.
    """

    def __init__(self, out: Path | None, command: str, overwrite: bool) -> None:
        self.out = out
        self.kept = False
        self._command = command
        self._overwrite = overwrite
        # A link stays a link: what it points to is replaced.
        self._target = Path(f"busdoor-{command}").absolute() if out is None else out.resolve()
        if out is not None:
            check_free(out, overwrite)
        parent = self._target if out is not None and _stays(self._target) else self._target.parent
        parent.mkdir(parents=True, exist_ok=True)
        self.part = parent / f".{self._target.name}-{uuid4().hex[:8]}.part"
        self.part.mkdir()

    def publish(self) -> Path:
        """Move what was written to its place, or beside it if another was faster; return that."""
        if self.out is None:
            return _first_free(self.part, Path(), f"busdoor-{self._command}-{{:03}}", 1)
        if self._overwrite:
            clear(self._target)
        try:
            _fill(self.part, self._target) if _stays(self._target) else _move(
                self.part, self._target
            )
        except OSError:
            if not entries(self._target):
                raise
            return _first_free(self.part, self.out.parent, f"{self.out.name}-{{}}", 2)
        return self.out


@contextmanager
def study_folder(
    out: str | Path | None, command: str = "study", overwrite: bool = False
) -> Iterator[StudyFolder]:
    """Open the folder of a study; what has been neither published nor `kept` by the end is removed.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "mine"
    >>> with study_folder(folder) as place:
    ...     _ = (place.part / "meta.json").write_text("{}")
    ...     folder.exists(), place.publish() == folder, (folder / "meta.json").exists()
    (False, True, True)
    >>> with study_folder(folder):
    ...     pass
    Traceback (most recent call last):
    ValueError: ... holds meta.json; one folder holds one study: choose another one, or replace it with --overwrite
    """
    place = StudyFolder(None if out is None else Path(out), command, overwrite)
    try:
        yield place
    finally:
        if place.kept and place.part.exists():
            place.publish()
        rmtree(place.part, ignore_errors=True)


def check_free(folder: Path, overwrite: bool = False, mixed: bool = False) -> None:
    """Raise ValueError if a folder is a file, or holds what a study would be mixed with."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a study is a folder; choose another name")
    found = entries(folder)
    if mixed or not found:
        return
    if not overwrite:
        raise ValueError(
            f"{folder} holds {found[0]}; one folder holds one study: choose another one, or "
            f"replace it with --overwrite"
        )
    if not any(name in MARKERS for name in found):
        raise ValueError(
            f"{folder} holds {found[0]} and no study of busdoor, so that it is not replaced; "
            f"choose another"
        )


def clear(target: Path) -> None:
    """Remove what is in a folder, in one step as others see it."""
    if not entries(target):
        return
    if _stays(target):
        for name in entries(target):
            _remove(target / name)
        return
    aside = target.with_name(f".{target.name}-{uuid4().hex[:8]}.part")
    target.rename(aside)
    rmtree(aside, ignore_errors=True)


def entries(folder: Path) -> list[str]:
    """Return a folder's names that are not hidden, markers first; none if it is missing."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return sorted(names, key=lambda name: name not in MARKERS)


def _stays(folder: Path) -> bool:
    """Whether a folder is filled, not replaced: it is ours, a mount, or has hidden files."""
    return folder.is_dir() and (
        folder == Path.cwd() or os.path.ismount(folder) or any(folder.glob(".*"))
    )


def _move(part: Path, target: Path) -> None:
    with suppress(FileNotFoundError):
        target.rmdir()  # fails if another run has filled it meanwhile, as the renaming does
    part.rename(target)


def _fill(part: Path, target: Path) -> None:
    if entries(target):
        raise FileExistsError(f"{target} has been filled meanwhile")
    for name in reversed(entries(part)):  # the marker last: with it the study is there
        (part / name).rename(target / name)


def _first_free(part: Path, parent: Path, name: str, first: int) -> Path:
    """Move to the first name with a number that is free; other runs may be looking for one too."""
    for number in count(first):
        target = parent / name.format(number)
        if target.exists():
            continue
        try:
            part.rename(target)
        except OSError:
            if not target.exists():
                raise
            continue
        return target
    raise AssertionError


def _remove(entry: Path) -> None:
    rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
