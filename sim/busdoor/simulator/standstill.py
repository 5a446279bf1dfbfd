"""Runs that would silently lose requests: endless preemption, and requests never run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from busdoor.core.batch import Batch
from busdoor.simulator.recorder import TableRecorder
from busdoor_workloads import Trace

# Equal batches that preempted and made no token, before a run is given up: a cycle repeats them,
# and no other run of ours came near (vLLM itself would go on for ever).
MOST_EQUAL_BATCHES = 1000


class EndlessPreemption:
    """Watch the batches of one server for requests that preempt one another and never make a token.

    A token that is made is never lost, so a run with one now and then ends. Without any, and with
    whole prefills lost to preemption, the same batch comes again and again: vLLM 0.32 does so where
    two requests of equal priority and arrival outgrow the memory in turn.

    >>> from busdoor.core.request import Request
    >>> watch = EndlessPreemption("VllmPolicy", most=1)
    >>> batch = Batch(preempted=[Request(0, 0.0, 8, 8)])
    >>> batch.add_chunk(Request(1, 0.0, 8, 8), 4, 0)
    >>> watch.check(batch)
    >>> watch.check(batch)
    Traceback (most recent call last):
    ValueError: VllmPolicy preempts without end: requests 0, 1 take the KV memory from one another ...
    """

    def __init__(self, policy_name: str, most: int = MOST_EQUAL_BATCHES) -> None:
        self._policy_name = policy_name
        self._most = most
        self._seen: Counter[tuple[object, ...]] = Counter()
        self.watching = False  # a batch that preempted was counted since the last token

    def check(self, batch: Batch) -> None:
        """Count a batch that begins; raise ValueError if it came too often since the last token.

        A batch that preempts no request, while it is not `watching`, need not be shown.
        """
        seen = self._seen
        if batch.num_decode_tokens or any(chunk.completes for chunk in batch.chunks):
            seen.clear()
            self.watching = False
        elif batch.preempted:
            self.watching = True
            chunks = [
                (chunk.request.request_id, chunk.num_tokens, chunk.context_tokens)
                for chunk in batch.chunks
            ]
            key = (*chunks, *[request.request_id for request in batch.preempted])
            seen[key] += 1
            if seen[key] > self._most:
                raise ValueError(self._message(batch))

    def _message(self, batch: Batch) -> str:
        involved = {chunk.request.request_id for chunk in batch.chunks}
        involved |= {request.request_id for request in batch.preempted}
        return (
            f"{self._policy_name} preempts without end: requests {_some(sorted(involved))} take "
            "the KV memory from one another and make no token; give it more num_blocks, or "
            "reserve_full_prompt = true"
        )


def check_all_left(trace: Trace, recorders: Sequence[TableRecorder], policy_name: str) -> None:
    """Raise ValueError with names if requests of the trace are in no recorder's table."""
    if sum(recorder.num_left for recorder in recorders) == len(trace):
        return
    left: set[int] = set().union(*(recorder.left_ids() for recorder in recorders))
    stranded = [row for row in range(len(trace)) if row not in left]
    raise ValueError(
        f"{policy_name} schedules nothing more, but {len(stranded)} of {len(trace)} requests have "
        f"not left: {_some(stranded)}; a policy has to run or refuse every request"
    )


def _some(rows: Sequence[int], most: int = 5) -> str:
    """List the first few.

    >>> _some(range(9))
    '0, 1, 2, 3, 4, ...'
    """
    return ", ".join([str(row) for row in rows[:most]] + ["..."] * (len(rows) > most))
