"""The simulator behind OpenAI's API: tokens at simulated times, vLLM's `/metrics`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count
from time import monotonic, time
from typing import Any

from aiohttp import web

from busdoor._version import __version__
from busdoor.catalog import Engine
from busdoor.core.request import Request
from busdoor.observe.live import LiveServer
from busdoor.observe.openai_forms import BadRequestError, ChatForm, CompletionForm, Form, block_ids
from busdoor.observe.prometheus import exposition

# A prompt of 128k token ids is about 1 MiB of JSON; aiohttp's own limit of 1 MiB is too small.
MAX_BODY_BYTES = 64 << 20


class OpenAIApp:
    """The routes of one simulated server, which serves the name `model`.

    Each request passes the front end of `engine`. HTTP and Python take `late_s` seconds here, there
    and back: they are part of the front end that is simulated, and no addition to it.
    """

    def __init__(
        self, server: LiveServer, model: str, engine: Engine | None = None, late_s: float = 0.0
    ) -> None:
        self._server = server
        self._model = model
        self._front_end_s = (
            (engine.frontend_per_request_s, engine.frontend_per_token_s) if engine else (0.0, 0.0)
        )
        self._late_s = late_s
        self._numbers = count()
        self._queues: dict[Request, asyncio.Queue[int]] = {}
        kv = getattr(server.policy, "kv", None)
        self._block_size = int(getattr(kv, "block_size", 0) or 0)

    def app(self) -> web.Application:
        """Return the application of aiohttp."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_get("/health", self._health)
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "prompt", CompletionForm())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, "messages", ChatForm())

    async def _answer(self, http: web.Request, field: str, form: Form) -> web.StreamResponse:
        received_s = monotonic()
        try:
            body = _body(await http.text())
            self._check_model(body)
            tokens = form.prompt(body.get(field))
            own = self._request(body, tokens)
        except BadRequestError as error:
            return _error(400, str(error))
        self._queues[own] = asyncio.Queue()
        each_s, token_s = self._front_end_s
        due_s = received_s + each_s + token_s * own.input_tokens - self._late_s
        entered = self._server.submit(own, max(0.0, due_s - monotonic()))
        try:
            status = await asyncio.wrap_future(entered)
        except asyncio.CancelledError:  # its client has gone
            del self._queues[own]
            raise
        if status.startswith("refused"):
            del self._queues[own]
            return _error(400, status)
        stream = self._tokens(own)
        if not body.get("stream"):
            return await self._whole(own, stream, form)
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return await self._stream(http, own, stream, form, usage)

    def _check_model(self, body: Mapping[str, Any]) -> None:
        if body.get("model") != self._model:
            raise BadRequestError(
                f"model {body.get('model')!r} is not served; it is {self._model!r}"
            )

    def _request(self, body: Mapping[str, Any], tokens: Sequence[Any]) -> Request:
        """Make the request that the policy sees; its answer is as long as `max_tokens` says."""
        output_tokens = body.get("max_tokens", body.get("max_completion_tokens"))
        if type(output_tokens) is not int or output_tokens < 1:
            raise BadRequestError(
                f"max_tokens is {output_tokens!r}; give a whole number of 1 or more"
            )
        priority = body.get("priority") or 0
        return Request(
            next(self._numbers),
            0.0,
            len(tokens),
            output_tokens,
            output_tokens,
            priority if isinstance(priority, int) else 0,
            block_ids(tokens, self._block_size),
        )

    def deliver(self, tokens: list[tuple[Request, int]]) -> None:
        """Receive an iteration's tokens, in the event loop's thread."""
        for request, number in tokens:
            if request in self._queues:  # its client may have gone
                self._queues[request].put_nowait(number)

    async def _tokens(self, own: Request) -> AsyncIterator[int]:
        """Yield the numbers of tokens as they leave; a request whose client goes is abandoned."""
        left = own.output_tokens
        try:
            while left > 0 and (num_tokens := await self._queues[own].get()):
                left -= num_tokens
                yield num_tokens
        finally:
            del self._queues[own]
            if left > 0 and own.status in ("waiting", "running"):
                self._server.abandon(own)

    async def _whole(self, own: Request, stream: AsyncIterator[int], form: Form) -> web.Response:
        num_tokens = sum([number async for number in stream])
        document = self._document(own, form.object_name, [form.whole(num_tokens)])
        return web.json_response(document | {"usage": _usage(own)})

    async def _stream(
        self,
        http: web.Request,
        own: Request,
        stream: AsyncIterator[int],
        form: Form,
        usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)  # before the first token, which it would delay
        chunk = self._document(own, form.chunk_name, [])
        one = _event(chunk | {"choices": [form.piece(1, False)]})  # nearly all are alike
        sent = 0
        async for num_tokens in stream:
            sent += num_tokens
            done = sent >= own.output_tokens
            if num_tokens == 1 and not done:
                await response.write(one)
            else:
                await response.write(_event(chunk | {"choices": [form.piece(num_tokens, done)]}))
        if usage:
            await response.write(_event(chunk | {"usage": _usage(own)}))
        await response.write(b"data: [DONE]\n\n")
        return response

    def _document(self, own: Request, name: str, choices: list[Any]) -> dict[str, Any]:
        created = int(time())
        return {
            "id": f"busdoor-{own.request_id}",
            "object": name,
            "created": created,
            "model": self._model,
            "choices": choices,
        }

    async def _models(self, request: web.Request) -> web.Response:
        max_model_len = getattr(self._server.policy, "max_model_len", None)
        about = {"id": self._model, "object": "model", "owned_by": "busdoor"}
        return web.json_response(
            {"object": "list", "data": [about | {"max_model_len": max_model_len}]}
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=exposition(self._server, self._model))

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": f"busdoor {__version__}"})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()


def _usage(own: Request) -> dict[str, Any]:
    return {
        "prompt_tokens": own.input_tokens,
        "completion_tokens": own.output_tokens,
        "total_tokens": own.input_tokens + own.output_tokens,
        "prompt_tokens_details": {"cached_tokens": own.cached_tokens},
    }


def _body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": status}}, status=status)


def _event(document: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
