"""Qwen-Bailian (alibaba-edu/qwen-bailian-usagetraces-anon): chats and 16-token blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions, draft_of

BLOCK_SIZE = 16  # the repository's README: hash ids of 16-token blocks
_COLUMNS = {
    "arrival_s": "timestamp",
    "input_tokens": "input_length",
    "output_tokens": "output_length",
}


def _read(path: Path, options: ReadOptions) -> Draft:
    table = options.table(path)
    draft = draft_of(table, _COLUMNS, {"hash_ids": "hash_ids"}, relative=True, number_turns=True)
    draft.time_unit = options.time_unit or "s"
    draft.block_size = options.block_size or BLOCK_SIZE if "hash_ids" in draft.frame else None
    draft.frame["session_id"] = _conversations(
        table.frame["chat_id"], table.frame["parent_chat_id"]
    )
    return draft


def _conversations(chat_id: pd.Series[int], parent_chat_id: pd.Series[int]) -> NDArray[np.int64]:
    """Return each request's conversation's first, by place; without a parent here, itself."""
    place = pd.Series(np.arange(len(chat_id)), index=chat_id.to_numpy())
    place = place[~place.index.duplicated()]
    parents = place.reindex(parent_chat_id.to_numpy()).to_numpy(dtype=np.float64)
    first = np.where(np.isnan(parents), np.arange(len(chat_id)), parents).astype(np.int64)
    # Each round doubles the distance to the ancestor, so that a conversation of n turns takes
    # log2(n) rounds.
    for _ in range(len(first).bit_length()):
        first = first[first]
    return first


BAILIAN = Format(
    name="bailian",
    title="Qwen-Bailian JSONL: seconds, conversations, 16-token blocks",
    container="jsonl",
    marks=frozenset({*_COLUMNS.values(), "chat_id", "parent_chat_id"}),
    read=_read,
)
