"""The one list of held-out runs: lengths, load and policy of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

# lengths in proportion to the machine's longest request, for `busdoor twin` in a few minutes
SIZED = "sized"
_TIGHT_SHARE = 0.1  # of the measured blocks, for runs that preempt


@dataclass(frozen=True)
class Case:
    """One held-out run of a calibration: lengths, load and policy.

    Attributes
    ----------
    name : str
        Name of the run's folder; with sized lengths only the part that differs.
    lengths : str
        "sized", "bimodal", or a workload that `busdoor_workloads.resolve` knows.
    load : float
        Share of the capacity of `bound`; infinite: all requests at once.
    policy : str
        Name of the policy.
    fields : mapping
        Settings of the policy, beside the machine's limits.
    bound : str
        Policy whose capacity `load` refers to; by default `policy`.
    blocks_share : float
        Share of the machine's KV blocks.
    steady : bool
        Whether the run begins in the steady state of its load, see `steady_start`; else with an
        empty server.
    """

    name: str
    lengths: str
    load: float
    policy: str = "vllm"
    fields: Mapping[str, Any] = field(default_factory=dict)
    bound: str = ""
    blocks_share: float = 1.0
    steady: bool = False


# Every held-out run. Those of `busdoor twin` first: static batching where it can keep up,
# continuous batching up to the edge of saturation. Then the longer list behind gpu/results (`python
# -m benchmarks.gpu.campaign`).
HELD_OUT = (
    Case("burst-vllm", SIZED, inf, bound="static"),
    Case("burst-static", SIZED, inf, "static"),
    Case("0.40-vllm", SIZED, 0.4, bound="static"),
    Case("0.40-static", SIZED, 0.4, "static"),
    Case("0.75-vllm", SIZED, 0.75, bound="static"),
    Case("0.75-static", SIZED, 0.75, "static"),
    Case("0.50", SIZED, 0.5),
    Case("0.75", SIZED, 0.75),
    Case("0.90", SIZED, 0.9),
    Case("azure-conv-0.50", "azure-conv", 0.5),
    Case("azure-conv-0.75", "azure-conv", 0.75),
    Case("azure-conv-0.90", "azure-conv", 0.9),
    Case("azure-conv-1.15", "azure-conv", 1.15),
    Case("anyscale-burst-static", "anyscale_512", inf, "static", bound="static"),
    Case("anyscale-burst-vllm", "anyscale_512", inf, bound="static"),
    Case("anyscale-0.60-static", "anyscale_512", 0.6, "static", bound="static"),
    Case("anyscale-0.60-vllm", "anyscale_512", 0.6, bound="static"),
    Case("azure-conv-tight", "azure-conv", inf, blocks_share=_TIGHT_SHARE),
    Case("azure-code-0.70", "azure-code", 0.7),
    Case("bimodal-burst", "bimodal", inf),
    Case("azure-conv-0.75-prefill-first", "azure-conv", 0.75, "prefill_first", bound="vllm"),
    Case("azure-conv-0.75-whole-prompts", "azure-conv", 0.75, fields={"chunked_prefill": False}),
    Case("azure-conv-0.75-steady", "azure-conv", 0.75, steady=True),
    Case("azure-conv-0.90-steady", "azure-conv", 0.9, steady=True),
    Case(
        "anyscale-burst-static-padded",
        "anyscale_512",
        inf,
        "static",
        {"decode_reads": "padded"},
        bound="static",
    ),
    Case("anyscale-burst-orca", "anyscale_512", inf, "orca", bound="static"),
)
