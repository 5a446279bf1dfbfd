"""Names of KV blocks: of a prompt, and of its answer where the next prompt repeats it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

from busdoor.core.prefixes import NO_IDS, BlockIds
from busdoor_workloads import Trace
from busdoor_workloads.hashes import HashIds

# Ids are numbered anew where their runs are shorter than this, in blocks, and prompts have more of
# them: each costs about as much as a scheduled request.
_LONG_RUN, _MANY_RUNS = 4, 16


class BlockNames:
    """Name the blocks of each request of a trace, of the server's size, for its prefix cache.

    A session's next prompt holds the prompt and the answer before, so its `hash_ids` name the
    blocks of that answer too: a request with a next turn gets its `context_ids` from there. Without
    a session nothing repeats an answer, and its blocks stay without a name that another request
    could look for.

    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[20, 40], output_tokens=[10, 5], session_id=[0, 0], turn=[0, 1],
    ...               hash_ids=[(7, 8), (7, 8, 9)], block_size=16)
    >>> BlockNames(trace, 8).hash_ids(0), BlockNames(trace, 8).context_ids(0)
    ((14, 15, 16, 17), (14, 15, 16, 17))
    >>> BlockNames(trace, 8).context_ids(1)
    ()
    """

    def __init__(self, trace: Trace, kv_block_size: int) -> None:
        self._trace = trace
        self._scale = _scale(trace, kv_block_size)
        self._ids = None if trace.hash_ids is None else _in_long_runs(HashIds.of(trace.hash_ids))
        self._longest = _longest_prompts(trace, self._ids)

    def hash_ids(self, row: int) -> BlockIds:
        """Return the names of the prompt's blocks; none in a trace without."""
        return NO_IDS if self._ids is None else self._scaled(BlockIds(*self._ids.runs(row)))

    def context_ids(self, row: int) -> BlockIds:
        """Return the block names of prompt and answer; none unless a next turn repeats them."""
        longest = self._longest.get(row)
        if longest is None or self._ids is None:
            return NO_IDS
        trace = self._trace
        tokens = int(trace.input_tokens[row]) + int(trace.output_tokens[row])
        ids = BlockIds(*self._ids.runs(longest))
        return self._scaled(ids.cut(-(-tokens // (trace.block_size or 1))))

    def _scaled(self, ids: BlockIds) -> BlockIds:
        scale = self._scale
        if scale == 1:
            return ids
        return BlockIds([o * scale for o in ids.offsets], [e * scale for e in ids.ends])


def rows_of_sessions(trace: Trace) -> list[list[int]]:
    """Return each session's rows in order of its turns; none without sessions or turns."""
    if trace.session_id is None or trace.turn is None:
        return []
    sessions: dict[int, list[int]] = defaultdict(list)
    for row in np.lexsort((trace.turn, trace.session_id)).tolist():
        sessions[int(trace.session_id[row])].append(row)
    return list(sessions.values())


def _in_long_runs(ids: HashIds) -> HashIds:
    """Return ids whose runs are long: hashes, which are not, are numbered as they first appear."""
    num_blocks = ids.num_blocks
    num_runs = len(ids.offsets)
    if num_runs * _LONG_RUN <= num_blocks.sum() or num_runs <= _MANY_RUNS * len(ids):
        return ids
    return HashIds.of_flat(pd.factorize(ids.flat())[0], num_blocks)


def _longest_prompts(trace: Trace, ids: HashIds | None) -> dict[int, int]:
    """Return, per row whose next turn repeats prompt and answer, the row of the longest prompt."""
    longest: dict[int, int] = {}
    if ids is None or not trace.block_size:
        return longest
    for rows in rows_of_sessions(trace):
        prompts = [BlockIds(*ids.runs(row)) for row in rows]
        for turn in range(len(rows) - 2, -1, -1):
            row, following = rows[turn], rows[turn + 1]
            whole = int(trace.input_tokens[row]) // trace.block_size
            context = int(trace.input_tokens[row]) + int(trace.output_tokens[row])
            if (
                prompts[turn].cut(whole) == prompts[turn + 1].cut(whole)
                and trace.input_tokens[following] >= context
            ):
                longest[row] = longest.get(following, following)
    return longest


def _scale(trace: Trace, kv_block_size: int) -> int:
    """Return how many of the server's blocks one id stands for."""
    if trace.hash_ids is None or trace.block_size is None:
        return 1
    if trace.block_size % kv_block_size:
        raise ValueError(
            f"the trace's hash_ids stand for {trace.block_size} tokens, which is no multiple of "
            f"the KV block_size {kv_block_size}; choose a block_size that divides it"
        )
    return trace.block_size // kv_block_size
