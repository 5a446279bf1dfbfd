"""Requests sharing prompt beginnings: conversations of turns, groups with a prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
from pydantic import Field

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.config import Tokens, config
from busdoor_workloads.durations import AnySeconds
from busdoor_workloads.hashes import HashIds
from busdoor_workloads.lengths import AnyLengths

# vLLM's default KV block, so that a block of ids is a block of the cache.
DEFAULT_BLOCK_SIZE = 16

Values = TypeVar("Values", IntArray, FloatArray)


@config
class MultiTurn:
    """Conversations: each turn's prompt is the conversation so far and new tokens.

    Parameters
    ----------
    turns : Lengths, table or int
        Requests in a session.
    think_time_s : float or distribution
        Seconds between an answer and the session's next request.
    block_size : int, optional
        Tokens per block id; None: no ids, so that a prefix cache finds nothing.

    Notes
    -----
    The workload's `input_tokens` are the new tokens of a turn. Its arrival process starts sessions,
    at the request rate over the mean number of turns, so that `request_rate` stays a rate of
    requests.
    """

    turns: AnyLengths
    think_time_s: AnySeconds = 0.0
    block_size: Tokens | None = DEFAULT_BLOCK_SIZE


@config
class SharedPrefix:
    """Groups of requests (or of sessions) whose prompts begin with the same tokens.

    Parameters
    ----------
    num_groups : int
        Number of groups; requests are assigned to them evenly and in random order.
    prefix_tokens : Lengths, table or int
        Length of the common beginning, one per group; the workload's `input_tokens` come after it.
    block_size : int
        Tokens per block id.
    """

    num_groups: Annotated[int, Field(ge=1)]
    prefix_tokens: AnyLengths
    block_size: Tokens = DEFAULT_BLOCK_SIZE


@dataclass(frozen=True)
class Sessions:
    """The session of each request, in order of start, and its turn in it, 0 first."""

    session_id: IntArray
    turn: IntArray

    def __len__(self) -> int:
        """Return the number of sessions."""
        return int(self.session_id[-1]) + 1 if self.session_id.size else 0

    def running_total(self, values: Values) -> Values:
        """Sum `values` from the session's first turn up to and including each, shape (n,).

        >>> sessions_of(np.array([2, 3])).running_total(np.array([1, 2, 10, 20, 30]))
        array([ 1,  3, 10, 30, 60])
        """
        total = np.cumsum(values)
        first = np.flatnonzero(self.turn == 0)
        return total - (total - values)[first][self.session_id]


def sessions_of(turns: IntArray, num_requests: int | None = None) -> Sessions:
    """Return sessions of `turns` requests one after another, cut off after `num_requests` rows.

    >>> sessions_of(np.array([2, 3]), 4)
    Sessions(session_id=array([0, 0, 1, 1]), turn=array([0, 1, 0, 1]))
    """
    session_id = np.repeat(np.arange(len(turns)), turns)[:num_requests]
    first = np.cumsum(turns) - turns
    return Sessions(session_id, np.arange(len(session_id)) - first[session_id])


def accumulated_inputs(
    sessions: Sessions, new_tokens: IntArray, output_tokens: IntArray
) -> IntArray:
    """Return each turn's whole prompt: the session so far and the turn's new tokens, shape (n,).

    >>> accumulated_inputs(sessions_of(np.array([3])), np.array([100, 10, 10]), np.array([50, 50, 50]))
    array([100, 160, 220])
    """
    return sessions.running_total(new_tokens + output_tokens) - output_tokens


def lower_bounds_s(sessions: Sessions, start_s: FloatArray, think_time_s: FloatArray) -> FloatArray:
    """Return each turn's earliest arrival in seconds, if answers are instant, shape (n,)."""
    return start_s[sessions.session_id] + sessions.running_total(think_time_s)


def deal(num_owners: int, num_groups: int, rng: np.random.Generator) -> IntArray:
    """Assign owners to groups evenly, in random order, shape (num_owners,).

    >>> np.bincount(deal(10, 4, np.random.default_rng(0)))
    array([3, 3, 2, 2])
    """
    return rng.permutation(np.arange(num_owners) % num_groups)


def block_ids(
    input_tokens: IntArray,
    owner: IntArray,
    group: IntArray,
    prefix_tokens: IntArray,
    block_size: int,
    first: int = 0,
) -> HashIds:
    """Return ids of every (whole) prompt's blocks; equal ids are equal tokens.

    `owner` has the context of each prompt: a session, or the request itself; `group` is its prefix,
    and `prefix_tokens` each prefix's length. The last block of a prompt may be partly filled. Only
    blocks entirely inside the prefix belong to the group; the others are numbered from `first` on,
    after all of these.

    >>> block_ids(np.array([40, 40, 60]), np.array([0, 1, 1]), np.array([0, 0, 0]), np.array([20]), 16)
    [(0, 1, 2), (0, 3, 4), (0, 3, 4, 5)]
    """
    blocks = -(-input_tokens // block_size)
    shared = prefix_tokens // block_size
    own = np.zeros(int(owner.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(own, owner, blocks - shared[group])
    prefixes = np.cumsum(shared) - shared
    rests = first + shared.sum() + np.cumsum(own) - own
    # two runs for each prompt, of the prefix and of what is its own, which may be empty
    before = shared[group]
    offsets = np.stack([prefixes[group], rests[owner] - before], axis=1)
    ends = np.stack([np.minimum(before, blocks), blocks], axis=1)
    held = np.stack([before > 0, blocks > before], axis=1)
    return HashIds(offsets[held], ends[held], np.append(0, np.cumsum(held.sum(axis=1))))
