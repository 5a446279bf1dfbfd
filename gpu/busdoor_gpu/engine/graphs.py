"""CUDA graphs of steps: decodes by padded batch size, mixed steps by padded number of tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from busdoor_gpu.engine.device_step import DeviceStep
from busdoor_gpu.engine.rows import Rows, padded_arrays, padded_lengths
from busdoor_gpu.engine.slots import Step
from busdoor_gpu.engine.upload import Ints, Upload
from busdoor_gpu.kernels.slot_table import StepInputs

# decodes, as vLLM's max_cudagraph_capture_size: beyond it a launch is short beside the work
_LARGEST = 512
# Tokens of a mixed step. A step above the largest computes for longer than its launch takes, kernel
# by kernel: 2,048 tokens are 45 ms of an H100 with 8B weights, a launch is 10 to 20 ms
# (references/gpu-next 3.1).
_MIXED = (32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048)
# Rows of a mixed step: each row that is not there is an empty program per KV head and layer.
_ROWS = (32, 128)


def graph_sizes(most: int) -> list[int]:
    """Return the batch sizes vLLM captures: 1, 2, 4, every 8th up to 256, then every 16th.

    >>> graph_sizes(20), len(graph_sizes(512))
    ([1, 2, 4, 8, 16, 20], 51)
    """
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, most + 1, 16)]
    return sorted({size for size in sizes if size < most} | {most})


def mixed_graph_sizes(most: int | None) -> list[int]:
    """Return the numbers of tokens to capture for a token budget; without a budget, all of them.

    >>> mixed_graph_sizes(100), mixed_graph_sizes(None)[-1]
    ([32, 64, 96, 128], 2048)
    """
    return list(_MIXED if most is None else _MIXED[: bisect_left(_MIXED, most) + 1])


class Key(NamedTuple):
    """A graph: its padded rows, and its padded tokens (0 for decodes, which have one per row)."""

    num_rows: int
    num_tokens: int = 0


def _padding(key: Key) -> Step:
    """Return a step of a graph's size without a request, which leaves no trace."""
    if key.num_tokens:
        return Step.of_padding(1, key.num_tokens)
    return Step.of_padding(key.num_rows, 1)


class StepGraphs:
    """Captures steps at each size, and replays the smallest graph that holds a step.

    What changes from step to step is read at fixed addresses on the device: the rows from the
    buffer of `Upload`, the rest from the slot table. Padding has slot -1 and writes nothing.
    `inputs` are buffers for the largest step, `max_tokens` is the policy's token budget, `group`
    the query heads per KV head. Batches are captured up to `num_slots` or 512 rows
    (`decode_sizes`), other steps by number of tokens (`mixed_sizes`).
    """

    def __init__(
        self,
        run: DeviceStep,
        upload: Upload,
        inputs: StepInputs,
        num_slots: int,
        max_tokens: int | None,
        group: int,
    ) -> None:
        self._run, self._upload, self._inputs, self._group = run, upload, inputs, group
        self.decode_sizes = graph_sizes(min(num_slots, _LARGEST))
        self.mixed_sizes = mixed_graph_sizes(max_tokens)
        self._row_sizes = [*(rows for rows in _ROWS if rows < num_slots), num_slots]
        self._starts = torch.arange(
            self.decode_sizes[-1] + 1, dtype=torch.int32, device=inputs.seq_lens.device
        )
        self._graphs: dict[Key, torch.cuda.CUDAGraph] = {}
        with torch.inference_mode():
            for key in self._keys():
                upload.send(self.arrays(key, _padding(key)))  # a capture begins with a real run
                self._capture(key, self._decode(key) if key.num_tokens == 0 else self._mixed(key))

    def _keys(self) -> list[Key]:
        """Return all graphs, the largest first: the others share its memory."""
        mixed = [
            Key(rows, tokens)
            for tokens in self.mixed_sizes
            for fewer, rows in zip([0, *self._row_sizes], self._row_sizes, strict=False)
            if fewer
            # a step has a token per row, so that fewer rows hold all that has so few tokens
            < tokens
        ]
        return [*reversed(mixed), *map(Key, reversed(self.decode_sizes))]

    def _decode(self, key: Key) -> Callable[[], None]:
        rows = key.num_rows
        (slots,), starts = self._upload.views([rows]), self._starts[: rows + 1]
        inputs = self._inputs.narrow(rows, rows)
        return lambda: self._run.decode(slots, starts, inputs)

    def _mixed(self, key: Key) -> Callable[[], None]:
        rows = Rows.of(self._upload.views(padded_lengths(*key, self._group)))
        inputs = self._inputs.narrow(key.num_tokens, key.num_rows + 1)
        return lambda: self._run.mixed(rows, inputs)

    def _capture(self, key: Key, call: Callable[[], None]) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()  # compiles the kernels, which a capture must not
        torch.cuda.current_stream().wait_stream(stream)
        largest = next(iter(self._graphs.values()), None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=largest.pool() if largest else None):
            call()
        self._graphs[key] = graph

    def find(self, step: Step) -> Key | None:
        """Return the smallest graph that holds a step; None if none does."""
        sizes, size = (
            (self.decode_sizes, len(step.slots))
            if step.decodes
            else (self.mixed_sizes, sum(step.num_tokens))
        )
        if size > sizes[-1]:
            return None
        padded = sizes[bisect_left(sizes, size)]
        if step.decodes:
            return Key(padded)
        return Key(self._row_sizes[bisect_left(self._row_sizes, len(step.slots))], padded)

    def arrays(self, key: Key, step: Step) -> list[Ints]:
        """Return what is to be sent before a step's graph is replayed."""
        if key.num_tokens:
            return padded_arrays(step, *key, self._group)
        slots = np.full(key.num_rows, -1, dtype=np.int32)
        slots[: len(step.slots)] = step.slots
        return [slots]

    def replay(self, key: Key) -> None:
        """Run a graph on what was sent."""
        self._graphs[key].replay()
