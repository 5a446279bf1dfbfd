"""GPUs, models and engines by name, with sources, and what fits where."""

from busdoor.catalog.dtypes import BYTES_PER_VALUE, Dtype
from busdoor.catalog.engines import DEFAULT_ENGINE, Engine, engine, engine_names
from busdoor.catalog.gpus import GPU, gpu, gpu_names
from busdoor.catalog.memory import (
    MemoryPlan,
    default_max_num_batched_tokens,
    default_max_num_seqs,
    kv_capacity,
    memory_plan,
)
from busdoor.catalog.models import config_path, has_config, model, model_names
from busdoor.catalog.shape import ModelShape

__all__ = [
    "BYTES_PER_VALUE",
    "DEFAULT_ENGINE",
    "GPU",
    "Dtype",
    "Engine",
    "MemoryPlan",
    "ModelShape",
    "config_path",
    "default_max_num_batched_tokens",
    "default_max_num_seqs",
    "engine",
    "engine_names",
    "gpu",
    "gpu_names",
    "has_config",
    "kv_capacity",
    "memory_plan",
    "model",
    "model_names",
]
