"""Names of KV blocks: of a prompt, and of its answer where the next prompt repeats it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from busdoor_workloads import Trace

Ids = tuple[int, ...]


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
        self._contexts = _contexts(trace)

    def hash_ids(self, row: int) -> Ids:
        """Return the names of the prompt's blocks; none in a trace without."""
        ids = self._trace.hash_ids
        return () if ids is None else self._scaled(ids[row])

    def context_ids(self, row: int) -> Ids:
        """Return the block names of prompt and answer; none unless a next turn repeats them."""
        ids = self._contexts.get(row)
        if ids is None:
            return ()
        trace = self._trace
        tokens = int(trace.input_tokens[row]) + int(trace.output_tokens[row])
        return self._scaled(ids[: -(-tokens // (trace.block_size or 1))])

    def _scaled(self, ids: Ids) -> Ids:
        scale = self._scale
        return (
            ids if scale == 1 else tuple([i * scale + part for i in ids for part in range(scale)])
        )


def rows_of_sessions(trace: Trace) -> list[list[int]]:
    """Return each session's rows in order of its turns; none without sessions or turns."""
    if trace.session_id is None or trace.turn is None:
        return []
    sessions: dict[int, list[int]] = defaultdict(list)
    for row in np.lexsort((trace.turn, trace.session_id)).tolist():
        sessions[int(trace.session_id[row])].append(row)
    return list(sessions.values())


def _contexts(trace: Trace) -> dict[int, Ids]:
    """Return, per row whose next turn repeats prompt and answer, the longest prompt's ids."""
    contexts: dict[int, Ids] = {}
    if trace.hash_ids is None or not trace.block_size:
        return contexts
    for rows in rows_of_sessions(trace):
        for row, following in zip(rows[-2::-1], rows[:0:-1], strict=True):
            if _repeats(trace, row, following):
                contexts[row] = contexts.get(following, trace.hash_ids[following])
    return contexts


def _repeats(trace: Trace, row: int, following: int) -> bool:
    """Whether `following`'s prompt begins with row's whole blocks, and has answer room."""
    assert trace.hash_ids is not None
    assert trace.block_size
    inputs, outputs = int(trace.input_tokens[row]), int(trace.output_tokens[row])
    whole = inputs // trace.block_size
    same = trace.hash_ids[row][:whole] == trace.hash_ids[following][:whole]
    return same and int(trace.input_tokens[following]) >= inputs + outputs


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
