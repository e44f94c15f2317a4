"""What OpenRLHF sends is parted into conversation and response, and gets the score that /v1/score gives."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rm_gallery.core.serve.errors import Refusal
from rm_gallery.core.serve.openrlhf import PATH, parted, turns
from tests.service import serving

# the chat templates of the families, as far as plain turns go
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "qwen3 without thinking": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_end|>",
    ),
    "llama 3": (
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma": (
        "<bos>{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n",
        "<end_of_turn>\n<eos>",
    ),
}
# neither markup nor space at the end, which templates strip
TEXT = st.text(st.characters(exclude_characters="<>|", exclude_categories=["Cs"]), min_size=1, max_size=30)
TEXT = TEXT.map(str.strip).filter(bool)
CONVERSATION = st.builds(
    lambda system, earlier, last: [
        *([{"role": "system", "content": system}] if system else []),
        *(
            {"role": role, "content": text}
            for pair in earlier
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ),
        {"role": "user", "content": last},
    ],
    st.none() | TEXT,
    st.lists(st.tuples(TEXT, TEXT), max_size=2),
    TEXT,
)


def rendered(template: str, messages: list[dict[str, str]]) -> str:
    return jinja2.Template(template, keep_trailing_newline=True).render(messages=messages)


@pytest.mark.parametrize("family", TEMPLATES)
@given(messages=CONVERSATION, response=TEXT, padding=st.sampled_from(["", "<pad>" * 3, "<|endoftext|>" * 2]))
def test_conversation_and_response_come_back(family, messages, response, padding):
    template, end = TEMPLATES[family]
    prompt = rendered(template, messages)
    item = parted(prompt + response + end + padding, prompt)
    assert [turn.model_dump() for turn in item.messages] == messages
    assert item.response == response
    if family == "qwen3 without thinking":
        return  # without the prompt, what the template wrote into the answer cannot be told from it
    again = parted(prompt + response + end + padding, None)
    assert again == item


@given(TEXT, TEXT)
@example("s", "0")  # within the token in front
def test_a_prompt_without_markup_is_one_turn(prompt, response):
    item = parted(f"<s>{prompt}{response}</s></s>", prompt)
    assert [(turn.role, turn.content) for turn in item.messages] == [("user", prompt)]
    assert item.response == response


@pytest.mark.parametrize(
    ("query", "prompt", "why"),
    [
        ("an answer", "another prompt", "the prompt is not in it"),
        ("something else, then the prompt", "the prompt", "something stands before the prompt"),
        ("no markup at all", None, "no prompt and no markup"),
        ("<|im_start|>user\nonly a question<|im_end|>\n", None, "no response"),
        ("before <|im_start|>user\nq<|im_end|><|im_start|>assistant\na", None, "text outside the turns"),
        ("<|im_start|>tool\nx<|im_end|><|im_start|>assistant\na", None, "a role that no judge knows"),
    ],
)
def test_what_cannot_be_parted_is_refused_and_not_guessed(query, prompt, why):
    with pytest.raises(Refusal, match="cannot be told"):
        parted(query, prompt)


def test_parting_takes_time_linear_in_the_text():
    """Megabytes of spaces and of padding: a pattern that goes back and forth would take hours."""
    spaces, padding = " " * 2_000_000, "<pad>" * 20_000
    assert parted(f"q{spaces}{padding}", "q").response == ""
    assert parted(f"{padding}p{spaces}", "p").response == spaces
    assert turns(spaces + "<|im_start|>user\n" + spaces) == turns("<|im_start|>user\n" + spaces)
    assert turns("<|im_start|>" * 100_000) == []
    # a prompt that is found within special tokens again and again
    with pytest.raises(Refusal, match="cannot be told"):
        parted("<s>" * 300_000, "s>" + "<s>" * 200_000)


# -- over HTTP


def body(items):
    template, end = TEMPLATES["chatml"]
    prompts = [rendered(template, [{"role": "user", "content": query}]) for query, _ in items]
    return {
        "query": [p + response + end for p, (_, response) in zip(prompts, items, strict=True)],
        "prompts": prompts,
        "labels": ["whatever", None][: len(items)],
    }


ITEMS = [("What is 2 + 3?", "It is 5."), ("Say no.", "No, I will not.")]


def test_rewards_are_the_scores(pointwise):
    found = pointwise.post(PATH, body(ITEMS)).json()
    scores = pointwise.results("/v1/score", [{"query": q, "response": r} for q, r in ITEMS])
    assert found == {"rewards": [s["score"] for s in scores], "scores": [s["score"] for s in scores]}
    older = {"query": body(ITEMS)["query"]}  # before prompts were sent with it
    assert pointwise.post(PATH, older).json()["rewards"] == pytest.approx(found["rewards"], abs=1e-4)
    newer = {**body(ITEMS), "metas": [{}, {}]}
    assert pointwise.post(PATH, newer).status_code == 200


def test_a_response_without_a_score_fails_the_request_unless_a_number_was_chosen_for_it(
    tiny_model, pointwise
):
    long = body([*ITEMS[:1], ("x", "y" * 5000)])
    refused = pointwise.post(PATH, long)
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "no_score"
    assert "query 1" in refused.json()["error"]["message"]
    with serving(tiny_model, "pointwise", missing_reward=-1.5) as running:
        rewards = running.post(PATH, long).json()["rewards"]
    assert rewards[1] == -1.5
    assert rewards[0] == pytest.approx(pointwise.post(PATH, body(ITEMS[:1])).json()["rewards"][0], abs=1e-4)


def test_as_many_prompts_as_queries_are_needed(pointwise):
    short = {**body(ITEMS), "prompts": body(ITEMS)["prompts"][:1]}
    response = pointwise.post(PATH, short)
    assert response.status_code == 422
    assert "2 in query and 1 in prompts" in response.json()["error"]["message"]


def test_a_judge_of_pairs_has_no_reward_for_one(pairwise):
    response = pairwise.post(PATH, body(ITEMS))
    assert response.status_code == 400
    assert "no reward for one" in response.json()["error"]["message"]
