"""A request, from its arrival to its last token."""

from __future__ import annotations

from math import nan

from busdoor.core.prefixes import BlockIds


class Request:
    """What a client asked for, and how far the server has come with it.

    Parameters
    ----------
    request_id : int
        The trace's row.
    arrival_s : float
        Seconds from the trace's start.
    input_tokens, output_tokens : int
        Prompt length, and the tokens that will be generated (known to the executor, not to a
        policy's reservations).
    max_output_tokens : int
        The cap that the client asked for, which a reserving policy reserves; 0 where it asked for
        none.
    priority : int
        Smaller is served first.
    hash_ids : BlockIds or tuple of int
        Ids of the prompt's blocks; equal ids are equal blocks. Empty: shares nothing.
    session_id : int
        The conversation it belongs to; -1 for none.

    Attributes
    ----------
    computed_tokens : int
        Tokens whose keys and values are in the KV cache; of a decoding request, as of the last time
        it was touched (a policy knows the exact number, see `busdoor.core.decodes.Decodes`).
    generated_tokens : int
        Tokens answered so far; likewise.
    first_scheduled_s, first_token_s, finish_s, released_s : float
        When it first entered a batch, when its first and last token left the server, when its slot
        became free (later than `finish_s` in a static batch). NaN until then.
    num_preemptions, cached_tokens : int
        Times it was preempted; prompt tokens found in the prefix cache at first admission.
    context_ids : BlockIds or tuple of int
        Ids of the blocks of prompt and answer together, where the session's next prompt repeats
        both; else empty.
    status : str
        waiting, running, finished, abandoned, or "refused: <reason>".
    replica : int
        The server that it was sent to.

    Examples
    --------
    >>> r = Request(0, 0.0, 100, 10)
    >>> r.kv_tokens          # the last token is never fed back
    109
    """

    __slots__ = (
        "admission_index",
        "arrival_s",
        "cached_tokens",
        "computed_tokens",
        "context_ids",
        "decode_clock",
        "finish_clock",
        "finish_s",
        "first_scheduled_s",
        "first_token_s",
        "generated_tokens",
        "hash_ids",
        "input_tokens",
        "kv",
        "last_token_s",
        "max_output_tokens",
        "num_preemptions",
        "output_tokens",
        "priority",
        "released_s",
        "replica",
        "request_id",
        "session_id",
        "status",
    )

    def __init__(
        self,
        request_id: int,
        arrival_s: float,
        input_tokens: int,
        output_tokens: int,
        max_output_tokens: int = 0,
        priority: int = 0,
        hash_ids: BlockIds | tuple[int, ...] = (),
        session_id: int = -1,
    ) -> None:
        self.request_id = request_id
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.max_output_tokens = max_output_tokens
        self.priority = priority
        self.hash_ids = hash_ids
        self.session_id = session_id
        self.context_ids: BlockIds | tuple[int, ...] = ()
        self.computed_tokens = 0
        self.generated_tokens = 0
        self.first_scheduled_s = self.first_token_s = self.last_token_s = nan
        self.finish_s = self.released_s = nan
        self.num_preemptions = 0
        self.cached_tokens = 0
        self.status = "waiting"
        self.replica = 0
        # Owned by the policy and its KV manager while the request runs.
        self.decode_clock = -1  # the decode clock when it joined the decodes; -1: not decoding
        self.finish_clock = -1  # the decode clock at which its last token is out
        self.kv: object = None  # what the KV manager keeps for it
        self.admission_index = -1  # its place in the policy's order of admission

    @property
    def known_tokens(self) -> int:
        """Prompt plus output so far: what a prefill computes (again after a preemption)."""
        return self.input_tokens + self.generated_tokens

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV needed to its end: the last token is never fed back."""
        return self.input_tokens + self.output_tokens - 1

    def __repr__(self) -> str:
        return (
            f"Request({self.request_id}, {self.input_tokens} in, {self.output_tokens} out, "
            f"{self.status})"
        )
