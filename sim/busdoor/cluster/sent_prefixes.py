"""Which beginnings of prompts a router has sent where."""

from __future__ import annotations

from busdoor.core.prefixes import NO_IDS, BlockIds, Prefix


class SentPrefix(Prefix):
    """A beginning of prompts, and the servers that were sent it, a bit each.

    >>> root = SentPrefix(NO_IDS, 0, 0, None)
    >>> for server, ids in enumerate([(1, 2, 3), (1, 2, 9)]):
    ...     root.send(BlockIds.of(ids), *root.find(BlockIds.of(ids), 3), server)
    >>> [(prefix.stop, bin(prefix.servers)) for prefix in root.find(BlockIds.of((1, 2, 3)), 3)[0]]
    [(2, '0b11'), (3, '0b1')]
    """

    __slots__ = ("servers",)

    def __init__(self, ids: BlockIds, start: int, stop: int, parent: Prefix | None) -> None:
        super().__init__(ids, start, stop, parent)
        self.servers = 0

    def send(self, ids: BlockIds, path: list[SentPrefix], known: int, server: int) -> None:
        """Record that a server is sent a prompt, of which `path` has the first `known` blocks."""
        if path and path[-1].stop > known:
            rest = path.pop()
            path.append(SentPrefix(NO_IDS, 0, 0, None))
            path[-1].servers = rest.servers
            rest.split(known, path[-1])
        if known < len(ids):
            path.append(SentPrefix(ids, known, len(ids), path[-1] if path else self))
        for prefix in path:
            prefix.servers |= 1 << server
