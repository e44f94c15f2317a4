"""`POST /get_reward`: the remote reward model that OpenRLHF calls (`--remote_rm_url http://…/get_reward`).

It sends whole sequences as its policy's tokenizer decodes them, special tokens included, with the prompt's text:
`{"query": ["<|im_start|>user…", …], "prompts": […], "labels": […]}`, no headers of its own, and reads `rewards` (and
`scores`, where there are any) as lists of numbers. Sources: OpenRLHF/OpenRLHF, openrlhf/utils/remote_rm_utils.py
(`remote_rm_fn_ray`, `request_api_wrapper`) up to 0.8, `SingleTurnAgentExecutor._fetch_rewards_via_http` after it, and
openrlhf/cli/serve_rm.py, its own server, whose path this is.

A judge wants the conversation and the response apart. They are parted at the end of the prompt, and the markup of
common chat templates (ChatML, Llama 3, Gemma) is read back into turns; other markup stays in the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rm_gallery.core.serve.errors import Refusal
from rm_gallery.core.serve.schemas import Items, Score, ScoreItem, Text, Turn

PATH = "/get_reward"

_SPECIAL = r"(?:<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|</?s>|<bos>|<eos>|<pad>|<end_of_turn>)"
_ANY = re.compile(_SPECIAL)
_LAST = re.compile(rf"{_SPECIAL}\Z")
_ONLY = re.compile(rf"(?:\s*{_SPECIAL})*\s*")
_LONGEST = 64
"""Characters of a special token, at most."""
_PATIENCE = 2**24
"""Characters to compare before a prompt that is found within special tokens again and again is given up."""
_MARKUP = (
    re.compile(r"<\|im_start\|>(\w+)\n(.*?)(<\|im_end\|>|\Z)", re.DOTALL),
    re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)(<\|eot_id\|>|\Z)", re.DOTALL),
    re.compile(r"<start_of_turn>(\w+)\n(.*?)(<end_of_turn>|\Z)", re.DOTALL),
)
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
}


class RewardRequest(BaseModel):
    """What OpenRLHF sends; other fields, and the labels, are not looked at."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": [
                        "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\nIt is 5.<|im_end|>"
                    ],
                    "prompts": ["<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"],
                    "labels": ["5"],
                }
            ]
        }
    )
    query: Items[Text] = Field(
        min_length=1, description="Prompt and response, as the policy's tokenizer has them."
    )
    prompts: Items[Text] | None = Field(None, description="The prompts alone.")
    labels: list[Any] | None = None


class RewardResponse(BaseModel):
    """What OpenRLHF reads."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rewards": [3.61], "scores": [3.61]}]})
    rewards: list[float]
    scores: list[float] = Field(description="The same numbers, by which OpenRLHF filters.")


def items(request: RewardRequest) -> list[ScoreItem]:
    """What to judge. Raises `Refusal` where prompt and response cannot be told apart."""
    prompts: Sequence[str | None] = request.prompts or [None] * len(request.query)
    if len(prompts) != len(request.query):
        raise Refusal(
            422,
            f"{len(request.query)} in query and {len(prompts)} in prompts: each needs one",
            param="prompts",
        )
    return [
        parted(query, prompt, number)
        for number, (query, prompt) in enumerate(zip(request.query, prompts, strict=True))
    ]


def parted(query: str, prompt: str | None, number: int = 0) -> ScoreItem:
    """The conversation and the response in one sequence."""
    if prompt:
        start = _behind_tokens(query, prompt)
        if start is not None:  # a tokenizer may have put its own token in front
            said = turns(prompt, begun=True) or [Turn(role="user", content=prompt)]
            return ScoreItem(messages=said, response=_clean(query[start + len(prompt) :]))
    said = turns(query)
    if len(said) > 1 and said[-1].role == "assistant":
        return ScoreItem(messages=said[:-1], response=said[-1].content)
    raise Refusal(
        422,
        f"query {number} does not begin with its prompt, and is not in chat markup that is known (ChatML, Llama 3, "
        f"Gemma): where its response begins cannot be told",
        param=f"query.{number}",
    )


def _behind_tokens(query: str, prompt: str) -> int | None:
    """Where the prompt begins behind nothing but special tokens; not within one, as the prompt "s" in "<s>s"."""
    leading = _ONLY.match(query)
    end = leading.end() if leading else 0
    last = end + len(prompt)
    start, work = query.find(prompt, 0, last), _PATIENCE
    while start >= 0 and work > 0:
        near = _ANY.finditer(query, max(0, start - _LONGEST), min(end, start + _LONGEST))
        if not any(token.start() < start < token.end() for token in near):
            return start
        work -= len(prompt) + _LONGEST
        start = query.find(prompt, start + 1, last)
    return None


def turns(text: str, *, begun: bool = False) -> list[Turn]:
    """The turns of a text that is all in the markup of one chat template; none where it is not.

    With `begun`, a last turn of the assistant that is not closed is where the answer goes, and is left out with what
    the template has written into it.
    """
    for markup in _MARKUP:
        found = [(_ROLES.get(role), content, end) for role, content, end in markup.findall(text)]
        if not found or not _ONLY.fullmatch(markup.sub("", text)):
            continue
        if begun and found[-1][0] == "assistant" and not found[-1][2]:
            found.pop()
        if all(role is not None for role, _, _ in found):
            return [Turn(role=role, content=_clean(content)) for role, content, _ in found if role]
    return []


def rewards(scores: Sequence[Score], missing: float | None) -> RewardResponse:
    """Raises `Refusal` where a response has no score and nothing was said to give in its place."""
    without = [i for i, score in enumerate(scores) if score.score is None]
    if without and missing is None:
        raise Refusal(
            422,
            f"{len(without)} of {len(scores)} responses have no score, the first (query {without[0]}) because "
            f"{scores[without[0]].problem}; --missing-reward gives them a number of your choice",
            code="no_score",
        )
    found = [missing if score.score is None else score.score for score in scores]
    numbers = [float(number) for number in found if number is not None]
    return RewardResponse(rewards=numbers, scores=numbers)


def _clean(text: str) -> str:
    """Without the special tokens at its end, and the space around them."""
    end, kept = len(text.rstrip()), len(text)
    while found := _LAST.search(text[max(0, end - _LONGEST) : end]):
        end -= len(found[0])
        while end and text[end - 1].isspace():
            end -= 1
        kept = end
    return text[:kept]
