"""Prompts of given lengths: ids are shared where the trace says so, nowhere else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from busdoor_workloads import Trace

# Ids from 100 on are ordinary words in the vocabularies that we know; special tokens stand before
# them or at the end. 4,000 is below the smallest vocabulary that we serve in tests (4,096).
FIRST_ID, LAST_ID = 100, 4000


class Prompts:
    """The token ids of each request of a trace.

    Equal `hash_ids` of the trace become equal blocks of tokens; all other tokens are drawn for the
    request alone, so that a prefix cache finds what the trace shares and no more. Another pair of
    `seed` and `run` shares nothing with this one: runs that follow each other on one server should
    differ in one of them.

    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[6, 5], output_tokens=[1, 1],
    ...               hash_ids=[(7, 8), (7, 9)], block_size=4)
    >>> prompts = Prompts(trace, seed=1)
    >>> one, other = prompts.token_ids(0), prompts.token_ids(1)
    >>> len(one), one[:4] == other[:4], one[4] == other[4]
    (6, True, False)
    """

    def __init__(self, trace: Trace, seed: int = 0, run: int = 0) -> None:
        self._trace = trace
        self._seed = (seed, run)

    def token_ids(self, row: int) -> list[int]:
        """Return the prompt of a request, in token ids."""
        trace = self._trace
        num_tokens = int(trace.input_tokens[row])
        blocks: list[NDArray[np.int64]] = []
        if trace.hash_ids is not None and trace.block_size:
            blocks = [self._drawn(1, name, trace.block_size) for name in trace.hash_ids[row]]
        shared = np.concatenate(blocks)[:num_tokens] if blocks else np.empty(0, dtype=np.int64)
        own = self._drawn(0, row, num_tokens - len(shared))
        return [*shared.tolist(), *own.tolist()]

    def text(self, row: int) -> str:
        """Return the prompt in words, for servers that take only text: about a token per word."""
        return " ".join(f"w{token}" for token in self.token_ids(row))

    def _drawn(self, kind: int, name: int, num_tokens: int) -> NDArray[np.int64]:
        stream = np.random.default_rng([*self._seed, kind, name % 2**64])
        return stream.integers(FIRST_ID, LAST_ID, num_tokens)
