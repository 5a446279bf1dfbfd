"""Number formats of weights and KV cache: bytes per value, and the rate they are multiplied at."""

from __future__ import annotations

from typing import Literal

Dtype = Literal["bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4"]

# int4: a 16-bit scale and a 4-bit zero point for every 128 weights, the usual group of AWQ and GPTQ
# checkpoints (config.json, `group_size: 128`). mxfp4: an 8-bit scale for every 32 weights (OCP
# Microscaling Formats 1.0). nvfp4: an fp8 scale for every 16 (NVIDIA, "Introducing NVFP4").
# The scales of fp8 and int8 (one per channel, tensor or block of 128 × 128) are too few to count.
BYTES_PER_VALUE: dict[Dtype, float] = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5 + 2.5 / 128,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
}


def lm_head_dtype(weight_dtype: Dtype) -> Dtype:
    """Format of embeddings and LM head: quantised checkpoints leave them at 16 bits.

    So do AWQ, GPTQ, mxfp4 and llm-compressor's fp8; the KV cache is at this format too unless
    something else is asked for.

    >>> lm_head_dtype("int4"), lm_head_dtype("fp16")
    ('bf16', 'fp16')
    """
    return weight_dtype if weight_dtype in ("bf16", "fp16") else "bf16"
