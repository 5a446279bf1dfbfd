"""How a trace is sent to a server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from busdoor.observe.client import Api

# Enough to open a connection, and to compile what a server compiles on first use.
WARM_UP = 3


@dataclass(frozen=True)
class How:
    """How a trace is sent: by default to the server's only model, each request by itself.

    By `api`, token ids go to /v1/completions or text to /v1/chat/completions. `max_in_flight` caps
    open requests, and turns an open loop into a closed one where it is reached; `static` is the
    batch size of a static server that is emulated: all in, all out. `warm_up` requests are sent
    before and left out; `seed` is of the prompts, together with the run's own name; the API `key`
    is taken from OPENAI_API_KEY if it is set there, and written nowhere. ValueError for a cap or a
    size below 1.
    """

    model: str | None = None
    api: Api = "completions"
    max_in_flight: int | None = None
    static: int | None = None
    warm_up: int = WARM_UP
    seed: int = 0
    key: str | None = field(default_factory=lambda: os.environ.get("OPENAI_API_KEY"), repr=False)

    def __post_init__(self) -> None:
        for name in ("max_in_flight", "static"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be 1 or more")
