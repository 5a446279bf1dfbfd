"""Kernel benchmark: checked, timed beside PyTorch's, as shares of the device's ceilings.

On a CPU the references run at toy sizes: that shows that the benchmark works, not how fast the
kernels are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from benchmarks.gpu.attention import (
    Attention,
    attention_benchmarks,
    check,
    has_fp8,
    our_call,
)
from benchmarks.gpu.cases import TOLERANCE, Case, error
from benchmarks.gpu.flex import flex_paged
from benchmarks.gpu.linears import time_linears
from benchmarks.gpu.peers import PEERS, absent
from benchmarks.gpu.rows import Row, row_of
from benchmarks.gpu.small import Small, small_ops
from benchmarks.gpu.timing import Ceiling, Deadline, measure_ceiling, median_us

from busdoor_gpu.kernels._launch import cdiv
from busdoor_gpu.kernels.cache import as_bytes, gather_kv

# of a case's memory, used in turn; 32 x 4 MiB (one sequence of 1024) exceed an H100's L2 of 50 MB
_MAX_COPIES = 32


def _uniform(bench: Attention) -> tuple[int, int, int] | None:
    """Return sequences, length, query tokens if equal, with one query or all (no mask)."""
    length, new = bench.seq_lens[0], bench.query_lens[0]
    equal = {length} == set(bench.seq_lens) and {new} == set(bench.query_lens)
    return (len(bench.seq_lens), length, new) if equal and new in (1, length) else None


def _dense_call(
    bench: Attention, case: Case, num_seqs: int, length: int, new: int
) -> Callable[[], torch.Tensor]:
    """Prepare PyTorch's own attention on dense K and V."""
    q = case.query.view(num_seqs, new, bench.num_q_heads, bench.head_dim).transpose(1, 2)
    k, v = (
        torch.stack([gather_kv(cache, row, length) for row in case.block_table])
        for cache in (case.k_cache, case.v_cache)
    )
    attention = torch.nn.functional.scaled_dot_product_attention
    return partial(attention, q, k, v, is_causal=new > 1, enable_gqa=True)


def _copies(case: Case, num_bytes: int, device: torch.device) -> list[Case]:
    """Copy a case's cache until all copies together have three times the size of the L2 cache."""
    if device.type != "cuda":
        return [case]
    wanted = cdiv(3 * torch.cuda.get_device_properties(device).L2_cache_size, num_bytes)
    return [
        replace(case, k_cache=c[:, 0], v_cache=c[:, 1])
        for c in _cloned(case, min(max(wanted, 1), _MAX_COPIES))
    ]


def _cloned(case: Case, count: int) -> Iterator[torch.Tensor]:
    for _ in range(count):
        kept = [as_bytes(cache) for cache in (case.k_cache, case.v_cache)]
        yield torch.stack(kept, dim=1).view(case.k_cache.dtype)


def time_attention(
    bench: Attention, device: torch.device, top: Ceiling, flex: bool = False
) -> Iterator[Row]:
    """Time one attention benchmark: ours, PyTorch's dense and (with `flex`) paged, if apt."""
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    cases = _copies(bench.make(dtype, device), bench.kv_bytes, device)
    work = (bench.kv_bytes, bench.flops, top)
    us = median_us([our_call(bench, case, on_gpu) for case in cases], device)
    yield row_of(bench.op, bench.shape, "triton" if on_gpu else "reference", us, *work, bench.must)
    uniform = _uniform(bench)
    if uniform is None or bench.kv_bits != 16:
        return
    us = median_us([_dense_call(bench, case, *uniform) for case in cases], device)
    yield row_of(bench.op, bench.shape, "sdpa, dense K and V", us, *work)
    # A longer prompt's mask is first built dense, at 16,384 x 16,384; a cache smaller than L2 would
    # be too fast.
    if flex and uniform[1] <= 8192 and len(cases) == 1:
        call, _ = flex_paged(
            *uniform, (bench.num_q_heads, bench.num_kv_heads, bench.head_dim), dtype, device
        )
        yield row_of(bench.op, bench.shape, "flex, paged", median_us([call], device), *work)


def time_peers(
    bench: Attention, device: torch.device, top: Ceiling, folder: Path | None
) -> Iterator[Row]:
    """Time other projects' attention on the same batch, each checked against ours first."""
    there = [(peer, file) for peer in PEERS if (file := peer.find(folder))]
    if not there or bench.kv_bits != 16:
        return
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    case = bench.make(dtype, device)
    case = replace(
        case, k_cache=case.k_cache.nan_to_num(), v_cache=case.v_cache.nan_to_num()
    )  # peers may read NaN
    wanted = our_call(bench, case, device.type == "cuda")()
    for peer, file in there:
        try:
            call = peer.prepare(file, case)
            off = error(call(), wanted)
            if off > 2 * TOLERANCE[dtype]:  # two roundings: theirs and ours
                raise ArithmeticError(f"differs from our kernel by {off:.2g}")
            # One copy of the cache only; below three times the L2 cache that favours the peer.
            us = median_us([call], device)
        except Exception as failure:  # of any kind: an error of a peer must not lose our rows
            line = (str(failure).splitlines() or [""])[0]
            yield Row(
                bench.op,
                bench.shape,
                peer.name,
                note=f"failed: {type(failure).__name__}: {line}"[:200],
            )
        else:
            yield row_of(bench.op, bench.shape, peer.name, us, bench.kv_bytes, bench.flops, top)


def time_small(op: Small, device: torch.device, top: Ceiling) -> Iterator[Row]:
    """Time one small kernel and its eager reference."""
    if device.type == "cuda":
        yield row_of(
            op.name,
            op.shape,
            "triton",
            median_us(op.kernel_calls, device),
            op.num_bytes,
            0,
            top,
            op.must,
        )
    us = median_us(op.reference_calls, device, graph=False)
    yield row_of(op.name, op.shape, "reference, eager", us, op.num_bytes, 0, top)


def run(
    device: torch.device,
    quick: bool = False,
    flex: bool = False,
    peers: Path | None = None,
    deadline: Deadline | None = None,
) -> tuple[Ceiling, Iterator[Row]]:
    """Check the kernels, then time everything, row by row on demand.

    Parameters
    ----------
    device : torch.device
        The device.
    quick, flex : bool
        Whether to time fewer shapes, and also PyTorch's paged attention, which compiles for long.
    peers : Path, optional
        Folder of other projects' files, see `benchmarks.gpu.peers`.
    deadline : Deadline, optional
        After it no row starts.

    Examples
    --------
    >>> ceiling, rows = run(torch.device("cpu"))
    >>> next(rows).implementation
    'reference'
    """
    check(device)
    top = measure_ceiling(device)
    return top, (deadline or Deadline()).cut(_rows(device, top, quick, flex, peers))


def _rows(
    device: torch.device, top: Ceiling, quick: bool, flex: bool, peers: Path | None
) -> Iterator[Row]:
    for bench in attention_benchmarks(quick, device.type == "cuda"):
        if bench.kv_bits == 8 and not has_fp8(device):
            continue
        yield from time_attention(bench, device, top, flex)
        yield from time_peers(bench, device, top, peers)
    for name, note in absent(PEERS, peers).items():
        yield Row("attention", "all", name, note=note)
    for op in small_ops(device):
        yield from time_small(op, device, top)
    yield from time_linears(device, top, quick)


def format_rows(top: Ceiling, rows: list[Row]) -> str:
    """Return the rows as a readable table."""
    lines = [
        f"ceilings of this run: copy {top.gb_per_s:,.1f} GB/s, matmul {top.tflop_per_s:,.2f} "
        f"TFLOP/s",
        f"{'op':14} {'shape':36} {'implementation':20} {'us':>10} {'GB/s':>8} {'TFLOP/s':>8} "
        f"{'share':>6}  must (H100)",
    ]
    lines += [
        f"{r.op:14} {r.shape:36} {r.implementation:20} {r.us:10.1f} {r.gb_per_s:8.0f} "
        f"{r.tflop_per_s:8.1f} "
        f"{r.share:6.0%}  {r.must}{r.note}".rstrip()
        for r in rows
    ]
    return "\n".join(lines)
