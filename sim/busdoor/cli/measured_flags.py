"""Flags of calibrate and validate: what measured runs do not contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from busdoor.calibration.request_load import Sent
    from busdoor.results.result import Result


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MeasuredFlags:
    """What measured runs do not contain: flags of calibrate and validate.

    Parameters
    ----------
    policy
        How the runs were scheduled, where they do not contain it:
        vllm,max_num_seqs=64,num_blocks=4096,block_size=16, max_model_len=8192.
    run
        Which run of a file that holds several (results of vLLM or SGLang that were appended,
        benchmarks of guidellm); 1 is the first.
    gpu
        GPU that was measured, for a roofline of it.
    model
        Model that it served, for a roofline of it: a name or a config.json.
    tp
        GPUs that shared the model; 1 unless given.
    engine
        Whose host time and front end it is: vllm (unless given), trtllm, sglang, tgi ...
    lookahead
        Of the server, where the runs do not contain it: 1, the next batch is decided while the one
        before still runs.
    max_in_flight
        Most requests that the client kept open at once, where the runs do not contain it.
    shared_prefix
        Tokens with which all prompts begin alike, where the server's prefix cache was on.
    """

    policy: str | None = None
    run: int | None = None
    gpu: str | None = None
    model: str | None = None
    tp: int | None = None
    engine: str | None = None
    lookahead: Literal[0, 1] | None = None
    max_in_flight: int | None = None
    shared_prefix: int | None = None

    def read(self, measured: Sequence[Path]) -> list[Result]:
        """Read measured runs, and print what their readers left out or assumed."""
        from busdoor.calibration import load_measured
        from busdoor.cli.output import print_notes

        results = [load_measured(path, run=self.run) for path in measured]
        print_notes(note for result in results for note in result.meta.get("notes", ()))
        return results

    @property
    def server(self) -> dict[str, Any]:
        """GPU, model, tp and engine, as far as they were given."""
        named = {"gpu": self.gpu, "model": self.model, "tp": self.tp, "engine": self.engine}
        return {key: value for key, value in named.items() if value is not None}

    @property
    def sent(self) -> Sent:
        """How the requests were sent."""
        from busdoor.calibration.request_load import Sent

        return Sent(self.max_in_flight, self.shared_prefix or 0, self.lookahead)

    @property
    def scheduling(self) -> Mapping[str, Any] | None:
        """The policy as a table, with everything that a simulation of the runs needs."""
        from busdoor.calibration.teacher_forcing import check_policy
        from busdoor.config import parse_policy

        given = dict(check_policy(parse_policy(self.policy))) if self.policy else {}
        return ({"prefix_caching": True} if self.shared_prefix else {}) | given or None
