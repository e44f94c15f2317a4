"""`merge_checkpoint`: verl's shards, or a base with LoRA adapters, as one Hugging Face folder with the judge's card."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.scalar import is_scalar_model
from rm_gallery.core.judge.scalar_card import attributes_of, name_labels
from rm_gallery.core.tasks.saved import CARD

SHARDS = "fsdp_config.json"
ADAPTER = "adapter_config.json"


def merge_checkpoint(checkpoint: str | Path, out: str | Path) -> Path:
    """Write `checkpoint` as a folder that transformers, vLLM and `rmg` load; returns it.

    It has the weights (bfloat16 from shards, as verl's merger writes them), tokenizer, chat template, generation
    config, the card `rm_gallery.json` and a model card. Written beside `out` and moved when it is complete.

    Args:
        checkpoint: a run's folder or its `actor_latest`, verl's `global_step_N` or its `actor`, or a folder of
            adapters.

    Raises:
        ConfigError: there is nothing to merge, the checkpoint is damaged, or `out` is in use.
        MissingDependency: shards are merged by verl, which is not installed.
    """
    source, out = find_checkpoint(checkpoint), Path(out).expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"{out} is there already: name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".merge-") as scratch:
        part = Path(scratch) / "model"
        if (source / SHARDS).is_file():
            _merge_shards(source, part)
        else:
            _merge_adapter(source, source, part)
        card = next((file for file in (source / CARD, source.parents[1] / CARD) if file.is_file()), None)
        if card:
            shutil.copyfile(card, part / CARD)
        (part / "README.md").write_text(_model_card(source, part), encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        part.replace(out)
    return out


def find_checkpoint(checkpoint: str | Path) -> Path:
    """The folder with the shards or adapters, from any of the names that it goes by. Raises `ConfigError`."""
    given = Path(checkpoint).expanduser()
    if not given.is_dir():
        raise ConfigError(f"there is no folder {given}; a run's newest checkpoint is RUN/actor_latest")
    for folder in (given, given / "actor", given / "actor_latest"):
        if any((folder / name).is_file() for name in (SHARDS, ADAPTER)):
            return folder.resolve()
    if (given / "config.json").is_file():
        raise ConfigError(f"{given} is one whole model already: use it as it is")
    raise ConfigError(f"{given} holds neither shards of verl ({SHARDS}) nor adapters ({ADAPTER})")


def _merge_shards(source: Path, part: Path) -> None:
    from rm_gallery.core.models.require import require

    require("verl", "verl")
    words = ["merge", "--backend", "fsdp", "--local_dir", str(source), "--target_dir", str(part)]
    # a process of its own: it prints its progress, and loads verl with all that it brings
    done = subprocess.run(
        [sys.executable, "-m", "verl.model_merger", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = f"verl says: {said[-1]}" if said else f"verl ended with exit status {done.returncode}"
        raise ConfigError(f"{source} could not be merged, is it complete? {last}")
    adapter = part / "lora_adapter"
    if adapter.is_dir():
        base = part.with_name("base")
        part.replace(base)
        _merge_adapter(base, base / "lora_adapter", part)


def _merge_adapter(source: Path, adapter: Path, part: Path) -> None:
    """The weights of `adapter` added to its base: the one in `source`, or the one that it names."""
    from rm_gallery.core.models.weights import load_model, load_tokenizer

    # verl's merger writes 0 where the checkpoint does not say it; the adapters would then do nothing
    if not json.loads((adapter / ADAPTER).read_text(encoding="utf-8")).get("lora_alpha"):
        raise ConfigError(
            f"{adapter} does not say the scale of its adapters (lora_alpha is 0): is lora_train_meta.json there?"
        )
    if adapter == source and is_scalar_model(source):
        _merge_scalar(source, part)
        return
    if adapter == source:
        model = load_model(source)
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(load_model(source), str(adapter)).merge_and_unload()
    model.save_pretrained(part)
    load_tokenizer(source).save_pretrained(part)


def _merge_scalar(source: Path, part: Path) -> None:
    from rm_gallery.core.models.weights import load_model, load_tokenizer

    attributes = attributes_of(source)
    model = load_model(source, classifier=True, labels=len(attributes) or 1)
    name_labels(model.config, attributes)
    model.save_pretrained(part)
    tokenizer = load_tokenizer(source, chat=False)
    tokenizer.padding_side = "right"  # an encoder counts its positions from the left
    tokenizer.save_pretrained(part)


def _model_card(source: Path, part: Path) -> str:
    values = json.loads((part / CARD).read_text(encoding="utf-8")) if (part / CARD).is_file() else {}
    step = next((p.name for p in (source, *source.parents) if "_" in p.name or "-" in p.name), source.name)
    if is_scalar_model(part):
        tag, title = (
            "text-classification",
            f"A scalar reward model ({values.get('method', 'unknown method')})",
        )
        says = "how it was trained, and the weights of its numbers where it gives several"
        use = "rmg eval --model . --data FILE.parquet"
    else:
        tag, title = "text-generation", f"A judge of task {values.get('task', 'unknown')}"
        says = "the task it was trained on, so that it is asked the same in use"
        use = 'rmg eval --model . --data FILE.parquet\nrmg judge --model . --query "…" --response "…"'
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: {tag}\ntags: [reward-model, judge]\n---\n\n"
        f"# {title}\n\n"
        f"Trained with rm_gallery {values.get('rm_gallery', '')}; merged from step `{step}`.\n"
        f"`rm_gallery.json` holds {says}.\n\n"
        f"```bash\n{use}\n```\n"
    )
