"""What the fields of a class mean, in the words that its source has for them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from itertools import pairwise
from typing import Any

from busdoor.core.compiled import docstring

_SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}\n|\Z)", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^(\S[^\n]*?)(?: :[^\n]*)?\n((?:[ \t]+[^\n]*\n|\n)+)", re.MULTILINE)

# Ends of names, and the unit that they stand for; the longest match counts.
_UNITS = {
    "_bytes_per_s": "bytes/s",
    "_bytes_per_token": "bytes per token",
    "_flop_per_s": "FLOP/s",
    "flop_per_s": "FLOP/s",
    "request_rate": "requests/s",
    "spike_rate": "requests/s",
    "_rps": "requests/s",
    "rates": "requests/s",
    "_ms": "ms",
    "_s": "s",
    "_tokens": "tokens",
    "tokens": "tokens",
    "max_model_len": "tokens",
    "block_size": "tokens",
    "_gib": "GiB",
    "_w": "W",
    "price_per_hour": "per hour",
    "_bytes": "bytes",
    "batch_size": "requests",
    "num_requests": "requests",
    "max_num_seqs": "requests",
    "concurrency": "requests",
    "num_blocks": "blocks",
    "replicas": "servers",
}
# Where words begin with what is counted, or have "in tokens".
_SAID = re.compile(
    r"(?i:\bin (tokens|seconds)\b)|^(GPUs)\b|^(Shares?|Tokens|Requests|Layers|Servers|Users)\b"
)


def unit_of(name: str, words: str = "") -> str:
    """Return the unit that a field's name carries, else its words; empty where neither does.

    >>> unit_of("max_wait_s"), unit_of("bandwidth_bytes_per_s"), unit_of("name")
    ('s', 'bytes/s', '')
    >>> unit_of("p50", "Median, in tokens."), unit_of("watermark", "Share of the blocks.")
    ('tokens', 'share')
    """
    ends = [end for end in _UNITS if name.endswith(end)]
    if ends:
        return _UNITS[max(ends, key=len)]
    said = _SAID.search(words)
    return (said[1] or said[2] or said[3].lower()) if said else ""


def field_words(described: Any) -> dict[str, str]:
    """Return the words of each field of a class, or of each argument of a function.

    They are those of the numpydoc section "Parameters", and the strings beneath fields; those of a
    subclass count before those of its bases.

    >>> from busdoor.kv.config import KVConfig
    >>> field_words(KVConfig)["num_blocks"]
    'Usable KV blocks.'
    """
    words: dict[str, str] = {}
    for part in reversed(described.__mro__[:-1] if isinstance(described, type) else [described]):
        words |= _of_docstring(inspect.cleandoc(vars(part).get("__doc__") or part.__doc__ or ""))
        if isinstance(part, type) and part.__module__.startswith("busdoor"):
            words |= _beneath_fields(part)
    return words


def summary(described: Any) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(docstring(described)).partition("\n\n")[0].split())


def _of_docstring(text: str) -> dict[str, str]:
    section = _SECTION.search(text + "\n")
    found = _ENTRY.findall(section[1] + "\n") if section else []
    return {
        name.strip().lstrip("*"): " ".join(body.split())
        for names, body in found
        for name in names.split(",")
    }


def _beneath_fields(cls: type[Any]) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # compiled: no source beside it
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
