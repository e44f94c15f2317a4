"""`Transformer`: of a model, what its work and its memory depend on, read from its config.json. No weights are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError, nearest
from rm_gallery.core.estimate.counts import Shape

_PLAIN = {
    *(
        "bert",
        "bloom",
        "distilbert",
        "electra",
        "falcon",
        "gpt2",
        "gpt_neox",
        "mpnet",
        "opt",
        "phi",
        "roberta",
    ),
    *("starcoder2", "xlm-roberta"),
}
"""Kinds whose feed-forward layer has two matrices; all others have three, one of them a gate."""
_ENCODERS = {"bert", "distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta"}
_ALIASES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "vocabulary": ("vocab_size",),
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Transformer:
    """The sizes of a transformer. Biases and norms, a thousandth of the weights, are not counted.

    Attributes:
        name: what it was read from.
        heads, kv_heads: attention heads of the queries, and of the keys and values.
        head_size: of one of them.
        intermediate: width of the feed-forward layer; `gated` says whether it has three matrices or two.
        tied: the head's matrix is that of the embeddings.
        causal: a decoder; else an encoder.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    gated: bool = True
    causal: bool = True

    @property
    def kv_width(self) -> int:
        """Of a token's keys in one layer, and of its values."""
        return self.kv_heads * self.head_size

    @cached_property
    def shape(self) -> Shape:
        width = self.heads * self.head_size
        attention = self.hidden * (2 * width + 2 * self.kv_width)
        feed_forward = (3 if self.gated else 2) * self.hidden * self.intermediate
        return Shape(
            self.layers * (attention + feed_forward),
            self.hidden * self.vocabulary,
            width,
            self.layers,
            self.causal,
        )

    @property
    def parameters(self) -> int:
        heads = 1 if self.tied or not self.causal else 2
        return self.shape.layer_weights + heads * self.hidden * self.vocabulary

    @property
    def without_head(self) -> Shape:
        """As a scalar model: its head is a vector or a few."""
        shape = self.shape
        return Shape(shape.layer_weights, 0, shape.attention_width, shape.layers, shape.causal)


def _qwen(
    name: str, hidden: int, layers: int, heads: int, kv: int, wide: int, words: int, tied: bool
) -> Transformer:
    return Transformer(f"Qwen2.5-{name}", hidden, layers, heads, kv, hidden // heads, wide, words, tied)


SIZES = {
    size.name.removeprefix("Qwen2.5-"): size
    for size in (
        _qwen("0.5B", 896, 24, 14, 2, 4864, 151936, True),
        _qwen("1.5B", 1536, 28, 12, 2, 8960, 151936, True),
        _qwen("3B", 2048, 36, 16, 2, 11008, 151936, True),
        _qwen("7B", 3584, 28, 28, 4, 18944, 152064, False),
        _qwen("14B", 5120, 48, 40, 8, 13824, 152064, False),
        _qwen("32B", 5120, 64, 40, 8, 27648, 152064, False),
        _qwen("72B", 8192, 80, 64, 8, 29568, 152064, False),
    )
}
"""Qwen2.5's family (its models' config.json), to see how cost grows with size."""


def known_size(name: str) -> Transformer:
    """One of `SIZES`. Raises `ConfigError`."""
    for known, size in SIZES.items():
        if name.strip().lower() == known.lower():
            return size
    raise ConfigError(
        f"there is no size {name!r}; known are {', '.join(SIZES)} (Qwen2.5).{nearest(name.strip(), list(SIZES))}"
    )


def read_model(path: str, *, trust_remote_code: bool = False) -> Transformer:
    """The sizes of a folder, of a known size (`7B`), or of a name on a model hub.

    Of adapters, those of their base.

    Raises:
        ConfigError: there is no such model, or its configuration does not say its sizes.
    """
    folder = Path(path).expanduser()
    if (folder / "adapter_config.json").is_file():
        return read_model(str(_json(folder / "adapter_config.json")["base_model_name_or_path"]))
    if (folder / "config.json").is_file():
        return from_config(_json(folder / "config.json"), path)
    if folder.is_dir():
        raise ConfigError(f"{folder} holds no model: there is no config.json in it")
    for size in SIZES.values():
        if path.lower() in (f"qwen/{size.name.lower()}", f"qwen/{size.name.lower()}-instruct"):
            return size
    if path.lower() in (known.lower() for known in SIZES):
        return known_size(path)
    return from_config(_from_hub(path, trust_remote_code), path)


def from_config(config: Mapping[str, Any], name: str) -> Transformer:
    """The sizes that a config.json says. Raises `ConfigError`."""
    if isinstance(config.get("text_config"), Mapping):
        config = config["text_config"]
    if any((config.get(key) or 0) > 1 for key in _EXPERTS):
        raise ConfigError(f"{name} is a mixture of experts, of which no estimate is made")

    def size(field: str) -> int:
        found = next((config[key] for key in _ALIASES[field] if config.get(key)), None)
        if not isinstance(found, int):
            raise ConfigError(
                f"the config.json of {name} has no {_ALIASES[field][0]}, so its work cannot be counted"
            )
        return found

    kind = str(config.get("model_type"))
    hidden, heads = size("hidden_size"), size("heads")
    wide = next(
        (config[key] for key in ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim") if config.get(key)),
        4 * hidden,
    )
    return Transformer(
        name=name,
        hidden=hidden,
        layers=size("layers"),
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or hidden // heads,
        intermediate=wide,
        vocabulary=size("vocabulary"),
        tied=bool(config.get("tie_word_embeddings", kind not in ("llama", "mistral", "qwen2"))),
        gated=kind not in _PLAIN,
        causal=kind not in _ENCODERS,
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected an object")
    return found


def _from_hub(path: str, trust_remote_code: bool) -> Mapping[str, Any]:
    missing = f"there is no folder {path} with a config.json here; a size such as 7B is also taken"
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise ConfigError(missing)
    try:
        from transformers import AutoConfig
    except ImportError:
        raise ConfigError(missing) from None
    try:
        found: Mapping[str, Any] = AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code
        ).to_dict()
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{missing}, and a model hub has no such model: {first}") from None
    return found
