"""Loading and saving causal language models with transformers (and adapters with PEFT)."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.models.memory import keep_freed_memory

_SIDE = 768
"""Of the matrices by which dtypes are compared: as wide as a small model's layers, and large enough for all threads."""


def convert_gguf(source: Path, folder: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write the GGUF file `source` as a Hugging Face folder, complete or not at all.

    `notes` are small text files to lay beside the weights, by name.

    A model that transformers loaded from a GGUF refuses `save_pretrained`, so a clean one is built from the
    configuration and given the weights.
    """
    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    # the GGUF reader draws a bar of its own, which nothing but its stream can silence
    with (
        quiet_transformers(),
        open(os.devnull, "w", encoding="utf-8") as void,
        contextlib.redirect_stderr(void),
    ):
        tokenizer = AutoTokenizer.from_pretrained(**place)
        loaded = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        config = loaded.config
        for leftover in ("quantization_config", "_model_name_or_path"):
            if hasattr(config, leftover):
                delattr(config, leftover)
        clean = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        clean.load_state_dict(loaded.state_dict())
        clean.tie_weights()
        clean.generation_config = loaded.generation_config
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            part = Path(scratch) / folder.name
            clean.save_pretrained(part)
            tokenizer.save_pretrained(part)
            for name, text in (notes or {}).items():
                (part / name).write_text(text, encoding="utf-8")
            part.replace(folder)
    return folder


def load_tokenizer(path: str | Path, *, trust_remote_code: bool = False, chat: bool = True) -> Any:
    """The tokenizer of a folder or hub id, padding on the left.

    Raises:
        ConfigError: there is none at `path`, or it has no chat template where `chat` asks for one.
    """
    path = _place(path)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                path, padding_side="left", trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError) as error:
        raise ConfigError(_not_found("tokenizer", path, error)) from None
    if chat and not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer at {path} has no chat template: use an instruction-tuned model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is told by the attention mask, never by the id
    return tokenizer


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    trust_remote_code: bool = False,
    classifier: bool = False,
    labels: int = 1,
) -> Any:
    """A causal language model from a folder or hub id; LoRA adapters are merged into their base in memory.

    `attention` is transformers' `attn_implementation`; None leaves the choice to it. With `classifier`, a sequence
    classifier; `labels` is how many numbers the head of adapters gives.

    Raises:
        ConfigError: there is none at `path`.
    """
    keep_freed_memory()
    path = _place(path)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if attention is not None:
        options["attn_implementation"] = attention
    try:
        with quiet_transformers():
            if (Path(path) / "adapter_config.json").is_file():
                import peft

                adapter = json.loads((Path(path) / "adapter_config.json").read_text())
                _place(adapter["base_model_name_or_path"])
                if classifier:
                    options["num_labels"] = labels  # the base knows nothing of the head
                kind = "SequenceClassification" if classifier else "CausalLM"
                adapted = getattr(peft, f"AutoPeftModelFor{kind}")
                return adapted.from_pretrained(path, **options).merge_and_unload()
            whole = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
            return whole.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(_not_found("model", path, error)) from None


def load_configuration(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """A model's configuration; of adapters that of their base. Raises `ConfigError` where there is none."""
    path = _place(path)
    try:
        with quiet_transformers():
            if (Path(path) / "adapter_config.json").is_file():
                from peft import PeftConfig

                path = str(PeftConfig.from_pretrained(path).base_model_name_or_path)
            return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(_not_found("model", path, error)) from None


def inner_model(model: Any) -> Any:
    """The model inside a PEFT wrapper, its adapters in its layers; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def store_for_autocast(model: Any, dtype: torch.dtype) -> None:
    """Store the linear layers of a frozen model in `dtype`, in place.

    Under autocast to that dtype they are rounded to it at each use, so that every figure stays the same, bit by bit, for
    half the memory and without the rounding. Embeddings, a head that is tied to them, and norms stay as they are.
    """
    embeddings = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not embeddings:
            module.to(dtype)
    for parameter in model.parameters():
        if parameter.dtype != dtype:  # a file that was mapped stays in memory for the last that looks into it
            parameter.data = parameter.data.clone()


def default_device() -> torch.device:
    """The first accelerator, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype of the computation: `float32`, `bfloat16`, or `auto` for the one that is faster on this machine.

    Raises `ConfigError` for another name.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if name != "auto":
        raise ConfigError(f"the dtype is {name!r}; it can be float32, bfloat16 or auto")
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # private, and the only way to ask; absent on other architectures
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_amx_fp16_supported")
    units = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    faster = units and _multiplies_faster(torch.bfloat16, torch.float32)
    return torch.bfloat16 if faster else torch.float32


@functools.cache
def _multiplies_faster(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether this processor does, by a product of matrices in either; it takes a tenth of a second.

    The processor's flags tell only where bfloat16 would be emulated: with the same one (avx512_bf16) it is twice as fast
    as float32 on AMD's, and half as fast on an Intel one whose AMX a virtual machine hides.
    """
    pairs = {dtype: torch.ones(_SIDE, _SIDE, dtype=dtype) for dtype in (one, other)}
    seconds = dict.fromkeys(pairs, math.inf)
    for _ in range(5):  # the best of several in turn: something else may be running
        for dtype, matrix in pairs.items():
            began = time.perf_counter()
            matrix @ matrix
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    return seconds[one] < seconds[other]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own bars and advice; errors still raise, and our output is untouched."""
    bars, level = transformers.logging.is_progress_bar_enabled(), transformers.logging.get_verbosity()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # renamed arguments, between pinned versions
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def _not_found(what: str, path: str, error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    if Path(path).is_dir():
        return f"no {what} could be loaded from {path}: {first}"
    return (
        f"there is no folder {path} here, and no {what} of that name could be had from a model hub: {first}"
    )


def _place(path: str | Path) -> str:
    """`path` as transformers takes it, `~` expanded. Raises `ConfigError` where a local folder holds no model."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            return str(folder)
        if (folder / "fsdp_config.json").is_file():
            raise ConfigError(
                f"{folder} holds shards of verl: `rmg merge {folder} OUT` makes one model of them"
            )
        raise ConfigError(
            f"{folder} holds no model: there is neither config.json nor adapter_config.json in it"
        )
    # owner/name may be on a hub, but models/name is where `rmg models fetch` writes
    owner, slash, name = str(path).partition("/")
    if slash and owner not in ("", ".", "..", "~", "models") and "/" not in name and not Path(owner).is_dir():
        return str(path)
    raise ConfigError(
        f"there is no model folder {folder}; `rmg models fetch smollm2-135m-instruct` gets a small one"
    )
