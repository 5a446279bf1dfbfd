"""Token ids for the prompts of a trace, which has only lengths and the hash ids of blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from busdoor.core.request import Request

# splitmix64's increment and multipliers (Steele, Lea and Flood, OOPSLA 2014)
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def prompt_tokens(request: Request, block_size: int, vocab_size: int) -> NDArray[np.int32]:
    """Return a request's prompt: equal hash ids are equal blocks, other tokens differ.

    `hash_ids` name its first blocks; ids of tokens are below `vocab_size`.

    >>> a, b = (Request(i, 0.0, 5, 1, hash_ids=(7,)) for i in range(2))
    >>> a, b = (prompt_tokens(request, 4, 1000) for request in (a, b))
    >>> len(a), (a == b).tolist()
    (5, [True, True, True, True, False])
    """
    position = np.arange(request.input_tokens, dtype=np.uint64)
    key = np.full(request.input_tokens, 2 * request.request_id, dtype=np.uint64)
    if request.hash_ids:
        shared = (2 * np.asarray(request.hash_ids, dtype=np.int64) + 1).astype(np.uint64)
        named = np.repeat(shared, block_size)[: request.input_tokens]
        key[: len(named)] = named
    return (_mixed(_mixed(key) + position) % np.uint64(vocab_size)).astype(np.int32)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit numbers (splitmix64)."""
    x = x + np.uint64(_GOLDEN)
    for shift, factor in _MIX:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))
