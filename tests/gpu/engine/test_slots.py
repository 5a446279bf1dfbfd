"""The host's side of the slot table, under any traffic: its steps are consistent."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.core.request import Request
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor_gpu.engine.engine import Engine
from busdoor_gpu.engine.prompts import prompt_tokens
from busdoor_gpu.engine.slots import Slots
from busdoor_gpu.replay.replay import row_tokens
from busdoor_workloads import Trace

lengths = st.lists(
    st.tuples(st.integers(1, 50), st.integers(1, 40), st.integers(0, 6)), min_size=1, max_size=12
)


class Device:
    """What the device knows of the slots, from the steps alone."""

    def __init__(self):
        self.owner, self.computed, self.blocks = {}, {}, {}

    def apply(self, step):
        for request, slot, _ in step.left:
            assert self.owner.pop(slot) is request
        for request, slot, cached, _ in step.entered:
            assert slot not in self.owner, "a slot has one owner"
            self.owner[slot], self.computed[slot], self.blocks[slot] = request, cached, []
        for slot, index, block in step.blocks:
            assert index == len(self.blocks[slot]), "the block table grows at its end"
            self.blocks[slot].append(block)
        assert len(set(step.slots)) == len(step.slots)
        for slot, tokens, wanted, context in zip(
            step.slots, step.num_tokens, step.num_wanted, step.contexts, strict=True
        ):
            assert self.computed[slot] == context
            self.computed[slot] += wanted
            assert wanted <= tokens

    def covers(self, step, block_size):
        return all(
            context + tokens <= len(self.blocks[slot]) * block_size
            for slot, tokens, context in zip(
                step.slots, step.num_tokens, step.contexts, strict=True
            )
        )


@given(rows=lengths, data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_step_is_consistent_with_the_steps_before(policies, rows, data):
    name = data.draw(st.sampled_from(sorted(policies)))
    policy, arrivals = (
        policies[name](),
        [Request(i, i / 1000, n, m) for i, (n, m, _) in enumerate(rows)],
    )
    inputs, outputs, gaps = (np.array(column) for column in zip(*rows, strict=True))
    trace = Trace(arrival_s=np.zeros(len(rows)), input_tokens=inputs, output_tokens=outputs)
    slots, device, now_s, waiting = (
        Slots(policy, row_tokens(policy, trace)),
        Device(),
        0.0,
        list(gaps),
    )
    known: list[Request] = []  # those that have arrived
    while arrivals or policy.num_waiting or policy.num_running:
        assert now_s < 5000, "it comes to an end"
        while arrivals and waiting[0] <= 0:
            known.append(arrivals.pop(0))
            policy.add(known[-1])
            waiting.pop(0)
        if not arrivals:
            policy.close()
        if waiting:
            waiting[0] -= 1
        now_s += 1.0
        batch = policy.schedule(now_s)
        if batch is None:
            continue
        step = slots.pack(batch)
        device.apply(step)
        assert device.covers(step, policy.kv.block_size)
        held = [block for slot in device.owner for block in device.blocks[slot]]
        assert max(held) < slots.source.num_blocks
        if not isinstance(policy.kv, PrefixCachedKV):
            assert len(set(held)) == len(held), "no block has two owners"
        policy.complete(batch, 1)
        present = [one for one in known if one.status in ("waiting", "running")]
        if present and data.draw(st.integers(0, 9), label="one gives up") == 0:
            policy.abandon(data.draw(st.sampled_from(present), label="which"))
    device.apply(slots.leave_all())
    assert not device.owner


def test_the_tokens_of_a_preempted_request_that_is_given_up_are_not_kept(
    policies, models, torch_backend
):
    policy = policies["vllm preempting"]()
    engine = Engine(models["tiny-llama"], policy, torch_backend, 96)
    for number in range(4):
        policy.add(Request(number, 0.0, 20, 40))
    preempted = None
    while (batch := policy.schedule(0.0)) is not None:
        engine.finish(engine.submit(batch))
        policy.complete(batch, 1)
        if preempted is None and batch.preempted:
            [preempted] = batch.preempted
            assert list(engine._saved) == [preempted]
            policy.abandon(preempted)
    assert preempted is not None
    engine.drain()
    assert not engine._saved


@given(
    hashes=st.lists(st.lists(st.integers(0, 2**62), max_size=4), min_size=2, max_size=2),
    lens=st.lists(st.integers(1, 20), min_size=2, max_size=2),
)
def test_prompts_agree_exactly_where_their_hashes_do(hashes, lens):
    requests = [
        Request(i, 0.0, n, 1, hash_ids=tuple(ids))
        for i, (n, ids) in enumerate(zip(lens, hashes, strict=True))
    ]
    a, b = (prompt_tokens(request, 4, 2**31 - 1) for request in requests)
    for i in range(0, min(lens), 4):
        equal = [ids[i // 4] for ids in hashes if i // 4 < len(ids)]
        same = len(equal) == 2 and equal[0] == equal[1]
        assert (
            a[i : i + 4][: len(b[i : i + 4])] == b[i : i + 4][: len(a[i : i + 4])]
        ).all() == same
