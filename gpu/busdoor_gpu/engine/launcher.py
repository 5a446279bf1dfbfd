"""Launches steps on the device: sends what they need, then replays a CUDA graph or launches kernel by kernel."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from busdoor_gpu.engine.changes import NONE, Changes
from busdoor_gpu.engine.device_step import DeviceStep
from busdoor_gpu.engine.graphs import StepGraphs
from busdoor_gpu.engine.passes import PASS_TOKENS, passes_of, synchronize
from busdoor_gpu.engine.rows import Rows, padded_lengths, row_arrays
from busdoor_gpu.engine.slots import Step
from busdoor_gpu.engine.upload import Ints, Upload
from busdoor_gpu.kernels._launch import ALIGNED
from busdoor_gpu.kernels.slot_table import StepInputs

# Factor between rehearsed shapes, in rows and in tokens: libraries choose kernels by size.
_REHEARSED = 4
# whose median is the host's launch time: the first few still load code, and a neighbour may disturb
# one
_LAUNCHES = 8


class Launcher:
    """Launches the steps of one engine; `graphs` is None until CUDA graphs are captured."""

    def __init__(
        self, run: DeviceStep, num_slots: int, row_tokens: int, max_tokens: int | None
    ) -> None:
        shape = run.model.config.shape
        self.graphs: StepGraphs | None = None
        self._run, self._num_slots, self._max_tokens = run, num_slots, max_tokens
        self._group = shape.num_attention_heads // shape.num_key_value_heads
        # a row longer than a pass has a pass of its own
        longest = max(PASS_TOKENS, row_tokens, num_slots)
        self._inputs = StepInputs.allocate(longest, num_slots + 1, run.table)
        num_ints = sum(padded_lengths(num_slots + ALIGNED, longest, self._group))
        self._upload = Upload(run.model.device, num_ints)

    def capture(self) -> None:
        """Capture CUDA graphs."""
        self.graphs = StepGraphs(
            self._run, self._upload, self._inputs, self._num_slots, self._max_tokens, self._group
        )

    def launch(self, step: Step, changes: Changes) -> None:
        """Launch a step, after the changes of the slot table that it needs."""
        key = self.graphs.find(step) if self.graphs is not None else None
        if self.graphs is None or key is None:
            self._launch_passes(step, changes)
            return
        self._send(self.graphs.arrays(key, step), changes)
        self.graphs.replay(key)

    def _launch_passes(self, step: Step, changes: Changes) -> None:
        """Launch a step kernel by kernel."""
        for low, high in passes_of(step.num_tokens):
            rows = Rows.of(self._send(row_arrays(step, low, high, self._group), changes))
            changes = NONE
            num_rows, num_tokens = high - low, sum(step.num_tokens[low:high])
            inputs = self._inputs.narrow(num_tokens, num_rows)
            if num_tokens == num_rows:
                self._run.decode(rows.slots, rows.query_starts, inputs)
            else:
                self._run.mixed(rows, inputs)

    def _send(self, arrays: list[Ints], changes: Changes) -> list[torch.Tensor]:
        """Send arrays and changes in one copy, and write changes; what exceeds it goes before."""
        places, values = changes
        room = self._upload.room(arrays)
        while len(places) > room:
            self._write(*self._upload.send([places[:room], values[:room]]))
            places, values = places[room:], values[room:]
        sent = self._upload.send([*arrays, places, values] if len(places) else arrays)
        if len(places):
            self._write(*sent[len(arrays) :])
        return sent[: len(arrays)]

    def _write(self, places: torch.Tensor, values: torch.Tensor) -> None:
        self._run.table.state[places] = values

    @torch.inference_mode()
    def rehearse(self) -> None:
        """Run padding through all possible step shapes: nothing compiles, loads or grows later.

        In the middle of a run that time would count as the step's.
        """
        most = min(PASS_TOKENS, self._max_tokens or PASS_TOKENS)
        rows = 1
        while rows <= self._num_slots:
            tokens = 1
            while rows * tokens <= most:
                nothing = np.zeros(rows, dtype=np.int32)  # written over the zeros of an empty table
                self._launch_passes(
                    Step.of_padding(rows, tokens), (np.arange(rows, dtype=np.int32), nothing)
                )
                tokens *= _REHEARSED
            rows *= _REHEARSED
        synchronize(self._run.model.device)

    @torch.inference_mode()
    def time_launch(self, num_tokens: int = 16) -> float:
        """Launch a prompt of so many tokens again and again, kernel by kernel; return the host's median seconds."""
        times_s = []
        for _ in range(_LAUNCHES):
            synchronize(self._run.model.device)
            start_s = time.perf_counter()
            self._launch_passes(Step.of_padding(1, num_tokens), NONE)
            times_s.append(time.perf_counter() - start_s)
        synchronize(self._run.model.device)
        return median(times_s)
