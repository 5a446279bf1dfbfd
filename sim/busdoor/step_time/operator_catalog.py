"""What aiconfigurator-core has tables of: its names for GPUs, models and formats, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from busdoor.catalog import GPU, Dtype, ModelShape
from busdoor.catalog.tables import plain
from busdoor.core.names import listed, unknown

PACKAGE = "aiconfigurator_core"
BACKENDS = ("vllm", "sglang", "trtllm")
# GPUs of the catalogue whose tables are not called as they are, with "_sxm" or without.
SYSTEMS = {"a100-80gb": "a100_sxm", "rtx-pro-6000": "rtx_pro_6000_server"}
# Formats of weights in the package's words: of dense weights and of experts. Its fp8 has a scale
# per tensor or channel; blocks of 128 × 128, as DeepSeek and Qwen publish, are fp8_block.
QUANT_MODES = {
    "bf16": ("bfloat16", "bfloat16"),
    "fp16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "int8": ("int8_wo", "bfloat16"),
    "int4": ("int4_wo", "int4_wo"),
    "mxfp4": ("bfloat16", "w4a16_mxfp4"),
    "nvfp4": ("nvfp4", "nvfp4"),
}
OWN = (None, None)  # as the package's configuration of the model says
KV_MODES = {"bf16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8", "int8": "int8"}
_QUANTISED = ("-fp8", "-nvfp4", "-pertensor", "-bf16")


@dataclass(frozen=True)
class Deployment:
    """What runs on what, in the package's words: the key of a set of tables.

    Configuration, GPU and engine (its newest complete tables unless `version` is given); `tp` GPUs
    that share a layer, `pp` stages, `dp` groups that share the requests, `ep` groups that share the
    experts; formats of dense weights, experts and KV cache, the model's own unless given.
    """

    model: str
    system: str
    backend: str
    version: str | None = None
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    gemm: str | None = None
    moe: str | None = None
    kv: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of the package's functions."""
        return {
            "backend_version": self.version,
            "tp_size": self.tp,
            "pp_size": self.pp,
            "attention_dp_size": self.dp,
            "moe_tp_size": self.tp * self.dp // self.ep,
            "moe_ep_size": self.ep,
            "gemm_quant_mode": self.gemm,
            "moe_quant_mode": self.moe,
            "kvcache_quant_mode": self.kv,
            # Attention is computed in the cache's format, unless the model's configuration chooses.
            "fmha_quant_mode": "bfloat16" if self.kv == "bfloat16" else None,
        }


@dataclass(frozen=True)
class Formats:
    """How numbers are written: weights, KV cache; or the weights in the package's own word."""

    weights: Dtype | None = None
    kv: Dtype | None = None
    quant_mode: str | None = None


def check_backend(backend: str) -> None:
    """Raise ValueError if the package is not installed, or has no tables of an engine.

    >>> check_backend("tgi")
    Traceback (most recent call last):
    ValueError: ...
    """
    if find_spec(PACKAGE) is None:
        raise ValueError(
            "step_time = 'operators' reads the tables of aiconfigurator-core, which is not "
            "installed; run pip install 'busdoor[operators]'"
        )
    if backend not in BACKENDS:
        raise ValueError(
            f"backend = {backend!r}: there are operator tables of {listed(BACKENDS)}; set backend "
            f"in [step_time] to the one whose kernels the engine has"
        )


def system_of(card: GPU) -> str:
    """Return the package's name for a GPU; ValueError if it has no tables of it."""
    under = card.name.replace("-", "_")
    known = systems()
    for name in (SYSTEMS.get(card.name, under), f"{under}_sxm"):
        if name in known:
            return name
    raise ValueError(
        f"there are no operator tables of {card.name}; there are of {listed(sorted(known))}"
    )


@cache
def systems() -> dict[str, dict[str, list[str]]]:
    """Return the versions of each engine on each GPU, in the package's names."""
    database = import_module(f"{PACKAGE}.sdk.perf_database")
    found: dict[str, dict[str, list[str]]] = database.get_supported_databases()
    return found


def configuration_of(shape: ModelShape, dtype: Dtype | None = None) -> str:
    """Return the package's name for a model; ValueError if it has no configuration of it.

    One whose name has the format of the weights goes first.
    """
    known = configurations()
    for name in (f"{shape.name}-{dtype}", shape.name, *shape.aliases):
        if name in known:
            return known[name]
    plainly = [name for name in known if not name.endswith(_QUANTISED)]
    raise unknown("a model with operator tables", shape.name, plainly)


@cache
def configurations() -> dict[str, str]:
    """Return the package's names of models, by what the catalogue would call them."""
    names = import_module(f"{PACKAGE}.sdk.common").DefaultHFModels
    return {plain(name): name for name in sorted(names)}


def check_pair(system: str, backend: str, version: str | None) -> None:
    """Raise ValueError if the engine, or this version of it, was not measured on the GPU."""
    known = systems()
    if system not in known:
        raise unknown("a system with operator tables", system, known)
    if backend not in known[system]:
        there = listed(sorted(name for name in known if backend in known[name]))
        raise ValueError(
            f"there are no operator tables of {backend} on {system}, which has those of "
            f"{listed(sorted(known[system]))}; those of {backend} are on {there}"
        )
    versions = sorted(known[system][backend])
    if version is not None and version not in versions:
        raise ValueError(
            f"version = {version!r}: of {backend} on {system} there are tables of "
            f"{listed(versions)}"
        )


def deployment_of(
    model: str | ModelShape,
    system: str | GPU,
    backend: str,
    version: str | None,
    sizes: Mapping[str, int],
    formats: Formats,
) -> Deployment:
    """Put what runs on what into the package's words; `sizes` are tp, pp, dp and ep.

    Names that are not of the catalogue are the package's. Raises ValueError if there are no such
    tables or the sizes do not go together.
    """
    check_backend(backend)
    name = system if isinstance(system, str) else system_of(system)
    check_pair(name, backend, version)
    gpus = sizes["tp"] * sizes["dp"]
    if gpus % sizes["ep"]:
        raise ValueError(f"ep = {sizes['ep']} must divide tp · dp = {gpus}")
    configuration, modes = _modes(model, formats)
    kv = KV_MODES.get(formats.kv) if formats.kv else None if modes == OWN else "bfloat16"
    return Deployment(
        configuration, name, backend, version, **sizes, gemm=modes[0], moe=modes[1], kv=kv
    )


def _modes(model: str | ModelShape, formats: Formats) -> tuple[str, tuple[str | None, str | None]]:
    """Return the configuration, and weight and expert modes where it is not to say them."""
    weights = formats.weights
    if isinstance(model, str):
        if model not in (known := configurations().values()):
            raise unknown("a configuration with operator tables", model, known)
        name, own = model, True
    else:
        name = configuration_of(model, weights)
        own = weights in (None, model.weight_dtype) or plain(name).endswith(f"-{weights}")
    if (mode := formats.quant_mode) is not None:
        common = import_module(f"{PACKAGE}.sdk.common")
        if mode not in common.GEMMQuantMode.__members__:
            raise unknown("a format with operator tables", mode, common.GEMMQuantMode.__members__)
        return name, (mode, mode if mode in common.MoEQuantMode.__members__ else None)
    return name, OWN if own or weights is None else QUANT_MODES[weights]
