"""One step on the device, without waiting for it: run at once, or captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.rows import Rows
from busdoor_gpu.kernels.cache import Caches
from busdoor_gpu.kernels.decode_plan import DecodePlan
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs


@dataclass(frozen=True)
class DeviceStep:
    """What a step needs on the device; it writes `table` and `caches` (K and V of each layer)."""

    model: Model
    backend: Backend
    table: SlotTable
    caches: Sequence[Caches]
    decode_plan: DecodePlan

    def decode(self, slots: torch.Tensor, query_starts: torch.Tensor, inputs: StepInputs) -> None:
        """Compute one token for each row; slots are as `prepare_step` takes them, -1 is padding."""
        backend = self.backend
        backend.prepare_step(self.table, slots, query_starts, inputs)
        backend.plan_decode(self.decode_plan, inputs.seq_lens)

        def attend(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            lens, plan = inputs.seq_lens, self.decode_plan
            out: torch.Tensor = backend.paged_decode(query, k, v, inputs.block_table, lens, plan)
            return out

        sampled = self.model.forward(backend, inputs, self.caches, attend)
        backend.commit_step(self.table, slots, query_starts, sampled)

    def mixed(self, rows: Rows, inputs: StepInputs) -> None:
        """Compute any number of tokens for each row; one behind those with a last is padding."""
        backend = self.backend
        backend.prepare_step(self.table, rows.slots, rows.query_starts, inputs)

        def attend(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            table, lens, starts = inputs.block_table, inputs.seq_lens, rows.query_starts
            out: torch.Tensor = backend.paged_prefill(query, k, v, table, lens, starts, rows.plan)
            return out

        sampled = self.model.forward(backend, inputs, self.caches, attend, rows.last)
        backend.commit_step(
            self.table, rows.slots[: rows.last.shape[0]], rows.wanted_starts, sampled
        )
