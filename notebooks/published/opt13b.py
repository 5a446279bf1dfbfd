"""Machine of three experiments: OPT-13B on a 40 GB A100, as in papers of 2022 and 2023."""

from __future__ import annotations

from busdoor.catalog import gpu, model
from busdoor.kv.config import KVConfig
from busdoor.step_time import RooflineStepTime

# 12 GB beside 26 GB of weights (vLLM's paper, table 1: 15.7K slots), in blocks of 16, its default.
BLOCK_SIZE = 16
NUM_BLOCKS = 15_700 // BLOCK_SIZE
MAX_MODEL_LEN = 2048  # OPT's positions


def step_time() -> RooflineStepTime:
    """Return the roofline of the model on the GPU.

    It is the machine's best, with the host overhead of our own engine; those of 2023 took 1.5 to 2
    times as long a step (Anyscale's naive run: 33 ms where this has 22), so absolute rates come out
    higher than published.
    """
    return RooflineStepTime(gpu("a100-40gb"), model("opt-13b"), engine="busdoor")


def memory(
    num_tokens: int = NUM_BLOCKS * BLOCK_SIZE, max_model_len: int = MAX_MODEL_LEN
) -> KVConfig:
    """Return the KV memory of that many tokens; by default all that is free."""
    return KVConfig(
        num_blocks=num_tokens // BLOCK_SIZE, max_model_len=max_model_len, block_size=BLOCK_SIZE
    )
