"""Text from foreign files, made safe to print and to write into a spreadsheet's cell."""

from __future__ import annotations

import unicodedata
from pathlib import Path

# Spreadsheets run cells that begin with these as formulas (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_SHOWN_CHARACTERS = 60  # of a value in an error sentence: enough to find it again
# Control, format (bidirectional overrides), surrogate, private use, line and paragraph separator
# (Unicode, table 12).
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_WRITTEN_AS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt")


def printable(text: object) -> str:
    r"""Return a text that cannot control a terminal: control characters become escapes.

    >>> printable("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    return "".join(
        character if unicodedata.category(character) not in _UNPRINTABLE else ascii(character)[1:-1]
        for character in str(text)
    )


def shown(value: object) -> str:
    """Return a value for an error message: quoted texts, long ones cut, no control characters.

    >>> shown("many"), shown(3.0), shown("x" * 100)[-5:]
    ('"many"', '3', 'xxx…"')
    """
    if isinstance(value, str):
        return f'"{_cut(value)}"'
    # str() of a huge number is slow, or refused
    if isinstance(value, int) and value.bit_length() > 64 * 4:
        return f"a number of about {value.bit_length() * 30103 // 100_000:,} digits"
    if isinstance(value, float) and value.is_integer():
        return _cut(str(int(value)))
    return _cut(str(value))


def _cut(text: str) -> str:
    text = printable(text[: _SHOWN_CHARACTERS + 1])
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def neutral_cell(cell: object) -> object:
    """Return a cell that no spreadsheet reads as a formula; numbers stay as they are.

    >>> neutral_cell("=1+1"), neutral_cell("vllm"), neutral_cell(-1.5)
    ("'=1+1", 'vllm', -1.5)
    """
    if isinstance(cell, str) and cell.lstrip("'").startswith(FORMULA_STARTS):
        return f"'{cell}"
    return cell


def plain_cell(cell: object) -> object:
    """Return the text that `neutral_cell` protected.

    >>> plain_cell("'=1+1"), plain_cell("'tis")
    ('=1+1', "'tis")
    """
    quoted = (
        isinstance(cell, str) and cell[:1] == "'" and cell.lstrip("'").startswith(FORMULA_STARTS)
    )
    return cell[1:] if quoted and isinstance(cell, str) else cell


def name_of(path: Path) -> str:
    """Return the name of a file without the suffixes of its format.

    >>> name_of(Path("data/llama-3.1-8b.csv.gz")), name_of(Path("v1.2"))
    ('llama-3.1-8b', 'v1.2')
    """
    name = path.name
    for endings in (_PACKED, _WRITTEN_AS):
        if name.lower().endswith(endings) and name.lower() not in endings:
            name = name[: name.rindex(".")]
    return printable(name)
