"""Transformers as a server: `generate` in static batches, and continuous batching, both recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import scheduler as schedulers
from transformers.utils import logging

from busdoor_workloads import Trace

Floats = NDArray[np.float64]
SLOTS = 8
BUDGET = 256  # max_batch_tokens
PAGE, BLOCKS = 32, 256  # room for all: no request is preempted
VOCABULARY = 4096


def prompts(trace: Trace) -> list[list[int]]:
    """Draw prompts of random token ids."""
    rng = np.random.default_rng(1)
    return [rng.integers(1, VOCABULARY, n).tolist() for n in trace.input_tokens]


@dataclass
class Run:
    """What a run measured: features and seconds of its steps, and the requests."""

    steps: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    requests: pd.DataFrame = field(default_factory=pd.DataFrame)
    batches: list[tuple[int, int]] = field(default_factory=list)  # prefill tokens, decodes


def features(tokens: float, requests: float, keys: float, pairs: float) -> list[float]:
    """Return the terms of a step: one, positions, requests, keys read, query-key pairs."""
    return [1.0, tokens, requests, keys, pairs]


class Recorder(schedulers.FIFOScheduler):
    """Transformers' scheduler, which notes when it is asked and what it decides."""

    clock: Callable[[], float]
    log: list[tuple[float, list[tuple[int, int, int]]]]
    finish_s: dict[int, float]

    def schedule_batch(self, *budgets: int) -> Any:
        """Decide, and note (request, tokens, tokens in the cache before) of each."""
        start_s = self.clock()
        found = super().schedule_batch(*budgets)
        now = [(f.state, f.query_length) for f in found[0] or []]
        self.log.append((start_s, [(int(s.request_id), n, s.position_offset) for s, n in now]))
        return found

    def finish_request(self, request_id: str) -> None:
        """Note the time of a finish."""
        self.finish_s[int(request_id)] = self.clock()
        super().finish_request(request_id)


schedulers.SCHEDULER_MAPPING["recorder"] = Recorder


class Marks(StoppingCriteria):
    """Notes when each step of `generate` ends, and stops nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.times = [clock()]

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
        """Note the time."""
        self.times.append(self.clock())
        return torch.zeros(len(ids), dtype=torch.bool)


class Server:
    """One model, served both ways."""

    def __init__(self, clock: Callable[[], float]) -> None:
        torch.set_num_threads(1)
        logging.set_verbosity_error()
        shape = LlamaConfig(
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
        )
        self.clock = clock
        torch.manual_seed(0)
        self.dense = LlamaForCausalLM(shape).eval()
        self.paged = LlamaForCausalLM(shape).eval()  # which keeps its attention switched
        self.paged.load_state_dict(self.dense.state_dict())

    def static(self, trace: Trace, batch_size: int = SLOTS) -> Run:
        """Serve in batches of the order of arrival."""
        run, rows, begin_s = Run(), [], self.clock()
        ids = prompts(trace)
        for first in range(0, len(trace), batch_size):
            some = slice(first, first + batch_size)
            start_s = self.clock()
            self._generate(run, ids[some], int(trace.output_tokens[some].max()))
            rows += [(start_s, self.clock())] * len(ids[some])
        run.requests = table(trace, np.array(rows) - begin_s)
        return run

    def _generate(self, run: Run, ids: list[list[int]], longest: int) -> None:
        width, rows = max(map(len, ids)), len(ids)
        marks = Marks(self.clock)
        padded = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        self.dense.generate(
            padded,
            attention_mask=(padded > 0).long(),
            generation_config=GenerationConfig(
                do_sample=False, min_new_tokens=longest, max_new_tokens=longest, pad_token_id=0
            ),
            stopping_criteria=StoppingCriteriaList([marks]),
        )
        marks.times[-1] = self.clock()
        run.seconds += np.diff(marks.times).tolist()
        prefill = features(rows * width, rows, rows * width, rows * width * (width + 1) / 2)
        run.steps.append(prefill)
        for keys in (width + 1 + np.arange(longest - 1)) * rows:
            run.steps.append(features(rows, rows, keys, keys))

    def continuous(self, trace: Trace) -> Run:
        """Serve by what `generate_batch` runs: all requests queued, then the loop started."""
        Recorder.clock, Recorder.log, Recorder.finish_s = staticmethod(self.clock), [], {}
        manager = self.paged.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=-1, max_new_tokens=1),
            ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=BLOCKS,
                max_batch_tokens=BUDGET,
                max_requests_per_batch=SLOTS,
                max_memory_percent=0.9,
                allow_block_sharing=False,
                scheduler_type="recorder",
            ),
        )
        for i, ids in enumerate(prompts(trace)):
            length = int(trace.output_tokens[i])
            manager.add_request(ids, request_id=str(i), max_new_tokens=length)
        manager.start()
        done = 0
        while done < len(trace):
            answer = manager.get_result(timeout=1)
            assert answer is not None or manager.is_running(), "the generation loop has died"
            done += answer is not None and answer.is_finished()
        manager.stop(block=True)
        manager.destroy()
        return recorded(trace)


def recorded(trace: Trace) -> Run:
    """Make a run of what the recorder noted.

    The calibration leaves out the first step, in which the loop starts and memory is first touched,
    and the last, which has no successor to end it.
    """
    run, first_s = Run(), {}
    log = [(at, batch) for at, batch in Recorder.log if batch]
    for at, batch in log:
        for request, _, _ in batch:
            first_s.setdefault(request, at)
        prefills = [n for request, n, c in batch if c < trace.input_tokens[request]]
        run.batches.append((sum(prefills), len(batch) - len(prefills)))
        tokens, keys = sum(n for _, n, _ in batch), sum(n + c for _, n, c in batch)
        run.steps.append(features(tokens, len(batch), keys, tokens * keys))
    run.steps = run.steps[1:-1]
    run.seconds = np.diff([at for at, _ in log])[1:].tolist()
    spans = [(first_s[i], Recorder.finish_s[i]) for i in range(len(trace))]
    run.requests = table(trace, np.array(spans) - log[0][0])
    return run


def table(trace: Trace, spans: Floats) -> pd.DataFrame:
    """Return the columns of a requests table that a saturated rate reads."""
    columns = {"arrival_s": 0.0, "status": "finished", "replica": 0}
    lengths = {"output_tokens": trace.output_tokens}
    return pd.DataFrame(
        {"first_scheduled_s": spans[:, 0], "finish_s": spans[:, 1], **lengths, **columns}
    )
