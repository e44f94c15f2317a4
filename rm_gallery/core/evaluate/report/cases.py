"""The worst disagreements: what a judge got most wrong, largest loss first, the texts beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rm_gallery.core.evaluate.predictions import Predictions
from rm_gallery.core.evaluate.report.answers import Scored
from rm_gallery.core.evaluate.report.inputs import Evaluation

LISTED = 200
"""So many disagreements of each judge are listed; the rest are counted."""
_SHOWN = 900
_OTHER: dict[Any, Any] = {"A": "B", "B": "A"}


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one judge made of one case.

    Attributes:
        verdict: for readers.
        wrong: a verdict (of a pair: one of the two orders') is not the label.
        missing: there is no verdict (of a pair: in one of the orders).
        loss: how wrong, comparable within one judge.
        chance: the probability that it gave the label, for readers; "" where it gave none.
        texts: (title, raw output).
    """

    verdict: str
    wrong: bool
    missing: bool
    loss: float
    chance: str = ""
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One row, one pair in both its orders, or one comparison of a right with a wrong response."""

    key: str
    truth: str
    query: str
    responses: tuple[tuple[str, str], ...]
    opinions: tuple[Opinion | None, ...]


def disagreements(evaluations: Sequence[Evaluation], *, texts: bool = True) -> list[dict[str, Any]]:
    """The lists of a group: judges that were asked alike share one. Without `texts` they have the rows' names alone."""
    lists = []
    for kind in ("pointwise", "dimensions", "pairwise", "scored"):
        judges = [(e.name, o) for e in evaluations if (o := e.observed) is not None and _kind(o) == kind]
        if judges:
            found = _list([name for name, _ in judges], _cases([o for _, o in judges]))
            lists.append({**found, "pairs": kind == "pairwise"})
    if not texts:
        for case in (case for each in lists for case in each["cases"]):
            case.update(texts=[], outputs=[], gist=case["key"])
    return [each for each in lists if each["cases"]]


def _kind(observed: Predictions | Scored) -> str:
    return "scored" if isinstance(observed, Scored) else observed.kind


def _list(judges: list[str], cases: Sequence[Case]) -> dict[str, Any]:
    ranks: dict[int, dict[int, int]] = {}
    counts = []
    for judge in range(len(judges)):
        worst = sorted(_wrong(cases, judge))
        counts.append({"name": judges[judge], "all": len(worst), "listed": min(len(worst), LISTED)})
        for rank, (*_, i) in enumerate(worst[:LISTED]):
            ranks.setdefault(i, {})[judge] = rank
    listed = sorted(ranks, key=lambda i: min((rank, judge) for judge, rank in ranks[i].items()))
    return {
        "judges": judges,
        "counts": counts,
        "truths": sorted({cases[i].truth for i in listed}),
        "cases": [_shown(cases[i], judges, ranks[i]) for i in listed],
    }


def _wrong(cases: Sequence[Case], judge: int) -> Iterator[tuple[bool, float, str, int]]:
    """What a judge disagrees about, in the order of the list: without any verdict last, equal losses by hash."""
    for i, case in enumerate(cases):
        opinion = case.opinions[judge]
        if opinion is not None and (opinion.wrong or opinion.missing):
            chance = hashlib.sha256(case.key.encode()).hexdigest()
            yield not opinion.wrong, -opinion.loss, chance, i


def _shown(case: Case, judges: Sequence[str], ranks: dict[int, int]) -> dict[str, Any]:
    said = [(name, o) for name, o in zip(judges, case.opinions, strict=True) if o is not None]
    texts = [(f"{name}{title}", text) for name, o in said for title, text in o.texts if text]
    return {
        "key": case.key,
        "truth": case.truth,
        "ranks": " ".join(str(ranks.get(judge, -1)) for judge in range(len(judges))),
        "what": " ".join(_what(opinion) for opinion in case.opinions),
        "verdicts": [(name, o.verdict, o.chance, o.wrong or o.missing) for name, o in said],
        "texts": [("Query", _cut(case.query)), *((title, _cut(text)) for title, text in case.responses)],
        "outputs": [(title, _cut(text)) for title, text in texts],
        "gist": " ".join(case.query.split())[:90],
    }


def _what(opinion: Opinion | None) -> str:
    """What the filters look for, of one judge."""
    if opinion is None:
        return "-"
    found = ["wrong"] * opinion.wrong + ["missing"] * opinion.missing
    return ",".join(found) or "right"


def _cut(text: str) -> str:
    left = len(text) - _SHOWN
    return text if left <= 0 else f"{text[:_SHOWN]} […] ({left:,} more characters)"


# -- from answers to cases


def _cases(observed: Sequence[Predictions | Scored]) -> list[Case]:
    found: dict[str, Case] = {}
    opinions: list[dict[str, Opinion]] = []
    for answers in observed:
        mine: dict[str, Opinion] = {}
        for case, opinion in _scored(answers) if isinstance(answers, Scored) else _labelled(answers, found):
            found.setdefault(case.key, case)
            mine[case.key] = opinion
        opinions.append(mine)
    return [
        Case(case.key, case.truth, case.query, case.responses, tuple(mine.get(key) for mine in opinions))
        for key, case in found.items()
    ]


def _labelled(answers: Predictions, known: dict[str, Case]) -> Iterator[tuple[Case, Opinion]]:
    """Rows; of pairs, the two orders of a pair are one case, seen as the first judge's `forward`."""
    if answers.kind != "pairwise":
        for i, name in enumerate(answers.unique_id):
            alone = (("Response", answers.response[i]),)
            case = Case(name, str(answers.truth[i]), answers.query[i], alone, ())
            yield case, _opinion(answers, [(i, False)])
        return
    groups: dict[str, list[int]] = {}
    for i, group in enumerate(answers.group):
        groups.setdefault(group, []).append(i)
    for group, rows in groups.items():
        rows.sort(key=lambda i: answers.order[i] != "forward")
        i = rows[0]
        responses = (("Response A", answers.response[i]), ("Response B", answers.response_b[i]))
        case = known.get(group) or Case(group, str(answers.truth[i]), answers.query[i], responses, ())
        first = case.responses[0][1]
        alike = answers.response[i] == answers.response_b[i]
        swapped = [(answers.order[j] == "swapped") if alike else answers.response[j] != first for j in rows]
        yield case, _opinion(answers, sorted(zip(rows, swapped, strict=True), key=lambda row: row[1]))


def _opinion(answers: Predictions, rows: Sequence[tuple[int, bool]]) -> Opinion:
    """What was said in these rows; (row, whether it is shown the other way round than the case)."""
    parts, texts, losses, chances = [], [], [], []
    wrong = missing = False
    for i, swapped in rows:
        given, truth = answers.predicted[i], answers.truth[i]
        verdict = _OTHER.get(given, given) if swapped else given
        said = _problem(answers.problem[i]) if given is None else str(verdict)
        parts.append(f"swapped: {said}" if swapped else said)
        texts.append((", swapped" if swapped else "", answers.text[i]))
        missing |= given is None
        wrong |= given is not None and given != truth
        p = answers.probabilities[i]
        if p is not None:
            of_truth = p[answers.labels.index(truth)]
            chances.append(f"{of_truth:.2g}")
            losses.append(-math.log(max(of_truth, 1e-300)))
        elif given is not None:
            losses.append(_distance(answers, i))
    loss = sum(losses) / len(losses) if losses else 0.0
    chance = f"p of the label {', '.join(chances)}" if chances else ""
    return Opinion(", ".join(parts), wrong, missing, loss, chance, tuple(texts))


def _distance(answers: Predictions, i: int) -> float:
    """How far verdict and label of a row lie apart; of several dimensions their weighted mean."""
    if not answers.parts:
        return _error(answers.truth[i], answers.predicted[i])
    return sum(part.weight * _distance(part.predictions, i) for part in answers.parts)


def _error(truth: Any, given: Any) -> float:
    """How far verdict and label lie apart; for pairs the opposite preference is further than a tie."""
    if truth == given:
        return 0.0
    if isinstance(truth, int) and isinstance(given, int):
        return float(abs(truth - given))
    return 1.0 if "tie" in (truth, given) else 2.0


def _problem(problem: str) -> str:
    return f"no verdict ({problem.partition(':')[0]})"


def _scored(answers: Scored) -> Iterator[tuple[Case, Opinion]]:
    """Comparisons of two responses, of which the better one is to have the larger number."""
    for better, worse in answers.comparisons():
        high, low = answers.value[better], answers.value[worse]
        responses = (
            ("Right response", answers.response[better]),
            ("Wrong response", answers.response[worse]),
        )
        key = f"{answers.unique_id[better]} over {answers.unique_id[worse]}"
        case = Case(key, "right above wrong", answers.query[better], responses, ())
        texts = ((", right", answers.text[better]), (", wrong", answers.text[worse]))
        if high is None or low is None:
            problem = _problem(answers.problem[better] or answers.problem[worse])
            yield case, Opinion(problem, False, True, 0.0, texts=texts)
        else:
            sign = ">" if high > low else "=" if high == low else "<"
            verdict = f"{high:.3g} {sign} {low:.3g}"
            yield case, Opinion(verdict, high <= low, False, low - high, texts=texts)
