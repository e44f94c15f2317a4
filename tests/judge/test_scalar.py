"""A scalar model's scores are transformers' own, whatever the batch."""

from __future__ import annotations

import functools
import json

import pytest
import torch

from rm_gallery.core.errors import ConfigError
from rm_gallery.core.judge.scalar import ScalarJudge, is_scalar_model
from tests.tiny import build_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [("q", "a"), ("how?", "so " * 30), ("", ""), ("x" * 90, "y"), ("same", "length"), ("emas", "htgnel")]
CONVERSATIONS = [
    [{"role": "user", "content": query}, {"role": "assistant", "content": response}]
    for query, response in TEXTS
]


def decoder(folder, *, labels: int = 1, pad: bool = True, window: int | None = None):
    """With a `window`, its attention is not the plain one, so its texts are padded."""
    from transformers import (
        LlamaConfig,
        LlamaForSequenceClassification,
        MistralConfig,
        MistralForSequenceClassification,
    )

    kind, model = LlamaConfig, LlamaForSequenceClassification
    if window is not None:
        kind, model = (
            functools.partial(MistralConfig, sliding_window=window),
            MistralForSequenceClassification,
        )
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = kind(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        initializer_range=0.3,
    )
    model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(folder):
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    end = ("<|end|>", tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|end|>", pair="$A <|end|> $B:1 <|end|>:1", special_tokens=[end]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def piped(folder, inputs):
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(folder), device="cpu", dtype=torch.float32)
    found = [classify(text, function_to_apply="none") for text in inputs]
    return [(one[0] if isinstance(one, list) else one)["score"] for one in found]


def scores(folder, conversations=CONVERSATIONS, **options):
    answers = ScalarJudge.load(folder, **options).score(conversations)
    assert not any(answer.problem for answer in answers)
    return [answer.score for answer in answers]


@pytest.mark.parametrize("kind", ["padding-token", "no-padding-token", "windowed"])
@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
def test_a_decoders_scores_are_the_pipelines(tmp_path, kind, batch_tokens):
    """The padding token ends every text here, as in many families: the score is read before it then."""
    window = 16 if kind == "windowed" else None
    folder = decoder(tmp_path / "model", pad=kind == "padding-token", window=window)
    assert ScalarJudge.load(folder)._shares == (kind != "windowed")
    tokenizer = build_tokenizer()
    texts = [tokenizer.apply_chat_template(c, tokenize=False) for c in CONVERSATIONS]
    assert scores(folder, batch_tokens=batch_tokens) == pytest.approx(piped(folder, texts), abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
def test_an_encoders_scores_are_the_pipelines_of_plain_text_pairs(tmp_path, batch_tokens):
    folder = encoder(tmp_path / "model")
    pairs = [{"text": query, "text_pair": response} for query, response in TEXTS]
    assert scores(folder, batch_tokens=batch_tokens) == pytest.approx(piped(folder, pairs), abs=1e-5)


def test_the_scores_tell_responses_apart(tmp_path):
    """Else the comparisons above could not fail."""
    found = scores(decoder(tmp_path / "model"))
    assert len({round(score, 3) for score in found}) == len(found)


def test_what_is_too_long_is_counted_and_the_rest_is_scored(tmp_path):
    folder = decoder(tmp_path / "model")
    long = [{"role": "user", "content": "w" * 300}, {"role": "assistant", "content": "a"}]
    batches = []
    answers = ScalarJudge.load(folder).score([long, *CONVERSATIONS], done=batches.append)
    assert answers[0].score is None
    assert answers[0].problem.startswith("overlong: the prompt has 305 tokens, the model's context 256")
    assert [answer.score for answer in answers[1:]] == pytest.approx(scores(folder), abs=1e-5)
    assert sorted(i for batch in batches for i in batch) == list(range(len(answers)))
    assert {i: answer for batch in batches for i, answer in batch.items()} == dict(enumerate(answers))


def test_a_conversation_without_a_response_fails_alone(tmp_path):
    [failed, scored] = ScalarJudge.load(decoder(tmp_path / "m")).score(
        [CONVERSATIONS[0][:1], CONVERSATIONS[0]]
    )
    assert failed.problem.startswith("failed")
    assert scored.score is not None


def test_several_labels_are_no_score(tmp_path):
    with pytest.raises(ConfigError, match="3 labels"):
        ScalarJudge.load(decoder(tmp_path / "model", labels=3))


def test_adapters_bring_their_head(tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = decoder(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False))
    with torch.no_grad():
        adapted.base_model.model.score.modules_to_save["default"].weight.fill_(0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    build_tokenizer().save_pretrained(tmp_path / "adapter")
    assert is_scalar_model(tmp_path / "adapter")
    merged = adapted.merge_and_unload().eval()
    expected = ScalarJudge(merged, build_tokenizer()).score(CONVERSATIONS)
    assert scores(tmp_path / "adapter") == pytest.approx([a.score for a in expected], abs=1e-5)
    assert scores(tmp_path / "adapter") != pytest.approx(scores(base), abs=1e-2)


def test_the_configuration_tells_a_scalar_model(tmp_path, tiny_model):
    assert is_scalar_model(encoder(tmp_path / "encoder"))
    assert not is_scalar_model(tiny_model)
    assert not is_scalar_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert not is_scalar_model(tmp_path)


def test_a_conversation_that_the_template_refuses_fails_alone(tmp_path):
    folder = decoder(tmp_path / "m")
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    file = folder / "chat_template.jinja"
    file.write_text(template + file.read_text())
    [failed, scored] = ScalarJudge.load(folder).score(
        [[{"role": "system", "content": "s"}, *CONVERSATIONS[0]], CONVERSATIONS[0]]
    )
    assert failed.problem.startswith("failed: the chat template refuses the conversation: no system turn")
    assert scored.score is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_overflowed_has_given_no_score(tmp_path, bad):
    """NaN is neither equal to a number nor larger, and would make the other response the better one."""
    judge = ScalarJudge.load(decoder(tmp_path))
    with torch.no_grad():
        judge.model.score.weight[0, 0] = bad
    answers = judge.score(CONVERSATIONS)
    assert {answer.score for answer in answers} == {None}
    assert {answer.problem for answer in answers} == {"failed: the model's numbers are not finite"}


def test_in_bfloat16_too_the_head_computes_in_float32(tmp_path):
    """Scores rounded to bfloat16 are a sixteenth apart from 8 on: close responses would tie."""
    folder = decoder(tmp_path)
    judge = ScalarJudge.load(folder)
    judge.autocast = torch.bfloat16
    with torch.no_grad():
        judge.model.score.weight *= 100
    scores = [answer.score for answer in judge.score(CONVERSATIONS)]
    assert any(score != torch.tensor(score).bfloat16().item() for score in scores)
