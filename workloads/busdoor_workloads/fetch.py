"""Download of public traces from their publishers, verified by hash and cached."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from busdoor_workloads.download import Progress, download, own_part, sha256_of
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.text import printable

_AZURE = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/b469a113cedca53ddc3bdea71a143dc4b7d8700c/data/"
_MOONCAKE = "https://raw.githubusercontent.com/kvcache-ai/Mooncake/3b5a594133958449a1feaf1c9e0fc1b553e34a28/FAST25-release/"
_VIDUR = "https://raw.githubusercontent.com/microsoft/vidur/7d47513363ec447a741ac5e47241580b47724fbf/data/processed_traces/"

_AZURE_PAPER = 'Azure LLM inference trace 2023: Patel et al., "Splitwise", ISCA 2024'
_MOONCAKE_PAPER = 'Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025'


@dataclass(frozen=True, kw_only=True)
class PublicTrace:
    """A published trace file at a fixed commit or release, and the hash that identifies it.

    `licence` and `attribution` are terms of use and the authors to name.
    """

    name: str
    url: str
    sha256: str
    licence: str
    attribution: str
    num_requests: int | None = None

    @property
    def filename(self) -> str:
        """The file's name in the cache, different for traces of the same upstream name."""
        return f"{self.name}{Path(self.url).suffix}"


PUBLIC_TRACES: Mapping[str, PublicTrace] = {
    trace.name: trace
    for trace in (
        PublicTrace(
            name="azure-2023-conv",
            url=_AZURE + "AzureLLMInferenceTrace_conv.csv",
            sha256="2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
            licence="CC-BY-4.0",
            attribution=_AZURE_PAPER,
            num_requests=19_366,
        ),
        PublicTrace(
            name="azure-2023-code",
            url=_AZURE + "AzureLLMInferenceTrace_code.csv",
            sha256="54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
            licence="CC-BY-4.0",
            attribution=_AZURE_PAPER,
            num_requests=8_819,
        ),
        PublicTrace(
            name="mooncake-conversation",
            url=_MOONCAKE + "traces/conversation_trace.jsonl",
            sha256="b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
            licence="Apache-2.0",
            attribution=_MOONCAKE_PAPER,
            num_requests=12_031,
        ),
        PublicTrace(
            name="mooncake-synthetic",
            url=_MOONCAKE + "traces/synthetic_trace.jsonl",
            sha256="bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131",
            licence="Apache-2.0",
            attribution=_MOONCAKE_PAPER,
            num_requests=3_993,
        ),
        PublicTrace(
            name="mooncake-toolagent",
            url=_MOONCAKE + "traces/toolagent_trace.jsonl",
            sha256="48a2db1a13d3bc05e6330140c64f604ba366df20d3c9e128b5c35a01c1fa5f71",
            licence="Apache-2.0",
            attribution=_MOONCAKE_PAPER,
            num_requests=23_608,
        ),
        PublicTrace(
            name="mooncake-arxiv",
            url=_MOONCAKE + "arxiv-trace/mooncake_trace.jsonl",
            sha256="b434f1816a707f4bac697235588184ebc374c9907cb981bb65fb0643471fe711",
            licence="Apache-2.0",
            attribution=_MOONCAKE_PAPER,
        ),
        PublicTrace(
            name="vidur-arxiv",
            url=_VIDUR + "arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv",
            sha256="9d3580538d915ca75e4aaaa54590b42dbb17abc6d74c8913310cf07c232adcdc",
            licence="MIT",
            attribution='Agrawal et al., "Vidur", MLSys 2024 (Copyright Microsoft)',
            num_requests=28_257,
        ),
        PublicTrace(
            name="burstgpt-1",
            url="https://github.com/HPMLL/BurstGPT/releases/download/v1.1/BurstGPT_1.csv",
            sha256="4bb3783693d0a435686fbfc885615d2349bd067239079fa4b749f2e679e12122",
            licence="CC-BY-4.0",
            attribution='Wang et al., "BurstGPT", arXiv 2401.17644',
        ),
    )
}


def public_trace(name: str) -> PublicTrace:
    """Return the public trace of a name.

    Raises ValueError: the name is unknown; the message has the nearest one.

    >>> public_trace("azure-2023-conv").licence
    'CC-BY-4.0'
    """
    if name not in PUBLIC_TRACES:
        raise ValueError(
            f"no public trace is called {printable(name)!r}; {did_you_mean(name, PUBLIC_TRACES)}"
        )
    return PUBLIC_TRACES[name]


def cache_folder() -> Path:
    """Return the folder of fetched files: BUSDOOR_CACHE, or the platform's folder for caches."""
    if chosen := os.environ.get("BUSDOOR_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
            / "busdoor"
            / "Cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "busdoor"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "busdoor"


def cached(name: str, cache_dir: str | Path | None = None) -> Path | None:
    """Return a public trace's file if it has been fetched, else None.

    Raises ValueError: the name is unknown, or the file in the cache is not the published one.
    """
    trace = public_trace(name)
    path = _target(trace, cache_dir)
    if not path.exists():
        return None
    if (found := sha256_of(path)) != trace.sha256:
        raise ValueError(
            f"{path} is not the published {name}: its sha256 is {found[:12]}… and must be "
            f"{trace.sha256[:12]}…; fetch it anew: busdoor trace fetch {name}"
        )
    return path


def _target(trace: PublicTrace, cache_dir: str | Path | None) -> Path:
    return (Path(cache_dir) if cache_dir is not None else cache_folder()) / trace.filename


def fetch(
    name: str,
    cache_dir: str | Path | None = None,
    url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download one of `PUBLIC_TRACES`, or return it from the cache, by default `cache_folder()`.

    `url` is a mirror's; the hash must still be the publisher's. ``progress(bytes_at_hand,
    bytes_in_all)`` is called meanwhile. Raises ValueError if the name is unknown, or the downloaded
    file is not the publisher's (it is then deleted), and OSError if the download failed; the
    received part is kept, and the next call continues from there.
    """
    trace = public_trace(name)
    target = _target(trace, cache_dir)
    if target.exists() and sha256_of(target) == trace.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    source = url or trace.url
    with own_part(target) as part:
        download(source, part, progress or _silent)
        if (found := sha256_of(part)) != trace.sha256:
            raise ValueError(
                f"{source} is not the published {name}: its sha256 is {found[:12]}… and must be "
                f"{trace.sha256[:12]}…"
            )
        part.replace(target)
    return target


def _silent(_at_hand: int, _in_all: int | None) -> None:
    pass
