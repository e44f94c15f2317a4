"""The YAML of a conversion: `dataset.{name, configs, process, export}`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.yaml_config import apply_override, read_yaml, validate

Format = Literal["parquet", "jsonl", "json"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceConfig(_Section):
    """Where the rows come from and who reads them."""

    type: Literal["local", "huggingface"] = "local"
    """`local`: files. `huggingface`: a dataset folder or name that the `datasets` package loads."""
    source: str
    """The converter: a registered name, or one's own as `module:Class` or `file.py:Class`."""
    path: str
    """A file, a folder (not read recursively), or a glob; `~` is the home folder."""
    columns: dict[str, Any] = Field(default_factory=dict)
    """For `columns_pointwise` and `columns_pairwise`: which of our fields stands in which column."""
    max_invalid_fraction: float = Field(default=0.01, ge=0, le=1)
    """The conversion fails when more of the rows than this cannot be used."""


class ProcessConfig(_Section):
    """Which rows to keep. Rows removed here are counted apart from bad ones."""

    min_turns: int | None = Field(default=None, ge=1)
    """The least number of messages in a conversation."""
    max_turns: int | None = Field(default=None, ge=1)
    min_prompt_words: int | None = Field(default=None, ge=0)
    """Words of the whole conversation."""
    max_prompt_words: int | None = Field(default=None, ge=1)
    min_response_words: int | None = Field(default=None, ge=0)
    """Words of the response; of each one where there are two."""
    max_response_words: int | None = Field(default=None, ge=1)
    filters: list[str] = Field(default_factory=list)
    """One's own functions, `module:function` or `file.py:function`: handed a `Sample` or `Pair`, they return
    whether to keep it."""


class ExportConfig(_Section):
    """What is written where."""

    output_dir: str = "./examples/data/exports"
    """Relative to the current folder."""
    formats: list[Format] = Field(default=["parquet"], min_length=1)
    preserve_structure: bool = True
    """Keep the source's subfolders below the output folder, where a glob reaches into several."""
    split_ratio: dict[str, float] = Field(default_factory=lambda: {"train": 0.8, "test": 0.2})
    """The name and share of each split; the first is the one trained on. Gives only the names where the
    source carries its own split."""
    split: Literal["source", "ratio"] = "source"
    """`source`: keep the source's own split where it carries one. `ratio`: draw in any case."""
    seed: int = 0

    @field_validator("split_ratio")
    @classmethod
    def _is_a_ratio(cls, ratio: dict[str, float]) -> dict[str, float]:
        for name, share in ratio.items():
            if not name or not name.replace("-", "_").isidentifier():
                raise ValueError(f"{name!r} cannot be the name of a split: use letters, digits, _ and -")
            if not share > 0:
                raise ValueError(f"the share of {name!r} is {share}, it must be positive; leave the name out")
        if not math.isclose(sum(ratio.values()), 1, abs_tol=1e-6):
            raise ValueError(f"the shares sum to {sum(ratio.values()):g}, they must sum to 1")
        return ratio


class DatasetConfig(_Section):
    """One dataset: load → process → split → export."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """The exported files are `{name}_{split}.parquet`."""
    configs: SourceConfig
    process: ProcessConfig = Field(default_factory=ProcessConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)


class _File(_Section):
    dataset: DatasetConfig


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> DatasetConfig:
    """Read a YAML file and apply `key=value` overrides (`dataset.export.seed=1`; `dataset.` may be left out).

    Raises:
        ConfigError: the file, a key or a value cannot be used; says which, and the nearest known key.
    """
    expected = "a section `dataset` with name, configs and export"
    content = read_yaml(path, expected)
    if not isinstance(content.get("dataset"), dict):
        raise ConfigError(f"{path}: expected {expected}")
    for override in overrides:
        apply_override(content, override, example="dataset.export.seed=1", root="dataset")
    return validate(_File, content, str(path)).dataset
