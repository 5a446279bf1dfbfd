"""Record look-ups in operator tables, so that tests need no tables.

    python tests/sim/record_operators.py      # needs aiconfigurator-core; writes operators.json

Milliseconds of each operator of Qwen3-32B on two H200 with vLLM, from aiconfigurator-core
(Apache-2.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from busdoor.step_time.operator_tables import MOST_ROWS, MOST_TOKENS, PADDED

RECORD = Path(__file__).with_name("operators.json")
# The steps that tests/sim/test_operators.py asks for: prompts, tokens of each, and their prefix ...
PREFILLS = [
    (1, 2048, 0),
    (2, 1024, 0),
    (1, 512, 0),
    (1, 576, 0),
    (1, 64, 0),
    (1, 1, 0),
    (65, 1, 0),
    (66, 1, 0),
    (1, 512, 1024),
    (2, 256, 128),
    (1, 32, 0),
    (1, 1088, 0),
    (1, 2112, 0),
    *((1, tokens, 0) for tokens in PADDED if tokens <= MOST_TOKENS),  # to which they may be padded
]
# ... and rows that decode, and the context of each.
DECODES = [
    (8, 512),
    (8, 16384),
    (64, 1),
    (64, 1024),
    (64, 1088),
    (64, 1056),
    (64, 1152),
    (32, 1),
    (32, 512),
    (32, 544),
    *((rows, 1) for rows in PADDED if rows <= MOST_ROWS),
]


def record() -> dict[str, Any]:
    """Look every step up."""
    from importlib.metadata import version

    from aiconfigurator_core import AicEngine
    from aiconfigurator_core.sdk.engine import compile_engine

    spec = compile_engine("Qwen/Qwen3-32B", "h200_sxm", "vllm", "0.24.0", tp_size=2)
    engine = AicEngine.from_spec(spec)
    every = list(range(14))
    prefills = {step: engine.evaluate_context_ops(every, *step) for step in PREFILLS}
    decodes = {step: engine.evaluate_generation_ops(every, *step) for step in DECODES}
    steps = {"context": prefills, "generation": decodes}
    return {
        "source": f"aiconfigurator-core {version('aiconfigurator-core')}, Apache-2.0",
        "deployment": "Qwen/Qwen3-32B, 2 h200_sxm, vllm 0.24.0",
        "names": {kind: [op[0] for op in next(iter(of.values()))] for kind, of in steps.items()},
        "milliseconds": {
            kind: {
                " ".join(map(str, step)): [float(f"{op[1]:.6g}") for op in ops]
                for step, ops in of.items()
            }
            for kind, of in steps.items()
        },
    }


if __name__ == "__main__":
    lines = json.dumps(record()).replace('], "', '],\n"').replace('{"', '{\n"')  # a row per step
    RECORD.write_text(lines + "\n", encoding="utf-8")
