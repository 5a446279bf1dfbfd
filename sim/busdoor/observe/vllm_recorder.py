"""A scheduler for an unmodified vLLM that records every iteration: batch, times, queue, KV memory.

    BUSDOOR_STEP_LOG=steps.jsonl vllm serve MODEL \
        --scheduler-cls busdoor.observe.vllm_recorder.RecordingScheduler

It works with async scheduling and without. It was tried with vLLM 0.32; vLLM is imported only when
a server makes its scheduler.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, time
from typing import Any

VARIABLE = "BUSDOOR_STEP_LOG"
DEFAULT_PATH = "busdoor-steps.jsonl"
FLUSH_S = 0.5  # a server that is killed loses at most the lines of so long


class RecordingScheduler:
    """What `--scheduler-cls` names: makes vLLM's own scheduler, with a log.

    `async_scheduling` in vLLM's configuration chooses the scheduler, which gets all other options.
    """

    def __new__(cls, vllm_config: Any, **options: Any) -> Any:
        """Return the scheduler that vLLM would make, with a log."""
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler

        ahead = bool(vllm_config.scheduler_config.async_scheduling)
        own = recording(AsyncScheduler if ahead else Scheduler)
        return own(vllm_config=vllm_config, **options)


@cache
def recording(scheduler: type) -> type:
    """Return a class of schedulers that decide as `scheduler` does, and record what they decide."""
    return type(f"Recording{scheduler.__name__}", (Recording, scheduler), {})


class Recording:
    """Records a scheduler's calls; it stands before the scheduler among the bases of a class."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._log = StepLog(os.environ.get(VARIABLE, DEFAULT_PATH))
        self._log.write({"config": settings(self)})
        self._numbers: dict[int, int] = {}  # of the iterations that run, by their SchedulerOutput
        self._next_number = 0
        self._evicted: list[str] = []

    def add_request(self, request: Any) -> None:
        """Record a request: when vLLM's front end took it, and when the engine saw it.

        The engine looks for new requests between two iterations; a request that came meanwhile has
        waited since the first of these times.
        """
        now_s = monotonic()
        waited_s = max(0.0, time() - getattr(request, "arrival_time", time()))
        line = [request.request_id, now_s - waited_s, request.num_prompt_tokens, now_s]
        self._log.write({"add": line})
        super().add_request(request)  # type: ignore[misc]

    def _preempt_request(self, request: Any, *args: Any, **options: Any) -> None:
        self._evicted.append(request.request_id)
        super()._preempt_request(request, *args, **options)  # type: ignore[misc]

    def schedule(self, *args: Any, **options: Any) -> Any:
        """Record the batch that is decided."""
        begin_s = monotonic()
        self._evicted = []
        output = super().schedule(*args, **options)  # type: ignore[misc]
        tokens = output.num_scheduled_tokens
        if tokens:
            number = self._next_number
            self._next_number += 1
            self._numbers[id(output)] = number
            row = [number, begin_s, tokens, self._evicted, entered(output)]
            state = [len(self.running), len(self.waiting), self._kv_usage()]  # type: ignore[attr-defined]
            self._log.write({"step": [*row, *state]})
        return output

    def update_from_output(self, output: Any, *args: Any, **options: Any) -> Any:
        """Record the end of an iteration, and the requests that finished in it."""
        end_s = monotonic()
        found = super().update_from_output(output, *args, **options)  # type: ignore[misc]
        number = self._numbers.pop(id(output), None)
        if number is not None:
            done = [
                one.request_id
                for answers in found.values()
                for one in answers.outputs
                if one.finish_reason is not None
            ]
            self._log.write({"end": [number, end_s, done]})
        return found

    def shutdown(self) -> None:
        """Close the log."""
        self._log.close()
        super().shutdown()  # type: ignore[misc]

    def _kv_usage(self) -> float:
        return float(self.kv_cache_manager.usage)  # type: ignore[attr-defined]


def entered(output: Any) -> Mapping[str, int]:
    """Return the requests that enter with this batch, and the tokens that were computed before.

    Those are what the prefix cache held; of vLLM's SchedulerOutput.
    """
    found = {one.req_id: int(one.num_computed_tokens) for one in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    resumed = set(getattr(cached, "resumed_req_ids", ()))
    for name, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
        if name in resumed:
            found[name] = int(computed)
    return found


def settings(scheduler: Any) -> dict[str, Any]:
    """Return what decides a scheduler's batches, and the two clocks at the beginning of the log."""
    config, memory = scheduler.scheduler_config, scheduler.cache_config
    return {
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "block_size": memory.block_size,
        # vLLM keeps one block, the null block, for itself.
        "num_blocks": scheduler.kv_cache_config.num_blocks - 1,
        "max_model_len": scheduler.max_model_len,
        "prefix_caching": bool(memory.enable_prefix_caching),
        "chunked_prefill": bool(config.enable_chunked_prefill),
        "async_scheduling": bool(config.async_scheduling),
        "policy": str(config.policy),
        "monotonic_s": monotonic(),
        "unix_s": time(),
        "vllm": _version(),
    }


def _version() -> str:
    with suppress(ImportError):
        import vllm

        return str(vllm.__version__)
    return ""


class StepLog:
    """Lines of JSON in a file, on the disk at most half a second after they were written.

    An earlier file of that name is moved aside, as NAME.1, NAME.2 ...
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _free(Path(path))
        self._file = self.path.open("w", encoding="utf-8")
        self._lock = Lock()
        self._over = Event()
        self._encode: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":")).encode
        self._thread = Thread(target=self._flush, name="busdoor step log", daemon=True)
        self._thread.start()

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        text = self._encode(line)
        with self._lock:
            if not self._file.closed:
                self._file.write(text + "\n")

    def close(self) -> None:
        """Write what is left."""
        self._over.set()
        self._thread.join()
        with self._lock:
            self._file.close()

    def _flush(self) -> None:
        while not self._over.wait(FLUSH_S):
            with self._lock:
                self._file.flush()


def _free(path: Path) -> Path:
    """Move an earlier log aside."""
    if path.exists():
        number = 1
        while (aside := path.with_name(f"{path.name}.{number}")).exists():
            number += 1
        path.rename(aside)
    return path
