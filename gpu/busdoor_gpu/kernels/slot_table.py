"""What stays on the device: the state of every slot, and the buffers of a step's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch

from busdoor_gpu.kernels._launch import ALIGNED, cdiv


@dataclass(frozen=True)
class SlotTable:
    """The state of every slot; a request keeps its slot from admission to end or preemption.

    Attributes
    ----------
    token_ids : Tensor
        int32 [num_slots, max_model_len]: prompt, then generated tokens.
    num_computed, num_known, num_padding : Tensor
        int32 [num_slots]: tokens in the KV cache; tokens in `token_ids`; keys of padding that
        attention reads beside the slot's own (0 unless a static batch has `decode_reads =
        "padded"`).
    block_table : Tensor
        int32 [num_slots, max_blocks].
    block_size : int
        Tokens in a KV block.
    state : Tensor
        int32: all of the above in one line of memory, so that one scatter writes any changes.
    """

    token_ids: torch.Tensor
    num_computed: torch.Tensor
    num_known: torch.Tensor
    num_padding: torch.Tensor
    block_table: torch.Tensor
    block_size: int
    state: torch.Tensor

    @classmethod
    def allocate(
        cls, num_slots: int, max_model_len: int, block_size: int, device: torch.device | str
    ) -> SlotTable:
        """Allocate empty slots.

        >>> table = SlotTable.allocate(4, 100, 16, "cpu")
        >>> tuple(table.token_ids.shape), tuple(table.block_table.shape)
        ((4, 100), (4, 7))
        """
        max_blocks = cdiv(max_model_len, block_size)
        sizes = [num_slots * max_model_len, num_slots, num_slots, num_slots, num_slots * max_blocks]
        bounds = [0, *accumulate(cdiv(size, ALIGNED) * ALIGNED for size in sizes)]
        state = torch.zeros(bounds[-1], dtype=torch.int32, device=device)
        token_ids, computed, known, padding, blocks = (
            state[low : low + size] for low, size in zip(bounds, sizes, strict=False)
        )
        return cls(
            token_ids.view(num_slots, max_model_len), computed, known, padding, blocks.view(num_slots, max_blocks),
            block_size, state,
        )  # fmt: skip


@dataclass(frozen=True)
class StepInputs:
    """Inputs of one step, at fixed addresses, so that a CUDA graph can read them.

    Attributes
    ----------
    input_ids, positions, slot_mapping : Tensor
        int32 [num_tokens]. A padding token has id 0, position 0, slot -1.
    seq_lens : Tensor
        int32 [num_rows]: the keys that attention reads, this step's tokens included; 0 for a
        padding row.
    block_table : Tensor
        int32 [num_rows, max_blocks]; entries past a row's length are stale.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    slot_mapping: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor

    @classmethod
    def allocate(cls, num_tokens: int, num_rows: int, table: SlotTable) -> StepInputs:
        """Allocate buffers for `num_tokens` tokens of `num_rows` rows on the table's device."""
        width = cdiv(num_tokens, ALIGNED) * ALIGNED
        tokens = torch.zeros(3, width, dtype=torch.int32, device=table.token_ids.device)[
            :, :num_tokens
        ]
        block_table = tokens.new_zeros(num_rows, table.block_table.shape[1])
        return cls(tokens[0], tokens[1], tokens[2], tokens.new_zeros(num_rows), block_table)

    def narrow(self, num_tokens: int, num_rows: int) -> StepInputs:
        """Return the first of these buffers, for a smaller step; no copy."""
        return StepInputs(
            self.input_ids[:num_tokens],
            self.positions[:num_tokens],
            self.slot_mapping[:num_tokens],
            self.seq_lens[:num_rows],
            self.block_table[:num_rows],
        )
