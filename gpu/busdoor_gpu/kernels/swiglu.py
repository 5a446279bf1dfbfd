"""The gate of a SwiGLU feed-forward layer.

    out = silu(gate) * up,   silu(g) = g / (1 + exp(-g)),   gate and up being the halves of one projection

A program takes a piece of a token's row, so that few tokens too occupy the GPU.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch

from busdoor_gpu.kernels._launch import cdiv, compute_dtype, jit, launch, tl

_BLOCK = 1024  # 8 elements per thread of 4 warps: one 16-byte load of each half


@jit
def _swiglu_kernel(gate_up, out, stride_in, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < WIDTH
    source = gate_up + token * stride_in + column
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + WIDTH, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    tl.store(out + token * WIDTH + column, value.to(out.dtype.element_ty), mask=inside)


def swiglu(gate_up: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Gate the second half of each row with the first: [num_tokens, width], in gate_up's dtype.

    `gate_up` is [num_tokens, 2 * width]: gate, then up. `out` is contiguous, allocated unless
    given.
    """
    num_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = (
        torch.empty(num_tokens, width, dtype=gate_up.dtype, device=gate_up.device)
        if out is None
        else out
    )
    launch(
        _swiglu_kernel, (num_tokens, cdiv(width, _BLOCK)), gate_up, out, gate_up.stride(0),
        WIDTH=width, BLOCK=_BLOCK, num_warps=4,
    )  # fmt: skip
    return out


def swiglu_reference(gate_up: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """As `swiglu`, in plain PyTorch.

    >>> swiglu_reference(torch.tensor([[0.0, 100.0, 5.0, 2.0]]))
    tensor([[  0., 200.]])
    """
    gate, up = gate_up.to(compute_dtype(gate_up)).chunk(2, dim=-1)
    value = torch.nn.functional.silu(gate) * up
    return value.to(gate_up.dtype) if out is None else out.copy_(value)
