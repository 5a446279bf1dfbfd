"""Replay: serve a trace under a policy on real hardware; the result is the simulator's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import inf
from time import time
from typing import Any

import numpy as np
import simpy

from busdoor.policies.base import Policy
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.describe import describe_run
from busdoor.simulator.recorder import TableRecorder
from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.device import allocator_retries, describe_device, git_commit
from busdoor_gpu.engine.engine import Engine
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.slots import EngineError
from busdoor_gpu.replay.clocks import CLOCKS, ClockName, Stopwatch
from busdoor_gpu.replay.engine_server import EngineServer, Measured
from busdoor_workloads import Trace


class ReplayError(EngineError):
    """A replay that stopped early; in `result`, requests still present are "unfinished"."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def replay(
    trace: Trace,
    policy: Policy,
    model: Model,
    backend: Backend,
    *,
    lookahead: int = 1,
    clock: ClockName = "wall",
    keep_outputs: bool = False,
    cuda_graphs: bool = True,
    meta: Mapping[str, Any] | None = None,
) -> Result:
    """Serve a trace's requests: random prompts of its lengths, answers forced to its lengths.

    Parameters
    ----------
    trace : Trace
        Arrivals and lengths; a closed loop and sessions work as in the simulator.
    policy : Policy
        A fresh scheduler; it serves one run.
    model, backend : Model, Backend
        The model, and the operations that it runs on.
    lookahead : {0, 1}
        When an iteration is scheduled: at the end of the previous one (0), or while that still runs
        (1).
    clock : {"wall", "cpu", "paced"}
        Real time; on a CPU also the process's own time, which skips idle time, or that at an even
        speed, see `PacedClock`.
    keep_outputs : bool
        Whether `meta["outputs"]` gets the tokens of each finished request.
    cuda_graphs : bool
        Whether steps run as CUDA graphs if possible.
    meta : mapping, optional
        Further entries of the result's `meta`.

    Returns
    -------
    Result
        As the simulator's, one row for each iteration, with two more columns: `device_s` (on the
        device, by its own events) and `host_s` (the host at work, not waiting).

    Raises
    ------
    ReplayError
        If the engine cannot continue; it holds what was measured so far.
    EngineError
        If the engine cannot start.

    Examples
    --------
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor_gpu.engine.backend import load_backend
    >>> from busdoor_gpu.engine.model import load_model
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=64, max_model_len=128)
    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[20, 30], output_tokens=[3, 4])
    >>> result = replay(trace, policy, load_model("tiny-llama", "cpu"), load_backend("torch"), clock="cpu")
    >>> result.summary["completed"], len(result.iterations)
    (2, 4)
    """
    if clock != "wall" and model.device.type != "cpu":
        raise EngineError(
            f'clock = "{clock}" counts processor time, but the model is on {model.device}; use '
            f'"wall"'
        )
    engine = Engine(model, policy, backend, row_tokens(policy, trace), keep_outputs, cuda_graphs)
    recorder = TableRecorder(policy)
    env = simpy.Environment()
    clients = Clients(env, trace, engine.block_size)
    noted = describe_run(trace, policy, Measured(clock=clock, backend=backend.name), lookahead)
    noted |= describe_engine(engine) | dict(meta or {})
    server = EngineServer(
        env, policy, engine, CLOCKS[clock](), recorder, lookahead=lookahead, on_leave=clients.left
    )
    retries = allocator_retries(model.device)
    clients.start(server)
    watch = Stopwatch()
    try:
        env.run()
        server.check_served()
        engine.drain()
    except (EngineError, KeyboardInterrupt) as error:
        message = str(error) or "interrupted"
        for request in server.present:
            request.status = "unfinished"
            recorder.left(request, env.now)
        noted |= watch.read() | {"error": message, "complete": False}
        raise ReplayError(message, _result(server, recorder, noted)) from error
    finally:
        engine.close()
    noted |= watch.read() | {"num_alloc_retries": allocator_retries(model.device) - retries}
    return _result(server, recorder, noted | ({"outputs": engine.outputs} if keep_outputs else {}))


def row_tokens(policy: Policy, trace: Trace) -> int:
    """Return a slot's most tokens; in a static batch, longest prompt plus longest answer.

    >>> from busdoor.kv.contiguous import ContiguousKV
    >>> from busdoor.policies.static import StaticPolicy
    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[20, 100], output_tokens=[50, 3])
    >>> row_tokens(StaticPolicy(ContiguousKV(1000), batch_size=2, max_model_len=200), trace)
    150
    """
    served = trace.input_tokens + trace.output_tokens <= (
        getattr(policy, "max_model_len", None) or inf
    )
    inputs, outputs = trace.input_tokens[served], trace.output_tokens[served]
    if policy.whole_batch:
        padded = getattr(policy, "padding", None) or (1, 1)
        return int(np.max(inputs, initial=padded[0]) + np.max(outputs, initial=padded[1]))
    return int(np.max(inputs + outputs, initial=1))


def describe_engine(engine: Engine) -> dict[str, Any]:
    """Return model, device and source of a run that starts now, for a result's meta.json.

    `started_at` is in seconds since 1970; `host_launch_s` is how long this machine's host takes to
    launch a step kernel by kernel, which a calibrated step time replaces its own by.
    """
    config = engine.model.config
    device = describe_device(engine.model.device)
    return {
        "gpu": device["name"],
        "model": config.shape.name,
        "model_shape": asdict(config.shape),
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "kv_dtype": engine.model.kv_format,
        "weights": "random" if config.folder is None else str(config.folder),
        "num_device_blocks": engine.num_blocks,
        "graph_sizes": engine.graph_sizes,
        "mixed_graph_sizes": engine.mixed_graph_sizes,
        "host_launch_s": engine.host_launch_s,
        "started_at": time(),
        "device": device,
        "git_commit": git_commit(),
    }


def _result(server: EngineServer, recorder: TableRecorder, meta: Mapping[str, Any]) -> Result:
    iterations = recorder.iterations()
    iterations["device_s"] = np.array(server.device_s)[: len(iterations)]
    iterations["host_s"] = np.array(server.host_s)[: len(iterations)]
    return Result(recorder.requests(), iterations, recorder.stays(), meta)
