"""A judge behind an endpoint: its three modes, what each does where the server falls short, and what it costs."""

from __future__ import annotations

import math
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.endpoint import EndpointJudge, verdict_log_probs
from rm_gallery.core.judge.read import DASHES, tally
from rm_gallery.core.models import Backoff, ChatError, OpenAIChatModel, TokenLogprob
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from tests.endpoint import Endpoint, Reply, Token, dropped, hang, normal, status

QUICK = Backoff(first=0.001, longest=0.005)
TASKS = [PointwiseTask(), PairwiseTask()]


@pytest.fixture
def judge():
    """Judges over an endpoint, their connections closed at the end."""
    made = []

    def make(endpoint, *, model="judge", **options):
        chat = OpenAIChatModel(
            model, endpoint.base_url, timeout=5, max_retries=2, backoff=QUICK, max_concurrency=4
        )
        made.append(chat)
        return EndpointJudge(chat, **options)

    yield make
    for chat in made:
        chat.close()


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def told(body):
    """A model that does as it is told: the last message is its answer."""
    return body["messages"][-1]["content"]


# -- greedy


def test_greedy_reads_the_verdict_of_each_answer_in_order(judge):
    texts = [f"<score>{i % 7}</score>" for i in range(23)]  # 5 and 6 are not on the scale
    batches, here = [], threading.current_thread()

    def done(batch):
        assert threading.current_thread() is here
        batches.append(batch)

    with Endpoint(script=lambda number, _: hang(0.01 * (number % 3))) as endpoint:
        answers = judge(endpoint).answer(
            PointwiseTask(), asked(*texts), mode="greedy", max_new_tokens=9, done=done
        )
    assert [answer.verdict for answer in answers] == [i % 7 if i % 7 < 5 else None for i in range(23)]
    assert [answer.text for answer in answers] == texts
    assert all(a.problem.startswith("unparsable: ") == (a.verdict is None) for a in answers)
    # each is reported once, as it is returned
    assert {i: answer for batch in batches for i, answer in batch.items()} == dict(enumerate(answers))
    assert sum(map(len, batches)) == endpoint.count == 23
    assert all((body["temperature"], body["max_tokens"]) == (0, 9) for body in endpoint.requests)
    assert "n" not in endpoint.requests[0]
    assert endpoint.most_at_once <= 4


def test_a_real_model_says_the_same_behind_an_endpoint(judge, tiny_model, one_thread):
    local, task = LocalJudge.load(tiny_model), PairwiseTask()
    questions = asked("which one?", "and here?", "")

    def write(body):
        return local.generate([body["messages"]], max_new_tokens=body["max_tokens"])[0]

    with Endpoint(answer=write) as endpoint:
        there = judge(endpoint).answer(task, questions, mode="greedy", max_new_tokens=6)
    assert there == local.answer(task, questions, mode="greedy", max_new_tokens=6)


def test_nothing_is_asked_where_there_is_no_question(judge):
    with Endpoint() as endpoint:
        assert judge(endpoint).answer(PointwiseTask(), [], mode="greedy", max_new_tokens=5) == []
    assert endpoint.count == 0


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (status(500), "failed: "),
        (status(429), "failed: "),
        (dropped(), "failed: "),
        (status(403, message="flagged"), "failed: "),  # of this question's words, at some gateways
        (status(400), "failed: "),
        (status(400, code="context_length_exceeded"), "overlong: "),
    ],
)
@pytest.mark.parametrize("mode", ["greedy", "vote", "expected"])
def test_a_question_that_is_not_answered_has_a_problem_with_its_cause(mode, behaviour, problem, judge):
    good = Reply(tokens=(Token("<score>"), Token("1", -0.1), Token("</score>")))

    def script(_, body):
        return behaviour if "bad" in told(body) else normal()

    with Endpoint(answer=lambda body: good, script=script) as endpoint:
        answers = judge(endpoint).answer(
            PointwiseTask(), asked("ok", "bad", "ok"), mode=mode, max_new_tokens=9, samples=3
        )
    assert [answer.verdict for answer in answers] == [1, None, 1]
    assert answers[1].problem.startswith(problem + endpoint.base_url)
    assert (answers[1].probabilities, answers[1].mass) == (None, None)


@pytest.mark.parametrize(("code", "kind"), [(401, "key"), (404, "not_found")])
def test_what_every_question_would_meet_ends_the_run_at_the_first(code, kind, judge):
    with Endpoint(script=lambda *_: status(code)) as endpoint, pytest.raises(ChatError) as caught:
        judge(endpoint).answer(PointwiseTask(), asked(*"abcdefgh"), mode="greedy", max_new_tokens=5)
    assert (caught.value.kind, endpoint.count) == (kind, 1)


def test_a_key_that_is_withdrawn_on_the_way_ends_the_run(judge):
    """What was answered before has been handed over."""
    kept = {}
    with Endpoint(script=lambda number, _: status(401) if number >= 5 else normal()) as endpoint:
        with pytest.raises(ChatError):
            judge(endpoint).answer(
                PointwiseTask(),
                asked(*["<score>1</score>"] * 40),
                mode="greedy",
                max_new_tokens=5,
                done=kept.update,
            )
        assert endpoint.count < 40
    assert len(kept) == 5


def test_nobody_there_is_found_out_at_the_first_question(judge):
    with Endpoint() as endpoint:
        gone = judge(endpoint)
    with pytest.raises(ChatError, match="could not be reached"):
        gone.answer(PointwiseTask(), asked("a", "b"), mode="greedy", max_new_tokens=5)
    assert gone.model.totals.requests == 3


def test_leaving_early_leaves_nothing_under_way(judge):
    """Ctrl-C while answers are written down."""

    def stop(batch):
        if 1 in batch:
            wait_until(lambda: endpoint.at_once == 3)
            raise KeyboardInterrupt

    def script(_, body):
        return hang(30) if told(body) == "slow" else normal()

    with Endpoint(script=script) as endpoint:
        asking = judge(endpoint)
        with pytest.raises(KeyboardInterrupt):
            asking.answer(
                PointwiseTask(), asked("a", "b", *["slow"] * 3), mode="greedy", max_new_tokens=5, done=stop
            )
        wait_until(lambda: endpoint.at_once == 0)
        assert endpoint.count == 5


def wait_until(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


# -- vote


def samples_of(body):
    """Draws by its seed, as a server does: the same seed, the same draws."""
    drawn = random.Random(body["seed"])
    return f"<score>{drawn.choice([0, 1, 1, 4, 9])}</score>"


@pytest.mark.parametrize("server", ["gives n", "ignores n", "refuses n"])
def test_a_vote_counts_the_samples(server, judge):
    drawn = []

    def answer(body):
        text = samples_of(body) if server != "gives n" else f"<score>{len(drawn) % 6}</score>"
        drawn.append((told(body), text))
        return text

    def script(_, body):
        return status(400, message="n must be 1") if server == "refuses n" and "n" in body else normal()

    with Endpoint(answer=answer, ignores_n=server == "ignores n", script=script) as endpoint:
        asking = judge(endpoint, temperature=0.7)
        answers = asking.answer(
            PointwiseTask(), asked("a", "b", "c"), mode="vote", max_new_tokens=9, samples=6, seed=3
        )
    for text, answer in zip("abc", answers, strict=True):
        mine = [sample for question, sample in drawn if question == text]
        assert len(mine) == 6
        # which of them came first is the server's business
        assert sorted(answer.text.split(DASHES)) == sorted(mine)
        counted = tally(PointwiseTask(), mine)
        assert (answer.verdict, answer.probabilities, answer.mass) == (
            counted.verdict,
            counted.probabilities,
            counted.mass,
        )
    # once it is known that n is of no use, it is not sent any more
    assert endpoint.count == {"gives n": 3, "ignores n": 18, "refuses n": 19}[server]
    assert all((body["temperature"], body["top_p"]) == (0.7, 1) for body in endpoint.requests)
    seeds = [body["seed"] for body in endpoint.requests if server != "refuses n" or "n" not in body]
    assert len(set(seeds)) == len(seeds)


def test_the_same_seed_gives_the_same_vote(judge):
    def votes(seed):
        with Endpoint(answer=samples_of, ignores_n=True) as endpoint:
            return judge(endpoint).answer(
                PointwiseTask(), asked(*"abcdef"), mode="vote", max_new_tokens=9, samples=5, seed=seed
            )

    assert votes(1) == votes(1)
    assert votes(1) != votes(2)


# -- expected


def log_of(probability):
    return math.log(probability) if probability else -math.inf


@st.composite
def answers(draw):
    """(task, tokens, probabilities of its verdicts, mass): one answer as a server might have cut it into tokens."""
    task = draw(st.sampled_from(TASKS))
    verdicts = list(task.verdicts())
    texts = [task.format(verdict) for verdict in verdicts]
    parting = next(i for i in range(99) if len({text[i] for text in texts}) > 1)
    stem = draw(st.sampled_from(["", "\n", "  "])) + texts[0][:parting]
    # the last piece of the stem may stand in one token with the verdict
    cuts = sorted(draw(st.sets(st.integers(1, len(stem) - 1), max_size=4)) | {0})
    pieces = [stem[a:b] for a, b in zip(cuts, [*cuts[1:], len(stem)], strict=True)]
    joined = pieces.pop() if draw(st.booleans()) else ""
    ends = [draw(st.integers(parting + 1, len(text))) for text in texts]
    weights = draw(st.lists(st.floats(0, 1), min_size=len(texts) + 3, max_size=len(texts) + 3))
    total = sum(weights) or 1.0
    shares = [weight / total for weight in weights]
    heads = [joined + text[parting:end] for text, end in zip(texts, ends, strict=True)]
    # of another answer, beyond the verdict's text, and one that does not reach the place where the verdicts part
    others = [joined + "?", joined + texts[0][parting:] + "?", joined]
    top = tuple((text, log_of(share)) for text, share in zip([*heads, *others], shares, strict=True))
    path = draw(st.lists(st.floats(-3, 0), min_size=len(pieces), max_size=len(pieces)))
    chosen = draw(st.sampled_from(range(len(heads))))
    tokens = [TokenLogprob(piece, logprob) for piece, logprob in zip(pieces, path, strict=True)]
    tokens += [TokenLogprob(*top[chosen], top), TokenLogprob(texts[chosen][ends[chosen] :], -0.5)]
    return task, tokens, shares[: len(texts)], math.exp(sum(path))


@given(answers())
def test_the_distribution_stands_at_the_token_in_which_the_verdicts_differ(answer):
    task, tokens, shares, path = answer
    if not sum(shares):
        with pytest.raises(InvalidVerdict, match="no legal verdict"):
            verdict_log_probs(task, tokens)
        return
    found = [math.exp(logprob) for logprob in verdict_log_probs(task, tokens)]
    assert found == pytest.approx([share * path for share in shares], rel=1e-9, abs=1e-300)


def spread(**probabilities):
    """A reply `<score>X</score>` with these probabilities of X (`_3` is 3)."""
    top = tuple((name.lstrip("_"), math.log(p)) for name, p in probabilities.items())
    best = max(top, key=lambda pair: pair[1])
    return Reply(
        tokens=(Token("<score", -0.0), Token(">", math.log(0.8)), Token(*best, top), Token("</score>"))
    )


def test_expected_gives_verdict_probabilities_and_mass(judge):
    reply = spread(_1=0.2, _2=0.3, _4=0.3, _9=0.1, the=0.1)
    with Endpoint(answer=lambda body: reply) as endpoint:
        [answer] = judge(endpoint).answer(PointwiseTask(), asked("q"), mode="expected", max_new_tokens=9)
    assert answer.probabilities == pytest.approx((0, 0.25, 0.375, 0, 0.375))
    assert answer.mass == pytest.approx(0.8 * 0.8)
    assert answer.verdict == 2  # a draw goes to the one that stands first on the scale
    assert answer.text == "<score>2</score>"
    assert answer.value(PointwiseTask()) == pytest.approx(2.5)
    assert (endpoint.requests[0]["logprobs"], endpoint.requests[0]["top_logprobs"]) == (True, 20)


def test_a_verdict_that_the_endpoint_does_not_list_counts_nothing(judge):
    """And the mass is smaller by what it had."""
    reply = spread(_1=0.5, _2=0.3, _4=0.2)
    with Endpoint(answer=lambda body: reply) as endpoint:
        [answer] = judge(endpoint, top_logprobs=2).answer(
            PointwiseTask(), asked("q"), mode="expected", max_new_tokens=9
        )
    assert answer.probabilities == pytest.approx((0, 0.625, 0.375, 0, 0))
    assert answer.mass == pytest.approx(0.8 * 0.8)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ((Token("I"), Token(" think <score>3</score>")), "begins with 'I think"),
        ((Token("<score>"),), "breaks off before its verdict"),
        ((Token("<sco"),), "begins with '<sco'"),
        ((Token("<score>"), Token("x", -0.1, (("y", -3.0),))), "among the 2 most probable tokens"),
        ((), "begins with ''"),
    ],
)
def test_an_answer_without_a_verdict_at_its_place_is_unparsable(tokens, said, judge):
    with Endpoint(answer=lambda body: Reply(tokens=tokens)) as endpoint:
        [answer] = judge(endpoint).answer(PointwiseTask(), asked("q"), mode="expected", max_new_tokens=9)
    assert answer.problem.startswith("unparsable: ")
    assert said in answer.problem
    assert (answer.verdict, answer.probabilities, answer.mass) == (None, None, 0.0)


@pytest.mark.parametrize("how", ["silently", "by a refusal"])
def test_an_endpoint_without_log_probabilities_is_refused_at_the_first_question(how, judge):
    refusal = status(400, message="logprobs is not supported with this model")
    script = [refusal] if how == "by a refusal" else []
    with (
        Endpoint(gives_logprobs=False, script=script) as endpoint,
        pytest.raises(ConfigError, match=r"greedy (and|or) vote"),
    ):
        judge(endpoint).answer(PointwiseTask(), asked("a", "b"), mode="expected", max_new_tokens=9)
    assert endpoint.count == 1


class WideTask(PointwiseTask):
    """1 and 10 begin alike."""

    scale = range(1, 11)

    def format(self, verdict):
        return f"<score>{verdict}</score>"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (MultiDimensionTask(), "begin alike"),
        (WideTask(), "begin alike"),
        (PairwiseTask(think=True), "reasons before its verdict"),
    ],
)
def test_a_task_that_one_token_cannot_decide_is_refused_before_anything_is_asked(task, said, judge):
    with Endpoint() as endpoint, pytest.raises(ConfigError, match=said):
        judge(endpoint).answer(task, asked("q"), mode="expected", max_new_tokens=9)
    assert endpoint.count == 0


# -- the judge itself


def test_the_fingerprint_tells_judges_apart_and_does_not_hold_the_key():
    def fingerprint(model="judge", url="http://a/v1", key=None, top=20, **options):
        return EndpointJudge(OpenAIChatModel(model, url, key, **options), top_logprobs=top).fingerprint

    assert fingerprint() == fingerprint(key="sk-another", timeout=3, max_concurrency=9)
    others = [
        fingerprint(model="other"),
        fingerprint(url="http://b/v1"),
        fingerprint(extra_body={"k": 1}),
        fingerprint(top=5),
    ]
    assert len({fingerprint(), *others}) == 5


def test_a_local_folder_is_not_asked_this_way(tiny_model):
    model = OpenAIChatModel(str(tiny_model), is_local=True)
    with pytest.raises(ConfigError, match="LocalJudge"):
        EndpointJudge(model)
    model.close()


@settings(max_examples=10)
@given(st.lists(st.sampled_from(["<score>0</score>", "<score>3</score>", "bad", "nothing"]), max_size=12))
def test_no_question_is_lost_or_asked_twice(texts):
    def script(_, body):
        return status(500) if told(body) == "bad" else normal()

    with Endpoint(script=script) as endpoint:
        model = OpenAIChatModel("judge", endpoint.base_url, max_retries=1, backoff=QUICK, max_concurrency=3)
        found = {}
        answers = EndpointJudge(model).answer(
            PointwiseTask(), asked(*texts), mode="greedy", max_new_tokens=5, done=found.update
        )
        model.close()
    assert found == dict(enumerate(answers))
    assert endpoint.count == len(texts) + texts.count("bad")
    for text, answer in zip(texts, answers, strict=True):
        begins = {"bad": "failed", "nothing": "unparsable"}.get(text, "")
        assert answer.problem.startswith(begins)
        assert bool(answer.problem) == bool(begins)


def test_one_answer_without_log_probabilities_fails_alone(judge):
    """A server may leave them out of an answer that it filtered."""
    reply = spread(_1=0.2, _2=0.8)
    with Endpoint(answer=lambda body: reply) as endpoint:
        weighs = endpoint._logprobs
        endpoint._logprobs = lambda body, reply: (
            None if body["messages"][-1]["content"] == "b" else weighs(body, reply)
        )
        answers = judge(endpoint).answer(
            PointwiseTask(), asked("a", "b", "c"), mode="expected", max_new_tokens=9
        )
    assert answers[1].problem == "failed: it came without log-probabilities"
    assert [answer.verdict for answer in answers] == [2, None, 2]
