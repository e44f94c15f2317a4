"""From items to questions and back: each response once, each pair in both orders, and no side is favoured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.evaluate.benchmarks import Comparison, Item, Outcome
from rm_gallery.core.evaluate.benchmarks.ask import judged, questions, scored
from rm_gallery.core.evaluate.orders import order_columns
from rm_gallery.core.judge.answer import Answer
from rm_gallery.core.judge.orders import outcome
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from tests.benchmarks.publishers import MIRROR

verdict = st.sampled_from(["A", "B", "tie"])
# few different numbers, so that draws happen
weights = st.tuples(*[st.integers(0, 3)] * 3).filter(any)


@st.composite
def answers(draw) -> Answer:
    kind = draw(st.sampled_from(["verdict", "distribution", "problem"]))
    if kind == "problem":
        return Answer(problem="unparsable")
    if kind == "verdict":
        return Answer(verdict=draw(verdict))
    found = draw(weights)
    p = tuple(w / sum(found) for w in found)
    return Answer(verdict=("A", "B", "tie")[p.index(max(p))], probabilities=p)


@st.composite
def item_lists(draw) -> list[Item]:
    items = []
    for number in range(draw(st.integers(1, 4))):
        size = draw(st.integers(2, 4))
        places = st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True)
        comparisons = [Comparison(*draw(places), draw(verdict)) for _ in range(draw(st.integers(1, 3)))]
        responses = tuple(f"{number}.{i}" for i in range(size))
        prompt = (Message("user", f"question {number}"),)
        items.append(Item(f"item-{number}", f"c{number}", prompt, responses, tuple(comparisons)))
    return items


def swapped(item: Item) -> Item:
    """The same item with `first` and `second` of every comparison exchanged."""
    other = tuple(Comparison(c.second, c.first, MIRROR[c.truth]) for c in item.comparisons)
    return Item(item.unique_id, item.cluster, item.input, item.responses, other)


def mirrored(found: Outcome) -> Outcome:
    return Outcome(MIRROR[found.swapped], MIRROR[found.forward], MIRROR[found.preferred])


def asked_of(judge, items, task):
    """What a judge says that knows only the two texts, in the order shown."""
    found = questions(items, 2)
    shown = [(row["output"][0]["content"], row["output"][1]["content"]) for row in found.rows]
    return judged(items, found, [judge(pair) for pair in shown], task)


@settings(max_examples=200)
@given(item_lists(), st.data())
def test_swapping_every_comparison_mirrors_every_outcome(items, data):
    memory: dict[tuple[str, str], Answer] = {}

    def judge(pair):
        return memory.setdefault(pair, data.draw(answers()))

    task = PairwiseTask()
    before = asked_of(judge, items, task)
    after = asked_of(judge, [swapped(item) for item in items], task)
    assert [o for j in after for o in j.outcomes] == [mirrored(o) for j in before for o in j.outcomes]
    counts = order_columns(items, before)[0], order_columns([swapped(i) for i in items], after)[0]
    for name in counts[0]:
        assert counts[0][name].tolist() == pytest.approx(counts[1][name].tolist(), nan_ok=True)


@settings(max_examples=100)
@given(item_lists(), st.data())
def test_a_judge_blind_to_the_order_is_consistent_and_combined_as_it_says(items, data):
    memory: dict[frozenset[str], str] = {}

    def judge(pair):
        better = memory.setdefault(frozenset(pair), data.draw(st.sampled_from([*sorted(pair), "tie"])))
        return Answer(verdict="tie" if better == "tie" else "A" if better == pair[0] else "B")

    for found in asked_of(judge, items, PairwiseTask()):
        assert all(o.forward == o.swapped == o.preferred for o in found.outcomes)


@settings(max_examples=100)
@given(item_lists(), st.lists(st.one_of(st.none(), st.integers(-2, 2)), min_size=16, max_size=16))
def test_a_model_that_scores_has_one_opinion_and_equal_numbers_tie(items, numbers):
    found = questions(items, 1)
    given_answers = [
        Answer(problem="failed") if n is None else Answer(score=float(n))
        for n, _ in zip(numbers, found.asked, strict=False)
    ]
    for item, result in zip(items, judged(items, found, given_answers, None), strict=True):
        for comparison, each in zip(item.comparisons, result.outcomes, strict=True):
            first, second = result.values[comparison.first], result.values[comparison.second]
            opinion = None
            if first is not None and second is not None:
                opinion = "tie" if first == second else "A" if first > second else "B"
            assert each == Outcome(opinion, opinion, opinion)


ITEM = Item(
    "x",
    "c",
    (Message("user", "Which?"),),
    ("red", "blue", "red"),
    (Comparison(0, 1, "A"), Comparison(1, 2, "tie")),
)


def test_each_distinct_response_is_asked_about_once():
    found = questions([ITEM], 1)
    assert [(q.key, q.row["output"]["content"]) for q in found.asked] == [("x#0", "red"), ("x#1", "blue")]
    assert judged([ITEM], found, [Answer(score=2.0), Answer(score=1.0)], None)[0].values == (2.0, 1.0, 2.0)


def test_every_comparison_is_asked_in_both_orders_with_the_truth_as_shown():
    found = questions([ITEM], 2)
    shown = [(q.key, Pair.from_row(q.row)) for q in found.asked]
    assert [(key, p.response_a, p.response_b, p.preferred) for key, p in shown] == [
        ("x#0-forward", "red", "blue", "A"),
        ("x#0-swapped", "blue", "red", "B"),
        ("x#1-forward", "blue", "red", "tie"),
        ("x#1-swapped", "red", "blue", "tie"),
    ]


def test_the_rows_are_as_tasks_take_them():
    one, two = questions([ITEM], 1), questions([ITEM], 2)
    assert "red" in one.conversations(PointwiseTask())[0][0]["content"]
    assert "blue" in two.conversations(PairwiseTask())[0][0]["content"]
    assert one.conversations(None)[0] == [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "red"},
    ]
    assert Sample.from_row(one.rows[0]).input == ITEM.input


def test_scores_of_a_generative_judge_are_the_means_of_its_distributions():
    found = questions([ITEM], 1)
    given_answers = [
        Answer(verdict=4, probabilities=(0.0, 0.0, 0.0, 0.5, 0.5)),
        Answer(verdict=3),
    ]
    assert judged([ITEM], found, given_answers, PointwiseTask())[0].values == (3.5, 3.0, 3.5)


def distribution(a, b, tie) -> Answer:
    p = (a, b, tie)
    return Answer(verdict=("A", "B", "tie")[p.index(max(p))], probabilities=p)


@pytest.mark.parametrize(
    ("forward", "swapped_answer", "expected"),
    [
        (Answer("A"), Answer("B"), Outcome("A", "A", "A")),  # the same response both times
        (Answer("A"), Answer("A"), Outcome("A", "B", "tie")),  # the first one both times: a contradiction
        (Answer("A"), Answer("tie"), Outcome("A", "tie", "A")),  # one order decides where the other does not
        (Answer("tie"), Answer("A"), Outcome("tie", "B", "B")),
        (Answer("A"), Answer(problem="unparsable"), Outcome("A", None, None)),  # half an opinion is none
        # surer in one order than in the other: the mean of A 0.9 and A 0.4 is more than B's
        (distribution(0.9, 0.1, 0.0), distribution(0.6, 0.4, 0.0), Outcome("A", "B", "A")),
        # equally sure of whatever stands first
        (distribution(0.8, 0.2, 0.0), distribution(0.8, 0.2, 0.0), Outcome("A", "B", "tie")),
        # a draw of A and tie: A, as for verdicts
        (distribution(0.5, 0.0, 0.5), distribution(0.0, 0.5, 0.5), Outcome("A", "A", "A")),
        # a distribution in one order only: the verdicts decide
        (distribution(0.9, 0.1, 0.0), Answer("A"), Outcome("A", "B", "tie")),
    ],
)
def test_the_two_orders_together(forward, swapped_answer, expected):
    assert outcome(forward, swapped_answer) == expected


def test_sums_that_are_equal_are_a_draw():
    """0.7 + 0.1 is 0.7999999999999999 in floating point, and 0.4 + 0.4 is not."""
    forward = distribution(0.7, 0.3, 0.0)
    swapped_answer = distribution(0.5, 0.1, 0.4)
    assert outcome(forward, swapped_answer).preferred == "tie"


def test_the_labels_may_stand_in_another_order():
    forward = Answer("A", probabilities=(0.0, 0.9, 0.1))  # over tie, A, B
    swapped_answer = Answer("A", probabilities=(0.0, 0.6, 0.4))
    assert outcome(forward, swapped_answer, ("tie", "A", "B")).preferred == "A"


def test_one_order_by_itself_is_marked():
    found = questions([ITEM], 2, ["forward"])
    [result] = judged([ITEM], found, [Answer("A"), Answer("tie")], None)
    assert result.one_order
    assert result.outcomes == (Outcome("A", None, "A"), Outcome("tie", None, "tie"))


def test_the_swapped_order_by_itself_is_refused_by_name():
    found = questions([ITEM], 2, ["swapped"])
    with pytest.raises(DataError, match="only the order `swapped` is there"):
        judged([ITEM], found, [Answer("A"), Answer("tie")], None)


def test_answers_and_questions_must_belong_together():
    found = questions([ITEM], 2)
    with pytest.raises(DataError, match="4 questions and 1 answers"):
        judged([ITEM], found, [Answer("A")], None)
    other = Item("y", "c", ITEM.input, ITEM.responses, ITEM.comparisons)
    with pytest.raises(DataError, match="belong to other items"):
        judged([other], found, [Answer("A")] * 4, None)
    with pytest.raises(ConfigError, match="not 3"):
        questions([ITEM], 3)


def test_an_item_that_is_not_compared_keeps_its_numbers():
    alone = Item("z", "c", ITEM.input, ("a", "b"), ())
    assert scored(alone, [1.0, None]).values == (1.0, None)
    assert questions([alone], 2).asked == ()
    assert judged([alone], questions([alone], 2), [], None)[0].outcomes == ()
