"""What was sent to a server whose requests were timed: arrivals, caps, shared prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from busdoor.calibration.calibration import about_runs
from busdoor.calibration.request_fit import Load
from busdoor.calibration.teacher_forcing import policy_of, trace_of
from busdoor.config import Config
from busdoor.results.result import Result
from busdoor_workloads import Trace

_BLOCK_SIZE = 16  # tokens that an id of a declared prefix stands for: vLLM's blocks


@dataclass(frozen=True)
class Sent:
    """What tables of requests do not say of how they were sent.

    `max_in_flight`: most requests that the client kept open, each sent when it was due and a place
    was free (default: the run's own). `shared_prefix_tokens`: with which every prompt begins alike,
    so that a prefix cache has them. `lookahead`: 0 or 1, in place of the run's own (default: the
    policy's). `traces`: what was sent, where it is at hand; their `hash_ids` show shared blocks.
    """

    max_in_flight: int | None = None
    shared_prefix_tokens: int = 0
    lookahead: int | None = None
    traces: Sequence[Trace] | None = None

    def load(
        self,
        name: str,
        result: Result,
        policy: Mapping[str, Any],
        number: int = 0,
        server: Mapping[str, Any] | None = None,
    ) -> Load:
        """Return a measured run, `number` among `traces`, as what was sent, and how it was served.

        `policy` replaces fields of the run's meta; `server` fills in where the meta has none.
        """
        cap = self.max_in_flight or result.meta.get("max_in_flight")
        measured = as_sent(result) if cap else result
        trace, meta = self._trace(measured, number, cap), {**(server or {}), **result.meta}
        ahead = meta.get("lookahead") if self.lookahead is None else self.lookahead
        if ahead is None:
            ahead = policy_of(meta, trace, policy).lookahead
        return Load(name, measured, trace, meta, int(ahead))

    def _trace(self, measured: Result, number: int, cap: int | None) -> Trace:
        trace = trace_of(measured)
        if self.traces is not None:
            ids = self.traces[number]
            if len(ids) != len(trace):
                raise ValueError(
                    f"the trace has {len(ids)} requests, but {len(trace)} were measured; give "
                    f"that which was sent"
                )
            trace = replace(trace, hash_ids=ids.hash_ids, block_size=ids.block_size)
        if self.shared_prefix_tokens:
            trace = with_prefix(trace, self.shared_prefix_tokens)
        if not cap:
            return trace
        due_s = np.zeros(len(trace)) if measured.meta.get("due_at_once") else trace.arrival_s
        return replace(trace, arrival_s=due_s, concurrency=min(int(cap), len(trace)))


def server_of(config: Config, result: Result) -> dict[str, Any]:
    """Return what a silent run's meta would say of its server: what the engine sets there."""
    longest = int((result.requests["input_tokens"] + result.requests["output_tokens"]).max())
    block_size = config.kv.block_size
    return {
        "policy_config": config.policies[0].to_dict(),
        "num_blocks": config.kv.num_blocks or config.gpu.num_blocks(block_size),
        "block_size": block_size,
        "max_model_len": max(longest, config.gpu.model.max_position_embeddings),
        "lookahead": config.lookahead,
    }


def about_requests(
    results: Sequence[Result],
    names: Sequence[str],
    *,
    name: str,
    policy: Mapping[str, Any] | None,
    lookahead: int,
) -> dict[str, Any]:
    """Return what a calibration from requests says of its runs."""
    return {
        "name": name,
        **about_runs(results, names, policy),
        "from": "requests",
        "lookahead": lookahead,
        "num_requests": sum(len(result.requests) for result in results),
    }


def doubts_of(about: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """Return why a calibration should not be used: the fit's doubts, and the clients' own.

    A client's times are not fitted to where an engine recorded iterations.

    >>> doubts_of({"doubts": ["tpot is 9 % off"]}, [Result.example()])
    ['tpot is 9 % off']
    """
    clients = [result.meta.get("client") or {} for result in results if not len(result.iterations)]
    return [
        *about.get("doubts", ()),
        *(doubt for client in clients for doubt in client.get("doubts", ())),
    ]


def as_sent(result: Result) -> Result:
    """Return a run whose requests arrive when they were sent, where that was seen."""
    if "sent_s" not in result.requests:
        return result
    table = result.requests
    sent_s = table["sent_s"].fillna(table["arrival_s"])
    return replace(result, requests=table.assign(arrival_s=sent_s))


def with_prefix(trace: Trace, tokens: int) -> Trace:
    """Return a trace whose prompts all begin with the same tokens, in whole blocks.

    >>> trace = Trace(arrival_s=[0, 1], input_tokens=[100, 20], output_tokens=[5, 5])
    >>> with_prefix(trace, 40).hash_ids
    [(0, 1), (0,)]
    """
    blocks = np.minimum(tokens, trace.input_tokens) // _BLOCK_SIZE
    return replace(
        trace, hash_ids=[tuple(range(count)) for count in blocks.tolist()], block_size=_BLOCK_SIZE
    )
