"""What costs nothing: predictors that never read the question. No figure of a judge stands without them.

Each is fitted on training rows only, writes its verdict as text, and goes through the same `score_outputs` as
a model, so it has the same metrics and the same intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rm_gallery.core import trivial
from rm_gallery.core.data.samples import Pair, Row, Sample, conversation_text
from rm_gallery.core.errors import MissingDependency
from rm_gallery.core.evaluate.predictions import Kind, Predictions, Verdict, score_outputs, task_kind
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.tasks import Task

ON_EVALUATED = "chosen on the evaluated rows: an upper bound for a constant"
_FOLDS = 5
_Fit = Callable[[Sequence[Row]], Callable[[Row], Verdict]]


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


def compute_baselines(
    task: Task[Any], rows: Sequence[Row], train: Sequence[Row] | None = None
) -> tuple[Baseline, ...]:
    """The trivial predictors of a task on the evaluated rows.

    `majority`: the most frequent label. `best_constant`: the verdict with the highest mean reward. `prior`: the shares of
    the labels as its distribution, the one to compare a judge's distribution with; its verdict is the majority's.
    `length`: for scores the best constant of each decile of the response's length in words, for pairs the longer
    response in characters (a tie where both are as long). `tfidf`: TF-IDF of query and response with logistic
    regression, for scores only.

    Args:
        task: the task, whose reward decides what "best" is.
        rows: the evaluated rows.
        train: the labelled rows to fit on. Without them the constants are chosen on the evaluated rows, the
            length rule is cross-fitted over five folds of prompts, and `tfidf` is not computed; each says so.

    Raises:
        DataError: a label of `rows` or `train` is missing or bad.
    """
    kind = task_kind(task)
    counts = Counter(task.truth(row) for row in train or rows)
    note = "" if train else ON_EVALUATED
    majority, best = trivial.majority(counts, task.verdicts()), _best_constant(task, counts)
    found = [
        Baseline(
            "majority", f"always {majority}, the most frequent label", _always(task, rows, majority), note
        ),
        Baseline("best_constant", f"always {best}, the best constant", _always(task, rows, best), note),
        Baseline("prior", f"the shares of the labels, so {majority}", _prior(task, rows, counts), note),
    ]
    if kind == "pairwise":
        found.append(
            Baseline(
                "length",
                "the longer response, in characters",
                _apply(
                    task, rows, [trivial.longer(p.response_a, p.response_b) for p in map(Pair.from_row, rows)]
                ),
            )
        )
        return tuple(found)
    found.append(_length(task, rows, train))
    found.append(_tfidf(task, rows, train))
    return tuple(found)


def baseline_names(kind: Kind) -> tuple[str, ...]:
    """The baselines of a kind of task, in the order in which they are shown."""
    return ("majority", "best_constant", "prior", "length", *(("tfidf",) if kind == "pointwise" else ()))


def _apply(task: Task[Any], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> Predictions:
    return score_outputs(task, rows, [task.format(verdict) for verdict in verdicts])


def _always(task: Task[Any], rows: Sequence[Row], verdict: Verdict) -> Predictions:
    return _apply(task, rows, [verdict] * len(rows))


def _best_constant(task: Task[Any], counts: Counter[Verdict]) -> Verdict:
    best: Verdict = trivial.best_constant(counts, task.verdicts(), task.reward)[0]
    return best


def _prior(task: Task[Any], rows: Sequence[Row], counts: Counter[Verdict]) -> Predictions:
    verdict = trivial.majority(counts, task.verdicts())
    shares = tuple(counts[label] / counts.total() for label in task.verdicts())
    return score_outputs(
        task, rows, [Answer(verdict, task.format(verdict), probabilities=shares)] * len(rows)
    )


def _fit_length(task: Task[Any]) -> _Fit:
    def fit(rows: Sequence[Row]) -> Callable[[Row], Verdict]:
        edges = np.quantile([_words(row) for row in rows], np.arange(1, 10) / 10)
        counts: list[Counter[Verdict]] = [Counter() for _ in range(len(edges) + 1)]
        for row in rows:
            counts[int(np.searchsorted(edges, _words(row)))][task.truth(row)] += 1
        overall = _best_constant(task, sum(counts, Counter()))
        best = [_best_constant(task, count) if count else overall for count in counts]
        return lambda row: best[int(np.searchsorted(edges, _words(row)))]

    return fit


def _words(row: Row) -> int:
    return len(Sample.from_row(row).response.split())


def _length(task: Task[Any], rows: Sequence[Row], train: Sequence[Row] | None) -> Baseline:
    rule = "the best constant of each tenth of the response lengths"
    fit = _fit_length(task)
    if train:
        predict = fit(train)
        return Baseline("length", rule, _apply(task, rows, [predict(row) for row in rows]))
    clusters = [task.cluster(row) for row in rows]
    names = sorted(set(clusters))
    if len(names) < _FOLDS:
        return Baseline("length", rule, None, "not computed: too few prompts; give training rows (--train)")
    # a prompt and all its rows fall into one fold; the ids are hashes, so their order is as good as random
    fold = {name: i % _FOLDS for i, name in enumerate(names)}
    parts = [[row for row, c in zip(rows, clusters, strict=True) if fold[c] != k] for k in range(_FOLDS)]
    predictors = [fit(part) for part in parts]
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
    labels = [task.truth(row) for row in train]
    if len(set(labels)) < 2:
        return Baseline("tfidf", rule, None, "not computed: the training rows all carry one label")
    try:
        predicted = _tfidf_verdicts([_text(row) for row in train], labels, [_text(row) for row in rows])
    except MissingDependency as error:
        return Baseline("tfidf", rule, None, f"not computed: {error}")
    return Baseline("tfidf", rule, _apply(task, rows, predicted))


def _tfidf_verdicts(train: Sequence[str], labels: Sequence[Verdict], texts: Sequence[str]) -> list[Verdict]:
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
    model = LogisticRegression(max_iter=1000).fit(matrix, labels)
    return [verdict.item() for verdict in model.predict(features.transform(texts))]


def _text(row: Row) -> str:
    sample = Sample.from_row(row)
    return f"{conversation_text(sample.input)}\n\n{sample.response}"
