"""The two backends: Triton kernels or PyTorch references, behind the same signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal

BackendName = Literal["triton", "torch"]
Op = Callable[..., Any]
_MODULES = {
    "prepare_step": "step_inputs",
    "commit_step": "step_inputs",
    "plan_decode": "decode_plan",
}


@dataclass(frozen=True)
class Backend:
    """The operations of a forward pass; `busdoor_gpu.kernels` documents each under its name."""

    prepare_step: Op
    commit_step: Op
    rmsnorm: Op
    rope_kv_write: Op
    plan_decode: Op
    paged_decode: Op
    paged_prefill: Op
    swiglu: Op
    argmax: Op
    name: BackendName = "torch"


def load_backend(name: BackendName) -> Backend:
    """Import a backend; no GPU is touched.

    Raises ValueError if the name is unknown, or Triton is not installed.

    >>> load_backend("torch").swiglu.__name__
    'swiglu_reference'
    """
    if name not in ("triton", "torch"):
        raise ValueError(f"backend {name!r} is not known; use triton (a GPU) or torch")
    if name == "triton":
        try:
            import_module("triton")
        except ImportError as error:
            raise ValueError(
                "backend triton needs the package triton, which has wheels for Linux; use torch"
            ) from error
    suffix = "_reference" if name == "torch" else ""
    ops = [field.name for field in fields(Backend) if field.name != "name"]
    found = {
        op: getattr(import_module(f"busdoor_gpu.kernels.{_MODULES.get(op, op)}"), op + suffix)
        for op in ops
    }
    return Backend(**found, name=name)
