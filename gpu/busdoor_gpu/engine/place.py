"""Device, backend and model of a command, settled before anything is loaded."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from busdoor_gpu.engine.backend import Backend, BackendName, load_backend
from busdoor_gpu.engine.footprint import Sizes, check_engine
from busdoor_gpu.engine.model import Model, default_dtype, load_model
from busdoor_gpu.engine.model_config import ModelConfig, find_model
from busdoor_gpu.engine.passes import guarded
from busdoor_gpu.kernels.cache import FP8_FROM

_SEEDS = 2**63  # seeds that torch.Generator.manual_seed accepts
_FP8 = torch.float8_e4m3fn  # e4m3, in which vLLM's --kv-cache-dtype fp8 is kept
GPU_MODEL, CPU_MODEL = "llama-3.1-8b", "tiny-llama"


@dataclass(frozen=True)
class Place:
    """A device, with the backend, the model and the formats of weights and KV cache on it."""

    device: torch.device
    backend: BackendName
    config: ModelConfig
    dtype: torch.dtype
    kv_dtype: torch.dtype

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def check(self, sizes: Sizes) -> None:
        """Raise ValueError if model and engine do not fit the machine's memory."""
        check_engine(self.config, (self.dtype, self.kv_dtype), self.device, sizes)

    def load(self, seed: int) -> tuple[Model, Backend]:
        """Load model and backend.

        Raises ValueError if the backend is not installed, or a checkpoint is inconsistent,
        EngineError if the model does not fit the GPU.
        """
        if not 0 <= seed < _SEEDS:
            raise ValueError(f"--seed is {seed}; it must be from 0 to {_SEEDS - 1}")
        if not self.on_gpu:
            torch.set_num_threads(1)  # so that processor time equals elapsed time
        kernels = load_backend(self.backend)
        loaded = guarded(load_model, self.config, self.device, self.dtype, seed, self.kv_dtype)
        return loaded, kernels


def settle_place(
    model: str | ModelConfig | None,
    backend: BackendName | None,
    device: str | None,
    dtype: str | None,
    kv_dtype: str | None = None,
) -> Place:
    """Choose what the user left open, and print the choice if there is no GPU.

    By default a GPU (the CPU without one or with `backend` torch); there triton, llama-3.1-8b and
    bfloat16, on a CPU torch, tiny-llama and float32; the KV cache is as the weights. Raises
    ValueError if there is no such device or model, or the backend does not run there.
    """
    place = find_device(device, backend)
    chosen: BackendName = backend or ("triton" if place.type == "cuda" else "torch")
    if chosen == "triton" and place.type != "cuda":
        raise ValueError(
            f"--backend triton runs on a GPU, and --device is {device}; use --backend torch"
        )
    named = model if model is not None else (GPU_MODEL if place.type == "cuda" else CPU_MODEL)
    config = named if isinstance(named, ModelConfig) else find_model(named)
    chose_cpu = backend is None and device is None
    if place.type == "cpu" and (chose_cpu or model is None):
        print(f"busdoor: {_choice(chose_cpu, model is None)}", file=sys.stderr)
    weights = getattr(torch, dtype) if dtype else default_dtype(place)
    return Place(place, chosen, config, weights, _FP8 if _fp8(kv_dtype, place, chosen) else weights)


def _fp8(kv_dtype: str | None, device: torch.device, backend: BackendName) -> bool:
    """Return whether the KV cache is fp8; raise ValueError if the GPU has no such numbers."""
    if kv_dtype and backend == "triton":
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) < FP8_FROM:
            raise ValueError(
                f"--kv-dtype fp8 needs a GPU of compute capability 8.9 or more (Ada, Hopper); "
                f"this one has {major}.{minor}: leave the flag out"
            )
    return kv_dtype is not None


def _choice(no_gpu: bool, toy: bool) -> str:
    """Return a sentence on what was chosen for the user on a CPU."""
    why = "there is no GPU here, so this runs on the CPU" if no_gpu else "this runs on the CPU"
    return f"{why} with --backend torch" + (
        f" and the toy model {CPU_MODEL}; --model names another" if toy else ""
    )


def find_device(device: str | None, backend: BackendName | None) -> torch.device:
    """Return the device asked for, else a GPU if there is one and the backend is not torch.

    Raises ValueError if this machine has no such device.

    >>> find_device(None, "torch"), find_device("cpu", None)
    (device(type='cpu'), device(type='cpu'))
    """
    without = backend == "torch" or (backend is None and not torch.cuda.is_available())
    name = device if device is not None else ("cpu" if without else "cuda")
    try:
        found = torch.device(name)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cuda", "cpu"):
        raise ValueError(f"--device {name!r}: there is no such device; use cuda, cuda:1 or cpu")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"there is no GPU for device {name} here; use --backend torch --device cpu"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name}: this machine has {torch.cuda.device_count()} GPUs, numbered from 0"
        )
    return found
