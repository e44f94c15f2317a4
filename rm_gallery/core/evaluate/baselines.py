"""What costs nothing: predictors that never read the question. No figure of a judge stands without them.

Each is fitted on training rows only, writes its verdict as text, and goes through the same `score_outputs` as
a model, so it has the same metrics and the same intervals.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from rm_gallery.core import trivial
from rm_gallery.core.data.samples import Pair, Row, Sample, conversation_text
from rm_gallery.core.errors import MissingDependency
from rm_gallery.core.evaluate.predictions import (
    Kind,
    Predictions,
    Verdict,
    data_source,
    in_words,
    score_outputs,
    task_kind,
)
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.rewards import RewardFunction
from rm_gallery.core.tasks import Task

ON_EVALUATED = "chosen on the evaluated rows: an upper bound for a constant"
_FOLDS = 5
_Labels = Counter[tuple[Verdict, str]]
"""How often a label occurs, by data source, which a reward may look at."""


@dataclass(frozen=True)
class Baseline:
    """One trivial predictor's answers to the evaluated rows.

    Attributes:
        name: `majority`, `best_constant`, `prior`, `length` or `tfidf`.
        rule: what it does, in words a reader of the table understands.
        predictions: its answers, or None where it was not computed.
        note: how it departs from "fitted on the training rows", or why it was not computed; else "".
    """

    name: str
    rule: str
    predictions: Predictions | None
    note: str = ""


class _Scale:
    """One value of a task's verdicts: the verdict itself, or one of its scores. Trivial predictors choose each alone."""

    def __init__(
        self, legal: Sequence[Verdict], reward: RewardFunction, of: Callable[[Any], Verdict]
    ) -> None:
        self.legal = legal
        self.reward = reward
        self.of = of

    def count(self, labels: Iterable[tuple[Any, str]]) -> _Labels:
        return Counter((self.of(truth), source) for truth, source in labels)

    def majority(self, labels: _Labels) -> Verdict:
        counts: Counter[Verdict] = Counter()
        for (label, _), count in labels.items():
            counts[label] += count
        return trivial.majority(counts, self.legal)

    def best_constant(self, labels: _Labels) -> Verdict:
        total = labels.total()
        found = sorted(labels, key=lambda label: (self.legal.index(label[0]), label[1]))
        means = {
            verdict: sum(labels[label] * self.reward(verdict, *label) for label in found) / total
            for verdict in self.legal
        }
        return max(self.legal, key=lambda verdict: means[verdict])


def _scales(task: Task[Any]) -> list[_Scale]:
    if task.parts:
        return [_Scale(part.scale, part.reward, itemgetter(part.name)) for part in task.parts]
    return [_Scale(task.verdicts(), task.reward, lambda verdict: verdict)]


def _verdict(task: Task[Any], values: Sequence[Verdict]) -> Any:
    """The verdict that is made of one value for each of `_scales`."""
    if task.parts:
        return {part.name: value for part, value in zip(task.parts, values, strict=True)}
    return values[0]


def compute_baselines(
    task: Task[Any], rows: Sequence[Row], train: Sequence[Row] | None = None
) -> tuple[Baseline, ...]:
    """The trivial predictors of a task on the evaluated rows.

    `majority`: the most frequent label. `best_constant`: the verdict with the highest mean reward. `prior`: the shares of
    the labels as its distribution, the one to compare a judge's distribution with; its verdict is the majority's.
    `length`: for scores the best constant of each decile of the response's length in words, for pairs the longer
    response in characters (a tie where both are as long). `tfidf`: TF-IDF of query and response with logistic
    regression, for scores only. Of several dimensions each is chosen by itself.

    Args:
        task: the task, whose reward decides what "best" is.
        rows: the evaluated rows.
        train: the labelled rows to fit on. Without them the constants are chosen on the evaluated rows, the
            length rule is cross-fitted over five folds of prompts, and `tfidf` is not computed; each says so.

    Raises:
        DataError: a label of `rows` or `train` is missing or bad.
    """
    kind = task_kind(task)
    scales, labels = _scales(task), _labelled(task, train or rows)
    counts = [scale.count(labels) for scale in scales]
    note = "" if train else ON_EVALUATED
    majority = _verdict(task, [scale.majority(n) for scale, n in zip(scales, counts, strict=True)])
    best = _best_constant(task, labels)
    always = f"always {in_words(majority)}, the most frequent label{'s' if len(task.parts) > 1 else ''}"
    found = [
        Baseline("majority", always, _always(task, rows, majority), note),
        Baseline(
            "best_constant",
            f"always {in_words(best)}, the best constant{'s' if len(task.parts) > 1 else ''}",
            _always(task, rows, best),
            note,
        ),
        Baseline(
            "prior",
            f"the shares of the labels, so {in_words(majority)}",
            _prior(task, rows, train or rows, majority),
            note,
        ),
    ]
    if kind == "pairwise":
        found.append(
            Baseline(
                "length",
                "the longer response, in characters",
                _apply(
                    task,
                    rows,
                    [trivial.longer(p.response_a, p.response_b) for p in map(Pair.unlabelled, rows)],
                ),
            )
        )
        return tuple(found)
    found.append(_length(task, rows, train))
    found.append(_tfidf(task, rows, train))
    return tuple(found)


def constant_reward(task: Task[Any], truths: Sequence[Any], sources: Sequence[str]) -> float:
    """What one answer, the same to every row, earns at most on rows with these labels, in the mean.

    The answer is a verdict; with a scoring rule it is a distribution, and the shares of the labels earn most.

    Args:
        truths: the labels, as verdicts; not empty.
        sources: the rows' data sources, as rewards are told.
    """
    if task.reward_config.is_rule:
        counts = Counter(truths)
        shares = [counts[verdict] / len(truths) for verdict in task.verdicts()]
        return statistics.fmean(task.score_distribution(shares, truth) for truth in truths)
    labels = list(zip(truths, sources, strict=True))
    best = _best_constant(task, labels)
    return statistics.fmean(task.reward(best, *label) for label in labels)


def baseline_names(kind: Kind) -> tuple[str, ...]:
    """The baselines of a kind of task, in the order in which they are shown."""
    return ("majority", "best_constant", "prior", "length", *(() if kind == "pairwise" else ("tfidf",)))


def _labelled(task: Task[Any], rows: Sequence[Row]) -> list[tuple[Any, str]]:
    return [(task.truth(row), data_source(row)) for row in rows]


def _best_constant(task: Task[Any], labels: Sequence[tuple[Any, str]]) -> Any:
    return _verdict(task, [scale.best_constant(scale.count(labels)) for scale in _scales(task)])


def _apply(task: Task[Any], rows: Sequence[Row], verdicts: Sequence[Any]) -> Predictions:
    return score_outputs(task, rows, [task.format(verdict) for verdict in verdicts])


def _always(task: Task[Any], rows: Sequence[Row], verdict: Any) -> Predictions:
    return _apply(task, rows, [verdict] * len(rows))


def _prior(task: Task[Any], rows: Sequence[Row], labelled: Sequence[Row], majority: Any) -> Predictions:
    counts = Counter(in_words(task.truth(row)) for row in labelled)
    shares = tuple(counts[in_words(verdict)] / len(labelled) for verdict in task.verdicts())
    answer = Answer(majority, task.format(majority), probabilities=shares)
    return score_outputs(task, rows, [answer] * len(rows))


def _fit_length(task: Task[Any], rows: Sequence[Row]) -> Callable[[Row], Any]:
    edges = np.quantile([_words(row) for row in rows], np.arange(1, 10) / 10)
    tenths: list[list[Row]] = [[] for _ in range(len(edges) + 1)]
    for row in rows:
        tenths[int(np.searchsorted(edges, _words(row)))].append(row)
    # where no response is so long, the best constant of all
    best = [_best_constant(task, _labelled(task, tenth or rows)) for tenth in tenths]
    return lambda row: best[int(np.searchsorted(edges, _words(row)))]


def _words(row: Row) -> int:
    return len(Sample.from_row(row).response.split())


def _length(task: Task[Any], rows: Sequence[Row], train: Sequence[Row] | None) -> Baseline:
    rule = "the best constant of each tenth of the response lengths"
    if train:
        predict = _fit_length(task, train)
        return Baseline("length", rule, _apply(task, rows, [predict(row) for row in rows]))
    clusters = [task.cluster(row) for row in rows]
    names = sorted(set(clusters))
    if len(names) < _FOLDS:
        return Baseline("length", rule, None, "not computed: too few prompts; give training rows (--train)")
    # a prompt and all its rows fall into one fold; the ids are hashes, so their order is as good as random
    fold = {name: i % _FOLDS for i, name in enumerate(names)}
    parts = [[row for row, c in zip(rows, clusters, strict=True) if fold[c] != k] for k in range(_FOLDS)]
    predictors = [_fit_length(task, part) for part in parts]
    verdicts = [predictors[fold[c]](row) for row, c in zip(rows, clusters, strict=True)]
    return Baseline(
        "length",
        rule,
        _apply(task, rows, verdicts),
        f"cross-fitted on the evaluated rows in {_FOLDS} folds of prompts",
    )


def _tfidf(task: Task[Any], rows: Sequence[Row], train: Sequence[Row] | None) -> Baseline:
    rule = "TF-IDF of query and response, logistic regression"
    if not train:
        return Baseline("tfidf", rule, None, "not computed: it needs training rows (--train)")
    truths = [task.truth(row) for row in train]
    columns = [[scale.of(truth) for truth in truths] for scale in _scales(task)]
    if all(len(set(labels)) < 2 for labels in columns):
        return Baseline("tfidf", rule, None, "not computed: the training rows all carry one label")
    try:
        predicted = _tfidf_verdicts([_text(row) for row in train], columns, [_text(row) for row in rows])
    except MissingDependency as error:
        return Baseline("tfidf", rule, None, f"not computed: {error}")
    verdicts = [_verdict(task, values) for values in zip(*predicted, strict=True)]
    return Baseline("tfidf", rule, _apply(task, rows, verdicts))


def _tfidf_verdicts(
    train: Sequence[str], columns: Sequence[Sequence[Verdict]], texts: Sequence[str]
) -> list[list[Verdict]]:
    """For each column of labels the predicted ones; of a column with one label that one."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingDependency("scikit-learn is not installed (pip install scikit-learn)") from None
    features = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=50_000)
    try:
        matrix = features.fit_transform(train)
    except ValueError:  # no word occurs twice: a handful of rows
        features = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\S+")
        matrix = features.fit_transform(train)
    asked, found = features.transform(texts), []
    for labels in columns:
        if len(set(labels)) < 2:
            found.append([labels[0]] * len(texts))
            continue
        model = LogisticRegression(max_iter=1000).fit(matrix, labels)
        found.append([verdict.item() for verdict in model.predict(asked)])
    return found


def _text(row: Row) -> str:
    sample = Sample.from_row(row)
    return f"{conversation_text(sample.input)}\n\n{sample.response}"
