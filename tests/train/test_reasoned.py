"""Method `exact` of a judge that reasons: what is weighed is what a judge reads, and runs on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge import LocalJudge
from rm_gallery.core.models.reasonings import Reasoning
from rm_gallery.core.models.weights import load_model, load_tokenizer
from rm_gallery.core.tasks import PairwiseTask, PointwiseTask
from rm_gallery.core.train.config import check_config
from rm_gallery.core.train.local import check_rows, train_local
from rm_gallery.core.train.local.answers import written
from rm_gallery.core.train.local.reasoned import ReasonedJob
from rm_gallery.core.train.local.reasoning import Reasoner
from rm_gallery.core.train.rows import build_examples
from rm_gallery.core.train.run_folder import RunFolder
from tests.tiny import SPECIAL
from tests.train.exact_parts import settings_for, write_rule
from tests.train.scalar_runs import assert_resumes, records
from tests.train.test_local_reasoning import TEMPLATES, configured, row

pytestmark = pytest.mark.usefixtures("one_thread")

MERGES = {
    "bytes": [],
    "tag is one": [("t", "h"), ("i", "n"), ("th", "in"), ("thin", "k"), ("<", "/"), ("</", "think"), ("</think", ">")],
    "tag with the line": [(">", "Ċ")],
    "tag with both lines": [(">", "Ċ"), (">Ċ", "Ċ")],
    "line with the verdict": [("Ċ", "<")],
    "tag with what stands before": [(".", "<"), (".<", "/")],
}  # fmt: skip


def tokenizer_with(merges: list[tuple[str, str]], template: str) -> PreTrainedTokenizerFast:
    """Bytes, and tokens of several; the pieces are not cut at words, so that any neighbours may be one."""
    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    wrapped.chat_template = TEMPLATES[template]
    return wrapped


def reasoner_of(merges: str, template: str, task: Any = None) -> Reasoner:
    tokenizer = tokenizer_with(MERGES[merges], template)
    return Reasoner(
        LocalJudge(None, tokenizer, reasoning_model=template != "plain"), task or PointwiseTask(), 100
    )


# -- what is weighed is what is trained, written and read


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("merges", MERGES)
@given(label=st.integers(0, 4), reasoning=st.text(st.sampled_from("a .<>/\n!é"), min_size=1, max_size=12))
def test_what_sft_trains_is_a_reasoning_and_one_of_its_verdicts(merges, template, label, reasoning):
    """To the token, whatever of the closing tag and its neighbours is one token."""
    if not reasoning.strip():
        reasoning = "why"
    changes = {"prompt": {"think": True}} if template == "plain" else {"model": {"reasoning_model": True}}
    config, asked = configured(**changes), reasoner_of(merges, template)
    [example] = build_examples(config.build_task(), [row(1, reasoning, label=label)])
    _, [tokens], _ = written(config, config.build_task(), asked.judge, [example])
    end = asked.judge.tokenizer.eos_token_id
    found = asked.read(tokens.answer, {end})
    assert found.verdicts is not None
    assert (*found.tokens, *found.verdicts[label]) == tuple(tokens.answer)


@pytest.mark.parametrize("task", [PointwiseTask(), PairwiseTask()], ids=lambda task: task.name)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("merges", MERGES)
@pytest.mark.parametrize(
    "end",
    [
        "</think>",
        "</think>\n",
        "</think>\n\n\n",
        "</Think> ",
        "</think><",
        "</think>.",
        "</think>\n<",
        "İ</think>",
    ],
)
def test_every_verdict_is_read_behind_whatever_ends_the_reasoning(merges, template, task, end):
    asked = reasoner_of(merges, template, task)
    decode = asked.judge.tokenizer.decode
    texts = [end + decode(list(tokens)) for tokens in asked.verdicts("x" + end)]
    assert all(text.endswith("<|end|>") for text in texts)
    read = [task.parse(f"<think>why{text.removesuffix('<|end|>')}") for text in texts]
    assert read == list(task.verdicts())


@pytest.mark.parametrize("merges", MERGES)
@given(
    pieces=st.lists(
        st.sampled_from(["</think>", "</Think>", "<think>", "a", "é", "\n", ".", "</"]), max_size=8
    )
)
def test_a_reasoning_ends_with_the_first_token_that_closes_it(merges, pieces):
    asked = reasoner_of(merges, "plain")
    text = "".join(pieces)
    tokens = asked.judge.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = asked.read(tokens, {asked.judge.tokenizer.eos_token_id})
    read = asked.judge.tokenizer.decode(list(found.tokens))
    assert tokens[: len(found.tokens)] == list(found.tokens)
    assert (found.verdicts is not None) == ("</think>" in text.lower())
    if found.verdicts is None:
        assert len(found.tokens) == len(tokens)
        return
    assert "</think>" not in asked.judge.tokenizer.decode(list(found.tokens[:-1])).lower()
    assert read.lower().count("</think>") == 1


def test_an_answer_that_ends_without_a_closing_tag_is_no_reasoning():
    asked = reasoner_of("bytes", "plain")
    end = asked.judge.tokenizer.eos_token_id
    tokens = [*asked.judge.tokenizer("<score>3</score>")["input_ids"], end, end, end]
    assert asked.read(tokens, {end}) == Reasoning(tuple(tokens[:-2]))


def test_there_must_be_room_for_a_reasoning():
    judge = LocalJudge(None, tokenizer_with([], "plain"))
    longest = len("\n<score>3</score>") + 1
    assert Reasoner(judge, PointwiseTask(), longest + 1).room == 1
    with pytest.raises(ConfigError, match=rf"the verdict alone has up to {longest} tokens"):
        Reasoner(judge, PointwiseTask(), longest)


# -- runs


@pytest.fixture(scope="module")
def started(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return start(tiny_model, tmp_path_factory.mktemp("started"))


@pytest.fixture(scope="module")
def barely_started(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """There is much left to learn: by `rps`, `started` earns 0.9 of 1, and chance decides what comes on top."""
    torch.set_num_threads(1)
    return start(tiny_model, tmp_path_factory.mktemp("barely-started"), steps=30)


def start(model: Path, folder: Path, steps: int = 80) -> Path:
    """The tiny model after a supervised start with reasonings."""
    settings = thinking(model, folder, method="sft", train={"max_steps": steps, "learning_rate": 1e-2})
    lines = []
    for i, line in enumerate((folder / "train.jsonl").read_text().splitlines()):
        lines.append(json.dumps({**json.loads(line), "reasoning": "ab"[i % 2] * (1 + i % 2)}) + "\n")
    (folder / "train.jsonl").write_text("".join(lines))
    settings["data"]["val"] = None
    return train_local(check_config(settings)).run.latest.resolve()


def thinking(model: Path, folder: Path, /, **sections: Any) -> dict[str, Any]:
    sections["prompt"] = {"instruction": "Rate.", "think": True}
    sections["rollout"] = {"n": 4, "max_response_length": 50, **sections.get("rollout", {})}
    return settings_for(model, folder, **sections)


def a_trainer(settings: dict[str, Any], folder: Path) -> Any:
    job = ReasonedJob.prepare(check_config(settings))
    return job.trainer(RunFolder.create(job.config, folder), settings["model"]["path"])


def shaken(trainer: Any, by: float = 0.01) -> Any:
    """Away from the reference, so that the KL term has a gradient too."""
    with torch.no_grad():
        for i, parameter in enumerate(trainer.model.parameters()):
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
                parameter.add_(noise * by)
    return trainer


def gradients(trainer: Any, size: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the first eight prompts, in micro-batches of `size`."""
    rows = [trainer.train_dataset[i] for i in range(8)]
    batches = iter([trainer.data_collator(rows[i : i + size]) for i in range(0, 8, size)])
    parts, _ = trainer.get_batch_samples(batches, 8 // size, torch.device("cpu"))
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = len(parts)
    loss = sum(float(trainer.training_step(trainer.model, part)) for part in parts)
    found = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss, found


@pytest.mark.parametrize("model", [{}, {"gradient_checkpointing": True}, {"lora": {"rank": 4}}], ids=str)
def test_micro_batches_and_checkpointing_change_memory_only(started, tmp_path, model):
    loss = {"kl_coef": 0.1}
    plain = {key: value for key, value in model.items() if key == "lora"}
    settings = thinking(started, tmp_path, loss=loss, model=plain)
    whole = gradients(shaken(a_trainer(settings, tmp_path / "whole")), 8)
    settings = thinking(started, tmp_path, loss=loss, model=model)
    parts = gradients(shaken(a_trainer(settings, tmp_path / "parts")), 2)
    assert parts[0] == pytest.approx(whole[0], abs=1e-4)
    assert parts[1].keys() == whole[1].keys()
    assert max(float(g.abs().max()) for g in whole[1].values()) > 1e-2
    for name, gradient in whole[1].items():
        torch.testing.assert_close(parts[1][name], gradient, atol=2e-4, rtol=1e-3, msg=name)


def test_later_updates_of_a_step_know_what_was_written_with_which_weights(started, tmp_path):
    settings = thinking(started, tmp_path, train={"mini_batch_size": 4, "micro_batch_size": 2})
    trainer = a_trainer(settings, tmp_path / "run")
    rows = [trainer.train_dataset[i] for i in range(8)]
    batches = iter([trainer.data_collator(rows[i : i + 2]) for i in range(0, 8, 2)])
    first, _ = trainer.get_batch_samples(batches, 2, torch.device("cpu"))
    second, _ = trainer.get_batch_samples(batches, 2, torch.device("cpu"))
    assert [part["old"] is None for part in first + second] == [True, True, False, False]
    assert next(batches, None) is None, "all of a step is sampled at once"
    for moved in (False, True):
        if moved:
            shaken(trainer, by=0.1)
        with torch.no_grad():
            now = trainer.model(asked=second[0]["asked"]).tokens
        assert torch.equal(now, second[0]["old"]) != moved
    shares = trainer._loss(trainer.model, second[0])[1]
    assert shares["clip_ratio/region_mean"] > 0


def test_old_log_probabilities_are_those_of_the_whole_adapter(started, tmp_path):
    """Dropout would draw numbers that a run which goes on does not draw again, and ratios would not be 1."""
    settings = thinking(
        started,
        tmp_path,
        train={"mini_batch_size": 4},
        model={"lora": {"rank": 4, "alpha": 64, "dropout": 0.5}},
    )
    trainer = shaken(a_trainer(settings, tmp_path / "run"), by=0.1)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in range(8)]
    batches = iter([trainer.data_collator(rows[:4]), trainer.data_collator(rows[4:])])
    trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    [second], _ = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    assert trainer.model.training
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(trainer.model(asked=second["asked"]).tokens, second["old"])


def test_training_counts_what_the_judge_earns_at_use(started, tmp_path):
    """The mean over 16 reasonings with their verdicts weighed, beside 64 whole answers to each question."""
    settings = thinking(started, tmp_path, rollout={"n": 16}, train={"batch_size": 10, "mini_batch_size": 10})
    write_rule(Path(settings["data"]["train"]), 10)
    settings["train"] |= {"max_steps": 1, "micro_batch_size": 2}
    line = records(train_local(check_config(settings)).run.path, "train")[0]
    config = check_config(settings)
    task, judge = config.build_task(), LocalJudge(load_model(started).eval(), load_tokenizer(started))
    rows = [json.loads(each) for each in Path(settings["data"]["train"]).read_text().splitlines()]
    answers = judge.answer(
        task, [task.messages(each) for each in rows], mode="vote", max_new_tokens=50, samples=64, seed=1
    )
    scores = [
        task.compute_score("t", text, task.truth(each))
        for each, answer in zip(rows, answers, strict=True)
        for text in answer.text.split("\n-----\n")
    ]
    assert len(scores) == 640
    for name, key in (("reward/mean", "score"), ("accuracy", "accuracy"), ("parse_rate", "parsed")):
        assert line[name] == pytest.approx(sum(score[key] for score in scores) / 640, abs=0.05), name
    assert line["parse_rate"] > 0.2
    assert line["reward/std"] > 0.05, "what is reasoned matters"


@pytest.mark.parametrize(
    ("begun", "sections"),
    [
        ("started", {}),
        ("barely_started", {"loss": {"advantage": "group_mean"}, "reward": {"name": "rps"}}),
        ("started", {"model": {"lora": {"rank": 8, "alpha": 64}}}),
    ],
    ids=["full", "rps", "lora"],
)
def test_a_run_learns_and_has_the_files_and_figures_of_the_other_methods(begun, request, tmp_path, sections):
    model = request.getfixturevalue(begun)
    train = {
        "max_steps": 20,
        "learning_rate": 3e-3,
        "eval_every": 20,
        "mini_batch_size": 4,
        "micro_batch_size": 2,
    }
    result = train_local(check_config(thinking(model, tmp_path, train=train, **sections)))
    lines, val = records(result.run.path, "train"), records(result.run.path, "val")
    figures = {
        "loss", "reward/mean", "reward/std", "reward/zero_std_groups", "accuracy", "mae", "parse_rate", "kl_loss", "entropy",
        "clip_ratio", "response_length/mean", "response_length/clip_ratio", "grad_norm", "lr",
        "timing_s/generate", "timing_s/log_probs", "timing_s/update", "timing_s/step", "tokens_per_second",
    }  # fmt: skip
    assert set(lines[0]) == {"step", "split", "memory/peak_gib"} | figures
    assert all(value is not None for value in lines[0].values())
    assert [line["step"] for line in val] == [0, 20]
    first, last = (sum(line["reward/mean"] for line in each) / 6 for each in (lines[:6], lines[-6:]))
    assert last > first + 0.03
    assert (result.run.path / "actor_latest").resolve().name == "checkpoint-40", "two updates a step"
    assert ("lora" in sections.get("model", {})) == (
        result.run.latest / "adapter_model.safetensors"
    ).is_file()


def test_bfloat16_computes_over_float32_weights(started, tmp_path):
    lines = {}
    for dtype in ("float32", "bfloat16"):
        settings = thinking(started, tmp_path, model={"dtype": dtype}, train={"max_steps": 2})
        run = train_local(check_config(settings), path=tmp_path / dtype).run
        assert load_model(run.latest).dtype == torch.float32
        lines[dtype] = records(run.path, "train")
    assert lines["bfloat16"][0]["parse_rate"] > 0.2
    assert lines["bfloat16"][1]["reward/mean"] != lines["float32"][1]["reward/mean"]
    assert lines["bfloat16"][1]["reward/mean"] == pytest.approx(lines["float32"][1]["reward/mean"], abs=0.3)


def test_a_broken_run_resumes_to_the_metrics_of_an_unbroken_one(started, tmp_path):
    train = {"mini_batch_size": 4, "max_steps": 8, "eval_every": 4, "save_every": 2}
    settings = thinking(started, tmp_path, train=train)
    assert_resumes(settings, tmp_path)


# -- refusals


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"rollout": {"n": 1}}, "rollout.n is 1, but method exact compares"),
        ({"rollout": {"temperature": 0.7}}, r"leave rollout\.temperature at 1"),
        ({"reward": {"name": "log_score"}}, "minus infinity for a reasoning"),
        ({"reward": {"name": "rps"}}, r"set loss\.advantage to group_mean"),
        ({"engine": "verl"}, "this is the local engine"),
    ],
    ids=str,
)
@pytest.mark.parametrize("by_itself", [False, True])
def test_what_cannot_be_is_refused_before_a_model_is_loaded(tmp_path, sections, said, by_itself):
    settings = thinking(tmp_path / "no-model", tmp_path, **sections)
    if by_itself:
        settings["prompt"]["think"], settings["model"]["reasoning_model"] = False, True
    for refused in (check_rows, train_local):
        with pytest.raises(ConfigError, match=said):
            refused(check_config(settings))


def test_a_template_that_thinks_needs_a_reasoning(tiny_model, tmp_path):
    folder = tmp_path / "thinks"
    load_model(tiny_model).save_pretrained(folder)
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = TEMPLATES["opens"]
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"set model\.reasoning_model to true"):
        train_local(check_config(settings_for(folder, tmp_path)))
    settings = settings_for(folder, tmp_path, rollout={"max_response_length": 40}, train={"max_steps": 1})
    settings["model"]["reasoning_model"], settings["data"]["val"] = True, None
    line = records(train_local(check_config(settings)).run.path, "train")[0]
    assert line["parse_rate"] == line["reward/mean"] == 0, "nothing of a random model comes to its end"
    assert (line["response_length/clip_ratio"], line["mae"]) == (1, 4)
