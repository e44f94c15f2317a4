"""The worker extension of vLLM on a CPU: linear layers stay as they are, so that new weights can be loaded."""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension


def _plain_linear(layer: Any, remove_weight: bool) -> None:
    """In place of the packing for oneDNN or AMX, which replaces the weight by one that cannot be written."""
    layer.cpu_linear = torch.nn.functional.linear


class CpuWorkerExtension(vLLMColocateWorkerExtension):
    """verl's own, made before the model is."""

    def __new__(cls, **kwargs: Any) -> Any:
        import vllm.model_executor.layers.utils as utils

        utils.dispatch_cpu_unquantized_gemm = _plain_linear
        return super().__new__(cls, **kwargs)
