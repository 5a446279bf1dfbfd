"""Prefill and decode on different servers: the prompt's KV is sent from one to the other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pandas as pd
import simpy

from busdoor.cluster.network import Links
from busdoor.cluster.router import Router
from busdoor.core.request import Request
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server

TRANSFER_COLUMNS = ("request_id", "prefill_replica", "transfer_start_s", "transfer_end_s")


class Disaggregation:
    """Route requests through a prefill pool, over a link, and through a decode pool.

    In the prefill pool a request is one of its prompt and a single token: it is answered there with
    its first token, and its KV leaves the server's cache at once (what waits to be sent, or for
    room in the decode pool, waits in host memory). The whole prompt's KV is then sent to the decode
    server that the second router has chosen. There the request stands in line as one that was
    computed up to its prompt's end: admitted when its blocks are free, it goes on with its second
    token. If that server preempts it, it computes everything anew itself.

    Parameters
    ----------
    env : simpy.Environment
        Where the servers are.
    prefill, decode : Router
        Of the two pools; `connect` gives them their servers.
    links : Links
        From the prefill servers to the decode servers.
    kv_bytes_per_token : float
        Bytes of a token's keys and values in all layers.
    recorder : TableRecorder
        Records the requests that never come to the decode pool.
    on_leave : callable
        Called with every request that leaves.
    """

    def __init__(
        self,
        env: simpy.Environment,
        prefill: Router,
        decode: Router,
        links: Links,
        kv_bytes_per_token: float,
        recorder: TableRecorder,
        on_leave: Callable[[Request], None],
    ) -> None:
        self.env = env
        self.prefill = prefill
        self.decode = decode
        self.links = links
        self.kv_bytes_per_token = kv_bytes_per_token
        self.recorder = recorder
        self.on_leave = on_leave
        # by request id: what stands for it in the prefill pool
        self._prompts: dict[int, Request] = {}
        self._originals: dict[int, Request] = {}
        self._under_way: set[Request] = set()
        self._gone: set[Request] = set()
        self._closed = False
        self._transfers = array("d")

    def connect(
        self, servers: Sequence[Server], weights: Sequence[float], num_prefill: int, seed: int
    ) -> None:
        """Connect the first `num_prefill` servers to the prefill router, others to decode's."""
        pools = (
            (self.prefill, slice(num_prefill), 0, self.prefilled),
            (self.decode, slice(num_prefill, None), num_prefill, self.on_leave),
        )
        for router, own, first, left in pools:
            router.connect(
                servers[own], weights=weights[own], seed=seed, first_replica=first, on_leave=left
            )

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""
        cap = min(request.max_output_tokens, 1)
        prompt = Request(
            request.request_id,
            request.arrival_s,
            request.input_tokens,
            1,
            cap,
            request.priority,
            request.hash_ids,
            request.session_id,
        )
        self._prompts[request.request_id] = prompt
        self._originals[request.request_id] = request
        self.prefill.submit(prompt)

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone."""
        prompt = self._prompts.get(request.request_id)
        if prompt is not None:
            self._gone.add(request)
            self.prefill.abandon(prompt)
        elif request in self._under_way:
            self._under_way.remove(request)
            self.decode.withdraw(request)
            self._end(request, "abandoned")
        else:
            self.decode.abandon(request)

    def expect(self, arrival_s: float) -> None:
        """Note when the next request may arrive."""
        self.prefill.expect(arrival_s)

    def close(self) -> None:
        """Close: no request will arrive any more."""
        self._closed = True
        self.prefill.close()
        self._close_decode()

    def prefilled(self, prompt: Request) -> None:
        """Pass on a prompt that left the prefill pool: its token is out or never will be."""
        del self._prompts[prompt.request_id]
        request = self._originals.pop(prompt.request_id)
        request.replica = prompt.replica
        request.first_scheduled_s = prompt.first_scheduled_s
        request.first_token_s = prompt.first_token_s
        request.cached_tokens = prompt.cached_tokens
        request.num_preemptions = prompt.num_preemptions
        if prompt.status != "finished":
            self._end(request, prompt.status)
        elif request.output_tokens == 1:
            request.finish_s = request.released_s = prompt.finish_s
            self._end(request, "finished")
        elif request in self._gone:
            self._end(request, "abandoned")
        else:
            # Its next gap between tokens began with its first: it goes on as one does that was
            # preempted.
            request.last_token_s = prompt.first_token_s
            request.generated_tokens, request.computed_tokens = 1, request.input_tokens
            self._under_way.add(request)
            self.env.process(self._send(request))

    def with_transfers(self, requests: pd.DataFrame) -> pd.DataFrame:
        """Return requests with prefill_replica, transfer_start_s, transfer_end_s; else NaN."""
        columns = {
            name: self._transfers[i :: len(TRANSFER_COLUMNS)]
            for i, name in enumerate(TRANSFER_COLUMNS)
        }
        transfers = pd.DataFrame(columns).astype(
            {"request_id": "int64", "prefill_replica": "int64"}
        )
        return requests.merge(transfers, on="request_id", how="left")

    def _send(self, request: Request) -> Generator[simpy.Event, Any, None]:
        sender = request.replica
        receiver = self.decode.place(request)
        num_bytes = request.input_tokens * self.kv_bytes_per_token
        times_s = yield from self.links.send(num_bytes, sender, receiver)
        self._transfers.extend((request.request_id, sender, *times_s))
        if request in self._under_way:
            self._under_way.remove(request)
            self.decode.deliver(request)
            self._close_decode()

    def _end(self, request: Request, status: str) -> None:
        """Release a request that never came to the decode pool."""
        request.status = status
        self._gone.discard(request)
        self.recorder.left(request, self.env.now)
        self.on_leave(request)
        self._close_decode()

    def _close_decode(self) -> None:
        if self._closed and not self._prompts and not self._under_way:
            self.decode.close()
