"""Small files in each publisher's format, written out by hand; and judges of which one knows what they must score."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rm_gallery.core.evaluate.benchmarks import Item, Judged, Outcome, get_benchmark
from rm_gallery.core.evaluate.benchmarks.aggregate import figure
from rm_gallery.core.evaluate.benchmarks.ask import scored
from rm_gallery.gallery.benchmarks import rewardbench

MIRROR = {"A": "B", "B": "A", "tie": "tie", None: None}


def lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def array(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def helpsteer2(folder: Path) -> Path:
    ratings = {"correctness": 3, "coherence": 4, "complexity": 2, "verbosity": 1}
    rows = [
        {"prompt": f"question {i}", "response": f"answer {i}{j}", "helpfulness": label, **ratings}
        for i, pair in enumerate([(4, 1), (2, 3), (3, 3), (0, 4)])
        for j, label in enumerate(pair)
    ]
    return lines(folder / "validation.jsonl", rows)


def helpsteer2_preference(folder: Path) -> Path:
    rows = [
        {
            "split": split,
            "prompt": f"question {i}",
            "response_1": f"one {i}",
            "response_2": f"two {i}",
            "preference_strength": strength,
            "preference_statement": None,
            "preference_elaboration": None,
        }
        for i, (split, strength) in enumerate(
            [("train", 3), ("validation", -2), ("validation", 1), ("validation", 0)]
        )
    ]
    return lines(folder / "preference.jsonl", rows)


def rm_bench_row(number: int, domain: str) -> dict:
    styles = ("concise", "plain", "markdown")
    return {
        "id": number,
        "prompt": f"question {number} of {domain}",
        "chosen": [f"right {style} {number} {domain}" for style in styles],
        "rejected": [f"wrong {style} {number} {domain}" for style in styles],
        "domain": domain,
    }


def rm_bench(folder: Path) -> Path:
    domains = ("chat", "chat", "math", "code", "safety-refuse", "safety-refuse", "safety-response")
    return array(folder / "total_dataset.json", [rm_bench_row(i, d) for i, d in enumerate(domains)])


def rewardbench_row(subset: str, number: int = 0) -> dict:
    return {
        "prompt": f"question {number} of {subset}",
        "chosen": f"right {number} {subset}",
        "chosen_model": "gpt4",
        "rejected": f"wrong {number} {subset}",
        "rejected_model": "alpaca",
        "subset": subset,
        "id": number,
    }


def rewardbench_file(folder: Path) -> Path:
    rows = [rewardbench_row(name) for section in rewardbench.SECTIONS.values() for name in section]
    return lines(folder / "filtered.jsonl", rows)


def rewardbench2_row(subset: str, name: str, right: int = 1, wrong: int = 3) -> dict:
    return {
        "id": name,
        "prompt": f"question {name} of {subset}",
        "chosen": [f"right {i} {name}" for i in range(right)],
        "rejected": [f"wrong {i} {name}" for i in range(wrong)],
        "num_correct": right,
        "num_incorrect": wrong,
        "total_completions": right + wrong,
        "models": ["a"] * (right + wrong),
        "subset": subset,
        "additional_metadata": None,
    }


def rewardbench2(folder: Path) -> Path:
    rows = [
        rewardbench2_row(subset, f"{subset}-{i}")
        for subset in ("Factuality", "Precise IF", "Math", "Safety", "Focus")
        for i in range(2)
    ]
    rows += [rewardbench2_row("Ties", f"ref:{i}", 1, 4) for i in (3, 7)]
    rows += [rewardbench2_row("Ties", f"tied:{i}", 3, 5) for i in (3, 7)]
    return lines(folder / "test.jsonl", rows)


def judgebench_row(number: int, source: str, label: str, model: str = "gpt-4o-2024-05-13") -> dict:
    return {
        "pair_id": f"pair-{number}",
        "original_id": str(number),
        "source": source,
        "question": f"question {number}",
        "response_model": model,
        "response_A": f"one {number}",
        "response_B": f"two {number}",
        "label": label,
    }


def judgebench(folder: Path) -> Path:
    sources = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench", "mmlu-pro-math")
    rows = [judgebench_row(i, source, "A>B" if i % 2 else "B>A") for i, source in enumerate(sources)]
    return lines(folder / "dataset=judgebench,response_model=gpt-4o-2024-05-13.jsonl", rows)


def llmbar(folder: Path) -> Path:
    for subset in ("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut"):
        llmbar_file(folder, subset, [1, 2])
    return llmbar_file(folder, "Adversarial/Manual", [2, 1, 1]).parents[2]


def llmbar_file(folder: Path, subset: str, labels: list[int]) -> Path:
    rows = [
        {
            "input": f"instruction {i} {subset}",
            "output_1": f"one {i}",
            "output_2": f"two {i}",
            "label": label,
        }
        for i, label in enumerate(labels)
    ]
    return array(folder / subset / "dataset.json", rows)


def pandalm_row(number: int, votes: tuple[int, int, int], given: str | float = math.nan) -> dict:
    return {
        "idx": number,
        "motivation_app": "Grammarly",
        "cmp_key": "bloom-7b_llama-7b",
        "instruction": f"instruction {number}",
        "input": given,
        "response1": f"one {number}",
        "response2": f"two {number}",
        **{f"annotator{i + 1}": vote for i, vote in enumerate(votes)},
    }


def pandalm(folder: Path) -> Path:
    votes = [(1, 1, 2), (2, 2, 2), (0, 0, 1), (0, 2, 1), (1, 0, 1)]
    return array(folder / "testset-v1.json", [pandalm_row(i, v) for i, v in enumerate(votes)])


def rmb(folder: Path) -> Path:
    root = folder / "RMB_dataset"
    for goal, scenario in (("Helpfulness", "Chat/Discussion"), ("Harmlessness", "S1")):
        array(
            root / "Pairwise_set" / goal / f"{scenario}.json", [rmb_pair(i, goal, scenario) for i in (1, 2)]
        )
        array(root / "BoN_set" / goal / f"{scenario}.json", [rmb_best(i, goal, scenario) for i in (1, 2)])
    return root


def rmb_turns(text: str) -> list[dict]:
    return [{"content": text, "language": "English", "role": "user"}]


def rmb_pair(number: int, goal: str, scenario: str) -> dict:
    return {
        "pair_uid": f"{goal}{number}",
        "conversation_input": rmb_turns(f"question {number} {scenario}"),
        "chosen": {"llm_name": "a", "answer": f"right {number}", "score": 5.0},
        "reject": {"llm_name": "b", "answer": f"wrong {number}", "score": 4.5},
        "category_path": f"Pairwise_set/{goal}/{scenario}",
    }


def rmb_best(number: int, goal: str, scenario: str) -> dict:
    return {
        "conversation_input": rmb_turns(f"question {number} {scenario}"),
        "bon_best": {"llm_name": "a", "answer": f"best {number}"},
        "loser_list": [{"llm_name": "b", "answer": f"loser {i} {number}"} for i in range(3)],
        "bon_uid": f"{goal}{number}",
        "category_path": f"BoN_set/{goal}/{scenario}",
    }


def own(folder: Path) -> Path:
    rows = [
        {
            "unique_id": "x",
            "prompt": "2 + 3?",
            "responses": ["5", "6"],
            "preferred": "A",
            "tags": {"kind": "sum"},
        },
        {"prompt": "A colour?", "responses": ["red", "blue"], "preferred": "tie", "tags": {"kind": "word"}},
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
            "responses": ["Hi", "Good day to you", "Greetings, dear user"],
            "labels": [3, 1, 1],
        },
        {
            "prompt": "Best of four?",
            "responses": ["a", "b", "c", "d"],
            "preferred": 2,
            "tags": {"kind": "word"},
        },
    ]
    return lines(folder / "own.jsonl", rows)


FILES = {
    "helpsteer2": helpsteer2,
    "helpsteer2_preference": helpsteer2_preference,
    "jsonl": own,
    "judgebench": judgebench,
    "llmbar": llmbar,
    "pandalm": pandalm,
    "rewardbench": rewardbench_file,
    "rewardbench2": rewardbench2,
    "rm_bench": rm_bench,
    "rmb": rmb,
}


def load(name: str, folder: Path) -> list[Item]:
    return get_benchmark(name).load(FILES[name](folder))


# -- judges


def perfect_values(item: Item) -> list[float]:
    """Numbers that rank an item's responses as the truth does: how many others each beats."""
    values = [0.0] * len(item.responses)
    for comparison in item.comparisons:
        if comparison.truth != "tie":
            values[comparison.first if comparison.truth == "A" else comparison.second] += 1
    if not item.comparisons:  # Ties of RewardBench 2
        values[: int(item.tags["right"])] = [1.0] * int(item.tags["right"])
    return values


def scorer(items: list[Item], sign: float = 1.0) -> list[Judged]:
    """A model that scores, and is always right; with a sign of -1, always wrong."""
    return [scored(item, [sign * value for value in perfect_values(item)]) for item in items]


def comparer(items: list[Item], verdict) -> list[Judged]:
    """A judge that compares; `verdict(comparison)` gives what it says in both orders, in the comparison's terms."""
    return [
        Judged(tuple(verdict if isinstance(verdict, Outcome) else verdict(c) for c in item.comparisons))
        for item in items
    ]


def said(forward, swapped, preferred=None) -> Outcome:
    """An outcome whose combination is given, or follows from equal verdicts."""
    return Outcome(forward, swapped, forward if preferred is None and forward == swapped else preferred)


ALWAYS_FIRST = Outcome("A", "B", "tie")
"""A judge that names whatever is shown first."""
NO = Outcome(None, None, None)
"""No verdict in either order."""


def figures_of(name: str, items: list[Item], judged: list[Judged]) -> dict[str, float]:
    """Every figure of a benchmark as a plain number."""
    shares = get_benchmark(name).aggregate(items, judged)
    return {each: figure(shares, each) for each in (*shares.columns, *shares.averages)}
