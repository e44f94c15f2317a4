"""A run in a process of its own, to be killed.

python -m tests.runner.child '{"base_url": …, "journal": …, "out": …, "items": 300, …}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rm_gallery.core.graders import GraderError, LLMGrader
from rm_gallery.core.memory import peak_memory_gib
from rm_gallery.core.models import Backoff, OpenAIChatModel
from rm_gallery.core.runner import GradingRunner


def main() -> None:
    options = json.loads(sys.argv[1])
    model = OpenAIChatModel(
        "judge",
        options["base_url"],
        timeout=options["timeout"],
        max_retries=options["max_retries"],
        max_concurrency=options["max_concurrency"],
        backoff=Backoff(first=0.05, longest=1.0),
    )
    prompt = "Score this.\n{{ query }}\n{{ response }}\n{{ output_format }}"
    grader = LLMGrader(model, name="asking", prompt=prompt, scale=(0, 10))
    runner = GradingRunner(
        {"asking": grader}, max_concurrency=options["max_concurrency"], journal=options["journal"]
    )
    items = [{"query": f"item {i}", "response": "words " * 100} for i in range(options["items"])]
    results = runner.run(items)["asking"]
    lines = [
        {"error": result.error, "kind": result.kind}
        if isinstance(result, GraderError)
        else {"score": result.score}
        for result in results
    ]
    report = {"results": lines, "peak_gib": peak_memory_gib()}
    Path(options["out"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
