"""The plan of paged decode: programs get equal stretches of tiles (see `paged_decode`)."""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from dataclasses import dataclass

import torch

from busdoor_gpu.kernels._launch import cdiv, jit, launch, next_power_of_2, num_sms, tl

# Two programs of 71 KiB of shared memory fit an A100 too. On an H100, with blocks looked up ahead,
# they are as fast as four without at 64 x 4,096 and 256 x 1,024, and 4 to 10 % faster for small
# batches; a skewed batch takes 3 % more (gpu/results, scan 2).
_PROGRAMS_PER_SM = 2
# With fewer tiles a program's start and the join cost more than the tile (TRT-LLM: two pages per
# split).
_MIN_SHARE_TILES = 2
# One K tile is 16 KiB in half precision: two tiles of K and V are loaded while one is multiplied.
_TILE_ELEMENTS = 64 * 128
# Programs planned by one program, so that 1024 sequences x 8 comparisons stay in registers.
_PLAN_PROGRAMS = 8


@dataclass(frozen=True)
class DecodePlan:
    """The programs' tile shares, and partials' buffers; made once, updated in place.

    Attributes
    ----------
    tile_starts : Tensor
        int32 [max_seqs + 1]: tiles of one KV head before each sequence.
    first_seq : Tensor
        int32 [num_programs + 1]: the sequence in which each program's stretch starts.
    share : Tensor
        int32 [1]: tiles in a stretch.
    partial_out, partial_lse : Tensor
        float32 [num_programs, 2, group, head_dim] and [num_programs, 2, group]: output and log2 of
        the softmax sum of a cut pair; the program's first piece, and any later one.
    tile : int
        Tokens in a tile.
    num_kv_heads : int
        KV heads of a layer.
    """

    tile_starts: torch.Tensor
    first_seq: torch.Tensor
    share: torch.Tensor
    partial_out: torch.Tensor
    partial_lse: torch.Tensor
    tile: int
    num_kv_heads: int

    @property
    def num_programs(self) -> int:
        """Programs of the attention kernel, for any batch."""
        return self.partial_lse.shape[0]

    @classmethod
    def allocate(
        cls,
        max_seqs: int,
        num_q_heads: int,
        num_kv_heads: int,
        head_dim: int,
        device: torch.device | str,
        num_programs: int | None = None,
        tile: int | None = None,
    ) -> DecodePlan:
        """Allocate buffers for `max_seqs`; by default the device sets `num_programs` and `tile`.

        >>> plan = DecodePlan.allocate(4, 8, 2, 64, "cpu", num_programs=6)
        >>> plan.tile, tuple(plan.partial_out.shape)
        (128, (6, 2, 4, 64))
        """
        device = torch.device(device)
        programs = num_programs or _PROGRAMS_PER_SM * num_sms(device)
        group = num_q_heads // num_kv_heads
        return cls(
            tile_starts=torch.zeros(max_seqs + 1, dtype=torch.int32, device=device),
            first_seq=torch.zeros(programs + 1, dtype=torch.int32, device=device),
            share=torch.ones(1, dtype=torch.int32, device=device),
            partial_out=torch.zeros(
                programs, 2, group, head_dim, dtype=torch.float32, device=device
            ),
            partial_lse=torch.zeros(programs, 2, group, dtype=torch.float32, device=device),
            tile=tile or _TILE_ELEMENTS // head_dim,
            num_kv_heads=num_kv_heads,
        )


@jit
def _plan_kernel(
    seq_lens,
    tile_starts,
    first_seq,
    share_ptr,
    num_seqs,
    NUM_KV_HEADS: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
    TILE: tl.constexpr,
    MIN_SHARE: tl.constexpr,
    BLOCK_SEQS: tl.constexpr,
    BLOCK_PROGRAMS: tl.constexpr,
):
    seq = tl.arange(0, BLOCK_SEQS)
    length = tl.load(seq_lens + seq, mask=seq < num_seqs, other=0)
    # An empty sequence owns one tile, which reads nothing, so that its zeros are written like any
    # other output.
    tiles = tl.where(seq < num_seqs, tl.maximum(tl.cdiv(length, TILE), 1), 0)
    ends = tl.cumsum(tiles, 0)
    share = tl.maximum(tl.cdiv(tl.sum(tiles, 0) * NUM_KV_HEADS, NUM_PROGRAMS), MIN_SHARE)
    program = tl.program_id(0) * BLOCK_PROGRAMS + tl.arange(0, BLOCK_PROGRAMS)
    ended = (ends * NUM_KV_HEADS)[None, :] <= (program * share)[:, None]
    first = tl.sum((ended & (seq < num_seqs)[None, :]).to(tl.int32), 1)
    tl.store(first_seq + program, first, mask=program <= NUM_PROGRAMS)
    if tl.program_id(0) == 0:
        tl.store(share_ptr, share)
        tl.store(tile_starts + seq, ends - tiles, mask=seq <= num_seqs)
        tl.store(tile_starts + seq + 1, ends, mask=seq == num_seqs - 1)


def plan_decode(plan: DecodePlan, seq_lens: torch.Tensor) -> None:
    """Divide the sequences' tiles among programs, in place: once per step, for all layers.

    `seq_lens` is int32 [num_seqs], on the plan's device; 0 is allowed. Raises ValueError if there
    are more sequences than the plan was allocated for.
    """
    num_seqs = seq_lens.shape[0]
    if num_seqs >= plan.tile_starts.shape[0]:
        raise ValueError(
            f"{num_seqs} sequences do not fit a plan for {plan.tile_starts.shape[0] - 1}; "
            f"allocate more"
        )
    grid = (cdiv(plan.num_programs + 1, _PLAN_PROGRAMS),)
    launch(
        _plan_kernel, grid, seq_lens, plan.tile_starts, plan.first_seq, plan.share, num_seqs,
        NUM_KV_HEADS=plan.num_kv_heads, NUM_PROGRAMS=plan.num_programs, TILE=plan.tile, MIN_SHARE=_MIN_SHARE_TILES,
        BLOCK_SEQS=next_power_of_2(num_seqs), BLOCK_PROGRAMS=_PLAN_PROGRAMS, num_warps=4,
    )  # fmt: skip


def plan_decode_reference(plan: DecodePlan, seq_lens: torch.Tensor) -> None:
    """As `plan_decode`, in plain PyTorch."""
    num_seqs = seq_lens.shape[0]
    tiles = (-(-seq_lens // plan.tile)).clamp(min=1)
    ends = tiles.cumsum(0)
    share = max(cdiv(int(ends[-1]) * plan.num_kv_heads, plan.num_programs), _MIN_SHARE_TILES)
    plan.tile_starts[:1] = 0
    plan.tile_starts[1 : num_seqs + 1] = ends
    plan.share[:] = share
    starts = torch.arange(plan.num_programs + 1, device=seq_lens.device) * share
    plan.first_seq[:] = torch.searchsorted(ends * plan.num_kv_heads, starts, right=True)
