"""What a step changes in the slot table, as places and values of one scatter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from busdoor.core.request import Request
from busdoor_gpu.engine.prompts import prompt_tokens
from busdoor_gpu.engine.slots import Step
from busdoor_gpu.engine.upload import Ints
from busdoor_gpu.kernels.slot_table import SlotTable

Changes = tuple[Ints, Ints]
NONE: Changes = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))


def changes_of(step: Step, table: SlotTable, kept: Iterable[Request], vocab_size: int) -> Changes:
    """Return the places in `table.state` that a step writes before it runs, and the values.

    Only the table's layout is read. The tokens of `kept` requests are still on the device, so that
    no prompt is sent; ids of prompts are below `vocab_size`.
    """
    if not (step.entered or step.padding or step.blocks):
        return NONE
    places, values = zip(*_parts(step, table, set(kept), vocab_size), strict=True)
    return np.concatenate(places).astype(np.int32), np.concatenate(values).astype(np.int32)


def _parts(
    step: Step, table: SlotTable, kept: set[Request], vocab_size: int
) -> Iterator[tuple[Ints, Ints]]:
    if step.entered:
        requests, *columns = zip(*step.entered, strict=True)
        slots, cached, known = (np.array(column) for column in columns)
        yield slots + table.num_computed.storage_offset(), cached
        yield slots + table.num_known.storage_offset(), known
        yield slots + table.num_padding.storage_offset(), np.zeros_like(slots)
        for request, slot in zip(requests, slots.tolist(), strict=True):
            if request not in kept:
                prompt = prompt_tokens(request, table.block_size, vocab_size)
                first = table.token_ids.storage_offset() + slot * table.token_ids.stride(0)
                yield np.arange(first, first + len(prompt)), prompt
    if step.padding:
        slots, padding = np.array(step.padding).T
        yield slots + table.num_padding.storage_offset(), padding
    if step.blocks:
        slots, index, blocks = np.array(step.blocks).T
        yield (
            table.block_table.storage_offset() + slots * table.block_table.stride(0) + index,
            blocks,
        )
