"""`describe_files`: what exported files hold, and what a judge must beat on them."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rm_gallery.core import trivial
from rm_gallery.core.data.converters import BadRow
from rm_gallery.core.data.hashing import HashSet, prompt_hash
from rm_gallery.core.data.report import histogram
from rm_gallery.core.data.samples import Pair, Row, Sample, number, plain
from rm_gallery.core.data.sources import FileSource, find_files
from rm_gallery.core.errors import DataError
from rm_gallery.core.rewards import exp_decay

_SCALE = range(5)


def describe_files(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Describe exported files (Parquet, JSONL, JSON; either shape of rows).

    Returns `{"files": [...], "shared_prompts": [{"files": [a, b], "prompts": n}]}`, where each file has
    `rows`, `prompts`, `kind`, `labels` (histograms), `words` (lengths of prompts and responses) and
    `baselines`: what an answer without reading gets. In memory are at most about 50 bytes a row.

    Raises:
        DataError: a file cannot be read or a row is not of an exported shape.
    """
    sources = [source for path in paths for source in find_files(str(path))[0]]
    found = [_Description(source) for source in sources]
    return {
        "files": [description.to_dict() for description in found],
        "shared_prompts": [
            {"files": [one.name, other.name], "prompts": one.prompts.shared(other.prompts)}
            for one, other in combinations(found, 2)
        ],
    }


class _Description:
    """One file, read to its end."""

    def __init__(self, source: FileSource) -> None:
        self.name = source.name
        self.kind = ""
        self.rows = 0
        self.prompts = HashSet()
        self._labels: dict[str, Counter[Any]] = {}
        self._sources: Counter[str] = Counter()
        self._prompt_words: Counter[int] = Counter()
        self._response_words: Counter[int] = Counter()
        self._hashes = array("Q")
        self._scores = array("d")  # of the label the baselines are for; NaN is missing
        self._lengths = array("q")
        self._longer: Counter[float] = Counter()
        self._target = ""
        pending: list[bytes] = []
        for line, row in source:
            try:
                if isinstance(row, BadRow):
                    raise row
                pending.append(self._add(row))
            except DataError as error:
                raise DataError(
                    f"{source.name}:{line}: {error}; `rmg data describe` reads files that "
                    f"`rmg data convert` wrote"
                ) from None
            if len(pending) == 4096:
                self.prompts.add(pending)
                pending = []
        if not self.rows:
            raise DataError(f"{source.name} holds no row")
        if pending:
            self.prompts.add(pending)

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.name,
            "kind": self.kind,
            "rows": self.rows,
            "prompts": len(self.prompts),
            "data_source": dict(sorted(self._sources.items())),
            "labels": {name: histogram(counts) for name, counts in self._labels.items()},
            "words": {
                "prompt": _summary(self._prompt_words),
                "response": _summary(self._response_words),
            },
            "baselines": self._pairwise() if self.kind == "pairwise" else self._pointwise(),
        }

    def _add(self, row: Row) -> bytes:
        pairwise = "preferred" in row or (isinstance(row.get("output"), list) and len(row["output"]) == 2)
        kind = "pairwise" if pairwise else "pointwise"
        if self.kind not in ("", kind):
            raise DataError(f"the file mixes {self.kind} and {kind} rows")
        self.kind = kind
        self.rows += 1
        sample = Pair.from_row(row) if pairwise else Sample.from_row(row)
        digest = prompt_hash(sample.input)
        self._sources[sample.data_source] += 1
        self._prompt_words[sum(len(turn.content.split()) for turn in sample.input)] += 1
        if isinstance(sample, Pair):
            self._response_words.update(len(t.split()) for t in (sample.response_a, sample.response_b))
            self._count({"preferred": sample.preferred, "preference_strength": sample.strength})
            # a pair stands in the file in both orders: count it once
            if sample.preferred != "tie" and sample.metadata.get("order") != "swapped":
                self._longer[_agreement(sample)] += 1
            return digest
        self._response_words[len(sample.response.split())] += 1
        labels = {name: _label(value, name) for name, value in sample.labels.items()}
        self._count({name: labels.get(name) for name in (*self._labels, *labels)})
        if not self._target:
            self._target = "helpfulness" if "helpfulness" in labels else next(iter(labels), "")
        self._hashes.frombytes(digest)
        score = labels.get(self._target)
        self._scores.append(math.nan if score is None else score)
        self._lengths.append(len(sample.response))
        return digest

    def _count(self, labels: Mapping[str, Any]) -> None:
        for name, value in labels.items():
            if name not in self._labels:
                self._labels[name] = Counter({None: self.rows - 1} if self.rows > 1 else {})
            self._labels[name][value] += 1

    def _pairwise(self) -> dict[str, Any]:
        counts = self._labels["preferred"]
        label = trivial.majority(counts, ("A", "B", "tie"))
        return {
            "majority": {"label": label, "accuracy": counts[label] / self.rows},
            "longer_is_better": _accuracy(self._longer),
        }

    def _pointwise(self) -> dict[str, Any]:
        scores = {plain(s): n for s, n in Counter(s for s in self._scores if not math.isnan(s)).items()}
        total = sum(scores.values())
        if not total:
            return {}
        majority = trivial.majority(scores, sorted(scores))
        best, reward = trivial.best_constant(scores, sorted({*scores, *_SCALE}), exp_decay)
        return {
            "label": self._target,
            "majority": {"label": majority, "accuracy": scores[majority] / total},
            "best_constant_reward": {"label": best, "reward": reward},
            "longer_is_better": _accuracy(self._longer_pointwise()),
        }

    def _longer_pointwise(self) -> Counter[float]:
        """Over all pairs of responses to one prompt with different labels: is the longer one the better?"""
        import numpy as np

        hashes, scores = np.frombuffer(self._hashes, np.uint64), np.frombuffer(self._scores, np.float64)
        lengths = np.frombuffer(self._lengths, np.int64)
        order = np.argsort(hashes, kind="stable")
        hashes, found = hashes[order], Counter[float]()
        # the k-th neighbour in the sorted order is of the same prompt for all pairs that are k apart
        apart = 1
        while apart < len(hashes) and (same := hashes[apart:] == hashes[:-apart]).any():
            left, right = order[:-apart][same], order[apart:][same]
            known = ~np.isnan(scores[left] + scores[right]) & (scores[left] != scores[right])
            left, right = left[known], right[known]
            longer = np.sign(lengths[right] - lengths[left])
            better = np.sign(scores[right] - scores[left])
            for value, wins in ((1.0, longer == better), (0.5, longer == 0), (0.0, longer == -better)):
                found[value] += int(wins.sum())
            apart += 1
        return found


def _label(value: Any, name: str) -> float | None:
    found = number(value, f"`{name}`")
    return None if found is None else plain(found)


def _agreement(pair: Pair) -> float:
    """1 where the longer response is the preferred one, 0.5 where they are as long, else 0."""
    longer = trivial.longer(pair.response_a, pair.response_b)
    return 0.5 if longer == "tie" else float(longer == pair.preferred)


def _accuracy(outcomes: Counter[float]) -> dict[str, Any]:
    """Mean of the outcomes over the untied pairs; in a mirrored file both orders of a pair are counted."""
    total = outcomes.total()
    mean = sum(value * count for value, count in outcomes.items()) / total if total else None
    return {"accuracy": mean, "untied_pairs": total}


def _summary(counts: Counter[int]) -> dict[str, float]:
    """Mean, quantiles and extremes of a histogram of lengths."""
    lengths: Sequence[int] = sorted(counts)
    total = counts.total()

    def quantile(share: float) -> int:
        passed = 0
        for length in lengths:
            passed += counts[length]
            if passed >= share * total:
                return length
        return lengths[-1]

    return {
        "min": lengths[0],
        "median": quantile(0.5),
        "mean": sum(length * count for length, count in counts.items()) / total,
        "p95": quantile(0.95),
        "max": lengths[-1],
    }
