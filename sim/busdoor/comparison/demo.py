"""The introductory scenario: four requests in four slots, and a fifth that waits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.results.result import Result
from busdoor_workloads import Trace

OUTPUT_TOKENS = (10, 20, 50, 100, 30)
NUM_SLOTS = 4
# The bus waits only for its full batch; a finished row still costs. An iteration takes a second, so
# that seconds count iterations.
CONFIG = {
    "policy": [
        {"name": "static", "batch_size": NUM_SLOTS, "finished_rows": "compute"},
        {"name": "vllm", "max_num_seqs": NUM_SLOTS, "max_num_batched_tokens": 64},
    ],
    "kv": {"num_blocks": 100, "max_model_len": 512},
    "step_time": {"name": "linear", "base_s": 1.0},
    "lookahead": 0,
}


class Demo(NamedTuple):
    """The two runs of the introductory scenario."""

    static: Result
    continuous: Result


def introductory_scenario() -> Demo:
    """Run requests of 10, 20, 50, 100 and 30 tokens in four slots, by static and by vllm.

    Returns
    -------
    Demo
        Two results; an iteration takes one second.

    Examples
    --------
    >>> demo = introductory_scenario()
    >>> demo.static.requests["finish_s"].tolist()        # all wait for the last stop
    [100.0, 100.0, 100.0, 100.0, 130.0]
    >>> demo.continuous.requests["finish_s"].tolist()
    [10.0, 20.0, 50.0, 100.0, 40.0]
    >>> demo.continuous.requests["first_token_s"].tolist()
    [1.0, 1.0, 1.0, 1.0, 11.0]
    """
    count = len(OUTPUT_TOKENS)
    trace = Trace(
        arrival_s=np.zeros(count),
        input_tokens=np.full(count, 8),
        output_tokens=np.array(OUTPUT_TOKENS),
        name="introduction",
    )
    config = Config.from_table(CONFIG)
    limits = limits_for(config, [trace])
    return Demo(*(run(config, policy, trace, limits) for policy in config.policies))


def describe(demo: Demo) -> str:
    """Describe the introductory scenario in words and numbers.

    >>> print(describe(introductory_scenario()))
    Requests A, B, C and D want 10, 20, 50 and 100 tokens; the server has four slots. A fifth, E, wants 30.
    <BLANKLINE>
    Static batching, the bus:
      100 iterations x 4 slots = 400 slot-iterations, of which 180 make a wanted token (45 %).
      A has its 10 tokens after iteration 10, but its slot stays taken, idle, for 90 more. E waits 100 iterations.
      With E's own batch of 30 iterations: 210 of 430 slot-iterations that were held are useful (49 %).
    Continuous batching, the door:
      A is answered after iteration 10. E enters at iteration 11, which yields its first token.
      E is answered after iteration 40; the last after iteration 100 (static: 130).
    """
    static, continuous = demo.static.requests, demo.continuous.requests
    bus = static[static["first_scheduled_s"] == 0]
    iterations, wanted = int(bus["released_s"].max()), int(bus["output_tokens"].sum())
    held, first, late = iterations * len(bus), int(static["output_tokens"][0]), static.index[-1]
    own = int(static["output_tokens"][late])
    useful, all_held = wanted + own, held + own
    enters, ends_s = continuous["first_scheduled_s"][late] + 1, continuous["finish_s"]
    return f"""\
Requests A, B, C and D want 10, 20, 50 and 100 tokens; the server has four slots. A fifth, E, wants 30.

Static batching, the bus:
  {iterations} iterations x {len(bus)} slots = {held} slot-iterations, of which {wanted} make a wanted token \
({100 * wanted / held:.0f} %).
  A has its {first} tokens after iteration {first}, but its slot stays taken, idle, for {iterations - first} more. \
E waits {static["first_scheduled_s"][late]:.0f} iterations.
  With E's own batch of {own} iterations: {useful} of {all_held} slot-iterations that were held are useful \
({100 * useful / all_held:.0f} %).
Continuous batching, the door:
  A is answered after iteration {ends_s[0]:.0f}. E enters at iteration {enters:.0f}, which yields its first token.
  E is answered after iteration {ends_s[late]:.0f}; the last after iteration {ends_s.max():.0f} \
(static: {static["finish_s"].max():.0f})."""
