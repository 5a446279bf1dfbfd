"""What a point's record is called: a name that the same configuration always has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from busdoor._version import __version__

KEY_DIGITS = 20  # 80 bits: among a million points, two of the same key have a chance of 4e-13


def point_key(table: Mapping[str, Any]) -> str:
    """Name a configuration (as `Config.to_dict` gives it): a hash, whatever the order of its keys.

    The version of busdoor goes into it, because another version may give other results: after an
    upgrade every point runs anew. So does what is in a trace file, though not where it lies. A
    policy's label does not. Code of your own that is named by import path is known by that name
    alone.

    >>> from busdoor.config import Config
    >>> one = Config.from_table({"seed": 1, "kv": {"block_size": 16, "num_blocks": 9}, "policy": "vllm"}).to_dict()
    >>> two = Config.from_table({"policy": "vllm", "kv": {"num_blocks": 9, "block_size": 16}, "seed": 1}).to_dict()
    >>> point_key(one) == point_key(two), point_key(one) == point_key({**two, "seed": 2})
    (True, False)
    """
    workload = dict(table["workload"])
    if "path" in workload:
        status = Path(workload["path"]).stat()
        workload["path"] = _digest(workload["path"], status.st_mtime_ns, status.st_size)
    policies = [
        {key: value for key, value in policy.items() if key != "label"}
        for policy in table["policy"]
    ]
    return table_key({**table, "workload": workload, "policy": policies})


def table_key(table: Mapping[str, Any]) -> str:
    """Hash tables as they are, together with busdoor's version."""
    text = json.dumps({"busdoor": __version__, **table}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


@cache
def _digest(path: str, mtime_ns: int, size: int) -> str:
    """Hash a file once for all points, until it changes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
