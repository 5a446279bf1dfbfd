"""Run the simulated server at a local address: for `busdoor serve` and client tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Event, Thread

from aiohttp import web

from busdoor.core.request import Request
from busdoor.observe.live import LiveServer
from busdoor.observe.openai_app import OpenAIApp
from busdoor.policies.base import Policy
from busdoor.step_time.base import StepTime

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def serving(
    policy: Policy,
    step_time: StepTime,
    model: str = "simulated",
    *,
    lookahead: int = 0,
    host: str = LOOPBACK,
    port: int = 0,
) -> AsyncIterator[str]:
    """Serve a policy over HTTP; yields the address.

    Parameters
    ----------
    policy : Policy
        A fresh scheduler.
    step_time : StepTime
        Seconds that an iteration takes.
    model : str
        The name that it serves.
    lookahead : {0, 1}
        As in `simulate`.
    host, port
        Where; port 0 takes a free one.

    Raises
    ------
    OSError
        The port is taken.
    """
    loop = asyncio.get_running_loop()

    def deliver(tokens: list[tuple[Request, int]]) -> None:
        loop.call_soon_threadsafe(api.deliver, tokens)

    server = LiveServer(policy, step_time, deliver, lookahead=lookahead)
    api = OpenAIApp(server, model)
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


@contextmanager
def stand_in(
    policy: Policy, step_time: StepTime, model: str = "simulated", *, lookahead: int = 0
) -> Iterator[str]:
    """Serve a policy in threads of this process while the block runs; yields the address.

    Parameters
    ----------
    policy : Policy
        A fresh scheduler.
    step_time : StepTime
        Seconds that an iteration takes.
    model : str
        The name that it serves.
    lookahead : {0, 1}
        As in `simulate`.

    Examples
    --------
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
        async with serving(policy, step_time, model, lookahead=lookahead) as url:
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
