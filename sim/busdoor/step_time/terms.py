"""Terms of the calibrated step time, each once: part, factor, what a log must show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Work(NamedTuple):
    """What an iteration, or each row of a table, asks of device and host: numbers or arrays.

    `rows`: requests that decode, and finished rows of a static batch that still compute; `chunks`:
    pieces of prefill; `positions`: tokens that the GEMMs compute, padding and that of a CUDA graph
    included; `eager`: 1 where the iteration is no CUDA graph, or there are none and it has prefill,
    else 0; `prefill_pairs`: query-key pairs, Σ n(c + (n + 1)/2); `decode_keys`: Σ (c + 1).
    """

    rows: Any
    chunks: Any
    positions: Any
    eager: Any
    prefill_pairs: Any
    decode_keys: Any

    @property
    def mixed(self) -> Any:
        """1 where there is prefill, beside which decodes are another kernel's work; else 0."""
        return 1.0 * (self.chunks > 0)


@dataclass(frozen=True)
class Term:
    """One coefficient of the calibrated step time, in seconds per unit of its feature.

    Attributes
    ----------
    name : str
        The field of `CalibratedStepTime`.
    part : {"device", "host"}
        Whose time it is.
    meaning : str
        What it is the seconds for; "more": beyond what other terms have for it.
    feature : callable
        What it multiplies.
    remedy : str
        What to put into a log so that it shows.
    only_graphs : bool
        Whether it is separate from the others only where decodes alone run as CUDA graphs.
    scales_with : {"", "keys", "matrix"}
        What `transfer` multiplies it by on another GPU: the ratio of the bandwidth that attention
        reaches, or of the matrix rate; "" for neither. (`base_s` and the first segment of
        `per_token_s` follow rules of their own.)
    segmented : bool
        Whether it has one coefficient per segment of its feature, in a tuple: GEMMs bend over the
        positions.
    """

    name: str
    part: Literal["device", "host"]
    meaning: str
    feature: Callable[[Work], Any]
    remedy: str
    only_graphs: bool = False
    scales_with: Literal["", "keys", "matrix"] = ""
    segmented: bool = False


_SIZES = "iterations of several sizes"
_PIECES = "iterations with one and with several pieces of prefill"
_PREFILLS = "iterations with and without prefill"

TERMS: tuple[Term, ...] = (
    Term(
        "base_s",
        "device",
        "any iteration: read the weights once",
        lambda work: 1.0,
        _SIZES,
    ),
    Term(
        "eager_s",
        "device",
        "an iteration that is no CUDA graph",
        lambda work: work.eager,
        _PREFILLS,
    ),
    Term("per_chunk_s", "device", "each piece of prefill", lambda work: work.chunks, _PIECES),
    Term(
        "per_request_s",
        "device",
        "each request in the batch",
        lambda work: work.rows + work.chunks,
        "as many requests with more and with fewer tokens",
    ),
    Term(
        "per_token_s",
        "device",
        "each position computed",
        lambda work: work.positions,
        "iterations with few and with many tokens",
        scales_with="matrix",
        segmented=True,
    ),
    Term(
        "per_prefill_pair_s",
        "device",
        "each query-key pair of a prefill's attention",
        lambda work: work.prefill_pairs,
        "short and long prompts",
        scales_with="matrix",
    ),
    Term(
        "per_context_s",
        "device",
        "each key that a decode reads",
        lambda work: work.decode_keys,
        "decodes with short and with long contexts",
        scales_with="keys",
    ),
    Term(
        "per_mixed_request_s",
        "device",
        "each decode beside a prefill, more",
        lambda work: work.mixed * work.rows,
        "prefill beside few and beside many decodes",
        only_graphs=True,
    ),
    Term(
        "per_mixed_context_s",
        "device",
        "each key of such a decode, more",
        lambda work: work.mixed * work.decode_keys,
        "prefill beside decodes with short and with long contexts",
        only_graphs=True,
        scales_with="keys",
    ),
    Term("host_s", "host", "submit an iteration", lambda work: 1.0, _SIZES),
    Term(
        "host_eager_s",
        "host",
        "launch it kernel by kernel, more",
        lambda work: work.eager,
        _PREFILLS,
        only_graphs=True,
    ),
    Term("host_per_chunk_s", "host", "each piece of prefill", lambda work: work.chunks, _PIECES),
    Term(
        "host_per_request_s",
        "host",
        "each request",
        lambda work: work.rows + work.chunks,
        "small and large batches",
    ),
)
TERM: Mapping[str, Term] = {term.name: term for term in TERMS}


def term_names(part: str, graphs: bool) -> tuple[str, ...]:
    """Return the names of a part's terms, with those that only CUDA graphs show if asked for.

    >>> term_names("host", graphs=False)
    ('host_s', 'host_per_chunk_s', 'host_per_request_s')
    """
    return tuple(
        term.name for term in TERMS if term.part == part and (graphs or not term.only_graphs)
    )
