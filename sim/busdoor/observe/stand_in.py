"""Run the simulated server at a local address: for `busdoor serve` and client tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from socket import create_connection
from statistics import median
from threading import Event, Thread
from time import monotonic
from urllib.parse import urlsplit

from aiohttp import web

from busdoor.catalog import Engine
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.observe.live import LiveServer
from busdoor.observe.openai_app import OpenAIApp
from busdoor.policies.base import Policy
from busdoor.policies.vllm import VllmPolicy
from busdoor.step_time.base import StepTime
from busdoor.step_time.linear import LinearStepTime

LOOPBACK = "127.0.0.1"
# Of the requests that time HTTP and Python here: a fifth of a second at the start.
_TIMED_REQUESTS, _TIMED_TOKENS, _TIMED_STEP_S = 25, 300, 0.005


@asynccontextmanager
async def serving(
    policy: Policy,
    step_time: StepTime,
    model: str = "simulated",
    *,
    lookahead: int = 0,
    engine: Engine | None = None,
    host: str = LOOPBACK,
    port: int = 0,
) -> AsyncIterator[str]:
    """Serve a fresh policy over HTTP under the name `model`; yields the address.

    `lookahead` (0 or 1) is as in `simulate`; each request passes the front end of `engine`; port 0
    takes a free one. OSError if the port is taken.
    """
    loop = asyncio.get_running_loop()
    late_s = 0.0 if engine is None else await _late_s()

    def deliver(tokens: list[tuple[Request, int]]) -> None:
        loop.call_soon_threadsafe(api.deliver, tokens)

    server = LiveServer(policy, step_time, deliver, lookahead=lookahead)
    api = OpenAIApp(server, model, engine, late_s)
    # A handler is cancelled when its client goes, so that the simulated request is abandoned too.
    runner = web.AppRunner(api.app(), handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        with server:
            await web.TCPSite(runner, host, port).start()
            address, own_port = runner.addresses[0][:2]
            yield f"http://{address}:{own_port}"
    finally:
        await runner.cleanup()


async def _late_s() -> float:
    """Return how late a token is at a client of this machine, beyond its simulated time."""
    policy = VllmPolicy(PagedKV(64, 16), 1, max_num_batched_tokens=1024, max_model_len=1024)
    async with serving(policy, LinearStepTime(base_s=_TIMED_STEP_S), engine=None) as url:
        times = await asyncio.to_thread(_first_tokens_s, url)
    return max(0.0, median(times) - _TIMED_STEP_S)


def _first_tokens_s(url: str) -> list[float]:
    """Time first tokens over a plain socket, a new connection each."""
    place = urlsplit(url)
    asked = {"model": "simulated", "prompt": list(range(_TIMED_TOKENS)), "stream": True}
    body = json.dumps(asked | {"max_tokens": 1}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: own\r\nContent-Length: {len(body)}\r\n\r\n"
    times = []
    for _ in range(_TIMED_REQUESTS):
        start_s, answer = monotonic(), b""
        with create_connection((place.hostname, place.port)) as connection:
            connection.sendall(head.encode() + body)
            while b"data:" not in answer:
                answer += connection.recv(65536)
            times.append(monotonic() - start_s)
    return times


@contextmanager
def stand_in(
    policy: Policy,
    step_time: StepTime,
    model: str = "simulated",
    *,
    lookahead: int = 0,
    engine: Engine | None = None,
) -> Iterator[str]:
    """Serve a policy as `serving` does, in threads of this process while the block runs.

    >>> from urllib.request import urlopen
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> policy = VllmPolicy(PagedKV(64, 16), max_num_seqs=4, max_num_batched_tokens=512,
    ...                     max_model_len=512)
    >>> with stand_in(policy, LinearStepTime(base_s=0.001)) as url:
    ...     b"num_requests_running" in urlopen(f"{url}/metrics").read()
    True
    """
    addresses: list[str] = []
    errors: list[BaseException] = []
    ready, over = Event(), Event()

    async def run() -> None:
        async with serving(policy, step_time, model, lookahead=lookahead, engine=engine) as url:
            addresses.append(url)
            ready.set()
            await asyncio.to_thread(over.wait)

    def serve() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # for the thread that waits for it
            errors.append(error)
        finally:
            ready.set()

    thread = Thread(target=serve, name="busdoor serve", daemon=True)
    thread.start()
    ready.wait()
    try:
        if not errors:
            yield addresses[0]
    finally:
        over.set()
        thread.join()
        if errors:
            raise errors[0]
