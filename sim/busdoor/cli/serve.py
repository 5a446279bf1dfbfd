"""`busdoor serve`: the simulator behind OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from busdoor.config import Config


def serve(
    *,
    config: Path | None = None,
    policy: str | None = None,
    gpu: str | None = None,
    model: str | None = None,
    step_time: str | None = None,
    engine: str | None = None,
    lookahead: Literal[0, 1] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
) -> int:
    """Serve a simulated GPU behind OpenAI's API: tokens leave at simulated times.

    It answers /v1/completions and /v1/chat/completions (streamed or whole), /v1/models, and /metrics
    in vLLM's names: a server without a GPU, to try clients, autoscalers and `busdoor observe` on.
    An answer has as many tokens as max_tokens asks for. It ends with Ctrl-C.

    Parameters
    ----------
    config
        TOML file with [policy], [kv], [step_time], [gpu] ...; flags override it.
    policy
        Policy, with fields after commas: vllm,max_num_seqs=64. Without any: vllm.
    gpu
        GPU of the catalogue: h100, a100-80gb, l40s ...
    model
        Model of the catalogue: llama-3.1-8b, qwen3-14b ...
    step_time
        A calibration: the file of busdoor calibrate, or the name of one that was measured here.
    engine
        Preset of the server's host times: vllm, sglang, trtllm ...
    lookahead
        1: the next batch is scheduled while the previous one still runs.
    host
        Address to listen at; by default this machine alone can connect.
    port
        Port; 0 takes a free one.
    name
        Name of the model that clients ask for; by default the model's.
    """
    import asyncio

    from busdoor.cli.flags import configured, overrides

    tables = overrides(
        policy=[policy] if policy else None,
        gpu=gpu,
        model=model,
        step_time=step_time,
        engine=engine,
        lookahead=lookahead,
    )
    settled = configured(config, tables, {"policy": "vllm"})
    asyncio.run(_serve(settled, host, port, name or settled.gpu.model.name))
    return 0


async def _serve(settled: Config, host: str, port: int, name: str) -> None:
    """Serve until interrupted."""
    import asyncio

    from busdoor.cli.telling import note
    from busdoor.observe.served import live_replica
    from busdoor.observe.stand_in import serving

    own, ahead = live_replica(settled), settled.lookahead
    async with serving(own.policy, own.step_time, name, lookahead=ahead, host=host, port=port) as url:
        print(url, flush=True)
        note(f"busdoor: model {name} at {url}/v1; end with Ctrl-C")
        await asyncio.Event().wait()
