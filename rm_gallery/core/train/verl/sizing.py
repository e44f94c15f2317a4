"""How to lay a model over GPUs: tensor parallelism for sampling, offloading for training, context length."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
# of an 80 GB card, where nothing else is known; a smaller one says so by `verl.` keys or is found on this machine
USUAL_GPU_GIB = 79.0
SAMPLING_SHARE = 0.5
"""Of a GPU's memory that vLLM may take; the trainer holds the rest."""


@dataclass(frozen=True)
class ModelSize:
    """What sizes depend on.

    Attributes:
        parameters: how many numbers the model has; None where it cannot be known.
        context: the longest prompt with response, in tokens; None where it is not said.
        heads: key-value heads, which tensor parallelism divides; None where it is not said.
    """

    parameters: float | None = None
    context: int | None = None
    heads: int | None = None


def model_size(path: str) -> ModelSize:
    """Read `config.json` of a local folder; of a hub id, what its name says (`Qwen2.5-7B` has 7e9)."""
    folder = Path(path).expanduser()
    file = folder / "config.json"
    if not file.is_file():
        named = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", folder.name.lower().replace("-", " "))
        return ModelSize(float(named[0][0]) * {"b": 1e9, "m": 1e6}[named[0][1]] if named else None)
    values = json.loads(file.read_text(encoding="utf-8"))
    values = {**values, **values.get("text_config", {})}  # a model of images and text keeps them there
    context = values.get("max_position_embeddings")
    heads = values.get("num_key_value_heads") or values.get("num_attention_heads")
    return ModelSize(_weights(folder) or _estimate(values), context, heads)


def _weights(folder: Path) -> float | None:
    """From the size of the weight files: safetensors hold the numbers and little else."""
    sizes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not sizes:
        return None
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = str(values.get("dtype") or values.get("torch_dtype") or "bfloat16")
    return sizes / (4 if "32" in dtype else 2)


def _estimate(values: dict[str, int]) -> float | None:
    """Of a decoder: embeddings, and for each layer attention (4 h²) and a gated feed-forward (3 h·i)."""
    try:
        hidden, layers, vocabulary = (values[k] for k in ("hidden_size", "num_hidden_layers", "vocab_size"))
        inner = values.get("intermediate_size") or 4 * hidden
    except KeyError:
        return None
    return float(vocabulary * hidden + layers * (4 * hidden * hidden + 3 * hidden * inner))


@dataclass(frozen=True)
class Layout:
    """What follows from the sizes."""

    tensor_parallel: int
    offload: bool
    """Weights and optimizer state rest in the host's memory between updates."""


def layout(size: ModelSize, gpus_per_node: int, nodes: int, gpu_gib: float | None = None) -> Layout:
    """The smallest tensor parallelism at which the weights leave vLLM as much room for its cache.

    Weights are sampled from in bfloat16, 2 bytes a parameter; half of vLLM's share goes to them. Training holds 16
    bytes a parameter (weights, gradient and Adam's two moments, all float32) over all GPUs; where that takes more
    than 40% of a GPU's memory it is offloaded. A model of unknown size is taken to fit one GPU.
    """
    gib = gpu_gib or USUAL_GPU_GIB
    weights = 2 * (size.parameters or 0) / GIB
    parallel = 1
    while weights / parallel > gib * SAMPLING_SHARE / 2 and _fits(2 * parallel, gpus_per_node, size.heads):
        parallel *= 2
    state = 16 * (size.parameters or 0) / GIB / (gpus_per_node * nodes)
    return Layout(parallel, state > 0.4 * gib)


def _fits(parallel: int, gpus_per_node: int, heads: int | None) -> bool:
    return gpus_per_node % parallel == 0 and (heads is None or heads % parallel == 0)
