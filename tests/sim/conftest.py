"""A toy server that writes the schema, to test plots on tables whose truth is plain."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

BLOCK_SIZE = 16


@dataclass
class Sample:
    requests: pd.DataFrame
    iterations: pd.DataFrame
    stays: pd.DataFrame
    meta: dict


@dataclass
class Rider:
    request_id: int
    input_tokens: int
    output_tokens: int
    made: int = 0

    @property
    def left(self):
        return self.output_tokens - self.made


@dataclass
class ToyServer:
    """Static (`bus`) or continuous batching in so many slots; one prefill step a request."""

    lengths: list
    slots: int
    bus: bool
    arrival_s: list
    release: str = "batch"
    base_s: float = 0.02
    per_token_s: float = 0.0
    now_s: float = 0.0
    riders: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    stays: list = field(default_factory=list)

    def __post_init__(self):
        self.waiting = [Rider(i, *pair) for i, pair in enumerate(self.lengths)]
        self.requests = [
            {
                "request_id": i,
                "arrival_s": at,
                "input_tokens": p,
                "output_tokens": n,
                "max_output_tokens": 2 * n,
                "first_scheduled_s": np.nan,
                "first_token_s": np.nan,
                "finish_s": np.nan,
                "released_s": np.nan,
                "num_preemptions": 0,
                "cached_tokens": 0,
                "replica": 0,
                "status": "finished",
            }
            for i, (at, (p, n)) in enumerate(zip(self.arrival_s, self.lengths, strict=True))
        ]

    def run(self):
        while self.waiting or self.riders:
            self.step(self.admit())
        requests, iterations, stays = (
            pd.DataFrame(rows) for rows in (self.requests, self.rows, self.stays)
        )
        meta = {
            "policy": "static" if self.bus else "vllm",
            "num_slots": self.slots,
            "num_blocks": self.num_blocks,
        }
        meta |= {
            "block_size": BLOCK_SIZE,
            "streams": not (self.bus and self.release == "batch"),
            "trace": "toy",
        }
        return Sample(requests, iterations, stays, meta)

    @property
    def num_blocks(self):
        longest = max(p for p, _ in self.lengths) + 2 * max(n for _, n in self.lengths)
        return self.slots * -(-longest // BLOCK_SIZE)

    def admit(self):
        if not self.riders and self.waiting:
            self.now_s = max(self.now_s, self.arrival_s[self.waiting[0].request_id])
        arrived = [r for r in self.waiting if self.arrival_s[r.request_id] <= self.now_s]
        free = [slot for slot in range(self.slots) if slot not in self.riders]
        entering = [] if self.bus and self.riders else list(zip(free, arrived, strict=False))
        for slot, rider in entering:
            self.waiting.remove(rider)
            self.riders[slot] = rider
            self.stays.append(
                {"request_id": rider.request_id, "slot": slot, "enter_s": self.now_s, "replica": 0}
            )
            self.requests[rider.request_id]["first_scheduled_s"] = self.now_s
        return [rider for _, rider in entering]

    def step(self, prefilling):
        active = [rider for rider in self.riders.values() if rider.left]
        repeat = 1 if prefilling else min(rider.left for rider in active)
        if len(self.riders) < self.slots and not self.bus and self.waiting:
            repeat = 1
        tokens = sum(r.input_tokens for r in prefilling) + len(active) - len(prefilling)
        duration_s = repeat * (self.base_s + self.per_token_s * tokens)
        self.rows.append(self.row(prefilling, active, repeat, duration_s))
        self.now_s += duration_s
        for rider in active:
            rider.made += repeat
            if rider.made == 1:
                self.requests[rider.request_id]["first_token_s"] = self.now_s
            if not rider.left:
                self.requests[rider.request_id]["finish_s"] = self.now_s
        self.leave()

    def row(self, prefilling, active, repeat, duration_s):
        idle, decoding = len(self.riders) - len(active), len(active) - len(prefilling)
        padded = (
            len(prefilling) * max((r.input_tokens for r in prefilling), default=0)
            if self.bus
            else 0
        )
        prompt = sum(r.input_tokens for r in prefilling)
        kv = self.kv(repeat)
        return {
            "start_s": self.now_s,
            "duration_s": duration_s,
            "repeat": repeat,
            "first_duration_s": duration_s / repeat,
            "last_duration_s": duration_s / repeat,
            "num_prefill_tokens": prompt,
            "num_decode_tokens": decoding,
            "num_padded_tokens": max(0, padded - prompt) + idle,
            "num_idle_rows": idle,
            "num_requests": len(self.riders),
            "num_first_tokens": len(prefilling),
            "context_tokens": 0,
            "context_tokens_last": (repeat - 1) * decoding,
            "num_waiting": sum(self.arrival_s[r.request_id] <= self.now_s for r in self.waiting),
            "num_running": len(self.riders),
            "num_preempted": 0,
            "num_resumed": 0,
            "replica": 0,
            **kv,
        }

    def kv(self, repeat):
        contexts = [r.input_tokens + min(r.made, r.output_tokens - 1) for r in self.riders.values()]
        if self.bus:
            riders = list(self.riders.values())
            region = max(r.input_tokens for r in riders) + 2 * max(r.output_tokens for r in riders)
            first = last = -(-region * len(riders) // BLOCK_SIZE)
            reserved = region * len(riders)
            unused = reserved - sum(r.input_tokens + r.output_tokens - 1 for r in riders)
        else:
            blocks = [-(-np.array([c, c + repeat - 1]) // BLOCK_SIZE) for c in contexts]
            first, last = np.sum(blocks, axis=0).tolist()
            reserved, unused = first * BLOCK_SIZE, 0
        return {
            "kv_blocks_used": first, "kv_blocks_used_last": last, "kv_reserved_tokens": reserved,
            "kv_used_tokens": sum(contexts), "kv_unused_tokens": unused, "kv_hole_tokens": 0,
        }  # fmt: skip

    def leave(self):
        done = not any(rider.left for rider in self.riders.values())
        for slot, rider in list(self.riders.items()):
            if done if self.bus else not rider.left:
                del self.riders[slot]
                next(s for s in self.stays if s["request_id"] == rider.request_id)["leave_s"] = (
                    self.now_s
                )
                request = self.requests[rider.request_id]
                request["released_s"] = self.now_s
                if self.bus and self.release == "batch":
                    request["first_token_s"] = request["finish_s"] = self.now_s


def serve(lengths, slots, bus, arrival_s=None, **settings):
    """Serve (input, output) token pairs; all at time 0 unless arrivals are given."""
    return ToyServer(
        list(lengths), slots, bus, list(arrival_s or [0.0] * len(lengths)), **settings
    ).run()


@pytest.fixture(scope="session")
def toy_run():
    """`serve`: lengths, slots and bus or door in, a result out."""
    return serve


@pytest.fixture
def intro(toy_run):
    """The introductory bus with four passengers, and the door with a fifth at once."""
    lengths = [(1, 10), (1, 20), (1, 50), (1, 100)]
    return toy_run(lengths, 4, bus=True), toy_run([*lengths, (1, 30)], 4, bus=False)
