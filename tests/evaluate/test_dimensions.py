"""Several scores at once: each dimension is measured as a score by itself, and the whole by its weights."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.data.samples import Message, Sample
from rm_gallery.core.errors import ConfigError
from rm_gallery.core.evaluate import Predictions, compute_baselines, compute_metrics, estimates, score_outputs
from rm_gallery.core.evaluate.build import build_result
from rm_gallery.core.evaluate.metrics import metric_names
from rm_gallery.core.evaluate.predictions import in_words
from rm_gallery.core.evaluate.result import read_result, write_result
from rm_gallery.core.evaluate.table import print_result, sentences
from rm_gallery.core.judge.answer import Answer, too_many
from rm_gallery.core.judge.read import tally
from rm_gallery.core.rewards import RewardConfig
from rm_gallery.core.tasks import MultiDimensionTask, PointwiseTask
from tests.evaluate.helpers import scores

TASK = MultiDimensionTask(dimensions={"helpfulness": 2, "correctness": {"weight": 1, "scale": [1, 3]}})
verdicts = st.sampled_from(list(TASK.verdicts()))
judged = st.lists(st.tuples(verdicts, st.none() | verdicts, st.integers(0, 3)), min_size=1, max_size=25)


def row(i: int, labels: dict, prompt: int = 0, response: str = "an answer", source: str = "ours") -> dict:
    turns = (Message("user", f"question {prompt}"),)
    return Sample(turns, response, labels, f"row-{i}", source).to_row()


def predictions(given) -> Predictions:
    rows = [row(i, truth, prompt) for i, (truth, _, prompt) in enumerate(given)]
    texts = ["nothing" if v is None else TASK.format(v) for _, v, _ in given]
    return score_outputs(TASK, rows, texts)


# -- what must hold


@given(judged)
def test_a_dimension_has_the_figures_that_its_scores_have_alone(given):
    found = compute_metrics(predictions(given))
    # the same labels and verdicts, as a task of that one score
    alone = scores(
        [truth["helpfulness"] for truth, _, _ in given],
        [-1 if v is None else v["helpfulness"] for _, v, _ in given],
        [prompt for *_, prompt in given],
    )
    for name, value in compute_metrics(alone).items():
        if name not in ("parse_rate", "invalid"):  # an output is invalid as a whole
            assert found[f"{name}/helpfulness"] == pytest.approx(value, nan_ok=True), name
    assert found["invalid"] == compute_metrics(alone)["invalid"]


@given(judged)
def test_the_whole_is_the_weighted_mean_of_the_dimensions(given):
    found = compute_metrics(predictions(given))
    for name in ("reward", "mae"):
        parts = [found[f"{name}/helpfulness"], found[f"{name}/correctness"]]
        assert found[name] == pytest.approx(2 / 3 * parts[0] + 1 / 3 * parts[1])
    assert found["accuracy"] == np.mean([truth == v for truth, v, _ in given])
    assert found["parse_rate"] == pytest.approx(1 - found["invalid"] / len(given))


@given(judged)
def test_responses_are_ranked_by_their_weighted_mean(given):
    found, pairs = compute_metrics(predictions(given)), []
    for i, (truth, verdict, prompt) in enumerate(given):
        for other, seen, where in given[:i]:
            want = round(TASK.number(truth) - TASK.number(other), 9)
            if where == prompt and want:
                got = None if verdict is None or seen is None else TASK.number(verdict) - TASK.number(seen)
                pairs.append(0.0 if got is None else 0.5 if round(got, 9) == 0 else float(got * want > 0))
    expected = np.mean(pairs) if pairs else math.nan
    assert found["pairwise_accuracy_half"] == pytest.approx(expected, nan_ok=True)


@settings(max_examples=20)
@given(judged)
def test_reading_what_was_written_gives_the_same(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("written") / "p.parquet"
    made = predictions(given)
    made.to_parquet(path)
    assert Predictions.from_parquet(path) == made
    assert made.take(range(len(made))) == made


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(verdicts, st.lists(st.floats(0.01, 1), min_size=15, max_size=15)), min_size=1, max_size=6
    )
)
def test_the_distribution_of_a_dimension_is_the_marginal_one(given):
    rows = [row(i, truth) for i, (truth, _) in enumerate(given)]
    joint = [np.array(weights) / sum(weights) for _, weights in given]
    answers = [
        Answer(TASK.verdicts()[int(p.argmax())], probabilities=tuple(p.tolist()), mass=0.25) for p in joint
    ]
    made = score_outputs(TASK, rows, answers)
    for part, axis in zip(made.parts, (0, 1), strict=True):
        for p, of_part in zip(joint, part.predictions.probabilities, strict=True):
            by_hand = [
                sum(p[i] for i, v in enumerate(TASK.verdicts()) if v[part.name] == score)
                for score in TASK.parts[axis].scale
            ]
            assert of_part == pytest.approx(by_hand)
    found = compute_metrics(made)
    assert found["mass"] == 0.25
    assert "mass/helpfulness" not in found
    assert 0 <= found["rps/correctness"] <= 1


@pytest.mark.parametrize("reward", [RewardConfig(), RewardConfig(name="exact"), RewardConfig(name="linear")])
@settings(max_examples=20)
@given(truths=st.lists(verdicts, min_size=1, max_size=12))
def test_the_best_constant_is_the_best_of_all_verdicts(reward, truths):
    task = MultiDimensionTask(reward, dimensions=TASK.settings["dimensions"])
    rows = [row(i, truth) for i, truth in enumerate(truths)]
    found = {b.name: b.predictions for b in compute_baselines(task, rows) if b.predictions is not None}
    best = max(np.mean([task.reward(v, truth) for truth in truths]) for v in task.verdicts())
    assert np.mean(found["best_constant"].reward) == pytest.approx(best)
    assert compute_metrics(found["prior"])["reward"] == compute_metrics(found["majority"])["reward"]


# -- cases


def test_every_figure_has_an_interval_or_a_reason():
    given = [
        ({"helpfulness": i % 5, "correctness": 1 + i % 3}, TASK.verdicts()[i % 15], i) for i in range(40)
    ]
    made = predictions(given)
    found = estimates(made)
    assert tuple(found) == metric_names(made)
    for name, estimate in found.items():
        assert estimate.reason or estimate.low <= estimate.value <= estimate.high, name
    assert found["kappa/helpfulness"].low < found["kappa/helpfulness"].high


def test_the_reward_of_a_wider_scale_falls_as_over_its_width():
    task = MultiDimensionTask(dimensions={"a": {"scale": [0, 4]}, "b": {"scale": [1, 10]}})
    worst = [part.reward(part.scale[0], part.scale[-1]) for part in task.parts]
    assert worst == [pytest.approx(math.exp(-2))] * 2


def test_a_reward_that_asks_for_the_data_source_is_told_it(tmp_path):
    """And the best constant is the best under it: rows that count more pull it."""
    file = tmp_path / "own.py"
    file.write_text(
        "def reward(predicted, true, data_source):\n"
        "    return (1 - abs(predicted - true) / 4) * {'old': 0.1, 'new': 1.0}[data_source]\n"
    )
    config = RewardConfig(name=f"{file}:reward")
    labels = [(0, "old")] * 3 + [(4, "new")]
    rows = [row(i, {"helpfulness": label}, source=source) for i, (label, source) in enumerate(labels)]
    task = PointwiseTask(config)
    made = score_outputs(task, rows, ["<score>4</score>"] * 4)
    assert made.reward == (0.0, 0.0, 0.0, 1.0)
    best = compute_baselines(task, rows)[1]
    assert best.rule == "always 4, the best constant"
    several = MultiDimensionTask(config, dimensions={"helpfulness": 1})
    made = score_outputs(several, rows, ["<helpfulness>4</helpfulness>"] * 4)
    assert made.reward == made.parts[0].predictions.reward == (0.0, 0.0, 0.0, 1.0)
    assert several.compute_score("new", "<helpfulness>4</helpfulness>", {"helpfulness": 4})["score"] == 1.0


def test_the_table_has_a_row_for_each_dimension(tmp_path):
    from rich.console import Console

    given = [(TASK.verdicts()[i % 15], TASK.verdicts()[i * 7 % 15], i % 9) for i in range(30)]
    given[3] = (given[3][0], None, 1)
    made = predictions(given)
    rows = [row(i, truth, prompt) for i, (truth, _, prompt) in enumerate(given)]
    result = build_result(TASK, made, rows, benchmark="b", model="m")
    assert "Invalid outputs: 1 of 30 (3.3%): 1 unparsable." in sentences(result)
    for width, columns in ((80, 4), (200, 7)):
        console = Console(width=width, record=True)
        print_result(console, result)
        lines = console.export_text().splitlines()
        [line] = [line for line in lines if line.startswith("correctness")]
        assert len(line.split()) == 1 + columns
    write_result(tmp_path, result)
    again = read_result(tmp_path)
    assert again.to_metrics_json() == result.to_metrics_json()
    assert again.kind == "dimensions"
    assert {f"mae/{name}" for name in TASK.dimensions} < set(
        result.to_metrics_json()["baselines"]["majority"]
    )


def test_all_combinations_are_listed_only_up_to_a_size():
    assert len(TASK.verdicts()) == len(list(product(range(5), range(3))))
    with pytest.raises(ConfigError, match="name fewer, or smaller scales"):
        MultiDimensionTask(dimensions=dict.fromkeys("abcdefgh", 1))


def test_the_report_has_a_table_with_a_row_for_each_dimension():
    from rm_gallery.core.evaluate.report import Evaluation, ReportInput, render_report

    given = [(TASK.verdicts()[i % 15], TASK.verdicts()[i * 7 % 15], i % 9) for i in range(30)]
    given[3] = (given[3][0], None, 1)
    rows = [row(i, truth, prompt) for i, (truth, _, prompt) in enumerate(given)]
    result = build_result(TASK, predictions(given), rows, benchmark="b", model="m")
    page = render_report(ReportInput([Evaluation("judge", result), Evaluation("again", result)]))
    tables = page.split("Dimension by dimension")[1].split("Against what costs nothing")[0]
    assert tables.count('<tr><th scope="row"') == 2 * len(TASK.dimensions)
    figure = result.metrics["kappa/correctness"]
    assert f"<td>{figure.value:.3f}<small>{figure.low:.3f} to {figure.high:.3f}</small>" in tables
    for name in TASK.dimensions:
        assert f"judge, {name}: label (down)" in page
    worst = page.split("Worst disagreements")[-1]
    assert in_words(given[0][0]) in worst


@pytest.mark.parametrize("dimensions", [{"truth": 3}, {"truth": 3, "style": 1}], ids=["one", "two"])
def test_of_a_single_dimension_nothing_is_said_in_the_plural(dimensions):
    """No weights, no whole beside its parts, no constants; of two all of that."""
    from rm_gallery.core.evaluate.report import Evaluation, ReportInput, render_report

    task = MultiDimensionTask(dimensions=dimensions)
    verdicts = list(task.verdicts())
    rows = [row(i, verdicts[i % len(verdicts)], i % 9) for i in range(30)]
    weighed = [[1.0 + (i == j % 5) for i in range(len(verdicts))] for j in range(30)]
    answers = [
        Answer(verdicts[0], probabilities=tuple(p / sum(weights) for p in weights), mass=1.0)
        for weights in weighed
    ]
    result = build_result(task, score_outputs(task, rows, answers), rows, benchmark="b", model="m")
    page = render_report(ReportInput([Evaluation("judge", result)]))
    text = page[page.index("<main>") : page.index("The worst disagreements")]
    plural = (
        *("Dimension by dimension", '<th scope="col">weight</th>', "Weights are", "the best constants"),
        *("the most frequent labels", "as a whole", "ece/truth, style"),
    )
    several = len(dimensions) > 1
    assert [said in text for said in plural] == [several] * len(plural)
    singular = ("The dimension truth", "the best constant", "the most frequent label,", "ECE: no interval")
    assert several or all(said.rstrip(",") in text for said in singular)
    assert "<td>0." in text.split("imension ")[1], "the table of figures that scores alone have"


@given(verdicts, st.none() | verdicts)
def test_the_reward_of_each_dimension_is_in_the_score_and_makes_up_the_whole(truth, verdict):
    text = "" if verdict is None else TASK.format(verdict)
    result = TASK.compute_score("ours", text, truth)
    of_parts = [result["reward_helpfulness"], result["reward_correctness"]]
    assert result["score"] == pytest.approx(2 / 3 * of_parts[0] + 1 / 3 * of_parts[1])
    made = predictions([(truth, verdict, 0)])
    assert [part.predictions.reward[0] for part in made.parts] == of_parts


@given(st.lists(st.none() | verdicts, min_size=1, max_size=9))
def test_a_vote_is_taken_on_each_dimension(samples):
    answer = tally(TASK, ["nothing" if v is None else TASK.format(v) for v in samples])
    legal = [v for v in samples if v is not None]
    if not legal:
        assert answer.verdict is None
        return
    for part in TASK.parts:
        counts = [sum(v[part.name] == score for v in legal) for score in part.scale]
        assert answer.verdict[part.name] == part.scale[counts.index(max(counts))]
    assert answer.mass == len(legal) / len(samples)


def test_a_mode_that_lists_all_combinations_is_refused_where_there_are_too_many():
    five = MultiDimensionTask(dimensions=dict.fromkeys("abcde", 1))
    assert (
        "3,125 combinations of scores, and mode expected takes at most 1,000: use vote, or greedy"
        in too_many(five, "expected")
    )
    assert not too_many(five, "vote")
    assert not too_many(five, "greedy")
    seven = MultiDimensionTask(dimensions=dict.fromkeys("abcdefg", 1))
    assert too_many(seven, "vote").endswith("use greedy")
