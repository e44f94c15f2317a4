"""Results stand where their items stand, whatever happens on the way."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders import BaseGrader, GraderError, GraderScore
from rm_gallery.core.models.retry import Backoff
from rm_gallery.core.runner import GraderConfig, GradingRunner, scores, weighted_sum
from tests.runner.graders import Length

QUICK = Backoff(first=0.0, longest=0.0)
texts = st.lists(st.text("ab ", max_size=8), max_size=40)


def items(responses):
    return [{"response": response} for response in responses]


class Own(BaseGrader):
    """A grader that does what it is told."""

    name = "own"
    required = ()
    optional = None

    def __init__(self, does) -> None:
        self.does = does

    async def aevaluate(self, **fields):
        return await self.does(fields)

    async def _grade(self, fields):
        raise NotImplementedError


# -- order


@given(texts, st.integers(1, 9), st.randoms(use_true_random=False))
def test_results_are_aligned_whatever_the_order_of_completion(responses, width, jitter):
    grader = Length(jitter=jitter)
    runner = GradingRunner({"a": grader, "b": GraderConfig(grader)}, max_concurrency=width)
    results = runner.run(items(responses))
    assert list(results) == ["a", "b"]
    for found in results.values():
        assert [result.metadata["of"] for result in found] == responses
    assert grader.most_at_once <= width
    assert sorted(grader.asked) == sorted(2 * responses)  # without a journal each one is asked


@given(texts, st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_a_stream_gives_the_same_in_order_and_holds_no_more_than_its_window(responses, width, window, jitter):
    grader, taken, given_back = Length(jitter=jitter), [], []

    def dataset():
        for item in items(responses):
            taken.append(item)
            assert (
                len(taken) - len(given_back) <= window + 1
            )  # the one that is being looked at has been given
            yield item

    async def stream():
        runner = GradingRunner({"a": grader}, max_concurrency=width)
        async for index, results in runner.arun_stream(dataset(), window=window):
            given_back.append((index, results["a"].metadata["of"]))

    asyncio.run(stream())
    assert given_back == list(enumerate(responses))


def test_the_limit_holds_for_all_graders_together_and_is_used():
    grader = Length(jitter=random.Random(0))
    runner = GradingRunner({"a": grader, "b": grader, "c": grader}, max_concurrency=7)
    runner.run(items(["x"] * 50))
    assert grader.most_at_once == 7


@pytest.mark.parametrize("journal", [False, True])
def test_the_limit_holds_for_all_runs_of_a_runner_together(tmp_path, journal):
    grader = Length(jitter=random.Random(0))
    runner = GradingRunner({"a": grader}, max_concurrency=5, journal=tmp_path / "j" if journal else None)

    async def three():
        texts = ["x" * i for i in range(90)]
        return await asyncio.gather(*(runner.arun(items(texts[i::3])) for i in range(3)))

    assert all(len(results["a"]) == 30 for results in asyncio.run(three()))
    assert grader.most_at_once == 5


def test_the_limit_holds_for_rankings_too():
    grader = Length(jitter=random.Random(0))
    runner = GradingRunner({"a": grader}, max_concurrency=3)

    async def both():
        return await asyncio.gather(*(runner.arank([{"responses": ["x"] * 30}]) for _ in range(2)))

    asyncio.run(both())
    assert grader.most_at_once == 3


def test_what_takes_long_keeps_eight_items_behind_it_for_each_grade_under_way():
    taken = []

    async def does(fields):
        await asyncio.sleep(0.2 if fields["i"] == 0 else 0)
        return GraderScore("own", fields["i"])

    def dataset():
        for i in range(200):
            taken.append(i)
            yield {"i": i}

    async def first():
        stream = GradingRunner({"own": Own(does)}, max_concurrency=5).arun_stream(dataset())
        async for index, _ in stream:
            assert (index, len(taken)) == (0, 40)
            break
        await stream.aclose()

    asyncio.run(first())


def test_a_grader_that_never_waits_leaves_the_others_their_turn():
    async def ticking(done):
        ticks = 0
        while not done.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks

    async def both():
        run = asyncio.ensure_future(GradingRunner({"a": Quick()}, max_concurrency=4).arun(items(["x"] * 400)))
        return await ticking(run)

    assert asyncio.run(both()) >= 100


# -- what fails


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ValueError("no such thing"), "exception", "ValueError: no such thing"),
        (TimeoutError(), "timeout", "TimeoutError"),
        (ConnectionResetError("by peer"), "connection", "ConnectionResetError: by peer"),
        (ConfigError("it cannot be asked so"), "config", "it cannot be asked so"),
        (asyncio.TimeoutError(), "timeout", "TimeoutError"),
        (RecursionError("too\n deep"), "exception", "RecursionError: too deep"),
    ],
)
def test_whatever_a_grader_raises_is_an_error_with_its_cause(error, kind, said):
    async def does(fields):
        if fields["response"] == "bad":
            raise error
        return GraderScore("own", 1)

    results = GradingRunner({"own": Own(does)}).run(items(["good", "bad", "good"]))["own"]
    assert scores(results).tolist() == pytest.approx([1, float("nan"), 1], nan_ok=True)
    assert isinstance(results[1], GraderError)
    assert (results[1].kind, results[1].error) == (kind, said)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not say who is cancelled")
def test_what_is_cancelled_inside_a_grader_is_an_error_and_not_the_end():
    async def does(fields):
        future = asyncio.get_running_loop().create_future()
        if fields["response"] == "bad":
            future.cancel()
        else:
            future.set_result(1)
        return GraderScore("own", await future)

    results = GradingRunner({"own": Own(does)}).run(items(["good", "bad", "good"]))["own"]
    assert [type(result) for result in results] == [GraderScore, GraderError, GraderScore]
    assert results[1].kind == "cancelled"


def test_something_else_than_a_result_is_an_error():
    async def does(fields):
        return 3.0

    [result] = GradingRunner({"own": Own(does)}).run(items(["a"]))["own"]
    assert isinstance(result, GraderError)
    assert "gave a float" in result.error


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_passes(raised):
    async def does(fields):
        raise raised

    with pytest.raises(raised):
        GradingRunner({"own": Own(does)}).run(items(["a", "b"]))


def test_cancellation_passes_and_cancels_what_is_under_way():
    cancelled = []

    async def does(fields):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(fields["response"])
            raise

    async def cancel():
        task = asyncio.ensure_future(
            GradingRunner({"own": Own(does)}, max_concurrency=2).arun(items(["a", "b", "c"]))
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert sorted(cancelled) == ["a", "b"]


@given(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["timeout", "server", "rate_limited"]))
def test_a_failed_request_is_made_again_so_often(retries, failures, kind):
    grader = Length(fails={"x": failures}, kind=kind)
    runner = GradingRunner({"a": grader}, retries=retries, backoff=QUICK)
    [result, other] = runner.run(items(["x", "yy"]))["a"]
    assert other.score == 2
    assert grader.asked.count("x") == min(failures, retries) + 1
    if failures <= retries:
        assert result.score == 1
    else:
        assert result.kind == kind
        assert result.metadata.get("retries", 0) == retries


@pytest.mark.parametrize("kind", ["unparsable", "overlong", "key", "quota", "refused", "data", "exception"])
def test_what_another_attempt_does_not_change_is_not_made_again(kind):
    grader = Length(fails={"x": 1}, kind=kind)
    [result] = GradingRunner({"a": grader}, retries=3, backoff=QUICK).run(items(["x"]))["a"]
    assert (result.kind, grader.asked) == (kind, ["x"])


# -- fields


@pytest.mark.parametrize(
    ("mapper", "expected"),
    [
        ({"response": "output.content"}, "yes"),
        ({"response": "input.0.content"}, "is it?"),
        ({"response": "input.-1.role"}, "user"),
        ({"response": "a.b"}, "a key with a dot"),  # the whole name first
        (lambda item: {"response": item["output"]["content"] * 2}, "yesyes"),
    ],
)
def test_a_mapper_finds_the_fields(mapper, expected):
    item = {
        "input": [{"content": "is it?", "role": "user"}],
        "output": {"content": "yes"},
        "a.b": "a key with a dot",
    }
    [result] = GradingRunner({"a": GraderConfig(Length(), mapper)}).run([item])["a"]
    assert result.metadata["of"] == expected


@pytest.mark.parametrize(
    ("mapper", "item", "said"),
    [
        ({"response": "output.text"}, {"output": {"content": "x"}}, "no 'text' in output (of output.text)"),
        ({"response": "input.3.content"}, {"input": [1, 2]}, "a list of 2"),
        ({"response": "input.__class__"}, {"input": 3}, "a int"),  # no way into an object's inside
        ({"response": "x"}, {"y": 1, "z": 2}, "which has y, z"),
        (lambda item: item["nope"], {}, "KeyError: 'nope'"),
        (lambda item: "text", {}, "the mapper gave a str"),
        (None, "just a text", "the item is a str"),
        (None, {"other": 1}, "needs the field 'response'"),
    ],
)
def test_an_item_without_its_fields_is_an_error_in_its_place(mapper, item, said):
    runner = GradingRunner(
        {"a": GraderConfig(Length(), mapper), "b": GraderConfig(Length(), lambda _: {"response": "b"})}
    )
    results = runner.run([item])
    assert isinstance(results["a"][0], GraderError)
    assert said in results["a"][0].error
    if said.startswith("needs the field"):
        assert results["a"][0].metadata["kind"] == "data", "the row's, and no mistake of the program"
    assert results["b"][0].score == 1  # the other grader's business is its own


def test_items_may_be_objects():
    class Item:
        def __init__(self, text):
            self.text = text

    runner = GradingRunner({"a": GraderConfig(Length(), {"response": "text"})})
    assert scores(runner.run([Item("abc")])["a"]).tolist() == [3]


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"grader_configs": {}}, "grader_configs is empty"),
        ({"grader_configs": {"a": 3}}, "is no grader"),
        ({"grader_configs": {"a": Length()}, "max_concurrency": 0}, "at least 1"),
        ({"grader_configs": {"a": Length()}, "retries": -1}, "at least 0"),
        ({"grader_configs": {"a": Length()}, "aggregators": {"a": weighted_sum}}, "a grader and of an aggr"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        GradingRunner(**arguments)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_number(weight):
    with pytest.raises(ConfigError, match="weight"):
        GraderConfig(Length(), weight=weight)


def test_a_path_is_a_text():
    with pytest.raises(ConfigError, match="dotted path"):
        GraderConfig(Length(), {"response": 3})


# -- how it is called


def test_run_works_where_a_loop_runs():
    async def in_a_notebook():
        return GradingRunner({"a": Length()}).run(items(["abc"]))

    assert scores(asyncio.run(in_a_notebook())["a"]).tolist() == [3]


def test_run_raises_what_is_raised_where_a_loop_runs():
    async def in_a_notebook():
        GradingRunner({"a": Length()}).run("/there/is/no/such.parquet")

    with pytest.raises(DataError, match="does not exist"):
        asyncio.run(in_a_notebook())


def test_a_runner_serves_one_loop_after_the_other():
    """The limit, under contention, does not stick to the loop it was made on."""
    runner = GradingRunner({"a": Length(jitter=random.Random(0))}, max_concurrency=2)

    async def two():
        return await asyncio.gather(*(runner.arun(items(["x"] * 9)) for _ in range(2)))

    for _ in range(3):
        assert [len(results["a"]) for results in asyncio.run(two())] == [9, 9]


def test_a_stream_that_is_left_early_leaves_nothing_running():
    async def leave():
        runner = GradingRunner({"a": Length(jitter=random.Random(0))}, max_concurrency=4)
        stream = runner.arun_stream(items(["x"] * 100))
        async for index, _ in stream:
            if index == 3:
                break
        await stream.aclose()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(leave()) == []


def test_a_window_is_at_least_one():
    async def stream():
        async for _ in GradingRunner({"a": Length()}).arun_stream([], window=0):
            pass

    with pytest.raises(ConfigError, match="window"):
        asyncio.run(stream())


def test_progress_is_silent_without_a_terminal(capfd):
    GradingRunner({"a": Length()}).run(items(["x"] * 5))
    assert capfd.readouterr() == ("", "")


def test_progress_counts_grades_and_errors_on_a_terminal():
    """In a terminal of its own: the bar is drawn by the real library."""
    pty = pytest.importorskip("pty")
    code = (
        "import tests.runner.graders as g; from rm_gallery.core.runner import GradingRunner\n"
        "import asyncio\n"
        "async def slowly():\n"
        "    for i in range(4):\n"
        "        await asyncio.sleep(0.15); yield {'response': 'x' * i}\n"
        "GradingRunner({'a': g.Length(fails={'x': 1}), 'b': g.Length()}).run(slowly())"
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=follower, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    assert b"6/?" in shown or b"8/?" in shown
    assert b"1 failed" in shown


def test_importing_the_runner_is_light():
    code = (
        "import sys, rm_gallery.core.runner\n"
        "print([m for m in ('torch', 'transformers', 'scipy', 'pandas', 'httpx', 'pyarrow') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


# -- the two aggregating places


def test_aggregators_stand_beside_the_graders():
    def worst(name, parts):
        assert isinstance(parts, Mapping)
        return min((part.result for part in parts.values()), key=lambda result: result.score)

    def wrong(name, parts):
        raise ZeroDivisionError("of one's own")

    grader = Length()
    runner = GradingRunner(
        {"a": GraderConfig(grader, weight=2), "b": GraderConfig(grader, lambda _: {"response": "four"}, 0.5)},
        aggregators={"sum": weighted_sum, "worst": worst, "wrong": wrong},
    )
    results = runner.run(items(["x", "xxxxx"]))
    assert list(results) == ["a", "b", "sum", "worst", "wrong"]
    assert scores(results["sum"]).tolist() == [2 * 1 + 2, 2 * 5 + 2]
    assert scores(results["worst"]).tolist() == [1, 4]
    assert "ZeroDivisionError" in results["wrong"][0].error


# -- memory


def test_a_stream_of_any_length_holds_constant_memory():
    """200,000 items as against 20,000: what is held does not grow with them."""
    resident = []

    def dataset(count):
        for i in range(count):
            if i in (20_000, count - 1):
                gc.collect()
                resident.append(current_rss_mib())
            yield {"response": "x" * (i % 7), "ballast": bytes(2000)}

    async def stream():
        total = 0.0
        runner = GradingRunner({"a": GraderConfig(Quick())}, show_progress=False)
        async for _, results in runner.arun_stream(dataset(200_000)):
            total += results["a"].score
        return total

    assert asyncio.run(stream()) == sum(i % 7 for i in range(200_000))
    assert resident[1] - resident[0] < 20  # 400 MB would be held otherwise


@pytest.mark.slow
def test_a_journal_of_any_length_holds_constant_memory(tmp_path):
    """200,000 grades written, then read again: where they stand is on the disk too."""
    resident = []

    async def stream():
        runner = GradingRunner({"a": GraderConfig(Quick())}, journal=tmp_path / "j", show_progress=False)
        rows = ({"response": f"{i} {'x' * 200}"} for i in range(200_000))
        async for index, _ in runner.arun_stream(rows):
            if index in (20_000, 199_999):
                gc.collect()
                resident.append(current_rss_mib())

    asyncio.run(stream())
    asyncio.run(stream())
    assert max(resident) - resident[0] < 10


class Quick(Length):
    async def _grade(self, fields):
        return GraderScore(self.name, len(fields["response"]))


def current_rss_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@settings(max_examples=20)
@given(st.integers(0, 30), st.integers(1, 4))
def test_ctrl_c_while_a_notebook_waits_gives_up_what_is_under_way(position, width):
    """`run` where a loop runs: the interrupt reaches the waiting thread only."""
    started, cancelled = threading.Event(), []

    async def does(fields):
        started.set()
        try:
            await asyncio.sleep(0 if fields["i"] < position else 60)
        except asyncio.CancelledError:
            cancelled.append(fields["i"])
            raise
        return GraderScore("own", 1)

    async def in_a_notebook():
        runner = GradingRunner({"own": Own(does)}, max_concurrency=width)
        main = threading.main_thread().ident

        def interrupt():
            started.wait()
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        runner.run([{"i": i} for i in range(31)])

    loop = asyncio.new_event_loop()  # as a notebook's kernel has it; `asyncio.run` takes Ctrl-C for itself
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(in_a_notebook())
    loop.close()
    assert len(cancelled) <= width
    for thread in threading.enumerate():  # one that was interrupted while it started ends by itself
        if thread.name == "rm-gallery-runner":
            thread.join(10)
            assert not thread.is_alive()
