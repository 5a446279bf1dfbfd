"""CUDA graphs of decode steps, one for each padded batch size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import torch

from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs

_LARGEST = 512  # as vLLM's max_cudagraph_capture_size: beyond it a launch is short beside the work

Decode = Callable[[torch.Tensor, torch.Tensor, StepInputs], None]


def graph_sizes(most: int) -> list[int]:
    """Return the batch sizes to capture, as vLLM chooses them: 1, 2, 4, then every 8th up to 256, then every 16th.

    Examples
    --------
    >>> graph_sizes(20), len(graph_sizes(512))
    ([1, 2, 4, 8, 16, 20], 51)
    """
    sizes = [1, 2, 4, *range(8, 257, 8), *range(272, most + 1, 16)]
    return sorted({size for size in sizes if size < most} | {most})


class DecodeGraphs:
    """Captures `decode` at each size, and runs the smallest graph that holds a step's rows.

    What changes from step to step is read at fixed addresses on the device: the rows' slots from one buffer, the rest
    from the slot table. Rows that pad a batch have slot -1 and write nothing.

    Parameters
    ----------
    table : SlotTable
        The table that `decode` works on.
    most : int
        Largest batch; graphs are captured up to 512.
    decode : callable
        Runs one step of `slots`, `query_starts` and buffers, without waiting for the device.

    Attributes
    ----------
    sizes : list of int
        Batch sizes that are captured.
    """

    def __init__(self, table: SlotTable, most: int, decode: Decode) -> None:
        device, most = table.token_ids.device, min(most, _LARGEST)
        self._slots = torch.full((most,), -1, dtype=torch.int32, device=device)
        self._starts = torch.arange(most + 1, dtype=torch.int32, device=device)
        self._inputs = StepInputs.allocate(most, most, table)
        self.sizes = graph_sizes(most)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        with torch.inference_mode():
            for size in reversed(self.sizes):  # the largest first: the others share its memory
                self._capture(size, decode)

    def _capture(self, size: int, decode: Decode) -> None:
        args = self._slots[:size], self._starts[: size + 1], self._inputs.narrow(size, size)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            decode(*args)  # compiles the kernels, which a capture must not
        torch.cuda.current_stream().wait_stream(stream)
        largest = self._graphs.get(self.sizes[-1])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=largest.pool() if largest else None):
            decode(*args)
        self._graphs[size] = graph

    def holds(self, slots: list[int]) -> bool:
        """Whether a graph holds this many rows."""
        return len(slots) <= self.sizes[-1]

    def size_for(self, slots: list[int]) -> int:
        """Return the rows of the smallest graph that holds these slots."""
        return self.sizes[bisect_left(self.sizes, len(slots))]

    def run(self, slots: list[int]) -> None:
        """Run one step of the rows in these slots."""
        size = self.size_for(slots)
        padded = torch.tensor(slots + [-1] * (size - len(slots)), dtype=torch.int32).pin_memory()
        self._slots[:size].copy_(padded, non_blocking=True)
        self._graphs[size].replay()
