"""Decode steps as CUDA graphs, one for each padded batch size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch

from busdoor_gpu.kernels.step_inputs import SlotTable, StepInputs

Decode = Callable[[torch.Tensor, torch.Tensor, StepInputs], None]


def graph_sizes(most: int) -> list[int]:
    """Batch sizes that are captured, as vLLM chooses them: 1, 2, 4, then every 8th up to 256, then every 16th.

    Examples
    --------
    >>> graph_sizes(20), len(graph_sizes(512))
    ([1, 2, 4, 8, 16, 20], 51)
    """
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, most + 1, 16)]
    return sorted({size for size in sizes if size < most} | {most})


class DecodeGraphs:
    """Captures `decode` at each size; called, replays the smallest that holds the rows.

    Everything that changes from step to step is read on the device at a fixed place: the rows' slots from one buffer,
    the rest from the slot table. Rows that pad a batch have slot -1 and write nothing.

    Parameters
    ----------
    table : SlotTable
        That `decode` works on.
    most : int
        Largest batch.
    decode : callable
        Runs one step of `slots`, `query_starts` and buffers, without waiting for the device.
    """

    def __init__(self, table: SlotTable, most: int, decode: Decode) -> None:
        device = table.token_ids.device
        self._slots = torch.full((most,), -1, dtype=torch.int32, device=device)
        self._starts = torch.arange(most + 1, dtype=torch.int32, device=device)
        self._inputs = StepInputs.allocate(most, most, table)
        self._sizes = graph_sizes(most)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        with torch.inference_mode():
            for size in reversed(self._sizes):  # the largest first: the others find room in its memory
                self._capture(size, decode)

    def _capture(self, size: int, decode: Decode) -> None:
        args = self._slots[:size], self._starts[: size + 1], self._inputs.narrow(size, size)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            decode(*args)  # compiles the kernels, which a capture must not
        torch.cuda.current_stream().wait_stream(stream)
        largest = self._graphs.get(self._sizes[-1])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=largest.pool() if largest else None):
            decode(*args)
        self._graphs[size] = graph

    def __call__(self, slots: list[int]) -> None:
        """Run one step of the rows in these slots."""
        size = self._sizes[bisect_left(self._sizes, len(slots))]
        padded = torch.tensor(slots + [-1] * (size - len(slots)), dtype=torch.int32).pin_memory()
        self._slots[:size].copy_(padded, non_blocking=True)
        self._graphs[size].replay()
