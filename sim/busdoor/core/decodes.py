"""Decoding requests as running sums: an iteration costs what changed, not the batch size.

All of them advance by one token per iteration, so a single clock says where each one is: a request
that joined at clock j with c tokens in the cache has c + (clock - j) of them now, and ends at a
clock that is known when it joins. Which of them need a new KV block is as regular: those whose
context is a multiple of the block size, that is, one of `block_size` phases at each tick.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from busdoor.core.request import Request
from busdoor_workloads.memory_check import check_memory

PHASE_BYTES = 72  # an empty dict and its place in a list


class Decodes:
    """Requests that decode one token per iteration.

    Parameters
    ----------
    block_size : int
        Tokens in a KV block.

    Examples
    --------
    >>> decodes = Decodes(block_size=4)
    >>> r = Request(0, 0.0, input_tokens=3, output_tokens=6)
    >>> r.computed_tokens, r.generated_tokens = 3, 1
    >>> decodes.join(r)
    >>> decodes.until_finish(), decodes.new_blocks(5)   # tokens 3..7 are written: blocks begin at 4
    (5, 1)
    >>> decodes.advance(5); decodes.pop_finished()
    [Request(0, 3 in, 6 out, waiting)]
    >>> r.computed_tokens == r.kv_tokens
    True
    """

    __slots__ = ("_ending", "block_size", "clock", "context_tokens", "count", "phases")

    def __init__(self, block_size: int) -> None:
        check_memory(block_size * PHASE_BYTES, f"a block_size of {block_size:,}")
        self.block_size = block_size
        self.clock = 0
        self.count = 0
        self.context_tokens = 0
        # phases[(context - clock) % block_size]: the requests in it, in order of joining.
        self.phases: list[dict[Request, None]] = [{} for _ in range(block_size)]
        # (finish clock, admission index, request); stale where it has left
        self._ending: list[tuple[int, int, Request]] = []

    def join(self, request: Request) -> None:
        """Add a request whose `computed_tokens` and `generated_tokens` are right at this clock."""
        request.decode_clock = self.clock
        request.finish_clock = finish = (
            self.clock + request.output_tokens - request.generated_tokens
        )
        self.phases[(request.computed_tokens - self.clock) % self.block_size][request] = None
        self.count += 1
        self.context_tokens += request.computed_tokens
        heappush(self._ending, (finish, request.admission_index, request))

    def leave(self, request: Request) -> None:
        """Remove a request, and write its progress into it."""
        del self.phases[(request.computed_tokens - request.decode_clock) % self.block_size][request]
        passed = self.clock - request.decode_clock
        request.computed_tokens += passed
        request.generated_tokens += passed
        request.decode_clock = request.finish_clock = -1
        self.count -= 1
        self.context_tokens -= request.computed_tokens

    def context_of(self, request: Request) -> int:
        """Tokens of a decoding request that are in the cache now."""
        return request.computed_tokens + self.clock - request.decode_clock

    def advance(self, repeat: int) -> None:
        """Advance by `repeat` iterations."""
        self.clock += repeat
        self.context_tokens += repeat * self.count

    def until_finish(self) -> float:
        """Iterations until the next request ends; infinity when none decodes."""
        ending = self._ending
        while ending and ending[0][2].finish_clock != ending[0][0]:
            heappop(ending)
        return ending[0][0] - self.clock if ending else inf

    def pop_finished(self) -> list[Request]:
        """Remove and return requests that just made their last token, in order of admission."""
        finished: list[Request] = []
        ending, clock = self._ending, self.clock
        while ending and ending[0][0] <= clock:
            finish_clock, _, request = heappop(ending)
            if request.finish_clock == finish_clock:
                self.leave(request)
                finished.append(request)
        return finished

    def crossing(self, ahead: int = 0) -> dict[Request, None]:
        """Requests that begin a new block in the iteration that is `ahead` of the next."""
        return self.phases[-(self.clock + ahead) % self.block_size]

    def new_blocks(self, repeat: int, ahead: int = 0) -> int:
        """KV blocks that `repeat` iterations begin, from the one that is `ahead` of the next."""
        if repeat == 1:
            return len(self.phases[-(self.clock + ahead) % self.block_size])
        cycles, rest = divmod(repeat, self.block_size)
        blocks = cycles * self.count
        if rest:
            # Iteration after iteration the phase falls by one; count them upwards from the last.
            low = -(self.clock + ahead + rest - 1) % self.block_size
            phases = self.phases[low : low + rest]
            blocks += sum(map(len, phases))
            if len(phases) < rest:
                blocks += sum(map(len, self.phases[: rest - len(phases)]))
        return blocks

    def affordable(self, num_blocks: int, ahead: int = 0) -> float:
        """How many iterations `num_blocks` blocks suffice for, from `ahead` of the next on."""
        if not self.count:
            return inf
        cycles, left = divmod(num_blocks, self.count)
        repeat = cycles * self.block_size
        while (needed := len(self.crossing(ahead + repeat))) <= left:
            left -= needed
            repeat += 1
        return repeat
