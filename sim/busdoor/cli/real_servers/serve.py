"""`busdoor serve`: the simulator behind OpenAI's API."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from busdoor.cli.flags import ServerFlags

if TYPE_CHECKING:
    from busdoor.config import Config

_SWITCH_S = 2e-4  # a tenth of what HTTP and Python add at most


def serve(
    *,
    policy: str | None = None,
    server: ServerFlags = ServerFlags(),
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
) -> int:
    """Serve a simulated GPU behind OpenAI's API: tokens leave at simulated times.

    It answers /v1/completions and /v1/chat/completions (streamed or whole), /v1/models, and
    /metrics in vLLM's names: a server without a GPU, to try clients, autoscalers and `busdoor
    observe` on. An answer has as many tokens as max_tokens asks for. It ends with Ctrl-C.

    Parameters
    ----------
    policy
        Policy, with fields after commas: vllm,max_num_seqs=64. By default vllm.
    host
        Address to listen at; by default this machine alone can connect.
    port
        Port; 0 takes a free one.
    name
        Name of the model that clients ask for; by default the model's.
    """
    import asyncio

    from busdoor.cli.from_flags import configured, overrides

    tables = overrides(server, policy=[policy] if policy else None)
    settled = configured(server.config, tables, {"policy": "vllm"})
    asyncio.run(_serve(settled, host, port, name or settled.gpu.model.name))
    return 0


async def _serve(settled: Config, host: str, port: int, name: str) -> None:
    """Serve until interrupted."""
    import asyncio

    from busdoor.cli.output import note
    from busdoor.observe.served import live_replica
    from busdoor.observe.stand_in import serving

    # The loop's thread and the simulation's take turns: a switch after 5 ms would show in latencies.
    sys.setswitchinterval(_SWITCH_S)
    own, ahead, engine = live_replica(settled), settled.lookahead, settled.engine
    async with serving(
        own.policy, own.step_time, name, lookahead=ahead, engine=engine, host=host, port=port
    ) as url:
        print(url, flush=True)
        note(f"busdoor: model {name} at {url}/v1; end with Ctrl-C")
        await asyncio.Event().wait()
