"""What attention reads and multiplies, where layers may attend to a window of the context only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from busdoor.core.batch import Batch


class Windows(NamedTuple):
    """Windowed layers of a model: the tokens that they attend to, and their share of all layers."""

    tokens: int
    share: float

    def decode_pairs(
        self, rows: int | NDArray[np.float64], pairs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Query-key pairs of decoding rows, of the mean layer; each row has their mean context.

        `pairs` are those of a layer that attends to everything.

        >>> Windows(tokens=100, share=0.5).decode_pairs(2, np.array([100.0, 400.0]))
        array([100., 300.])
        """
        return (1 - self.share) * pairs + self.share * np.minimum(pairs, rows * self.tokens)

    def prefill(self, batch: Batch) -> tuple[float, float]:
        """Keys read and query-key pairs of a batch's prefill, of the mean layer; padding in full.

        >>> from busdoor.core.request import Request
        >>> batch = Batch()
        >>> batch.add_chunk(Request(0, 0.0, 8, 1), 4, 4)           # queries after 4, 5, 6, 7 tokens
        >>> Windows(tokens=6, share=1.0).prefill(batch), batch.prefill_attention
        ((8.0, 23.0), 26.0)
        """
        keys, pairs = float(batch.prefill_context_tokens), batch.prefill_attention
        for chunk in batch.chunks:
            context, tokens = chunk.context_tokens, chunk.num_tokens
            keys -= self.share * max(0, context - self.tokens)
            # queries that see a full window
            beyond = min(tokens, max(0, context + tokens - self.tokens))
            last = context + tokens - self.tokens  # keys that the last of them does not see
            pairs -= self.share * beyond * (last - (beyond - 1) / 2)
        return keys, pairs

    def least_prefill(
        self, pairs: NDArray[np.float64], keys: NDArray[np.float64], tokens: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least query-key pairs and keys read, of the mean layer, where the chunks are not known.

        No query sees more than all `keys`, so that at least a window's share of its pairs is left;
        no chunk's context is longer than all contexts together.

        >>> one = np.array([26.0]), np.array([8.0]), np.array([4.0])      # as in `prefill`
        >>> [float(least[0]) for least in Windows(tokens=6, share=1.0).least_prefill(*one)]
        [19.5, 8.0]
        """
        kept = np.minimum(1.0, self.tokens / np.maximum(keys, 1))
        beyond = np.maximum(0, keys - tokens - self.tokens)
        return pairs * (1 - self.share + self.share * kept), keys - self.share * beyond
