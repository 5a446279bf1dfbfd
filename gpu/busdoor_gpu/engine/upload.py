"""What the host sends the device: one copy per step, through a ring of pinned memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busdoor_gpu.kernels._launch import ALIGNED, cdiv

Ints = NDArray[np.int32]
# A step is packed while the previous one runs; the third and fourth place absorb a step that needs
# several copies.
_PLACES = 4
_NUM_INTS = (
    2**18
    # 1 MiB: the longest prompt of any shipped model (131,072 tokens, each a place and a value) at once
)


class Upload:
    """A ring of pinned buffers, and one buffer on the device to which each of them is copied.

    All memory is allocated here, once: pinned memory that is allocated while the device works waits
    for it. The copies and the kernels that read them are in one stream, so one buffer on the device
    suffices, and its addresses never change, as CUDA graphs need. The host waits only if a place of
    the ring is still being copied. On a CPU nothing is pinned, and all else is the same. A copy
    holds `num_ints` 32-bit integers, at least 262,144 (1 MiB).

    >>> upload = Upload(torch.device("cpu"))
    >>> slots, starts = upload.send([np.array([4, 2, 7]), np.array([0, 1, 2, 9])])
    >>> slots.tolist(), starts.tolist(), starts.storage_offset()
    ([4, 2, 7], [0, 1, 2, 9], 4)
    """

    def __init__(self, device: torch.device, num_ints: int = _NUM_INTS) -> None:
        on_gpu = device.type == "cuda"
        self.num_ints = max(num_ints, _NUM_INTS)
        self._ring = torch.zeros(_PLACES, self.num_ints, dtype=torch.int32, pin_memory=on_gpu)
        self._lines: Ints = self._ring.numpy()
        self._copied: list[Any] = [torch.cuda.Event() for _ in range(_PLACES)] if on_gpu else []  # type: ignore[no-untyped-call]
        self._buffer = torch.zeros(self.num_ints, dtype=torch.int32, device=device)
        self._next = 0

    def send(self, parts: Sequence[Ints]) -> list[torch.Tensor]:
        """Copy arrays to the device without waiting; return them there, valid until next call."""
        bounds = _bounds([part.shape[0] for part in parts])
        place, end = self._next, bounds[-1]
        self._next = (place + 1) % _PLACES
        if self._copied:
            self._copied[place].synchronize()
        line = self._lines[place]
        for part, low in zip(parts, bounds, strict=False):
            line[low : low + part.shape[0]] = part
        self._buffer[:end].copy_(self._ring[place, :end], non_blocking=True)
        if self._copied:
            self._copied[place].record()
        return self.views([part.shape[0] for part in parts])

    def views(self, lengths: Sequence[int]) -> list[torch.Tensor]:
        """Return where `send` puts arrays of these lengths."""
        return [
            self._buffer[low : low + length]
            for length, low in zip(lengths, _bounds(lengths), strict=False)
        ]

    def room(self, parts: Sequence[Ints]) -> int:
        """Return the integers that two more arrays of the same length may have beside these."""
        return (
            (self.num_ints - _bounds([part.shape[0] for part in parts])[-1])
            // 2
            // ALIGNED
            * ALIGNED
        )


def _bounds(lengths: Sequence[int]) -> list[int]:
    """Return the first place of each array and the end; each begins at a multiple of 16 bytes.

    Triton compiles a kernel again for any other pointer, which would take seconds in the middle of
    a run.

    >>> _bounds([3, 4, 5])
    [0, 4, 8, 16]
    """
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + cdiv(length, ALIGNED) * ALIGNED)
    return bounds
