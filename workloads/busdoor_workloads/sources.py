"""The profiles' public traces: reader, attribution, licence, and what is left out."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from busdoor_workloads import fit
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.source_readers import (
    Columns,
    read_azure,
    read_mooncake,
    read_servegen,
    read_simple,
    read_vidur,
    read_weka,
    servegen_arrivals,
)

_FILE = files("busdoor_workloads") / "data" / "sources.toml"
# Seconds of the ticks of Mooncake's conversation trace (its README); arrivals are spread over them.
_MOONCAKE_TICK_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A public trace: its profile's name and metadata, and its file in the traces' folder.

    `read` takes that folder and returns arrivals (None without any), input tokens and output
    tokens; `arrivals` likewise, if they are published apart from the lengths. `bins` of the input
    for the outputs' tables; 1 if lengths were published without their correlation.
    """

    name: str
    read: Callable[[Path], Columns]
    attribution: str
    licence: str
    file: str
    note: str = ""
    arrivals: Callable[[Path], FloatArray] | None = None
    bins: int = fit.BINS

    def fit_lengths(self, traces: Path) -> dict[str, Any]:
        """Fit the lengths' tables."""
        return fit.fit_lengths(*self.read(traces / self.file)[1:], self.bins)

    def fit_arrivals(self, traces: Path) -> dict[str, Any] | None:
        """Fit the arrivals; return None if the trace has none."""
        arrival_s = self.arrivals(traces) if self.arrivals else self.read(traces / self.file)[0]
        return None if arrival_s is None else fit.fit_arrivals(arrival_s)


_READERS: Mapping[str, Callable[[Path], Columns]] = {
    "azure-conv": read_azure,
    "azure-code": read_azure,
    "mooncake-conversation": partial(read_mooncake, tick_s=_MOONCAKE_TICK_S),
    "mooncake-synthetic": read_mooncake,
    "arxiv-summarization": read_vidur,
    "sharegpt-llama31": read_simple,
    "weka-agentic": read_weka,
    "servegen-m-large": partial(read_servegen, model="language/m-large"),
    "servegen-deepseek-r1": partial(read_servegen, model="reason/deepseek-r1"),
}
_ARRIVALS: Mapping[str, Callable[[Path], FloatArray]] = {
    "servegen-m-large": partial(servegen_arrivals, model="language/m-large"),
    "servegen-deepseek-r1": partial(servegen_arrivals, model="reason/deepseek-r1"),
}
SOURCES = tuple(
    Source(name=name, read=_READERS[name], arrivals=_ARRIVALS.get(name), **table)
    for name, table in tomllib.loads(_FILE.read_text("utf-8")).items()
)
