"""Anyscale's "23x" (June 2023), with the factors that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor_workloads import Trace, preset
from published import opt13b

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Cap(NamedTuple):
    """Settings for an output cap: rows of a static batch, slots of reserving servers."""

    batch_size: int
    max_batch_total_tokens: int


# anyscale/llm-continuous-batching-benchmarks @d34cb03.
CAPS = {32: Cap(16, 8700), 128: Cap(12, 7500), 512: Cap(8, 8100), 1536: Cap(4, 8100)}
REPORTED_GAIN = 23.0  # vLLM over the naive run, cap 1536


def anyscale(
    caps: Sequence[int] = tuple(CAPS), num_requests: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Run Anyscale's benchmark: 1,000 prompts of 512 tokens, capped exponential answers.

    Parameters
    ----------
    caps : sequence of int
        Caps on the output tokens; answers above are drawn again (so that a larger cap means a
        larger spread).
    num_requests : int
        Requests of a run.
    seed : int
        Of the lengths.

    Returns
    -------
    DataFrame
        One row a cap and system, with `batch_size` (rows or slots allowed), `output_throughput` and
        `total_token_throughput` (tokens/s without and with the prompt's: Anyscale published the
        latter, five times the former), `mean_batch_size`, and `gain` over the naive run. The
        systems are

        - `naive`: static batches padded to the longest answer of the whole data set (HF pipelines);
        - `static`: the same batches, padded to their own longest (what static batching means);
        - `slots`: continuous with as many slots as static has rows;
        - `reserving`: continuous, each request reserving its prompt and answer in what that TGI and
          Ray were given;
        - `vllm`: continuous with paged memory, all of it.

    Notes
    -----
    Published: the naive run falls to 81 tokens/s at cap 1536; static (FasterTransformer) reaches 4
    times as much, TGI and Ray 8 times, vLLM 23 times, and more than twice TGI at every cap; where
    lengths vary little, static and continuous are alike. The shape that has to come out: the gain
    grows with the cap, the order is naive < static < reserving < vllm wherever lengths vary.

    Where it differs: absolute numbers are of a roofline (see `opt13b.step_time`), the same for all
    systems. So a slower implementation (HF's 33 ms per step, FasterTransformer's server that polled
    once per second) is not in it, and vLLM's gain over naive is smaller than 23 by just that
    factor: see `anyscale_factors`.

    Examples
    --------
    >>> table = anyscale(caps=[1536], num_requests=100)
    >>> table["system"].tolist()
    ['naive', 'static', 'slots', 'reserving', 'vllm']
    """
    rows = []
    for cap in caps:
        trace = preset(f"anyscale_{cap}").generate(seed=seed, num_requests=num_requests)
        rows += [{"cap": cap, **row} for row in _systems(trace, CAPS[cap])]
    table = pd.DataFrame(rows)
    naive = table[table["system"] == "naive"].set_index("cap")["total_token_throughput"]
    table["gain"] = table["total_token_throughput"] / table["cap"].map(naive)
    return table


def _systems(trace: Trace, cap: Cap) -> list[dict[str, Any]]:
    rows = {
        "batch_size": cap.batch_size,
        "decode_reads": "padded",
    }  # HF pipelines and FasterTransformer
    reserving = {"reservation": "oracle", "max_num_seqs": 256}
    return [
        _run(trace, "naive", "static", {**rows, "pad_to": "dataset"}),
        _run(trace, "static", "static", rows),
        _run(trace, "slots", "vllm", {"max_num_seqs": cap.batch_size}),
        _run(trace, "reserving", "orca", reserving, cap.max_batch_total_tokens),
        _run(trace, "vllm", "vllm", {"max_num_seqs": 256}),
    ]


def _run(
    trace: Trace, system: str, policy: str, fields: dict[str, Any], kv_tokens: int = 0
) -> dict[str, Any]:
    kv = opt13b.memory(kv_tokens) if kv_tokens else opt13b.memory()
    summary = simulate(
        trace, policy_config(policy, **fields).build(kv, trace), opt13b.step_time(), lookahead=0
    ).summary
    return {
        "system": system,
        "batch_size": fields.get("batch_size", fields.get("max_num_seqs")),
        "output_throughput": summary["output_throughput"],
        "total_token_throughput": summary["total_token_throughput"],
        "mean_batch_size": summary["mean_batch_size_time"],
    }


def anyscale_factors(table: pd.DataFrame) -> pd.DataFrame:
    """Split vLLM's gain over the naive run into its factors.

    Parameters
    ----------
    table : DataFrame
        Of `anyscale`.

    Returns
    -------
    DataFrame
        One row a cap: `padding` (static over naive: answers padded to the batch's longest, not the
        data set's), `scheduling` (slots over static: rows that end make room), `batch_size` (vllm
        over slots: what paged memory and no fixed batch size let in), their product `modelled`, and
        `rest`: what is left of the published 23 at cap 1536, the implementations' part (NaN at
        other caps, for which no numbers were published as text).

    Examples
    --------
    >>> factors = anyscale_factors(anyscale(caps=[1536], num_requests=100))
    >>> list(factors.columns)
    ['padding', 'scheduling', 'batch_size', 'modelled', 'rest']
    """
    rate = table.pivot_table(index="cap", columns="system", values="total_token_throughput")
    factors = pd.DataFrame(
        {
            "padding": rate["static"] / rate["naive"],
            "scheduling": rate["slots"] / rate["static"],
            "batch_size": rate["vllm"] / rate["slots"],
        }
    )
    factors["modelled"] = factors.prod(axis=1)
    factors["rest"] = (REPORTED_GAIN / factors["modelled"]).where(factors.index == 1536)
    return factors


def plot_anyscale(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw tokens per second, prompts included, over the caps: Anyscale's bar chart."""
    from busdoor.plots.style import axes_or_new, identity, styled

    @styled
    def draw() -> Axes:
        axes = axes_or_new(ax)
        rate = table.pivot_table(
            index="cap", columns="system", values="total_token_throughput", sort=False
        )
        looks = {
            "naive": "static",
            "static": "static",
            "slots": "orca",
            "reserving": "orca",
            "vllm": "vllm",
        }
        hatches = {"naive": "//", "slots": "//"}
        for place, system in enumerate(rate):
            across = [i + 0.17 * (place - 2) for i in range(len(rate))]
            color = identity(looks[str(system)])["color"]
            axes.bar(
                across,
                rate[system],
                0.16,
                color=color,
                hatch=hatches.get(str(system)),
                label=str(system),
            )
        axes.set_xticks(range(len(rate)), [f"up to {cap}" for cap in rate.index])
        axes.set(
            xlabel="output tokens (exponential, mean 128, drawn again above the cap)",
            ylabel="tokens/s, prompts too",
        )
        axes.legend()
        return axes

    return draw()
