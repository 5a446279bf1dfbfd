"""The tables [kv] and [gpu] of a configuration, and what all tables share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog import GPU, Dtype, Engine, ModelShape, gpu_names, kv_capacity, model_names
from busdoor.catalog import gpu as find_gpu
from busdoor.catalog import model as find_model
from busdoor.catalog.memory import GPU_MEMORY_UTILIZATION
from busdoor.core.units import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class KVTable:
    """[kv]: the memory for keys and values, the same for every policy.

    Parameters
    ----------
    block_size : int
        Tokens of a block.
    num_blocks : int, optional
        Blocks; by default what the GPU holds beside the model.
    max_model_len : int, optional
        Longest request, prompt and answer together; by default the smallest power of two that holds
        the workload's longest, within what the model can.
    """

    block_size: PositiveInt = 16
    num_blocks: PositiveInt | None = None
    max_model_len: Annotated[int, Field(ge=2)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GPUTable:
    """[gpu]: what runs which model.

    Parameters
    ----------
    name : str or table
        GPU: from the catalogue, or a table of your own.
    model : str or table
        Model: from the catalogue, a table of your own, or a Hugging Face config.json or the folder
        that holds it.
    tp : int
        GPUs that share the model.
    weight_dtype : str
        Format of the weights; the checkpoint's unless given.
    kv_dtype : str
        Format of the KV cache; the checkpoint's unless given, at 16 bits where it has none.
    gpu_memory_utilization : float
        Share of the memory that the engine may take.
    price_per_hour : float, optional
        Of one GPU, in your currency: the table then says what the load costs. A GPU of your own may
        have its price in its table instead.
    """

    name: Annotated[GPU, BeforeValidator(find_gpu)] = Field(
        default_factory=lambda: find_gpu("h100")
    )
    model: Annotated[ModelShape, BeforeValidator(find_model)] = Field(
        default_factory=lambda: find_model("llama-3.1-8b")
    )
    tp: PositiveInt = 1
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = GPU_MEMORY_UTILIZATION
    price_per_hour: PositiveFloat | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_dtype", self.weight_dtype or self.model.weight_dtype)
        if self.price_per_hour is None and self.name not in map(find_gpu, gpu_names()):
            object.__setattr__(self, "price_per_hour", self.name.price_per_hour)

    def num_blocks(self, block_size: int, context_tokens: float | None = None) -> int:
        """KV blocks that it holds; ValueError if the model does not fit.

        Where layers attend to a window, requests of `context_tokens` leave room for more of them.

        Examples
        --------
        >>> GPUTable().num_blocks(block_size=16)
        28361
        """
        return kv_capacity(
            self.name,
            self.model,
            gpu_memory_utilization=self.gpu_memory_utilization,
            weight_dtype=self.weight_dtype,
            kv_dtype=self.kv_dtype,
            tp=self.tp,
            block_size=block_size,
            context_tokens=context_tokens,
        )

    def roofline(self) -> dict[str, Any]:
        """Fields of the roofline step time on this GPU."""
        fields = {
            "gpu": self.name,
            "model": self.model,
            "tp": self.tp,
            "weight_dtype": self.weight_dtype,
        }
        return fields if self.kv_dtype is None else fields | {"kv_dtype": self.kv_dtype}

    @property
    def hardware(self) -> str:
        """The GPUs of one server in short, as in "2 × h100"."""
        return self.name.name if self.tp == 1 else f"{self.tp} × {self.name.name}"

    def kv_bytes_per_token(self) -> float:
        """Bytes of a token's keys and values in all layers.

        Examples
        --------
        >>> GPUTable().kv_bytes_per_token()
        131072.0
        """
        weights = self.weight_dtype or self.model.weight_dtype
        return float(
            self.model.kv_bytes_per_token(self.kv_dtype or self.model.kv_dtype_with(weights))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON has it; what is not in the catalogue is spelt out."""
        said = {
            key: value
            for key in self.__dataclass_fields__
            if (value := getattr(self, key)) is not None
        }
        said["name"] = (
            self.name.name if self.name in map(find_gpu, gpu_names()) else self.name.to_table()
        )
        said["model"] = (
            self.model.name
            if self.model in map(find_model, model_names())
            else self.model.to_table()
        )
        return said


def engine_table(engine: Engine) -> dict[str, Any]:
    """Return an engine as a table [engine] that reads back as it.

    >>> from busdoor.catalog import engine
    >>> engine_table(engine("vllm"))
    {'name': 'vllm'}
    """
    described = engine.describe()
    return {"name": described} if isinstance(described, str) else described


def without_engine(step_time: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table [step_time] without the engine, which a configuration keeps apart."""
    return {key: value for key, value in step_time.items() if key != "engine"}
