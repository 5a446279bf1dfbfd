"""Reading TOML so that whatever is wrong with a value can be said with its file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from busdoor_workloads.given import path_of

# A file of hand-written tables: far above what any needs, far below what would cost memory or the
# interpreter's stack.
MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_INTEGER = 2**63  # TOML's integers have 64 bits
_TOO_DEEP = f"its tables and lists nest deeper than {MAX_DEPTH} levels"
_TOO_LARGE = "an integer has more than 64 bits"

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*["']?([A-Za-z0-9_-]+)["']?\s*[.=]""")


@dataclass(frozen=True)
class Document:
    r"""A TOML file, or the flags of a command, as nested tables that know their lines.

    Parameters
    ----------
    data : dict
        The tables.
    file : str
        The file's name; empty where the tables come from elsewhere.
    lines : dict
        Line numbers from 1, by (table, index of it in an array of tables, key); key "" is the
        table's header.

    Examples
    --------
    >>> document = parse_toml("seed = 1\n[kv]\nblock_size = 16\nnum_blocks = 0", "a.toml")
    >>> document.data["kv"]
    {'block_size': 16, 'num_blocks': 0}
    >>> with document.blame("kv"):
    ...     raise ValueError("[kv] num_blocks = 0: must be 1 or more")
    Traceback (most recent call last):
    ValueError: a.toml, line 4: [kv] num_blocks = 0: must be 1 or more
    """

    data: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    lines: Mapping[tuple[str, int, str], int] = field(default_factory=dict)

    @contextmanager
    def blame(self, table: str = "", index: int = 0) -> Iterator[None]:
        """Put the file and the line before what a ValueError raised inside says about a table.

        Parameters
        ----------
        table : str
            Its name; "" for the keys outside any table.
        index : int
            Which of several tables of that name.
        """
        try:
            yield
        except ValueError as error:
            raise ValueError(self.where(table, index, str(error)) + str(error)) from error

    def where(self, table: str, index: int, message: str) -> str:
        """File and line of the first table key that a message mentions; else of the table."""
        if not self.file:
            return ""
        words = set(re.findall(r"[\w-]+", message.split(";")[0]))
        own = {
            key: line
            for (name, place, key), line in self.lines.items()
            if (name, place) == (table, index)
        }
        line = min((line for key, line in own.items() if key in words), default=own.get(""))
        return f"{self.file}, line {line}: " if line else f"{self.file}: "


def read_toml(path: str | Path) -> Document:
    """Read a TOML file.

    Raises
    ------
    ValueError
        If it is no TOML; the message has the line.
    OSError
        If it cannot be read.
    """
    path = path_of("the configuration", path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes, so it is no configuration")
    try:
        text = data.decode("utf-8-sig")  # editors on Windows begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not a text file, so no TOML: {error.reason} at byte {error.start}"
        ) from error
    return parse_toml(text, str(path))


def parse_toml(text: str, file: str = "") -> Document:
    """Parse TOML text; `file` is what messages call it.

    >>> parse_toml("seed = = 3", "a.toml")
    Traceback (most recent call last):
    ValueError: a.toml is not valid TOML: invalid value (at line 1, column 8)
    """
    try:
        data = _loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        raise ValueError(
            f"{file or 'the text'} is not valid TOML: {said[0].lower()}{said[1:]}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file or 'the text'}: {error}") from error
    return Document(data, file, _lines(text))


def _loads(text: str) -> dict[str, Any]:
    """Parse TOML, within bounds.

    Raises ValueError if it is no TOML (TOMLDecodeError), nests deeper than `MAX_DEPTH` or has an
    integer beyond 64 bits.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:  # Python's own limit on the digits of an integer
        raise ValueError(_TOO_LARGE) from error
    _check_bounds(data)
    return data


def _check_bounds(data: Mapping[str, Any]) -> None:
    """Raise ValueError for values nested too deep or integers over 64 bits; no recursion."""
    level: list[tuple[str, Any]] = list(data.items())
    for _ in range(MAX_DEPTH):
        for key, value in level:
            if isinstance(value, int) and not -MAX_INTEGER <= value < MAX_INTEGER:
                raise ValueError(f"{key}: {_TOO_LARGE}")
        level = [pair for key, value in level for pair in _children(key, value)]
    if level:
        raise ValueError(f"{level[0][0]}: {_TOO_DEEP}")


def _children(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    return [(key, item) for item in value] if isinstance(value, list) else []


def parse_value(text: str) -> Any:
    """Read one value as TOML would; a bare word is a string.

    >>> parse_value("16"), parse_value("true"), parse_value("oracle"), parse_value("[1, 2]")
    (16, True, 'oracle', [1, 2])
    """
    try:
        return _loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def parse_named(text: str, flag: str, example: str) -> dict[str, Any]:
    """Read a flag's name and fields after commas; `flag` and `example` are for messages.

    >>> parse_named("prefix_affinity,min_match=0.5", "--router", "")
    {'name': 'prefix_affinity', 'min_match': 0.5}
    """
    name, *rest = text.split(",")
    table: dict[str, Any] = {"name": name.strip()}
    for part in rest:
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{flag} {text}: {part!r} is no FIELD=VALUE; write it as in {example}")
        table[key.strip()] = parse_value(value.strip())
    return table


def _lines(text: str) -> dict[tuple[str, int, str], int]:
    """Find where tables and keys stand; a multi-line value may give false keys, harmlessly."""
    lines: dict[tuple[str, int, str], int] = {}
    table, index = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = header[2]
            index = (
                sum(name == table and not key for name, _, key in lines) if header[1] == "[[" else 0
            )
            lines[table, index, ""] = number
            if "." in table:  # [workload.input_tokens]: a key of [workload] too
                parent, _, key = table.partition(".")
                lines.setdefault((parent, 0, key), number)
        elif key_match := _KEY.match(line):
            lines.setdefault((table, index, key_match[1]), number)
    return lines
