"""One request to an OpenAI-compatible server: sent, streamed, timed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from math import nan
from types import SimpleNamespace
from typing import Any, Literal

import aiohttp

Api = Literal["completions", "chat"]
PATHS: Mapping[Api, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_ERROR_LENGTH = 200  # characters of a server's message that a row keeps


@dataclass
class Answer:
    """What a client saw of one request. Times are seconds of the event loop's clock; NaN: never.

    It was handed to the network at `sent_s`; a new connection took `connected_s` (0 for one that
    was open). `chunks_s`: when each chunk with text arrived. Tokens are by the server's `usage`, -1
    where it gave none; `http_status` is 0 where there was no answer, `error` empty for one without
    fault; `ended`: whether it has ended, with or without a fault.
    """

    sent_s: float = nan
    connected_s: float = 0.0
    chunks_s: list[float] = field(default_factory=list)
    input_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    http_status: int = 0
    error: str = ""
    ended: bool = False

    @property
    def first_token_s(self) -> float:
        """When the first chunk with text arrived."""
        return self.chunks_s[0] if self.chunks_s else nan

    @property
    def finish_s(self) -> float:
        """When the last chunk with text arrived."""
        return self.chunks_s[-1] if self.chunks_s else nan


@dataclass(frozen=True)
class Target:
    """The server that is asked: its address without /v1, and a model that it serves.

    By `api`, token ids go to /v1/completions or text to /v1/chat/completions.
    """

    url: str
    model: str
    api: Api = "completions"

    def body(self, prompt: list[int] | str, output_tokens: int) -> dict[str, Any]:
        """Return the body of a request whose answer has exactly so many tokens.

        >>> body = Target("http://127.0.0.1:8000", "m").body([5, 6], 3)
        >>> body["max_tokens"], body["min_tokens"], body["ignore_eos"], body["prompt"]
        (3, 3, True, [5, 6])
        """
        asked: dict[str, Any] = {
            "model": self.model,
            "max_tokens": output_tokens,
            "min_tokens": output_tokens,  # of vLLM and SGLang; others ignore it
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.api == "chat":
            return asked | {"messages": [{"role": "user", "content": prompt}]}
        return asked | {"prompt": prompt}

    def data(self, prompt: list[int] | str, output_tokens: int) -> bytes:
        """Return that body as it is sent."""
        return json.dumps(self.body(prompt, output_tokens)).encode()


async def ask(
    session: aiohttp.ClientSession,
    target: Target,
    data: bytes,
    answer: Answer,
    *,
    request_id: str = "",
    timeout_s: float | None = None,
) -> None:
    """Send one request and read its answer to the end; a fault becomes the answer's `error`.

    `answer` is filled as it comes, so that it is there after an interruption. Connections are timed
    in a session with `trace_configs=[connection_times()]`. `data` is as `Target.data` makes it;
    `request_id` is sent as X-Request-Id, by which a server's own log can be joined; the client
    gives up `timeout_s` seconds after sending.
    """
    headers = {"X-Request-Id": request_id} if request_id else {}
    headers["Content-Type"] = "application/json"
    answer.sent_s = _now_s()
    try:
        async with asyncio.timeout(timeout_s):
            async with session.post(
                target.url + PATHS[target.api],
                data=data,
                headers=headers,
                trace_request_ctx=answer,
            ) as response:
                answer.http_status = response.status
                if response.status != 200:
                    answer.error = _message(await response.text())
                else:
                    await _read(response, answer)
    except TimeoutError:
        answer.error = f"timeout after {timeout_s:g} s"
    except aiohttp.ClientError as error:
        answer.error = f"{type(error).__name__}: {error}"[:_ERROR_LENGTH]
    answer.ended = True


async def _read(response: aiohttp.ClientResponse, answer: Answer) -> None:
    """Read a stream of chunks until its end."""
    done = False
    async for event in events(response.content):
        now_s = _now_s()
        if event == "[DONE]":
            done = True
            continue
        document = _document(event)
        if "error" in document:
            answer.error = _message(event)
            return
        if _has_text(document):
            answer.chunks_s.append(now_s)
        if document.get("usage"):
            _note_usage(answer, document["usage"])
    if not answer.chunks_s:
        kind = response.headers.get("Content-Type", "")
        answer.error = f"the answer is no stream of tokens (Content-Type {kind})"
    elif not done:
        answer.error = "the stream ended early"


async def events(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """Yield the data of each server-sent event."""
    async for line in content:
        if line.startswith(b"data:"):
            yield line[5:].strip().decode(errors="replace")


def _document(event: str) -> Mapping[str, Any]:
    try:
        document = json.loads(event)
    except ValueError:
        return {"error": event}
    return document if isinstance(document, dict) else {"error": event}


def _has_text(document: Mapping[str, Any]) -> bool:
    """Whether a chunk brings tokens: even with empty text, as parts of a character do."""
    for choice in document.get("choices") or ():
        delta = choice.get("delta", choice)
        if delta.get("content") or delta.get("reasoning_content") or "text" in delta:
            return True
    return False


def _note_usage(answer: Answer, usage: Mapping[str, Any]) -> None:
    answer.input_tokens = int(usage.get("prompt_tokens", -1))
    answer.output_tokens = int(usage.get("completion_tokens", -1))
    details = usage.get("prompt_tokens_details") or {}
    answer.cached_tokens = int(details.get("cached_tokens") or 0) if details else -1


def _message(text: str) -> str:
    """Return what a server says about a fault, in one line."""
    try:
        found = json.loads(text)
        error = found.get("error", found)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:_ERROR_LENGTH]


def connection_times() -> aiohttp.TraceConfig:
    """Return what times the connections of a session, into the answers of its requests."""
    config = aiohttp.TraceConfig()

    async def start(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
        context.start_s = _now_s()

    async def end(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
        answer = context.trace_request_ctx
        if isinstance(answer, Answer):
            answer.connected_s = _now_s() - context.start_s

    config.on_connection_create_start.append(start)
    config.on_connection_create_end.append(end)
    return config


def _now_s() -> float:
    return asyncio.get_running_loop().time()
