"""Paged attention of other projects, if a folder has their files: found, checked, then timed.

None of their code is in this repository. Arguments are filled in by name from what the file itself
declares (an operator's schema, a function's signature), so that one loader serves several versions.
A peer that does not load, or differs from our reference, gets a row with the reason and no time.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from benchmarks.gpu.cases import Case

Call = Callable[[], torch.Tensor]
_WORKSPACE_BYTES = 128 * 2**20  # recommended by FlashInfer's documentation
_VLLM_PROGRAMS = 128  # of vLLM's triton_attn.py: with fewer programs, a context is split
_VLLM_SEGMENTS = 16  # parts of a split context


@dataclass(frozen=True)
class Peer:
    """Attention of another project.

    Attributes
    ----------
    name : str
        Name of the project.
    file : str
        Pattern of its file below the folder.
    prepare : callable
        Makes the call to time from the file and a case; it plans, and lays out the cache.
    """

    name: str
    file: str
    prepare: Callable[[Path, Case], Call]

    def find(self, folder: Path | None) -> Path | None:
        """Return the path of its file; None if it is absent."""
        return next(iter(sorted(folder.rglob(self.file))), None) if folder else None


def _named(case: Case, out: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of paged attention by FA3 and vLLM names; token-major caches."""
    query_lens = case.query_starts.diff()
    k, v = (cache.transpose(1, 2).contiguous() for cache in (case.k_cache, case.v_cache))
    return {
        "q": case.query,
        "k": k,
        "v": v,
        "out": out,
        "out_": out,
        "cu_seqlens_q": case.query_starts,
        "seqused_k": case.seq_lens,
        "max_seqlen_q": int(query_lens.max()),
        "max_seqlen_k": int(case.seq_lens.max()),
        "block_table": case.block_table,
        "page_table": case.block_table,
        "softmax_scale": case.query.shape[-1] ** -0.5,
        "causal": True,
        "is_causal": True,
        "window_size": (-1, -1),
        "window_size_left": -1,
        "window_size_right": -1,
        "softcap": 0.0,
        "has_softcap": False,
        "is_rotary_interleaved": True,
        "rotary_interleaved": True,
        "num_splits": 0,
        "sm_margin": 0,
        "cp_world_size": 1,
        "cp_rank": 0,
        "kv_quant_mode": 0,
        "batch_size": len(case.seq_lens),
        "num_heads": case.query.shape[1],
        "num_heads_k": k.shape[2],
        "headdim": k.shape[3],
        "headdim_v": v.shape[3],
        "qkv_dtype": k.dtype,
        "page_size": k.shape[1],
        "max_seqlen_k_new": 0,
    }


def _fa3(file: Path, case: Case) -> Call:
    """Prepare FlashAttention 3 as vLLM builds it: names from schemas; planned once a step."""
    operators: Any = torch.ops
    operators.load_library(str(file))
    fa3 = operators._vllm_fa3_C
    values = _named(case, torch.empty_like(case.query))
    values["scheduler_metadata"] = fa3.get_scheduler_metadata(
        *_filled(fa3.get_scheduler_metadata, values)
    )
    arguments = _filled(fa3.fwd, values)
    return lambda: _first(fa3.fwd(*arguments))


def _filled(operator: Any, values: Mapping[str, Any]) -> list[Any]:
    return [
        values.get(argument.name, argument.default_value)
        for argument in operator.default._schema.arguments
    ]


def _first(result: Any) -> torch.Tensor:
    out: torch.Tensor = result[0] if isinstance(result, (list, tuple)) else result
    return out


def _vllm_triton(file: Path, case: Case) -> Call:
    """Prepare vLLM's Triton kernel from its file alone; its imports of vLLM are replaced."""
    with _stand_ins(file.parent):
        function = _load(file).unified_attention
    out = torch.empty_like(case.query)
    values = _named(case, out) | _vllm_segments(case)
    arguments = {
        name: values.get(name) for name, parameter in inspect.signature(function).parameters.items()
        if name in values or parameter.default is inspect.Parameter.empty
    }  # fmt: skip

    def call() -> torch.Tensor:
        function(**arguments)
        return out

    return call


def _vllm_segments(case: Case) -> dict[str, Any]:
    """Return split contexts' buffers, as vLLM allocates them; without, nothing is split."""
    (_, num_q_heads, head_dim), most = case.query.shape, _VLLM_PROGRAMS // case.k_cache.shape[1]
    parts = case.query.new_empty(2, most, num_q_heads, _VLLM_SEGMENTS, dtype=torch.float32)
    return {
        "seq_threshold_3D": most, "num_par_softmax_segments": _VLLM_SEGMENTS,
        "softmax_segm_max": parts[0], "softmax_segm_expsum": parts[1],
        "softmax_segm_output": parts.new_empty(*parts.shape[1:], 1 << (head_dim - 1).bit_length()),
    }  # fmt: skip


def _load(file: Path) -> ModuleType:
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Anything(ModuleType):
    """A module that has every attribute; none of them does anything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __bool__(self) -> bool:
        return False


@contextmanager
def _stand_ins(folder: Path) -> Iterator[None]:
    """Replace modules of vLLM: Triton by Triton, helpers by files, others by empty modules."""
    helpers = {
        f"vllm.v1.attention.ops.{file.stem}": file for file in folder.glob("triton_*_helpers.py")
    }
    names = (
        "vllm",
        "vllm.triton_utils",
        "vllm.platforms",
        "vllm.envs",
        "vllm.logger",
        "vllm.model_executor",
        "vllm.model_executor.layers",
        "vllm.model_executor.layers.batch_invariant",
        "vllm.v1",
        "vllm.v1.kv_cache_interface",
        "vllm.v1.attention",
        "vllm.v1.attention.ops",
        *helpers,
    )
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: _Anything(name) for name in names})
    utils: Any = sys.modules["vllm.triton_utils"]
    utils.triton, utils.tl = import_module("triton"), import_module("triton.language")
    platforms: Any = sys.modules["vllm.platforms"]
    platforms.current_platform = _Anything("current_platform")
    platforms.current_platform.fp8_dtype = lambda: torch.float8_e4m3fn  # its limits are read
    try:
        sys.modules.update({name: _load(helper) for name, helper in helpers.items()})
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _flashinfer(file: Path, case: Case) -> Call:
    """Prepare FlashInfer's wrappers, planned once a step; prebuilt modules are possible."""
    if str(file.parents[1]) not in sys.path:
        sys.path.insert(0, str(file.parents[1]))
    flashinfer: Any = import_module("flashinfer")
    device, (_, num_kv_heads, block_size, head_dim) = case.query.device, case.k_cache.shape
    workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
    lens = case.seq_lens.tolist()
    blocks = [-(-length // block_size) for length in lens]
    indptr = torch.tensor([0, *blocks]).cumsum(0).to(device=device, dtype=torch.int32)
    indices = torch.cat([row[:used] for row, used in zip(case.block_table, blocks, strict=True)])
    last = torch.tensor([(n - 1) % block_size + 1 for n in lens], dtype=torch.int32, device=device)
    heads = (case.query.shape[1], num_kv_heads, head_dim, block_size)
    types = {"q_data_type": case.query.dtype, "kv_data_type": case.k_cache.dtype}
    if case.query.shape[0] == len(lens):
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace, kv_layout="HND", use_tensor_cores=True
        )
        wrapper.plan(indptr, indices, last, *heads, **types)
    else:
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, kv_layout="HND")
        wrapper.plan(case.query_starts, indptr, indices, last, *heads, causal=True, **types)
    caches = (case.k_cache.contiguous(), case.v_cache.contiguous())
    return lambda: wrapper.run(case.query, caches)


PEERS = (
    Peer("FA3 (vLLM's build)", "_vllm_fa3_C*.so", _fa3),
    Peer("FlashInfer", "flashinfer/__init__.py", _flashinfer),
    Peer("vLLM, Triton", "triton_unified_attention.py", _vllm_triton),
)


def absent(peers: tuple[Peer, ...], folder: Path | None) -> Mapping[str, str]:
    """Return the absent peers, each with the file that is missing.

    Examples
    --------
    >>> absent(PEERS[:1], None)
    {"FA3 (vLLM's build)": 'absent: no --peers folder'}
    """
    missing = [peer for peer in peers if peer.find(folder) is None]
    return {
        p.name: f"absent: no {p.file} in {folder}" if folder else "absent: no --peers folder"
        for p in missing
    }
