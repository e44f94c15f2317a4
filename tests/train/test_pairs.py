"""Rows as preference pairs and as rated responses: each judgment once, and what cannot be learned from is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rm_gallery.core.data.converters import expand, marked
from rm_gallery.core.data.samples import Message, Pair, Sample
from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.train.config import BradleyTerrySection, check_config
from rm_gallery.core.train.pairs import PreferencePair, read_pairs
from rm_gallery.core.train.ratings import read_ratings
from rm_gallery.gallery.data.load import HelpSteer2PairwiseConverter

KEEP = BradleyTerrySection(ties="davidson")
words = st.text("abcd ", min_size=1, max_size=6).filter(str.strip)
strengths = st.integers(-3, 3)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(strength: int, a: str = "left", b: str = "right", question: str = "q", **fields: object) -> Pair:
    preferred = "B" if strength > 0 else "A" if strength < 0 else "tie"
    return Pair((Message("user", question),), a, b, preferred, strength, **fields)


def rated(question: str, response: str, **labels: int) -> dict:
    return Sample((Message("user", question),), response, labels, f"{question}-{response}").to_row()


def judgments(pairs: list[PreferencePair]) -> set:
    return {made.judgment for made in pairs}


@st.composite
def judged(draw: st.DrawFn) -> list[Pair]:
    rows = draw(st.lists(st.tuples(strengths, words, words, words), min_size=1, max_size=8))
    found = {}
    for strength, a, b, question in rows:
        if a != b:
            found[frozenset((a, b)), question] = pair(strength, a, b, question)
    return list(found.values())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(pairs=judged().filter(lambda pairs: any(p.strength for p in pairs)), data=st.data())
def test_both_orders_of_a_judgment_are_one_pair(pairs, data, tmp_path):
    """With the converter's groups and without, in whichever order the rows stand."""
    once = judgments(read_pairs(write(tmp_path / "once.jsonl", [p.to_row() for p in pairs]), KEEP)[0])
    expanded = [row.to_row() for p in pairs for row in expand(p, marked(p))]
    bare = [row for p in pairs for row in (p.to_row(), p.swap().to_row())]
    for name, rows in (("grouped", expanded), ("bare", bare)):
        shuffled = data.draw(st.permutations(rows))
        found, notes = read_pairs(write(tmp_path / f"{name}.jsonl", shuffled), KEEP)
        assert len(found) == len(pairs)
        assert judgments(found) == once
        assert notes == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(strength=strengths.filter(bool))
def test_the_opposite_label_chooses_the_other_response(strength, tmp_path):
    [made], [opposite] = (
        read_pairs(write(tmp_path / "pair.jsonl", [pair(s).to_row()]), KEEP)[0] for s in (strength, -strength)
    )
    assert made.chosen == ("right" if strength > 0 else "left")
    assert opposite == made.swap()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(scores=st.lists(st.integers(0, 4), min_size=2, max_size=5).filter(lambda s: len(set(s)) > 1))
def test_ratings_are_compared_two_by_two(scores, tmp_path):
    rows = [rated("q", f"r{i}", helpfulness=score) for i, score in enumerate(scores)]
    pairs, notes = read_pairs(write(tmp_path / "rated.jsonl", rows), KEEP)
    of = {f"r{i}": score for i, score in enumerate(scores)}
    assert len(pairs) == len(scores) * (len(scores) - 1) // 2
    for made in pairs:
        assert of[made.chosen] - of[made.rejected] == made.strength
        assert made.tied == (made.strength == 0)
    assert notes == []


def test_ties_that_are_dropped_are_counted_and_said(tmp_path):
    rows = [pair(s, question=f"q{i}").to_row() for i, s in enumerate((-2, 0, 3, 0, 1))]
    file = write(tmp_path / "pairs.jsonl", rows)
    pairs, notes = read_pairs(file, BradleyTerrySection())
    assert [(made.chosen, made.strength) for made in pairs] == [("left", 2), ("right", 3), ("right", 1)]
    assert notes == [f"{file}: 2 of 5 pairs are ties and left out (bradley_terry.ties: drop)"]
    kept, notes = read_pairs(file, KEEP)
    assert (len(kept), sum(made.tied for made in kept), notes) == (5, 2, [])


def test_the_limit_draws_from_what_is_used(tmp_path):
    rows = [pair((-1) ** i if i % 2 else 0, question=f"q{i}").to_row() for i in range(20)]
    file = write(tmp_path / "pairs.jsonl", rows)
    first, second = (read_pairs(file, BradleyTerrySection(), limit=5, seed=seed)[0] for seed in (0, 1))
    assert len(first) == len(second) == 5
    assert first != second
    assert first == read_pairs(file, BradleyTerrySection(), limit=5, seed=0)[0]


def test_responses_without_the_label_or_alone_are_counted(tmp_path):
    rows = [
        rated("q", "a", helpfulness=3, correctness=1),
        rated("q", "b", helpfulness=1),
        rated("q", "c", helpfulness=1, correctness=2),
        rated("alone", "d", correctness=4),
    ]
    file = write(tmp_path / "rated.jsonl", rows)
    [only], notes = read_pairs(file, BradleyTerrySection(label="correctness"))
    assert (only.chosen, only.rejected, only.strength) == ("c", "a", 1)
    assert notes == [
        f"{file}: 1 of 4 rows have no label correctness and are left out",
        f"{file}: 1 of 2 prompts have one response, which makes no pair",
    ]


# -- what is refused

RATED = [rated("q", "a", helpfulness=3), rated("q", "b", helpfulness=1)]


@pytest.mark.parametrize(
    ("rows", "section", "said"),
    [
        # a label with a typo
        (
            RATED,
            {"label": "helpfullness"},
            r"no row of .* has a label 'helpfullness'; their labels are helpfulness\. Did you mean 'helpfulness'\?",
        ),
        # a column with a typo
        (
            [{k.replace("preferred", "prefered"): v for k, v in pair(1).to_row().items()} | {"metadata": {}}],
            {},
            r"there is no `preferred` .*Did you mean 'prefered'\?",
        ),
        # a later row without a preference
        (
            [pair(1).to_row(), {**pair(1, unique_id="x").to_row(), "preferred": "?"}],
            {},
            r"x: `preferred` is '\?'",
        ),
        # preference and strength contradict each other
        ([{**pair(1, unique_id="x").to_row(), "preferred": "A"}], {}, "x: `preferred` is 'A' and .* is 1"),
        ([{**pair(1, unique_id="x").to_row(), "preferred": "tie"}], {}, "x: `preferred` is 'tie'"),
        # a swapped row whose label was not swapped
        (
            [
                pair(1, unique_id="x", metadata={"group": "g"}).to_row(),
                pair(1, "right", "left", unique_id="y", metadata={"group": "g"}).to_row(),
            ],
            {},
            "rows 'x' and 'y' have the same metadata.group and are not the two orders",
        ),
        # nothing is left
        ([pair(0).to_row(), pair(0).swap().to_row()], {}, "holds no preference: all 1 pairs of it are ties"),
        ([pair(0).to_row()], {"ties": "davidson"}, "all 1 pairs of it are ties"),
        ([rated("q", "a", helpfulness=3)], {}, "no two of its responses answer one prompt"),
        # nothing to make a margin of
        (
            [{**pair(1, unique_id="x").to_row(), "preference_strength": None, "metadata": {}}],
            {"margin": "strength"},
            "row 'x' has no preference_strength",
        ),
        ([rated("q", "a", helpfulness="good")], {}, "the label helpfulness is 'good', expected a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused(tmp_path, rows, section, said):
    with pytest.raises(DataError, match=said):
        read_pairs(write(tmp_path / "rows.jsonl", rows), BradleyTerrySection(**section))


# -- ratings for regression


def test_missing_labels_are_none_and_rows_without_any_are_counted(tmp_path):
    rows = [
        rated("q", "a", helpfulness=3, verbosity=0),
        rated("q", "b", helpfulness=1),
        rated("q", "c", other=1),
    ]
    file = write(tmp_path / "rated.jsonl", rows)
    found, notes = read_ratings(file, ("verbosity", "helpfulness"))
    assert [each.labels for each in found] == [(0.0, 3.0), (None, 1.0)]
    assert notes == [f"{file}: 1 of 3 rows have none of the labels and are left out"]
    assert found[0].conversation == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (RATED, r"no row of .* has a label 'corectness'; their labels are helpfulness"),
        ([pair(1).to_row()], "holds pairs of responses.*bradley_terry"),
    ],
)
def test_what_regression_cannot_learn_from_is_refused(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        read_ratings(write(tmp_path / "rows.jsonl", rows), ("helpfulness", "corectness"))


# -- the YAML


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"bradley_terry": {"ties": "davidsson"}}, r"bradley_terry\.ties is 'davidsson'.*Did you mean 'davidson'"),
        ({"bradley_terry": {"tie_parameter": 2.0}}, "tie_parameter has no effect with ties: drop"),
        ({"bradley_terry": {"ties": "rao_kupper", "tie_parameter": 1}}, "of rao_kupper must be above 1"),
        ({"bradley_terry": {"ties": "davidson", "tie_parameter": 0}}, "of davidson must be above 0"),
        ({"bradley_terry": {"centre_coef": 0.1}}, r"centre_coef is not a known key\. Did you mean 'center_coef'"),
        ({"bradley_terry": {"margin_scale": float("inf")}}, "margin_scale"),
        ({"regression": {"attributes": {}}}, "at least one attribute"),
        ({"regression": {"attributes": {"a": 0.0}}}, "at least one attribute"),
        ({"regression": {"attributes": {"a": float("nan")}}}, "at least one attribute"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(section, said):
    with pytest.raises(ConfigError, match=said):
        check_config({"model": {"path": "m"}, "data": {"train": "t.parquet"}, **section})


def test_the_real_pairs(shared_data, tmp_path):
    """Each judgment of HelpSteer2 once, with the ties that its converter found."""
    converter, rows = HelpSteer2PairwiseConverter(), []
    with gzip.open(shared_data / "helpsteer2/preference/preference.jsonl.gz", "rt") as lines:
        for line in lines:
            rows += [made.to_row() for made in converter.convert(json.loads(line))]
    forward = {row["metadata"]["group"]: row for row in rows if row["metadata"]["order"] == "forward"}
    pairs, _ = read_pairs(write(tmp_path / "pairs.jsonl", rows), KEEP)
    assert len(pairs) == len(forward) > 1000
    assert sum(made.tied for made in pairs) == sum(row["preferred"] == "tie" for row in forward.values())


def test_a_strength_need_not_be_whole(tmp_path):
    rows = [pair(1, a, f"not {a}", a).to_row() for a in "abc"]
    for row, strength in zip(rows, (0.5, 1.5, 2.0), strict=True):
        row["preference_strength"] = strength
    margins = BradleyTerrySection(margin="strength")
    assert [made.strength for made in read_pairs(write(tmp_path / "p.jsonl", rows), margins)[0]] == [
        0.5,
        1.5,
        2,
    ]
    rows[1]["preference_strength"] = "slightly"
    with pytest.raises(DataError, match="`preference_strength` is 'slightly', expected a number"):
        read_pairs(write(tmp_path / "p.jsonl", rows), margins)


def test_the_older_shapes_metadata_has_the_preference(tmp_path):
    row = pair(2).to_row()
    del row["preferred"], row["preference_strength"]
    row["metadata"] = json.dumps(row["metadata"])
    [made] = read_pairs(write(tmp_path / "p.jsonl", [row]), KEEP)[0]
    assert (made.chosen, made.strength) == ("right", 2)
