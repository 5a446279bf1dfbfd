"""Ids of prompt blocks: names that are only compared, stored as integers of 64 bits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray


def flat_ids(hash_ids: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """Return all ids in one array; if some exceed int64, renumbered in the order of appearance.

    >>> flat_ids([(7, 8), (7,)]), flat_ids([(2**64 - 1, 8), (2**64 - 1,)])
    (array([7, 8, 7]), array([0, 1, 0]))
    """
    return np.fromiter(
        chain.from_iterable(within_int64(hash_ids)), np.int64, sum(map(len, hash_ids))
    )


def within_int64(hash_ids: Sequence[tuple[int, ...]]) -> Sequence[tuple[int, ...]]:
    """Return the ids unchanged if all fit into int64; else renumbered, equal ids alike.

    >>> within_int64([(2**63, 5), (2**63, 6)])
    [(0, 1), (0, 2)]
    """
    least, most = (pick(chain.from_iterable(hash_ids), default=0) for pick in (min, max))
    if np.iinfo(np.int64).min <= least and most <= np.iinfo(np.int64).max:
        return hash_ids
    known: dict[int, int] = {}
    return [tuple(known.setdefault(name, len(known)) for name in ids) for ids in hash_ids]


def fitting_block_size(num_ids: NDArray[np.int64], input_tokens: NDArray[np.int64]) -> int | None:
    """Return the tokens per block with as many blocks as ids per prompt: a power of 2 if any.

    Prompts without ids are ignored; None if no size fits.

    >>> fitting_block_size(np.array([10, 3]), np.array([160, 40]))
    16
    """
    named = num_ids > 0
    if not named.any():
        return None
    ids, tokens = num_ids[named], input_tokens[named]
    several = ids > 1
    least = int((-(-tokens // ids)).max())  # k blocks hold the prompt, k - 1 do not
    most = int(((tokens[several] - 1) // (ids[several] - 1)).min()) if several.any() else least
    power = 1 << max(0, least - 1).bit_length()
    return None if least > most else power if power <= most else least
