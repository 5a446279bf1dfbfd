"""A small simulated server behind HTTP, and servers that misbehave."""

import asyncio
from contextlib import contextmanager
from threading import Event, Thread

import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from aiohttp import web

from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.step_time.linear import LinearStepTime


def small_policy(**settings):
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 256, "max_model_len": 1024}
    return VllmPolicy(PagedKV(200, 16), **{**limits, **settings})


@pytest.fixture
def policy():
    return small_policy()


@pytest.fixture
def step_time():
    return LinearStepTime(base_s=0.004, per_token_s=1e-5)


@contextmanager
def http_server(routes):
    """Serve handlers of aiohttp at a free port of this machine while the block runs."""
    ready, over, addresses = Event(), Event(), []

    async def run():
        app = web.Application()
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append("http://{}:{}".format(*runner.addresses[0][:2]))
        ready.set()
        await asyncio.to_thread(over.wait)
        await runner.cleanup()

    thread = Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield addresses[0]
    finally:
        over.set()
        thread.join()


def models(*names):
    async def answer(request):
        return web.json_response({"data": [{"id": name} for name in names]})

    return answer


def stream(*events):
    """A handler that streams these events."""

    async def answer(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event}\n\n".encode())
        return response

    return answer


@pytest.fixture
def misbehaving():
    """Make a server that knows its model `m`, and answers completions with a handler."""

    def make(handler, names=("m",)):
        routes = {("GET", "/v1/models"): models(*names), ("POST", "/v1/completions"): handler}
        return http_server(routes)

    return make
