"""GPUs: memory, bandwidth, matrix rates, and how much of them kernels reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

from busdoor.catalog.dtypes import Dtype
from busdoor.catalog.tables import complete, find, read_tables
from busdoor.core.names import Label
from busdoor.core.registry import checked

GIB = 2**30
Share = Annotated[float, Field(gt=0, le=1)]


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
    flop_per_s : dict of str to float
        Dense matrix rates by number format, FLOP/s; `bf16` has to be there.
    link_bytes_per_s : float
        GPU to GPU bandwidth in one direction, bytes/s, all links together.
    memory_efficiency, kv_efficiency : float
        Share of the bandwidth that reading weights, and attention reading the KV cache, reach.
    gemm_efficiency : float
        Share of the matrix rate that large GEMMs reach inside a model.
    tdp_w : float
        Power limit, watts; 0 where not given.
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
    flop_per_s: dict[Dtype, PositiveFloat]
    link_bytes_per_s: PositiveFloat
    memory_efficiency: Share = 0.9
    kv_efficiency: Share = 0.9
    gemm_efficiency: Share = 0.75
    tdp_w: NonNegativeFloat = 0.0
    aliases: tuple[str, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if "bf16" not in self.flop_per_s:
            raise ValueError(f"flop_per_s of {self.name} has no bf16 rate, which every other format falls back on")

    @property
    def memory_bytes(self) -> float:
        """Memory that a program sees, bytes."""
        return self.memory_gib * GIB

    def rate(self, weight_dtype: Dtype) -> float:
        """Dense matrix rate for weights of a format, FLOP/s.

        Where the GPU cannot multiply the format (fp8 on Ampere, int4 anywhere), the weights are expanded to 16 bits
        on the fly, as Marlin kernels do, and multiplied at that rate.

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
        A name or alias in any case; or a table of `GPU`'s fields, filled from the catalogue where its `name` is known
        (so that `{"name": "h100", "memory_gib": 93.0}` is an H100 with more memory).

    Raises
    ------
    ValueError
        If the name is not known (the message has the nearest one), or the table is wrong.

    Examples
    --------
    >>> gpu("NVIDIA H100-SXM").memory_gib
    79.11
    >>> gpu("h10")
    Traceback (most recent call last):
    ValueError: 'h10' is not a GPU of the catalogue; did you mean 'h100'? (known: a100-40gb, ...)
    """
    if isinstance(name, GPU):
        return name
    if isinstance(name, Mapping):
        return checked(GPU, complete(read_tables("gpus.toml"), name), "[gpu]")
    return checked(GPU, find(read_tables("gpus.toml"), "a GPU of the catalogue", name), "[gpu]")


def gpu_names() -> list[str]:
    """Names of the catalogue's GPUs.

    Examples
    --------
    >>> gpu_names()
    ['a100-40gb', 'a100-80gb', 'h100', 'h200', 'b200', 'l40s', 'rtx-4090', 'mi300x']
    """
    return list(read_tables("gpus.toml"))
