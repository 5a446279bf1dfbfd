"""A step's inputs, read on the device from a table of slots that stays there.

For row r of the batch, in slot s with c computed tokens, and its token number i = 0 ...
query_lens[r] - 1:

    position  = c + i
    input_id  = token_ids[s, position]
    kv slot   = block_table[s, position // block_size] * block_size + position % block_size
    seq_len   = c + query_lens[r] + padding[s]

and after the step (`commit_step`): computed[s] = c + query_lens[r]; if that reaches known[s], the
sampled token becomes token_ids[s, known[s]] and known[s] grows by one. The token is fed back
without the host: the next step reads it from the table. A chunk that does not complete its prefill,
and a recomputation of generated tokens, sample a token that is dropped.

The host sends only changes: a prompt when a request enters, new block numbers, and the slots of the
rows that run.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch

from busdoor_gpu.kernels._launch import cdiv, jit, launch, tl
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs

_BLOCK = 256  # tokens, or block-table entries, that a program copies: 2 per thread of 4 warps


@jit
def _prepare_kernel(
    slots,
    query_starts,
    token_ids,
    num_computed,
    num_padding,
    block_table,
    input_ids,
    positions,
    slot_mapping,
    seq_lens,
    row_table,
    stride_ids,
    stride_table,
    stride_row_table,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slots + row).to(tl.int64)
    start = tl.load(query_starts + row)
    query_len = tl.load(query_starts + row + 1) - start
    real = slot >= 0
    computed = tl.load(num_computed + slot, mask=real, other=0)
    seq_len = tl.where(
        real, computed + query_len + tl.load(num_padding + slot, mask=real, other=0), 0
    )
    if tl.program_id(1) == 0:
        tl.store(seq_lens + row, seq_len)

    inside = index < query_len
    position = tl.where(real, computed + index, 0)
    token = tl.load(token_ids + slot * stride_ids + position, mask=inside & real, other=0)
    block = tl.load(
        block_table + slot * stride_table + position // PAGE, mask=inside & real, other=0
    )
    tl.store(input_ids + start + index, token, mask=inside)
    tl.store(positions + start + index, position, mask=inside)
    tl.store(
        slot_mapping + start + index,
        tl.where(real, block * PAGE + position % PAGE, -1),
        mask=inside,
    )

    used = index < tl.cdiv(seq_len, PAGE)
    entry = tl.load(block_table + slot * stride_table + index, mask=used, other=0)
    tl.store(row_table + row * stride_row_table + index, entry, mask=used)


@jit
def _commit_kernel(
    slots,
    query_starts,
    sampled,
    token_ids,
    num_computed,
    num_known,
    num_rows,
    stride_ids,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.load(slots + row, mask=row < num_rows, other=-1).to(tl.int64)
    real = slot >= 0
    query_len = tl.load(query_starts + row + 1, mask=real, other=0) - tl.load(
        query_starts + row, mask=real, other=0
    )
    computed = tl.load(num_computed + slot, mask=real, other=0) + query_len
    known = tl.load(num_known + slot, mask=real, other=0)
    grows = real & (computed == known) & (query_len > 0) & (known < stride_ids)
    tl.store(num_computed + slot, computed, mask=real)
    tl.store(num_known + slot, known + 1, mask=grows)
    tl.store(
        token_ids + slot * stride_ids + known,
        tl.load(sampled + row, mask=grows, other=0),
        mask=grows,
    )


def prepare_step(
    table: SlotTable, slots: torch.Tensor, query_starts: torch.Tensor, step: StepInputs
) -> None:
    """Fill `step` from the table, which is only read.

    `slots`, int32 [num_rows]: the slot of each row, no slot twice; -1 for a padding row.
    `query_starts`, int32 [num_rows + 1]: where each row's tokens start, up to the step's number of
    tokens; a padding row of a decode graph has one token too.
    """
    num_rows, max_blocks = step.block_table.shape
    width = max(step.input_ids.shape[0], max_blocks)  # the longest possible row
    launch(
        _prepare_kernel, (num_rows, cdiv(width, _BLOCK)),
        slots, query_starts, table.token_ids, table.num_computed, table.num_padding, table.block_table,
        step.input_ids, step.positions, step.slot_mapping, step.seq_lens, step.block_table,
        table.token_ids.stride(0), table.block_table.stride(0), step.block_table.stride(0),
        PAGE=table.block_size, BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip


def prepare_step_reference(
    table: SlotTable, slots: torch.Tensor, query_starts: torch.Tensor, step: StepInputs
) -> None:
    """As `prepare_step`, in plain PyTorch, one row after another."""
    starts = query_starts.tolist()
    for row, slot in enumerate(slots.tolist()):
        tokens = slice(starts[row], starts[row + 1])
        (
            step.input_ids[tokens],
            step.positions[tokens],
            step.slot_mapping[tokens],
            step.seq_lens[row],
        ) = 0, 0, -1, 0
        if slot >= 0:
            computed = int(table.num_computed[slot])
            end = computed + starts[row + 1] - starts[row]
            seq_len = end + int(table.num_padding[slot])
            position = torch.arange(computed, end, dtype=torch.int32, device=slots.device)
            used = cdiv(seq_len, table.block_size)
            step.block_table[row, :used] = table.block_table[slot, :used]
            step.input_ids[tokens] = table.token_ids[slot, computed:end]
            step.positions[tokens] = position
            block = table.block_table[slot, position.long() // table.block_size]
            step.slot_mapping[tokens] = block * table.block_size + position % table.block_size
            step.seq_lens[row] = seq_len


def commit_step(
    table: SlotTable, slots: torch.Tensor, query_starts: torch.Tensor, sampled: torch.Tensor
) -> None:
    """Count the step's tokens as computed and write the sampled tokens to the table, in place.

    Slots and starts are as given to `prepare_step`; `sampled`, int32 [num_rows], is the token after
    each row's last. A token beyond `max_model_len` is dropped.
    """
    num_rows = slots.shape[0]
    launch(
        _commit_kernel, (cdiv(num_rows, _BLOCK),),
        slots, query_starts, sampled, table.token_ids, table.num_computed, table.num_known, num_rows,
        table.token_ids.stride(0), BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip


def commit_step_reference(
    table: SlotTable, slots: torch.Tensor, query_starts: torch.Tensor, sampled: torch.Tensor
) -> None:
    """As `commit_step`, in plain PyTorch.

    >>> table = SlotTable.allocate(2, 8, 4, "cpu")
    >>> table.num_known[1] = 3
    >>> commit_step_reference(table, torch.tensor([1]), torch.tensor([0, 3]), torch.tensor([7]))
    >>> table.num_computed[1].item(), table.num_known[1].item(), table.token_ids[1, 3].item()
    (3, 4, 7)
    """
    row = (slots >= 0).nonzero().flatten()
    slot, query_len = slots[row].long(), query_starts.diff()[row]
    table.num_computed[slot] += query_len
    known = table.num_known[slot]
    grows = (
        (table.num_computed[slot] == known) & (query_len > 0) & (known < table.token_ids.shape[1])
    )
    slot, row, known = slot[grows], row[grows], known[grows]
    table.token_ids[slot, known.long()] = sampled[row].to(torch.int32)
    table.num_known[slot] = known + 1
