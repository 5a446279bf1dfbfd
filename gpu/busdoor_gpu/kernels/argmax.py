"""Greedy sampling: the token of the largest logit, the first one of equals.

    token[s] = min { v : logits[s, v] = max_w logits[s, w] }

A vocabulary row is cut into pieces, so that one sequence too occupies the GPU; a second kernel
takes the best piece.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch

from busdoor_gpu.kernels._launch import cdiv, jit, launch, next_power_of_2, tl

# 128,256 logits are 16 pieces; 32 elements per thread of 8 warps, four 16-byte loads of half
# precision
_BLOCK = 8192


@jit
def _piece_kernel(
    logits, best, best_token, stride, num_pieces, VOCAB: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1)
    token = piece * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(logits + row * stride + token, mask=token < VOCAB, other=float("-inf")).to(
        tl.float32
    )
    top, index = tl.max(value, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(best + row * num_pieces + piece, top)
    tl.store(best_token + row * num_pieces + piece, piece * BLOCK + index)


@jit
def _best_kernel(best, best_token, out, num_pieces, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    piece = tl.arange(0, BLOCK)
    value = tl.load(best + row * num_pieces + piece, mask=piece < num_pieces, other=float("-inf"))
    _, index = tl.max(value, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(out + row, tl.load(best_token + row * num_pieces + index))


def argmax(logits: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Pick each row's largest logit; of equal ones the first, so that runs repeat.

    Logits are [num_rows, vocabulary], without NaN; `out` is int32 [num_rows], allocated unless
    given.
    """
    num_rows, vocab = logits.shape
    pieces = cdiv(vocab, _BLOCK)
    best = torch.empty(num_rows, pieces, dtype=torch.float32, device=logits.device)
    best_token = torch.empty(num_rows, pieces, dtype=torch.int32, device=logits.device)
    out = torch.empty(num_rows, dtype=torch.int32, device=logits.device) if out is None else out
    launch(
        _piece_kernel, (num_rows, pieces), logits, best, best_token, logits.stride(0), pieces,
        VOCAB=vocab, BLOCK=_BLOCK, num_warps=8,
    )  # fmt: skip
    launch(
        _best_kernel,
        (num_rows,),
        best,
        best_token,
        out,
        pieces,
        BLOCK=next_power_of_2(pieces),
        num_warps=1,
    )
    return out


def argmax_reference(logits: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """As `argmax`, in plain PyTorch (whose own argmax may return any of equals).

    >>> argmax_reference(torch.tensor([[1.0, 3.0, 3.0]]))
    tensor([1], dtype=torch.int32)
    """
    token = (logits == logits.amax(-1, keepdim=True)).int().argmax(-1).to(torch.int32)
    return token if out is None else out.copy_(token)
