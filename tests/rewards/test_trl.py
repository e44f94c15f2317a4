"""A judge as the reward of TRL's GRPO: what TRL is given is what the judge says, and nothing where it says nothing."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys

import pytest
import torch

from examples.reward.trl_grpo import train
from rm_gallery.core.errors import ConfigError, DataError, MissingReward
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.judge.scalar import ScalarJudge
from rm_gallery.core.judge.subject import Candidate
from rm_gallery.core.models import OpenAIChatModel
from rm_gallery.core.rewards.trl import as_trl_reward
from rm_gallery.core.tasks import MultiDimensionTask, PairwiseTask, PointwiseTask
from rm_gallery.core.tasks.saved import save_task
from tests.conftest import ROOT
from tests.endpoint import Endpoint, status
from tests.service import serving
from tests.tiny import build_model, build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["What is 2 + 3?", "What is 2 + 3?", "Why?", "Why?"]
COMPLETIONS = ["5", "I do not know.", "", "Because."]


@pytest.fixture(scope="module")
def judge(tiny_model, tmp_path_factory):
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("judge") / "judge")
    save_task(folder, "pointwise", PointwiseTask())
    return folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return build_model(tmp_path_factory.mktemp("policy") / "policy", seed=1)


@pytest.fixture(scope="module")
def scalar(tmp_path_factory):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("scalar") / "scalar"
    tokenizer = build_tokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes
    )
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def chat():
    made = []

    def make(endpoint, **options):
        made.append(OpenAIChatModel("judge", endpoint.base_url, max_retries=0, **options))
        return made[-1]

    yield make
    for model in made:
        model.close()


def expected(folder, task=None):
    """What the judge itself says."""
    task = task or PointwiseTask()
    rows = [
        {"input": [{"role": "user", "content": p}], "output": {"content": c}}
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    answers = LocalJudge.load(folder).answer(
        task, [task.messages(r) for r in rows], mode="expected", max_new_tokens=8
    )
    return [answer.value(task) for answer in answers]


@pytest.mark.parametrize("kind", ["folder", "candidate", "chat model", "service"])
def test_the_reward_is_the_judges_score_wherever_it_runs(judge, kind):
    wanted = expected(judge)
    if kind == "service":
        with serving(judge) as service:
            found = as_trl_reward(service.url)(PROMPTS, COMPLETIONS)
    elif kind == "chat model":
        model = OpenAIChatModel(str(judge), is_local=True)
        found = as_trl_reward(model)(PROMPTS, COMPLETIONS)
        model.close()
    else:
        named = Candidate(str(judge), batch_size=2) if kind == "candidate" else judge
        found = as_trl_reward(named)(PROMPTS, COMPLETIONS)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len({round(score, 6) for score in found}) == 4


@pytest.mark.parametrize("kind", ["folder", "chat model"])
def test_the_reward_of_several_dimensions_is_their_weighted_mean(tiny_model, tmp_path, kind):
    """As it is trained, ranked and served: the mean of each dimension's scores, by the weights of the saved judge."""
    task = MultiDimensionTask(dimensions={"help": 3, "truth": {"weight": 1, "scale": [1, 2]}})
    folder = shutil.copytree(tiny_model, tmp_path / "judge")
    save_task(folder, "multi_dimension", task)
    model = OpenAIChatModel(str(folder), is_local=True) if kind == "chat model" else folder
    found = as_trl_reward(model)(PROMPTS, COMPLETIONS)
    assert found == pytest.approx(expected(folder, task), abs=1e-4)
    assert all(1 / 4 <= score <= (3 * 4 + 2) / 4 for score in found)
    assert len({round(score, 6) for score in found}) == 4


def test_a_scalar_models_number_is_the_reward(scalar):
    texts = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": c}]
        for p, c in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    wanted = [answer.score for answer in ScalarJudge.load(scalar).score(texts)]
    assert as_trl_reward(scalar)(PROMPTS, COMPLETIONS) == pytest.approx(wanted, abs=1e-5)


def test_conversations_are_judged_as_a_whole(judge):
    reward = as_trl_reward(judge)
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    said = [{"role": "assistant", "content": "Because."}]
    used = [{"role": "assistant", "content": None}, {"role": "tool", "content": "x"}, *said]
    scores = reward([prompt, prompt, prompt[1:], "Why?"], [said, used, said, "Because."])
    assert scores[0] == pytest.approx(scores[1])
    assert scores[2] == pytest.approx(scores[3])
    assert scores[0] != pytest.approx(scores[2], abs=1e-4)
    with pytest.raises(DataError, match="the user's turn holds list, and a judge reads text"):
        reward([[{"role": "user", "content": [{"type": "image"}]}]], [said])


# -- what could not be judged


def some_verdicts(body):
    """A judge that writes a verdict about a response with an even number of characters."""
    response = body["messages"][-1]["content"].split("# Response\n")[1].split("\n\n# Output")[0]
    return f"<score>{len(response) % 5}</score>" if len(response) % 2 == 0 else "Hm."


def test_a_completion_without_a_verdict_has_no_reward_and_is_told(chat, caplog):
    logged = {}
    with Endpoint(answer=some_verdicts) as endpoint:
        reward = as_trl_reward(chat(endpoint), "pointwise", mode="greedy")
        scores = reward(["q"] * 4, ["ab", "abc", "abcd", "a"], log_metric=logged.__setitem__, other=[1] * 4)
    assert scores == [2, None, 4, None]
    assert logged == {"judge/missing": 0.5}
    [told] = [r for r in caplog.records if r.name == "rm_gallery.rewards"]
    assert "2 of 4 completions have no reward: unparsable: no <score> tag" in told.getMessage()


def test_one_failure_among_others_is_no_reward_and_all_of_them_an_error(chat):
    with Endpoint(answer=lambda _: "<score>3</score>", script=[status(500, message="gone")]) as endpoint:
        reward = as_trl_reward(chat(endpoint, max_concurrency=1), "pointwise", mode="greedy")
        assert sorted(reward(["q"] * 3, ["a", "b", "c"]), key=str) == [3, 3, None]
    with Endpoint(script=lambda *_: status(500, message="gone")) as endpoint:
        reward = as_trl_reward(chat(endpoint), "pointwise", mode="greedy")
        with pytest.raises(
            MissingReward, match=r"none of 2 completions has a reward: failed: .* answered 500: gone"
        ):
            reward(["q"] * 2, ["a", "b"])


def test_trl_keeps_what_has_no_reward_out_of_its_groups_mean(chat, policy, tmp_path):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=16,
        num_generations=8,
        use_cpu=True,
        max_completion_length=6,
        bf16=False,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        seed=3,
    )
    with Endpoint(answer=some_verdicts) as endpoint:
        trainer = GRPOTrainer(
            model=str(policy),
            reward_funcs=as_trl_reward(chat(endpoint), "pointwise", mode="greedy", name="ours"),
            train_dataset=Dataset.from_list([{"prompt": f"question {i}"} for i in range(2)]),
            args=arguments,
        )
        trainer.train()
    rewards, advantages = list(trainer._logs["rewards"]["ours"]), list(trainer._logs["advantages"])
    missing = [math.isnan(reward) for reward in rewards]
    assert 0 < sum(missing) < 16
    [line] = [line for line in trainer.state.log_history if "reward" in line]
    legal = [reward for reward in rewards if not math.isnan(reward)]
    assert line["rewards/ours/mean"] == pytest.approx(sum(legal) / len(legal))
    assert line["ours/missing"] == sum(missing) / 16
    assert all(advantage == 0 for advantage, gone in zip(advantages, missing, strict=True) if gone)
    for group in (slice(0, 8), slice(8, 16)):
        assert sum(advantages[group]) == pytest.approx(0, abs=1e-3)


# -- the example


@pytest.mark.parametrize("where", ["folder", "service"])
def test_five_steps_of_grpo_with_the_judge_as_reward(judge, policy, tmp_path, where):
    """With the service it is the service's own: a real server on the loopback."""
    if where == "folder":
        lines = train(str(policy), str(judge), 5, str(tmp_path / "out"), length=8)
    else:
        with serving(judge) as service:
            lines = train(str(policy), service.url, 5, str(tmp_path / "out"), length=8)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(0 <= line["reward"] <= 4 for line in lines)
    assert all(line["judge/missing"] == 0 for line in lines)
    assert all(line["reward_std"] > 0 and line["grad_norm"] > 0 for line in lines)
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.slow  # a quarter of a minute to import everything once more
def test_the_example_runs_as_a_script(judge, policy, tmp_path):
    words = ["--policy", policy, "--judge", judge, "--steps", 1, "--length", 4, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "examples/reward/trl_grpo.py", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "step 1  reward " in done.stdout
    assert "without a reward 0%" in done.stdout


# -- what cannot be a reward


class Letters(PointwiseTask):
    """A task of one's own whose verdicts are no numbers."""

    def verdicts(self):
        return ("good", "bad")


@pytest.mark.parametrize("task", [PairwiseTask(), Letters()], ids=["pairs", "words"])
def test_a_judge_without_one_number_is_refused(judge, task):
    with pytest.raises(ConfigError, match="a reward needs one that scores"):
        as_trl_reward(judge, task)


def test_what_a_service_or_a_scalar_model_decides_itself_is_not_asked_for(scalar):
    with pytest.raises(ConfigError, match="has its own task and mode"):
        as_trl_reward("http://127.0.0.1:1", "pointwise")
    with pytest.raises(ConfigError, match="a scalar model, which is asked nothing"):
        as_trl_reward(scalar, mode="greedy")


def test_a_service_that_is_not_there_ends_the_training(monkeypatch):
    monkeypatch.setattr("rm_gallery.core.models.retry.Backoff.delay", lambda *_: 0.0)
    with pytest.raises(MissingReward, match="could not be reached"):
        as_trl_reward("http://127.0.0.1:1")(["q"], ["r"])


def test_rewards_load_without_torch():
    code = (
        "import rm_gallery.core.rewards.trl, rm_gallery.core.rewards.verl, sys\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["folder", "chat model"])
def test_what_cannot_be_asked_about_has_no_reward_and_leaves_the_others_theirs(judge, kind):
    model = OpenAIChatModel(str(judge), is_local=True) if kind == "chat model" else judge
    logged = {}
    found = as_trl_reward(model)(["Why?", " ", "How?"], ["a", "b", "c"], log_metric=logged.__setitem__)
    assert [score is None for score in found] == [False, True, False]
    assert logged == {"judge/missing": pytest.approx(1 / 3)}
