"""Killed anywhere and run again: the same results, and nothing graded twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import logging
import random
import re
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import (
    FunctionGrader,
    GraderError,
    GraderRank,
    GraderScore,
    JudgeGrader,
    LLMGrader,
    PairJudgeGrader,
)
from rm_gallery.core.graders.common import HelpfulnessGrader, RelevanceGrader
from rm_gallery.core.models import OpenAIChatModel
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.runner import GraderConfig, GradingRunner
from rm_gallery.core.runner.identity import grader_identity, item_key
from rm_gallery.core.runner.journal import GradingJournal, keeps
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask, get_task
from tests.runner.graders import Killed, Length

QUICK = Backoff(first=0.0, longest=0.0)


def items(responses):
    return [{"response": response} for response in responses]


def run(path, grader, responses, *, width=4, **options):
    runner = GradingRunner({"a": grader}, journal=path, max_concurrency=width, **options)
    return runner.run(items(responses))["a"]


# -- kills


@settings(max_examples=60)
@given(
    st.lists(st.text("abc", max_size=3), max_size=25),
    st.lists(st.integers(0, 12), max_size=4),
    st.integers(1, 6),
    st.integers(0, 60),
    st.randoms(use_true_random=False),
)
def test_killed_anywhere_and_run_again_gives_the_same_and_grades_nothing_twice(
    tmp_path_factory, responses, kills, width, cut, jitter
):
    """`kills`: how many grades each run lives for; `cut`: bytes that the last of them did not get onto the disk."""
    path = tmp_path_factory.mktemp("journal") / "grades.jsonl"
    asked: list[str] = []
    for dies_after in kills:
        grader = Length(jitter=jitter, dies_after=dies_after)
        with contextlib.suppress(Killed):
            run(path, grader, responses, width=width)
        asked += grader.asked
        if path.exists() and cut:
            kept = path.read_bytes()
            last = kept.rfind(b"\n", 0, len(kept) - 1) + 1  # a torn write tears the last line only
            path.write_bytes(kept[: max(last, len(kept) - cut)])
    last = Length(jitter=jitter)
    found = run(path, last, responses, width=width)
    again = Length()
    assert found == run(path, again, responses)  # and once more, all of it from the journal
    assert again.asked == []
    assert found == run(path.with_name("other.jsonl"), Length(), responses)
    assert [result.metadata["of"] for result in found] == responses
    # each kill costs what was under way, and the line that was torn
    asked += last.asked
    assert len(asked) - len(set(asked)) <= len(kills) * (width + (cut > 0))


def test_an_item_that_stands_twice_is_graded_once(tmp_path):
    grader = Length(jitter=random.Random(0))
    found = run(tmp_path / "j", grader, ["a", "bb", "a"] * 20, width=16)
    assert [result.score for result in found] == [1, 2, 1] * 20
    assert sorted(grader.asked) == ["a", "bb"]


def test_equal_items_with_ids_of_their_own_are_graded_each(tmp_path):
    grader = Length()
    runner = GradingRunner({"a": grader}, journal=tmp_path / "j", item_id="id")
    runner.run([{"id": i, "response": "x"} for i in range(3)])
    assert grader.asked == ["x"] * 3
    later = Length()
    by_function = GradingRunner({"a": later}, journal=tmp_path / "j", item_id=lambda item: item["id"])
    by_function.run([{"id": i, "response": "x"} for i in range(4)])
    assert later.asked == ["x"]  # the one that is new


def test_what_failed_is_graded_again_and_what_the_judge_answered_is_not(tmp_path):
    for kind, again in {
        "timeout": ["x"],
        "key": ["x"],
        "exception": ["x"],
        "unparsable": [],
        "overlong": [],
    }.items():
        path = tmp_path / kind
        [first, other] = run(path, Length(fails={"x": 1}, kind=kind), ["x", "yy"])
        assert (first.kind, other.score) == (kind, 2)
        later = Length()
        [second, _] = run(path, later, ["x", "yy"])
        assert later.asked == again
        assert second == first if not again else second.score == 1


def test_a_retry_that_works_is_kept(tmp_path):
    [found] = run(tmp_path / "j", Length(fails={"x": 2}), ["x"], retries=2, backoff=QUICK)
    assert found.score == 1
    assert len((tmp_path / "j").read_text().splitlines()) == 1


def test_another_configuration_is_graded_anew(tmp_path):
    class Public(Length):
        def __init__(self, prompt):
            super().__init__()
            self.prompt = prompt

    def asked(grader, mapper=None, name="a"):
        GradingRunner({name: GraderConfig(grader, mapper)}, journal=tmp_path / "j").run(items(["x"]))
        return grader.asked

    assert asked(Public("how long?")) == ["x"]
    assert asked(Public("how long?")) == []
    assert asked(Public("how short?")) == ["x"]
    assert asked(Public("how long?"), {"response": "response"}) == []  # the same fields, found otherwise
    assert asked(Public("how long?"), lambda item: {"response": "y"}) == ["y"]
    assert asked(Public("how long?"), name="b") == ["x"]  # twice under two names: two samples
    assert asked(Length()) == ["x"]


def test_two_graders_share_a_journal(tmp_path):
    first, second = Length(), Length()
    runner = GradingRunner({"a": first, "b": second}, journal=tmp_path / "j")
    results = runner.run(items(["x", "yy"]))
    assert results["a"] == results["b"]
    assert first.asked == second.asked == ["x", "yy"]
    assert runner.run(items(["x", "yy"])) == results


# -- the file


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path):
    for content in ('{"query": "q", "response": "r"}\n', "PAR1", "[1]"):
        path = tmp_path / "rows.jsonl"
        path.write_text(content)
        with pytest.raises(ConfigError, match="is no journal"):
            run(path, Length(), ["x"])
        assert path.read_text() == content


def test_lines_that_are_damaged_or_no_grades_are_graded_again(tmp_path):
    path = tmp_path / "j"
    run(path, Length(), ["x", "yy", "zzz", "wwww"], width=1)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"score": 2.0', b'"score": NaN')  # JSON, and no score
    lines[2] = lines[2][:20] + b"\xff\x00" + lines[2][22:]
    lines[3] = lines[3].replace(b'"type": "score"', b'"type": "opinion"')
    path.write_bytes(b"".join(lines))
    later = Length()
    assert [result.score for result in run(path, later, ["x", "yy", "zzz", "wwww"])] == [1, 2, 3, 4]
    assert sorted(later.asked) == ["wwww", "yy", "zzz"]
    again = Length()
    run(path, again, ["x", "yy", "zzz", "wwww"])
    assert again.asked == []


def test_a_journal_in_use_is_refused_by_another_run(tmp_path):
    path = tmp_path / "j"
    with GradingJournal(path).open(), pytest.raises(ConfigError, match="written by another run"):
        run(path, Length(), ["x"])
    assert run(path, Length(), ["x"])[0].score == 1  # free again


def test_runs_of_one_runner_share_its_journal(tmp_path):
    grader = Length(jitter=random.Random(0))
    runner = GradingRunner({"a": grader}, journal=tmp_path / "j")

    async def both():
        return await asyncio.gather(runner.arun(items("abc")), runner.arun(items("abcd")))

    three, four = asyncio.run(both())
    assert three["a"] == four["a"][:3]
    assert GradingRunner({"a": Length()}, journal=tmp_path / "j").run(items("abcd"))["a"] == four["a"]


def test_metadata_that_is_no_json_is_an_error(tmp_path):
    class Odd(Length):
        async def _grade(self, fields):
            return GraderScore(self.name, 1, metadata={"set": {1, 2}})

    [found] = run(tmp_path / "j", Odd(), ["x"])
    assert isinstance(found, GraderError)
    assert "no JSON" in found.error


def test_a_disk_that_is_full_ends_the_run_and_says_so(tmp_path, monkeypatch):
    def full(journal, key, grader, result):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GradingJournal, "add", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "j", Length(), ["x"] * 100)


results = st.one_of(
    st.builds(
        GraderScore, name=st.text(), score=st.floats(allow_nan=False, allow_infinity=False), reason=st.text()
    ),
    st.builds(GraderRank, name=st.text(), rank=st.sampled_from([(1,), (1, 1), (1, 2), (2, 1), (1, 1, 3)])),
    st.builds(GraderError, name=st.text(), error=st.text(), metadata=st.just({"kind": "unparsable"})),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("0123456789abcdef", min_size=1), results), max_size=8))
def test_what_is_added_is_found_again_the_last_of_each_key(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / "j"
    with GradingJournal(path).open() as journal:
        for key, result in entries:
            assert journal.add(key, 'any "name"\n', result) == result
            assert journal.get(key) == result
    with GradingJournal(path).open() as journal:
        assert len(journal) == len(dict(entries))
        assert all(journal.get(key) == result for key, result in dict(entries).items())
        assert journal.get("nothing") is None


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (GraderScore("a", 1), True),
        (GraderRank("a", (1, 2)), True),
        (GraderError("a", "e", {"kind": "unparsable"}), True),
        (GraderError("a", "e", {"kind": "timeout"}), False),
        (GraderError("a", "e"), False),
    ],
)
def test_what_a_journal_keeps(result, kept):
    assert keeps(result) is kept


# -- keys


class Point(BaseModel):
    x: int


@dataclasses.dataclass
class Place:
    x: int


class Color(Enum):
    RED = 1
    BLUE = 2


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Counting:
    def __init__(self, step):
        self.step = step

    def count(self):
        return self.step


def characters(response):
    return len(response)


def holding(x):
    return lambda: x


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        datetime(2031, 5, 6),
        Decimal("1.5"),
        {"a", "b"},
        Point(x=1),
        Place(x=1),
        Color.RED,
        np.float32(1.5),
        np.arange(3),
        (1, 2),
        "half of a pair: \ud800",
        float("nan"),
        None,
    ],
)
def test_a_key_is_made_of_whatever_a_row_holds(value):
    key = item_key("i", {"a": value})
    assert key == item_key("i", {"a": value})
    assert key != item_key("i", {"a": "something else"})
    assert key != item_key("j", {"a": value})
    assert key != item_key("i", {"a": value}, item_id=1)
    assert item_key("i", {"a": 1, "b": value}) == item_key("i", {"b": value, "a": 1})


def test_a_field_that_nothing_can_be_told_of_needs_an_id(tmp_path):
    with pytest.raises(DataError, match="item_id"):
        item_key("i", {"a": object()})
    assert item_key("i", {"a": object()}, item_id=1) != item_key("i", {"a": object()}, item_id=2)
    [found] = GradingRunner(
        {"a": GraderConfig(Length(), lambda item: {"response": object()})}, journal=tmp_path / "j"
    ).run(items(["x"]))["a"]
    assert isinstance(found, GraderError)
    assert "item_id" in found.error


def test_an_identity_is_the_same_in_another_process():
    code = (
        "import logging\nfrom tests.runner.graders import Length\n"
        "from rm_gallery.core.models import OpenAIChatModel\n"
        "from rm_gallery.core.runner.identity import grader_identity\n"
        "grader = Length(); grader.model = OpenAIChatModel('m', 'http://h/v1', temperature=0)\n"
        "grader.tags = {'b', 'a', 3}; grader.function = print; grader.of = Length\n"
        "grader.compiled = eval('lambda x: x + 1'); grader.logger = logging.getLogger('x'); grader.object = object()\n"
        "print(grader_identity('a', grader))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1


def test_the_graders_of_the_package_have_identities_that_last():
    """Made twice they are the same, whatever they were asked between, and they differ by what they ask."""

    def made(url="http://h/v1", **options):
        model = OpenAIChatModel("m", url)
        return [
            RelevanceGrader(model),
            HelpfulnessGrader(model),
            LLMGrader(model, name="own", prompt="{{ query }} {{ response }} {{ output_format }}", **options),
            JudgeGrader(model, get_task("pointwise"), mode="greedy"),
            JudgeGrader(model, get_task("pointwise"), mode="expected"),
            PairJudgeGrader(model, get_task("pairwise"), mode="greedy"),
            FunctionGrader(characters),
        ]

    def identities(**options):
        return [grader_identity("a", grader) for grader in made(**options)]

    assert identities() == identities()
    assert len(set(identities())) == len(identities())
    assert set(identities()) & set(identities(url="http://other/v1")) == {identities()[-1]}
    assert identities(scale=(0, 9))[2] != identities()[2]


def test_an_identity_changes_with_what_the_grades_depend_on():
    def of(model=None, **public):
        grader = Length()
        grader.model = model or OpenAIChatModel("m", "http://h/v1")
        vars(grader).update(public)
        return grader_identity("a", grader)

    same = of()
    assert same == of()
    assert same == of(
        OpenAIChatModel("m", "http://h/v1", timeout=3, max_retries=1, max_concurrency=2, price=(1, 2))
    )
    different = [
        of(OpenAIChatModel("m2", "http://h/v1")),
        of(OpenAIChatModel("m", "http://other/v1")),
        of(OpenAIChatModel("m", "http://h/v1", temperature=0.5)),
        of(OpenAIChatModel("m", "http://h/v1", extra_body={"top_k": 1})),
        of(prompt="p"),
        of(prompt={"a": [1]}),
        of(prompt={"a": [2]}),
        of(fingerprint="1"),
        of(fingerprint="2"),
        of(function=lambda text: 1),
        of(function=lambda text: 2),
        of(function=holding(1)),
        of(function=holding(2)),
        of(function=functools.partial(max, 1)),
        of(function=functools.partial(max, 2)),
        of(function=Counting(1).count),
        of(function=Counting(2).count),
        of(pattern=re.compile("a")),
        of(pattern=re.compile("a", re.IGNORECASE)),
        of(color=Color.RED),
        of(color=Color.BLUE),
        of(slotted=Slotted(1)),
        of(slotted=Slotted(2)),
        of(space=SimpleNamespace(a=1)),
        of(space=SimpleNamespace(a=2)),
        of(structure=Point),
        of(name="other"),
    ]
    assert len({same, *different}) == len(different) + 1


def test_a_grader_that_holds_itself_has_an_identity():
    grader = Length()
    grader.me = [grader, {"again": grader}]
    grader.me.append(grader.me)
    assert grader_identity("a", grader) == grader_identity("a", grader)


def test_an_identity_does_not_change_with_what_python_keeps_beside():
    grader = Length()
    grader.logger = logging.getLogger("tests.runner.identity")
    before = grader_identity("a", grader)
    handler = logging.NullHandler()
    grader.logger.addHandler(handler)
    grader.logger.setLevel(logging.DEBUG)
    assert grader_identity("a", grader) == before
    grader.logger.removeHandler(handler)


def test_what_a_class_says_is_part_of_its_graders_identity():
    def of(text):
        class Own(Length):
            prompt = text

        return grader_identity("a", Own())

    assert of("how long?") == of("how long?")
    assert of("how long?") != of("how short?")


def test_another_question_of_a_task_is_another_grade(tiny_model):
    """A template, a scale, a description: classes and ranges, which say nothing of themselves."""
    model = OpenAIChatModel(str(tiny_model), is_local=True)

    class Other(PointwiseTask):
        def prompt(self, row):
            return super().prompt(row) + " Be strict."

    class Labelled(PointwiseTask):
        def format(self, verdict):
            return f"{super().format(verdict)}."

    tasks = [PointwiseTask(), Other(), Labelled()]
    described = [{"help": {"weight": 1, "description": text}} for text in ("kind", "right")]
    tasks += [MultiDimensionTask(dimensions=dimensions) for dimensions in described]
    tasks.append(MultiDimensionTask(dimensions={"help": {"weight": 1, "scale": [0, 9]}}))
    found = [grader_identity("a", JudgeGrader(model, task)) for task in tasks]
    assert len(set(found)) == len(tasks)
    assert found == [grader_identity("a", JudgeGrader(model, task)) for task in tasks]
    pairs = [grader_identity("a", PairJudgeGrader(model, PairwiseTask(instruction=i))) for i in ("x", "y")]
    assert len(set(pairs)) == 2


def test_a_line_is_readable_by_other_tools(tmp_path):
    run(tmp_path / "j", Length(), ["x"])
    [line] = (tmp_path / "j").read_text().splitlines()
    entry = json.loads(line)
    assert len(entry.pop("key")) == 32
    assert entry == {
        "grader": "a",
        "type": "score",
        "name": "length",
        "score": 1.0,
        "reason": "1 characters",
        "metadata": {"of": "x"},
    }
