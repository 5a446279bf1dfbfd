"""A measured trace through our scheduler, with a model's or with measured durations."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import simpy

from busdoor.calibration.log import touching, works_ahead
from busdoor.catalog import Engine
from busdoor.core.arrays import Floats
from busdoor.core.batch import Batch, Chunk
from busdoor.core.import_paths import as_data
from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.describe import describe_run
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server
from busdoor.simulator.system import run_to_end
from busdoor.step_time.base import StepTime
from busdoor_workloads import Trace

_EXAMPLE = "vllm,max_num_seqs=64,num_blocks=4096,block_size=16,max_model_len=8192"


def trace_of(result: Result) -> Trace:
    """Return arrivals and lengths of a measured run, as a trace.

    >>> trace_of(Result.example()).output_tokens.tolist()
    [10, 20, 50, 100]
    """
    table = result.requests
    if not table["arrival_s"].is_monotonic_increasing:
        table = table.sort_values(["arrival_s", "request_id"], kind="stable")
    return Trace(
        arrival_s=table["arrival_s"].to_numpy(dtype=np.float64),
        input_tokens=table["input_tokens"].to_numpy(dtype=np.int64),
        output_tokens=table["output_tokens"].to_numpy(dtype=np.int64),
        max_output_tokens=np.maximum(
            table["max_output_tokens"].fillna(0), table["output_tokens"]
        ).astype(int),
        name=str(result.meta.get("trace", "measured")),
    )


MEMORY = ("num_blocks", "block_size", "max_model_len")


def check_policy(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a --policy's fields if it exists and has them; KV memory's may be among them.

    Raises ValueError if the policy is unknown, or a field of it.

    >>> dict(check_policy({"name": "vllm", "num_blocks": 9}))
    {'name': 'vllm', 'num_blocks': 9}
    """
    own = {key: value for key, value in given.items() if key not in (*MEMORY, "label")}
    policy_config(own.pop("name"), **own)
    for key in MEMORY:
        if key in given and (type(given[key]) is not int or given[key] < 1):
            raise ValueError(
                f"--policy: {key} is {given[key]}; it must be a whole number of 1 or more"
            )
    return given


def check_served(result: Result, name: str) -> None:
    """Raise ValueError if a run answered no request, so that it has no latencies.

    >>> check_served(Result.example(), "mine")
    """
    if not (result.requests["status"] == "finished").any():
        refused = result.requests["status"].str.startswith("refused").sum()
        why = (
            f"{refused} of {len(result.requests)} are refused; check --policy"
            if refused
            else "check its times"
        )
        raise ValueError(f"{name} has no finished request: {why}")


def policy_of(
    meta: Mapping[str, Any], trace: Trace, given: Mapping[str, Any] | None = None
) -> Policy:
    """Make a fresh scheduler for a trace as a measured run's meta describes it.

    `given` replaces fields of the policy, or num_blocks, block_size, max_model_len. Raises
    ValueError if something is missing; the sentence names what to give.
    """
    given = dict(given or {})
    memory = {key: given.pop(key, meta.get(key)) for key in MEMORY}
    own = meta.get("policy_config") or {}
    fields = {**(own if given.get("name") in (None, own.get("name")) else {}), **given}
    fields.pop("label", None)
    for key, value in {**memory, "name": fields.get("name")}.items():
        if not value:
            what = "policy" if key == "name" else key
            raise ValueError(f"the run's meta has no {what}; give it, as in --policy {_EXAMPLE}")
    kv = KVConfig(
        num_blocks=int(memory["num_blocks"]),
        block_size=int(memory["block_size"]),
        max_model_len=int(memory["max_model_len"]),
    )
    name = fields.pop("name")
    with nullcontext() if "name" in given else as_data():
        policy: Policy = policy_config(name, **fields).build(kv, trace)
    return policy


class Replayed(StepTime):
    """Durations in a given order, whatever the batch; after the last, those of another model.

    >>> from busdoor.step_time.linear import LinearStepTime
    >>> replayed = Replayed(np.array([0.5]), LinearStepTime(base_s=2.0))
    >>> [float(replayed.durations_s(Batch(), 1)[0]) for _ in range(3)]
    [0.5, 2.0, 2.0]
    """

    def __init__(self, durations_s: Floats, afterwards: StepTime) -> None:
        self._left = iter(durations_s.tolist())
        self._afterwards = afterwards

    def durations_s(self, batch: Batch, repeat: int) -> Floats:
        """Return the next duration."""
        taken = next(self._left, None)
        return self._afterwards.durations_s(batch, repeat) if taken is None else np.array([taken])


def serve(
    trace: Trace, policy: Policy, step_time: StepTime, lookahead: int, engine: Engine | None = None
) -> Result:
    """Run a trace by iterations, asking the step time once for each and nothing else."""
    env = simpy.Environment()
    clients = Clients(env, trace, getattr(getattr(policy, "kv", None), "block_size", 16), engine)
    recorder = TableRecorder(policy)
    server = Server(
        env,
        policy,
        step_time,
        lookahead=lookahead,
        step_by_step=True,
        recorder=recorder,
        on_leave=clients.left,
    )
    clients.start(server)
    meta = describe_run(trace, policy, step_time, lookahead)

    def result() -> Result:
        return Result(recorder.requests(), recorder.iterations(), recorder.stays(), meta)

    return run_to_end([env], trace, [recorder], result, type(policy).__name__)


def batches_of(result: Result) -> list[Batch]:
    """Return the batches of a run's iterations, with all that a step-time model reads."""
    table = result.iterations
    chunks = table["num_requests"] - table["num_decode_tokens"] - table["num_idle_rows"]
    columns = (
        "num_prefill_tokens",
        "prefill_attention",
        "prefill_context_tokens",
        "num_decode_tokens",
        "num_idle_rows",
        "num_padded_tokens",
        "context_tokens",
    )
    rows = zip(chunks.tolist(), *(table[column].tolist() for column in columns), strict=True)
    return [_batch(*row) for row in rows]


_STAND_IN = Chunk(Request(0, 0.0, 1, 1), 1, 0)  # models read sums and the number of chunks only


def _batch(
    chunks: int,
    prefill: int,
    attention: float,
    keys: int,
    decodes: int,
    idle: int,
    padded: int,
    context: int,
) -> Batch:
    return Batch(
        chunks=[_STAND_IN] * chunks,
        num_prefill_tokens=prefill,
        prefill_attention=attention,
        prefill_context_tokens=keys,
        num_decode_tokens=decodes,
        num_idle_rows=idle,
        num_padded_tokens=padded,
        decode_context_tokens=context,
    )


def predicted_s(result: Result, step_time: StepTime) -> Floats:
    """Return the seconds a model gives each row of a run's iterations: teacher-forced."""
    repeats, batches = result.iterations["repeat"].tolist(), batches_of(result)
    if not works_ahead(result):
        pairs = zip(batches, repeats, strict=True)
        return np.array([float(step_time.durations_s(*pair).sum()) for pair in pairs])
    lead_s: float | None = None
    rows = []
    for batch, repeat, following in zip(
        batches, repeats, _following(result.iterations, batches), strict=True
    ):
        ahead = step_time.ahead(batch, lead_s)
        durations_s = (ahead or step_time).durations_s(batch, repeat)
        if ahead is not None:
            durations_s[-1], lead_s = ahead.last(repeat, following)
        rows.append(float(durations_s.sum()))
    return np.array(rows)


def _following(iterations: pd.DataFrame, batches: list[Batch]) -> list[Batch | None]:
    """Return of each row the batch that begins where it ends, if there is one."""
    touches = touching(iterations).tolist()
    after = [batch if near else None for batch, near in zip(batches[1:], touches, strict=True)]
    return [*after, None][: len(batches)]
