"""The host's side of the slot table: which request holds which slot, and what a step changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.policies.base import Policy


class EngineError(RuntimeError):
    """The engine cannot go on; the message is one sentence."""


@dataclass
class Step:
    """One step on the device, as the host decided it.

    Attributes
    ----------
    left : list of (Request, int, bool)
        Request that leaves a slot, the slot, and whether to keep its tokens because it will come
        back.
    entered : list of (Request, int, int, int)
        Request that enters a slot, the slot, its tokens in the cache, its tokens known.
    padding : list of (int, int)
        Slot whose decodes read keys of padding from now on, and their number.
    blocks : list of (int, int, int)
        New entries of the block table: slot, index, block.
    slots, num_tokens, num_wanted, contexts : list of int
        Of each row: the slot, the tokens computed, those without padding, the tokens in the cache
        before.
    """

    left: list[tuple[Request, int, bool]] = field(default_factory=list)
    entered: list[tuple[Request, int, int, int]] = field(default_factory=list)
    padding: list[tuple[int, int]] = field(default_factory=list)
    blocks: list[tuple[int, int, int]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    num_tokens: list[int] = field(default_factory=list)
    num_wanted: list[int] = field(default_factory=list)
    contexts: list[int] = field(default_factory=list)

    @classmethod
    def of_padding(cls, num_rows: int, num_tokens: int) -> Step:
        """Return a step of rows without a request: each computes so many tokens, writes none.

        >>> Step.of_padding(2, 1).decodes
        True
        """
        each = [num_tokens] * num_rows
        return cls(slots=[-1] * num_rows, num_tokens=each, num_wanted=each, contexts=[0] * num_rows)

    @property
    def decodes(self) -> bool:
        """Whether every row computes one token."""
        return len(self.slots) == sum(self.num_tokens)


class PagedBlocks:
    """The policy's own blocks, which it frees itself."""

    def __init__(self, kv: PagedKV) -> None:
        self.num_blocks = kv.num_blocks
        self.block_table = kv.block_table

    def free(self, request: Request) -> None:
        """Nothing to do."""


class ContiguousBlocks:
    """Blocks for a policy that reserves contiguous ranges: for each the lowest free blocks.

    A static batch, alone in memory, so gets the identity block table. A range may begin inside a
    block, so there is one block per slot more than the policy's tokens fill.
    """

    def __init__(self, policy: Policy, kv: ContiguousKV) -> None:
        self._policy = policy
        self._kv = kv
        self.num_blocks = kv.num_blocks + policy.num_slots
        self._free = list(range(self.num_blocks))
        self._held: dict[Request, list[int]] = {}

    def block_table(self, request: Request, num_tokens: int) -> list[int]:
        """Return the ids of all blocks of the request's range; the first call allocates them."""
        if request not in self._held:
            reserved = max(num_tokens, self._reserved_tokens(request))
            self._held[request] = [
                heappop(self._free) for _ in range(self._kv.blocks_for(reserved))
            ]
        return self._held[request]

    def _reserved_tokens(self, request: Request) -> int:
        """Return the tokens of the request's own range, or of its share of the batch's range."""
        try:
            return self._kv.reserved(request)[1]
        except KeyError:
            return self._kv.reserved(self._policy)[1] // self._policy.num_running

    def free(self, request: Request) -> None:
        """Free the request's blocks."""
        for block in self._held.pop(request):
            heappush(self._free, block)


class Slots:
    """Assigns slots to the requests of each batch, and lists what the device does not know yet.

    A padded prompt is computed in full, with the padding behind it. The answer is then written over
    the padding, to which no token attends. So a static batch costs what its padding computes, does
    not read the padding's keys afterwards (`decode_reads = "own"`), and answers as if there were no
    padding. With `decode_reads = "padded"` each decode reads as many keys as the longest row has,
    which costs what a dense attention under a mask would read; there is no mask, so the tokens are
    then not the model's.

    Parameters
    ----------
    policy : Policy
        Fresh; it supplies items and block tables.
    row_tokens : int
        Most tokens of a slot.
    """

    def __init__(self, policy: Policy, row_tokens: int) -> None:
        self.policy = policy
        self._reads_padding: bool = getattr(policy, "reads_padding", False)
        self.row_tokens = row_tokens
        kv = getattr(policy, "kv", None)
        if isinstance(kv, PagedKV):
            self.source: PagedBlocks | ContiguousBlocks = PagedBlocks(kv)
        elif isinstance(kv, ContiguousKV):
            self.source = ContiguousBlocks(policy, kv)
        else:
            raise EngineError(
                f"{type(policy).__name__}.kv is a {type(kv).__name__}; the engine places tokens by "
                "a PagedKV or a ContiguousKV"
            )
        self.block_size = kv.block_size
        self._slot_of: dict[Request, int] = {}
        self._free_slots = list(range(policy.num_slots))
        heapify(self._free_slots)
        self._computed = [0] * policy.num_slots
        # entries of each slot's block table on the device
        self._num_blocks = [0] * policy.num_slots
        self._padding = [0] * policy.num_slots  # keys of padding that each slot's decodes read
        self._unread: dict[int, int] = {}  # padding that was computed in the last step, by slot

    def pack(self, batch: Batch) -> Step:
        """Return the step of a batch that was just scheduled."""
        step = Step()
        items = list(self.policy.items(batch))
        self._let_go(batch, {request for request, _ in items}, step)
        step.padding = list(self._unread.items())
        self._unread.clear()
        contexts = {chunk.request: chunk.context_tokens for chunk in batch.chunks}
        # Padding outside idle rows belongs to prompts: each is made as long as the longest.
        padded = batch.num_padded_tokens - batch.num_idle_rows
        width = (batch.num_prefill_tokens + padded) // len(items) if padded else 0
        for request, wanted in items:
            slot = self._slot_of.get(request)
            if slot is None:
                slot = self._enter(request, contexts[request], step)
            context = self._computed[slot]
            if contexts.get(request, context) != context:
                raise EngineError(
                    f"{request} has {context} tokens in the cache; {type(self.policy).__name__} "
                    f"takes it for {contexts[request]}"
                )
            num_tokens = max(wanted, width)
            self._cover(request, slot, context + num_tokens + self._padding[slot], step)
            if self._reads_padding and num_tokens > wanted:
                self._padding[slot] = self._unread[slot] = num_tokens - wanted
            self._computed[slot] = context + wanted
            step.slots.append(slot)
            step.num_tokens.append(num_tokens)
            step.num_wanted.append(wanted)
            step.contexts.append(context)
        return step

    def leave_all(self) -> Step:
        """Release every request."""
        step = Step()
        for request in list(self._slot_of):
            self._leave(request, step)
        return step

    def _let_go(self, batch: Batch, present: set[Request], step: Step) -> None:
        for request in batch.preempted:
            if request in self._slot_of:
                self._leave(request, step, comes_back=True)
        if len(self._slot_of) + len(batch.admitted) > len(present):
            gone = [r for r in self._slot_of if r not in present and r.status != "running"]
            for request in gone:
                self._leave(request, step)

    def _leave(self, request: Request, step: Step, comes_back: bool = False) -> None:
        slot = self._slot_of.pop(request)
        self._unread.pop(slot, None)
        self.source.free(request)
        heappush(self._free_slots, slot)
        step.left.append((request, slot, comes_back))

    def _enter(self, request: Request, cached_tokens: int, step: Step) -> int:
        if request.kv_tokens > self.row_tokens:
            raise EngineError(
                f"{request} needs {request.kv_tokens} tokens; the engine was made for "
                f"{self.row_tokens}"
            )
        if not self._free_slots:
            raise EngineError(
                f"{type(self.policy).__name__} runs more than its num_slots = "
                f"{self.policy.num_slots} requests"
            )
        slot = self._slot_of[request] = heappop(self._free_slots)
        self._computed[slot] = cached_tokens
        self._num_blocks[slot] = self._padding[slot] = 0
        step.entered.append((request, slot, cached_tokens, request.known_tokens))
        return slot

    def _cover(self, request: Request, slot: int, num_tokens: int, step: Step) -> None:
        """Add to the step the blocks of this many tokens that the device lacks."""
        had, needed = self._num_blocks[slot], -(-num_tokens // self.block_size)
        if needed > had:
            ids = self.source.block_table(request, num_tokens)
            step.blocks += [(slot, i, ids[i]) for i in range(had, needed)]
            self._num_blocks[slot] = needed
