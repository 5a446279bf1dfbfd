"""What a saved study is about, in a few words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from busdoor.config.workload import DEFAULT_WORKLOAD


def subject(config: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """Return the workload, GPU, model and seed of a saved configuration, for a page's title.

    `without` are dotted keys that the page varies.

    >>> subject({"workload": {"path": "mine.csv"}, "gpu": {"name": "h100"}, "seed": 3}, ["gpu.model"])
    'mine.csv on h100, seed 3'
    """
    load, card = config.get("workload", {}), config.get("gpu", {})
    own_laws = load.keys() & {"input_tokens", "lengths"}
    name = load.get("name") or load.get("path") or ("own laws" if own_laws else DEFAULT_WORKLOAD)
    parts = {
        "workload.name": str(name),
        "gpu.name": f"on {_name_of(card.get('name'), 'h100')}",
        "gpu.model": f"with {_name_of(card.get('model'), 'llama-3.1-8b')}",
    }
    kept = [text for key, text in parts.items() if key not in without]
    return f"{' '.join(kept)}, seed {config.get('seed', 0)}"


def _name_of(given: Any, default: str) -> str:
    """Return the name of a GPU or a model, which may be a table of its own."""
    return str(given.get("name") if isinstance(given, Mapping) else given or default)
