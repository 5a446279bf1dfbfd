"""The two forms of OpenAI's API: completions of token ids, chats of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class BadRequestError(ValueError):
    """What the client asked for cannot be served; the sentence goes back with status 400."""


class Form(Protocol):
    """How a prompt is read, and how an answer is written."""

    object_name: str
    chunk_name: str

    def prompt(self, given: Any, /) -> Sequence[Any]:
        """Return the prompt's tokens."""

    def piece(self, num_tokens: int, done: bool) -> dict[str, Any]:
        """Return the choice of one chunk."""

    def whole(self, num_tokens: int) -> dict[str, Any]:
        """Return the choice of a whole answer."""


class CompletionForm:
    """The form of `/v1/completions`."""

    object_name = chunk_name = "text_completion"

    def prompt(self, prompt: Any) -> Sequence[Any]:
        """Return the prompt's tokens: ids as they are, a text word by word."""
        if isinstance(prompt, str) and prompt.split():
            return prompt.split()
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
            prompt = prompt[0]
        if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
            return prompt
        raise BadRequestError("prompt must be a text or one list of token ids")

    def piece(self, num_tokens: int, done: bool) -> dict[str, Any]:
        """Return the choice of one chunk."""
        return {"index": 0, "text": " w" * num_tokens, "finish_reason": "length" if done else None}

    def whole(self, num_tokens: int) -> dict[str, Any]:
        """Return the choice of a whole answer."""
        return self.piece(num_tokens, done=True)


class ChatForm:
    """The form of `/v1/chat/completions`."""

    object_name, chunk_name = "chat.completion", "chat.completion.chunk"

    def prompt(self, messages: Any) -> Sequence[Any]:
        """Return the words of all messages."""
        if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
            raise BadRequestError("messages must be a list of objects with role and content")
        words = [word for one in messages for word in str(one.get("content", "")).split()]
        if not words:
            raise BadRequestError("messages has no text")
        return words

    def piece(self, num_tokens: int, done: bool) -> dict[str, Any]:
        """Return the choice of one chunk."""
        delta = {"role": "assistant", "content": " w" * num_tokens}
        return {"index": 0, "delta": delta, "finish_reason": "length" if done else None}

    def whole(self, num_tokens: int) -> dict[str, Any]:
        """Return the choice of a whole answer."""
        message = {"role": "assistant", "content": " w" * num_tokens}
        return {"index": 0, "message": message, "finish_reason": "length"}


def block_ids(tokens: Sequence[Any], block_size: int) -> tuple[int, ...]:
    """Return a name per block of a prompt; equal blocks have equal names.

    >>> one, other = block_ids([1, 2, 3, 4, 5], 2), block_ids([1, 2, 3, 9], 2)
    >>> one[0] == other[0], one[1] == other[1], len(one)
    (True, False, 3)
    """
    if not block_size:
        return ()
    starts = range(0, len(tokens), block_size)
    return tuple(hash(tuple(tokens[start : start + block_size])) for start in starts)
