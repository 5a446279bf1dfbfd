"""How much KV memory a server has, as the table [kv] of a configuration says."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.core.registry import in_one_sentence
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.kv.prefix_cache import PrefixCachedKV


@in_one_sentence
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KVConfig:
    """KV memory of one replica.

    Parameters
    ----------
    num_blocks : int
        Usable KV blocks.
    max_model_len : int
        Longest input + output of a request, in tokens: a token of each at least.
    block_size : int
        Tokens in a block; 16 is vLLM's default.

    Examples
    --------
    >>> KVConfig(num_blocks=400, max_model_len=2048).num_tokens
    6400
    """

    num_blocks: PositiveInt
    max_model_len: Annotated[int, Field(ge=2)]
    block_size: PositiveInt = 16

    @property
    def num_tokens(self) -> int:
        """Tokens that the blocks hold: the slots of a cache without pages."""
        return self.num_blocks * self.block_size

    def paged(self, prefix_caching: bool = False) -> PagedKV:
        """Return the memory as blocks, with or without a prefix cache."""
        return (PrefixCachedKV if prefix_caching else PagedKV)(self.num_blocks, self.block_size)

    def contiguous(self) -> ContiguousKV:
        """Return the memory as one range of token slots."""
        return ContiguousKV(self.num_tokens, self.block_size)
