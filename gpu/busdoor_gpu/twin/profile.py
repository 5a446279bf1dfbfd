"""Profile: the iterations of a designed grid on real hardware, for a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import simpy

from busdoor.results.result import Result
from busdoor.simulator.describe import describe_run
from busdoor.simulator.recorder import TableRecorder
from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.engine import Engine
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.slots import EngineError
from busdoor_gpu.replay.clocks import CLOCKS, ClockName, Stopwatch
from busdoor_gpu.replay.engine_server import EngineServer, Measured
from busdoor_gpu.replay.replay import ReplayError, describe_engine
from busdoor_gpu.twin.grid import LEAST_TOKENS, GridLimits, design
from busdoor_gpu.twin.grid_policy import GridPolicy
from busdoor_workloads import Trace


def profile(
    model: Model,
    backend: Backend,
    limits: GridLimits,
    budget_s: float,
    *,
    lookahead: int = 1,
    clock: ClockName = "wall",
    cuda_graphs: bool = True,
    seed: int = 0,
    meta: Mapping[str, Any] | None = None,
) -> Result:
    """Run as much of the grid as the time allows, with the engine and loop of a replay.

    Parameters
    ----------
    model, backend : Model, Backend
        The model, and the operations that it runs on.
    limits : GridLimits
        Bounds of the iterations; see `design`.
    budget_s : float
        Seconds of the clock, including the warm-up but not loading.
    lookahead, clock, cuda_graphs
        As for `replay`.
    seed : int
        Seed of the order of the grid.
    meta : mapping, optional
        Further entries of the result's `meta`.

    Returns
    -------
    Result
        `iterations` has one row for each measured iteration, with `device_s` and `host_s` as in a
        replay, and `cell`, the number of the designed iteration. Its requests are stand-ins; their
        latencies mean nothing.

    Raises
    ------
    ReplayError
        If the engine cannot continue or is interrupted; it holds what was measured so far.
    EngineError
        If the engine cannot start, or the budget is too short to measure anything.

    Examples
    --------
    >>> from busdoor_gpu.engine.backend import load_backend
    >>> from busdoor_gpu.engine.model import load_model
    >>> limits = GridLimits(max_num_seqs=2, max_num_batched_tokens=32, max_model_len=64, num_blocks=16)
    >>> model, backend = load_model("tiny-llama", "cpu"), load_backend("torch")
    >>> iterations = profile(model, backend, limits, 0.5, clock="cpu").iterations
    >>> set(iterations["repeat"]), bool((iterations["device_s"] > 0).all())
    ({1}, True)
    """
    if clock != "wall" and model.device.type != "cpu":
        raise EngineError(
            f'clock = "{clock}" counts processor time, but the model is on {model.device}; use '
            f'"wall"'
        )
    cells = design(limits)
    if not cells:
        raise EngineError(
            f"no iteration of the grid fits requests of {limits.max_model_len} tokens in "
            f"{limits.num_blocks} blocks; give --max-model-len {LEAST_TOKENS} and --num-blocks "
            f"{-(-LEAST_TOKENS // limits.block_size)}, or more"
        )
    policy = GridPolicy(cells, limits, budget_s, seed)
    engine = Engine(model, policy, backend, limits.max_model_len, cuda_graphs=cuda_graphs)
    recorder = TableRecorder(policy)
    env = simpy.Environment()
    server = EngineServer(env, policy, engine, CLOCKS[clock](), recorder, lookahead=lookahead)
    settings: dict[str, Any] = {
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
    }
    settings |= {"budget_s": budget_s, "num_cells": len(cells), "grid_seed": seed}
    noted = describe_engine(engine) | settings | dict(meta or {})
    step_time = Measured(clock=clock, backend=backend.name)

    def result() -> Result:
        requests = recorder.requests()
        trace = Trace(
            arrival_s=requests["arrival_s"].to_numpy(),
            input_tokens=requests["input_tokens"].to_numpy(),
            output_tokens=requests["output_tokens"].to_numpy(),
            name="profile",
        )
        described = describe_run(trace, policy, step_time, lookahead) | noted
        return Result(requests, _measured(server, recorder, policy), recorder.stays(), described)

    watch = Stopwatch()
    try:
        env.run()
    except (EngineError, KeyboardInterrupt) as error:
        message = str(error) or "interrupted"
        noted |= watch.read() | {"error": message}
        raise ReplayError(message, result()) from error
    finally:
        engine.close()
    noted |= watch.read()
    made = result()
    if not len(made.iterations):
        raise EngineError(
            f"nothing was measured in a budget of {budget_s:g} s; give --budget more, or a "
            f"smaller grid"
        )
    return made


def _measured(server: EngineServer, recorder: TableRecorder, policy: GridPolicy) -> Any:
    """Return the iterations that belong to a cell."""
    iterations = recorder.iterations()
    count = len(iterations)
    for name, values in (
        ("device_s", server.device_s),
        ("host_s", server.host_s),
        ("cell", policy.cell_of),
    ):
        iterations[name] = np.array(values)[:count]
    return iterations[iterations["cell"] >= 0].reset_index(drop=True)
