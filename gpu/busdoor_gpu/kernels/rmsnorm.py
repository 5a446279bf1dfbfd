"""RMS normalisation, with the residual sum before it.

    r = x + residual          (rounded to the tensors' type, as a model that keeps its residual in that type does)
    y = r / sqrt(mean(r^2) + eps) * weight

One program a token: the row is read once, the sum written back as the new residual, the norm taken
from registers.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch

from busdoor_gpu.kernels._launch import compute_dtype, jit, launch, next_power_of_2, tl

_ELEMENTS_PER_WARP = 512  # 16 elements per thread: two 16-byte loads of half precision in flight


@jit
def _rmsnorm_kernel(
    x,
    residual,
    weight,
    out,
    eps,
    stride_x,
    stride_residual,
    HIDDEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < HIDDEN
    value = tl.load(x + token * stride_x + column, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        place = residual + token * stride_residual + column
        value += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(residual.dtype.element_ty)
        tl.store(place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value, 0) / HIDDEN + eps)
    scaled = value * inverse * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * HIDDEN + column, scaled.to(out.dtype.element_ty), mask=inside)


def rmsnorm(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add the residual, if any, and normalise each token: [num_tokens, hidden], in x's dtype.

    `residual` becomes x + residual **in place**. `eps` is added to the mean square. `out` is
    contiguous, shaped as x, and allocated unless given.
    """
    num_tokens, hidden = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    block = next_power_of_2(hidden)
    launch(
        _rmsnorm_kernel, (num_tokens,), x, residual, weight, out, eps, x.stride(0),
        0 if residual is None else residual.stride(0),
        HIDDEN=hidden, BLOCK=block, num_warps=min(max(block // _ELEMENTS_PER_WARP, 1), 16),
    )  # fmt: skip
    return out


def rmsnorm_reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    residual: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `rmsnorm`, in plain PyTorch.

    >>> residual = torch.tensor([[1.0, 0.0]])
    >>> rmsnorm_reference(torch.tensor([[0.0, 1.0]]), torch.tensor([1.0, 2.0]), 0.0, residual), residual
    (tensor([[1., 2.]]), tensor([[1., 1.]]))
    """
    dtype = compute_dtype(x)
    if residual is not None:
        x = residual.copy_(x.to(dtype) + residual.to(dtype))
    value = x.to(dtype)
    value = value * torch.rsqrt(value.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)
    return value.to(x.dtype) if out is None else out.copy_(value)
