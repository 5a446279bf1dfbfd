"""An observation as rows of plain strings."""

from __future__ import annotations

from busdoor.core.format import duration, percent
from busdoor.observe.observation import Observation
from busdoor.observe.ttft_split import ttft_split
from busdoor.results.result import Result


def client_rows(seen: Observation) -> list[tuple[str, str]]:
    """Return the lines about the client, and the server's peaks where it shows them."""
    client = seen.result.meta["client"]
    late = [duration(1e3 * client[key]) for key in ("lag_p50_s", "lag_p99_s")]
    rows = [
        ("sent after due p50, p99", "  ".join(late)),
        ("most in flight", f"{client['most_in_flight']:,}"),
    ]
    states = seen.states
    for column, title in (
        ("num_running", "server: most running"),
        ("num_waiting", "server: most waiting"),
    ):
        if column in states:
            rows.append((title, f"{states[column].max():,.0f}"))
    if "kv_usage" in states:
        rows.append(("server: most KV memory used", percent(states["kv_usage"].max())))
    return rows


def engine_rows(client: Result, engine: Result) -> list[tuple[str, str]]:
    """Return the lines that split the mean TTFT: client, front end, queue and steps."""
    split = ttft_split(client, engine)
    rows = [("iterations recorded", f"{len(engine.iterations):,}")]
    return rows + [(f"TTFT: {part}", duration(1e3 * own)) for part, own in split.items()]
