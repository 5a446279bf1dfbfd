"""Where a TTFT comes from: client, front end, queue and steps, by the engine's own log."""

from __future__ import annotations

import pandas as pd

from busdoor.results.result import Result


def ttft_split(client: Result, engine: Result) -> dict[str, float]:
    """Split the mean TTFT that a client saw, by the engine's log of the same requests, in seconds.

    `client`: from due to sent; `front end`: from sent until the server took it, and the way back;
    `queue`: from there until first scheduled; `steps`: from there to the first token.
    """
    both = joined(client, engine)

    def mean(later: pd.Series[float], earlier: pd.Series[float]) -> float:
        return float((later - earlier).mean())

    return {
        "client": mean(both["sent_s"], both["arrival_s"]),
        "front end": mean(both["taken_s"], both["sent_s"])
        + mean(both["first_token_s"], both["first_token_s_engine"]),
        "queue": mean(both["first_scheduled_s_engine"], both["taken_s"]),
        "steps": mean(both["first_token_s_engine"], both["first_scheduled_s_engine"]),
    }


def joined(client: Result, engine: Result) -> pd.DataFrame:
    """Return the finished requests, each with what its client and (`_engine`) its engine saw."""
    own = client.requests.set_index("request_id")
    theirs = engine.requests.assign(row=engine.meta["client_rows"]).set_index("row")
    both = own.merge(theirs, left_index=True, right_index=True, suffixes=("", "_engine"))
    return both[(both["status"] == "finished") & both["first_token_s_engine"].notna()]
