"""The whole loop on the shipped sample: convert, evaluate, train, evaluate again, report, grade one answer.

Each step is what one `rmg` command does (the README spells them out), on the recipes of `recipes/quickstart`.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate import Estimate
from rm_gallery.core.evaluate.result import EvalResult
from rm_gallery.core.memory import peak_memory_gib

HERE = Path(__file__).parent
RECIPES = HERE / "recipes" / "quickstart"
SAMPLE = HERE / "data" / "samples" / "everyday_judgments"
MODEL = "smollm2-135m-instruct"

QUESTION = "What is the capital of Italy, and which river runs through it?"
ANSWER = "The capital of Italy is Rome, and the river Tiber runs through it."

_REPORTED = ("reward", "accuracy", "mae", "kappa", "parse_rate")


@dataclass(frozen=True)
class Quickstart:
    """What a finished quickstart left: the folder, and the content of its `summary.json`."""

    out: Path
    summary: dict[str, Any]
    after: EvalResult


class _Steps:
    """Announces and times the steps."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, title: str) -> Iterator[None]:
        self.say(f"\n[{len(self.seconds) + 1}/7] {title}")
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)
        self.say(f"      {self.seconds[name]:.0f} s")


def run_quickstart(
    out: Path,
    *,
    seed: int = 0,
    overrides: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
    progress: Callable[[int], AbstractContextManager[Any]] = lambda total: nullcontext(),
) -> Quickstart:
    """Run every step into `out`; a finished step of an earlier run there is done again.

    Args:
        seed: of training and of the resampling.
        overrides: `key=value` for the two training recipes.
        say: where the lines for the reader go.
        progress: as in `Settings`.

    Raises:
        MissingDependency: the model's package or the `train` extra is not installed; says what to install.
    """
    from rm_gallery.core.data import convert_dataset, describe_files
    from rm_gallery.core.data import load_config as load_data_config
    from rm_gallery.core.evaluate.model import Settings, evaluate_data
    from rm_gallery.core.evaluate.report import write_report
    from rm_gallery.core.judge.single import ask, describe
    from rm_gallery.core.judge.subject import Asking, Candidate
    from rm_gallery.core.models.packaged import fetch
    from rm_gallery.core.models.require import require
    from rm_gallery.core.train import load_config

    require("train", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "gguf")
    train, test = (out / "data" / f"sample_{split}.parquet" for split in ("train", "test"))
    # both are checked now: a mistyped key is not to cost minutes
    common = [f"data.train={_quoted(train)}", f"train.seed={seed}", *overrides]
    sft = load_config(RECIPES / "sft.yaml", [f"model.path={_quoted(out / 'model')}", *common])
    grpo = load_config(
        RECIPES / "grpo.yaml",
        [f"model.path={_quoted(out / 'sft' / 'actor_latest')}", f"data.val={_quoted(test)}", *common],
    )
    _claim(out)
    step = _Steps(say)
    with step("fetch", f"Get {MODEL} from its package"):
        model = fetch(MODEL, out / "model")

    with step("convert", "Convert the sample: 240 prompts, five labelled responses each"):
        data_config = load_data_config(
            RECIPES / "data.yaml",
            [f"dataset.configs.path={_quoted(SAMPLE)}", f"dataset.export.output_dir={_quoted(out / 'data')}"],
        )
        convert_dataset(data_config)
        say(_described(describe_files([train, test])))

    def evaluate(judge: Path, name: str) -> EvalResult:
        return evaluate_data(
            Candidate(str(judge), batch_size=40, dtype="auto"),
            test,
            out / name,
            Settings(Asking(max_new_tokens=12), seed=seed, progress=progress),
            train=train,
        )

    with step("before", "Evaluate the untouched model on the 40 held-out prompts"):
        before = evaluate(model, "before")
        say(_figures(before))

    from rm_gallery.core.train.local import train_local

    with step("sft", "A short supervised start, so that the model keeps to the format"):
        train_local(sft, path=_fresh(out / "sft"), describe="SFT")
    with step("grpo", "GRPO: eight answers to each question, rewarded by their distance to the label"):
        judge = train_local(grpo, path=_fresh(out / "grpo"), describe="GRPO").run.latest

    with step("after", "Evaluate the trained judge on the same held-out prompts"):
        after = evaluate(judge, "after")
        say(_figures(after))

    summary = _summary(before, after, step.seconds)
    with step("report", "Write the report and grade one new answer"):
        write_report(out / "report.html", _report(out, before, after, summary))
        say(f"      query     {QUESTION}\n      response  {ANSWER}")
        say("      " + describe(ask(judge, QUESTION, ANSWER)).replace("\n", "\n      "))
    summary["seconds"] = step.seconds
    summary["peak_memory_gib"] = peak_memory_gib()
    _write_json(out / "summary.json", summary)
    return Quickstart(out, summary, after)


def _claim(out: Path) -> None:
    """Take the folder for the quickstart: only what an earlier one left there is overwritten."""
    mark = out / ".quickstart"
    if not mark.is_file() and out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out} holds something other than a quickstart: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _fresh(folder: Path) -> Path:
    """A run starts in an empty folder; an earlier quickstart's would mix with it."""
    if folder.is_dir():
        shutil.rmtree(folder)
    return folder


def _described(found: dict[str, Any]) -> str:
    lines = []
    for file in found["files"]:
        labels = file["labels"]["helpfulness"]
        histogram = "  ".join(f"{label}: {count}" for label, count in sorted(labels.items()))
        lines.append(
            f"      {Path(file['file']).name}: {file['rows']} rows, {file['prompts']} prompts; {histogram}"
        )
    return "\n".join(lines)


def _figures(result: EvalResult) -> str:
    metrics = result.metrics
    shown = [f"{name} {_short(metrics[name])}" for name in _REPORTED]
    return "      " + "   ".join(shown)


def _short(estimate: Estimate) -> str:
    if estimate.value != estimate.value:
        return "undefined"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _summary(before: EvalResult, after: EvalResult, seconds: dict[str, float]) -> dict[str, Any]:
    def figures(metrics: Any) -> dict[str, Any]:
        return {name: metrics[name].to_dict() for name in _REPORTED}

    difference = after.baseline("best_constant").difference
    return {
        "model": MODEL,
        "held_out": {"rows": after.n, "prompts": after.prompts},
        "before": figures(before.metrics),
        "after": figures(after.metrics),
        "baselines": {
            found.name: figures(found.metrics) if found.metrics else {"reason": found.note}
            for found in after.baselines
        },
        "difference_to_best_constant": difference.to_dict() if difference else None,
        "seconds": seconds,
    }


def _report(out: Path, before: EvalResult, after: EvalResult, summary: dict[str, Any]) -> Any:
    from rm_gallery.core.evaluate.report import Evaluation, ReportInput, TrainingRun
    from rm_gallery.core.train.log import read_log

    runs = [
        TrainingRun(
            title, read_log(out / name / "metrics.jsonl"), (out / name / "config.yaml").read_text("utf-8")
        )
        for name, title in (("sft", "supervised start"), ("grpo", "GRPO"))
    ]
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items())
    return ReportInput(
        [Evaluation("before training", before), Evaluation("after training", after)],
        runs,
        facts={
            "data": "everyday_judgments: 200 training and 40 held-out prompts, five responses each, written for "
            "this project; for trying the toolkit, not for judging judges",
            "seconds by step": seconds,
            "peak memory": f"{peak_memory_gib():.1f} GiB",
        },
    )


def _write_json(path: Path, content: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _quoted(path: Path) -> str:
    """A path as YAML, to which `#` and `: ` mean something."""
    return json.dumps(str(path))
