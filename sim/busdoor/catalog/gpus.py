"""GPUs: memory, bandwidth, matrix rates, and how much of them kernels reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import Dtype
from busdoor.catalog.tables import look_up, read_tables
from busdoor.core.names import Label
from busdoor.core.registry import checked

GIB = 2**30
Share = Annotated[float, Field(gt=0, le=1)]
PCIE_4_BYTES_PER_S = 32e9  # x16, one direction: what a GPU has that names no link
LAYER_S = 32e-6  # BLIS's fit on an H100: 32.1 µs (inference-sim)
# Time of vLLM's fused experts beyond reading them: 25 (Qwen3-30B-A3B) to 42 µs, median 30, on an
# H100 and H200 (aiconfigurator moe sweeps, vLLM 0.24: latency over 1 to 128 tokens against the
# expected distinct experts' bytes).
EXPERTS_S = 30e-6


def by_format(rate: object) -> object:
    """Return rates by number format; a number alone is the bf16 rate."""
    return {"bf16": rate} if isinstance(rate, int | float) and not isinstance(rate, bool) else rate


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GPU:
    """A GPU as a roofline sees it.

    Parameters
    ----------
    name : str
        Name in the catalogue.
    memory_gib : float
        Memory that a program sees (PyTorch's total, a little under the label), in GiB.
    bandwidth_bytes_per_s : float
        Datasheet memory bandwidth, bytes/s.
    flop_per_s : float or dict of str to float
        Dense matrix rates by number format, FLOP/s; `bf16` must be there, and a number is its
        rate.
    link_bytes_per_s : float
        GPU to GPU bandwidth in one direction, bytes/s, all links together; PCIe 4 unless given.
    memory_efficiency : float
        Share of the bandwidth that reading weights reaches.
    kv_efficiency : float
        Share of the bandwidth that attention reaches, reading the KV cache.
    expert_efficiency : dict of str to float
        Share of the bandwidth that reading routed experts of a format reaches, where that is
        another than weights reach: 4-bit weights that are expanded on the fly.
    gemm_efficiency : float
        Share of the matrix rate that large GEMMs reach inside a model.
    layer_s : float
        Launch gaps and ramps of one layer's kernels, seconds.
    experts_s : float
        The same of one layer's routed experts, which are several kernels, seconds.
    tdp_w : float
        Power limit, watts; 0 where not given. Energy follows from it.
    price_per_hour : float, optional
        Of one GPU: where `sources` has one, a list price. A run counts it for a GPU of your own
        only.
    aliases : tuple of str
        Other names.
    sources : dict of str to str
        Where each figure is from.

    Examples
    --------
    >>> card = gpu("H100")
    >>> card.name, card.bandwidth_bytes_per_s, card.rate("fp8")
    ('h100', 3350000000000.0, 1978900000000000.0)
    """

    name: Label
    memory_gib: PositiveFloat
    bandwidth_bytes_per_s: PositiveFloat
    flop_per_s: Annotated[dict[Dtype, PositiveFloat], BeforeValidator(by_format)]
    link_bytes_per_s: PositiveFloat = PCIE_4_BYTES_PER_S
    memory_efficiency: Share = 0.9
    kv_efficiency: Share = 0.9
    expert_efficiency: dict[Dtype, Share] = Field(default_factory=dict)
    gemm_efficiency: Share = 0.75
    layer_s: NonNegativeFloat = LAYER_S
    experts_s: NonNegativeFloat = EXPERTS_S
    tdp_w: NonNegativeFloat = 0.0
    price_per_hour: PositiveFloat | None = None
    aliases: tuple[str, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if "bf16" not in self.flop_per_s:
            raise ValueError(
                f"flop_per_s of {self.name} has no bf16 rate, which every other format falls back "
                f"on"
            )

    @property
    def memory_bytes(self) -> float:
        """Memory that a program sees, bytes."""
        return self.memory_gib * GIB

    def to_table(self) -> dict[str, Any]:
        """Return its fields as a table of a configuration has them."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def rate(self, weight_dtype: Dtype) -> float:
        """Dense matrix rate for weights of a format, FLOP/s.

        Where the GPU cannot multiply the format (fp8 on Ampere, int4 anywhere), the weights are
        expanded to 16 bits on the fly, as Marlin kernels do, and multiplied at that rate.

        Examples
        --------
        >>> gpu("a100-80gb").rate("fp8") == gpu("a100-80gb").rate("bf16")
        True
        """
        rates = self.flop_per_s
        return rates["bf16"] if weight_dtype == "int4" else rates.get(weight_dtype, rates["bf16"])


def gpu(name: str | Mapping[str, Any] | GPU) -> GPU:
    """Look up a GPU, or make one of a table.

    Parameters
    ----------
    name : str, mapping or GPU
        A name or alias in any case; or a table of `GPU`'s fields, filled from the catalogue where
        its `name` is known (so that `{"name": "h100", "memory_gib": 93.0}` is an H100 with more
        memory).

    Raises
    ------
    ValueError
        If the name is not known (the message has the nearest one), or the table is wrong.

    Examples
    --------
    >>> gpu("NVIDIA H100-SXM").memory_gib
    79.11
    >>> gpu({"memory_gib": 24, "bandwidth_bytes_per_s": 1e12, "flop_per_s": 150e12}).rate("fp8")
    150000000000000.0
    >>> gpu("h1000")
    Traceback (most recent call last):
    ValueError: 'h1000' is not a GPU of the catalogue; did you mean 'h100'? (known: a10, ...)
    """
    if isinstance(name, GPU):
        return name
    table = look_up(read_tables("gpus.toml"), "a GPU of the catalogue", name)
    return checked(GPU, table, "[gpu]")


def gpu_names() -> list[str]:
    """Names of the catalogue's GPUs.

    Examples
    --------
    >>> len(gpu_names()), gpu_names()[:3]
    (31, ['a100-40gb', 'a100-80gb', 'h100'])
    """
    return list(read_tables("gpus.toml"))
