"""Small exported files, and datasets built from them as verl builds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rm_gallery.core.train import BaseTrainDataset
from tests.tiny import CHAT_TEMPLATE, build_tokenizer

TOKENIZER = build_tokenizer()
THINKS = build_tokenizer()  # as Qwen3's: an empty reasoning is written where thinking is off
THINKS.chat_template = CHAT_TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think></think>{% endif %}"
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(cls: type[BaseTrainDataset], files: Any, tokenizer: Any = TOKENIZER, **config: Any) -> Any:
    limit = config.pop("max_samples", -1)
    return cls(data_files=files, tokenizer=tokenizer, processor=None, config=config, max_samples=limit)
