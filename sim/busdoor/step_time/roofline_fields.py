"""What a roofline is made of: GPU, model, engine, and the shares that kernels reach."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from busdoor.catalog import Dtype
from busdoor.catalog.gpus import Share
from busdoor.catalog.memory import check_weights_fit
from busdoor.step_time.base import TermSeconds
from busdoor.step_time.hardware_fields import HardwareFields

# One small kernel: GEMMs of one row and under 4 MB take 2.5 to 4.3 µs on A100 to B300
# (aiconfigurator gemm sweeps).
KERNEL_S = 3.2e-6
EXPERTS_LESS_KERNELS = 1  # an MLP's three go, router and top-k come
SHARED_KERNELS = 4  # gate and up, activation, down, sum
# DeepSeek's attention in vLLM: norms of compressed queries and keys, expanded queries, products
# with W_UK and W_UV.
LATENT_KERNELS = 5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RooflineFields(HardwareFields):
    """The fields of a `RooflineStepTime`, checked: those of `HardwareFields`, and shares and gaps.

    Experts keep a format of their own under another `weight_dtype`, as gpt-oss's do.

    Parameters
    ----------
    memory_efficiency : float, optional
        Share of the bandwidth that reading weights reaches, in place of the catalogue's for the
        GPU.
    kv_efficiency : float, optional
        Share of the bandwidth that reading the KV cache reaches, in place of the catalogue's.
    gemm_efficiency : float, optional
        Share of the matrix rate that large GEMMs reach, in place of the catalogue's.
    attention_efficiency : float
        Share of the 16-bit matrix rate that prefill attention reaches (FlashAttention 3 on an H100:
        0.39, 0.53 and 0.61 at prompts of 2k, 4k and 8k tokens; aiconfigurator h100_sxm sweep, vLLM
        0.24).
    layer_overhead_s : float, optional
        Launch gaps and ramps of a layer's kernels, in place of the catalogue's for the GPU.
    experts_overhead_s : float, optional
        The same of a layer's routed experts.
    all_reduce_latency_s : float, optional
        Latency of one all-reduce, in place of that measured on links like the GPU's.
    link_efficiency : float, optional
        Share of the link bandwidth that an all-reduce reaches, in place of that measured on links
        like the GPU's.
    """

    name = "roofline"
    memory_efficiency: Share | None = None
    kv_efficiency: Share | None = None
    gemm_efficiency: Share | None = None
    attention_efficiency: Share = 0.55
    layer_overhead_s: TermSeconds | None = None
    experts_overhead_s: TermSeconds | None = None
    all_reduce_latency_s: TermSeconds | None = None
    link_efficiency: Share | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_dtype", self.weights)
        self.model.check_tp(self.tp)
        check_weights_fit(self.gpu, self.model, self.weights, self.tp)

    @property
    def weights(self) -> Dtype:
        """Format of the weights: the checkpoint's unless another is given."""
        return self.weight_dtype or self.model.weight_dtype

    @property
    def layers_s(self) -> float:
        """Launch gaps and ramps of all layers' kernels, seconds.

        To those that every layer has, a mixture of experts adds router and choice, and has its
        fused experts in place of an MLP; shared experts, an MLP and a sum; latent attention, the
        two compressions, their norms and the two products with compressed keys and values.

        >>> [round(RooflineFields("h100", name).layers_s * 1e3, 2) for name in ("qwen3-4b", "qwen3-30b-a3b")]
        [1.15, 2.82]
        """
        card, shape = self.gpu, self.model
        layer_s = card.layer_s if self.layer_overhead_s is None else self.layer_overhead_s
        experts_s = card.experts_s if self.experts_overhead_s is None else self.experts_overhead_s
        kernel_s = min(KERNEL_S, layer_s)  # none where a layer is said to have no gaps
        latent = LATENT_KERNELS * kernel_s if shape.kv_lora_rank else 0.0
        mixture = experts_s - EXPERTS_LESS_KERNELS * kernel_s
        mixture += SHARED_KERNELS * kernel_s if shape.shared_intermediate_size else 0.0
        return shape.num_hidden_layers * (layer_s + latent) + shape.num_expert_layers * max(
            0.0, mixture
        )
