"""What requests and answers are made of, with the examples that OpenAPI shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from rm_gallery.core.data.samples import Message
from rm_gallery.core.serve.settings import ServedMode


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair, which is no Unicode character") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]
"""Of millions that are no items, the first is enough to refuse them."""
Probabilities = Annotated[
    dict[str, float] | dict[str, dict[str, float]] | None,
    Field(
        description="Of each legal verdict, summing to 1; of several dimensions for each of them, by its scores. Null in "
        "mode greedy and of a scalar model."
    ),
]
Problem = Annotated[
    str,
    Field(
        description="Why there is no verdict, beginning with unparsable, unfinished, overlong or failed; else empty."
    ),
]
Mass = Annotated[
    float | None,
    Field(description="The probability that the judge gives to all legal verdicts together (mode expected)."),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Turn(_Request):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class _About(_Request):
    query: Text | None = Field(None, description="What was asked, where that was a single turn.")
    messages: Items[Turn] | None = Field(None, description="The conversation up to the response.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.query is None) == (self.messages is None):
            raise ValueError("give query or messages: one of the two")
        return self

    def turns(self) -> tuple[Message, ...]:
        if self.query is not None:
            return (Message("user", self.query),)
        return tuple(Message(turn.role, turn.content) for turn in self.messages or ())

    def length(self) -> int:
        """In characters."""
        return sum(len(turn.content) for turn in self.turns())


class ScoreItem(_About):
    """A response to be judged."""

    response: Text


class CompareItem(_About):
    """Two responses to be compared."""

    response_a: Text
    response_b: Text


class RankItem(_About):
    """Responses to be ranked."""

    responses: Items[Text] = Field(min_length=1, max_length=256)


class _Asked(_Request):
    mode: ServedMode | None = Field(None, description="Default: the service's own.")


def _example(**content: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [content]})


_QUERY = "What is the capital of France?"


class ScoreRequest(_Asked):
    model_config = _example(
        items=[
            {"query": _QUERY, "response": "Paris."},
            {"messages": [{"role": "user", "content": _QUERY}], "response": "I will not say."},
        ]
    )
    items: Items[ScoreItem] = Field(min_length=1)


class CompareRequest(_Asked):
    model_config = _example(
        items=[{"query": _QUERY, "response_a": "Paris.", "response_b": "Perhaps Lyon?"}], mode="expected"
    )
    items: Items[CompareItem] = Field(min_length=1)


class RankRequest(_Asked):
    model_config = _example(items=[{"query": _QUERY, "responses": ["Lyon.", "Paris.", "Paris!"]}])
    items: Items[RankItem] = Field(min_length=1)


class Score(BaseModel):
    """What the judge made of one response."""

    score: float | None = Field(
        description="The mean of the distribution (expected), the verdict (greedy), or the scalar model's number. "
        "Null where there is none: see problem."
    )
    verdict: int | float | str | dict[str, int] | None = Field(
        description="The most probable legal verdict (expected), or the one written (greedy)."
    )
    probabilities: Probabilities
    mass: Mass
    problem: Problem


class _Judged(BaseModel):
    model: str
    task: str
    mode: str


class ScoreResponse(_Judged):
    model_config = _example(
        model="runs/judge",
        task="pointwise",
        mode="expected",
        results=[
            {
                "score": 3.61,
                "verdict": 4,
                "probabilities": {"0": 0.01, "1": 0.02, "2": 0.06, "3": 0.17, "4": 0.74},
                "mass": 0.998,
                "problem": "",
            }
        ],
    )
    results: list[Score]


class OrderResult(BaseModel):
    """One order of a pair, in the pair's own terms: A is response_a, whichever was shown first."""

    verdict: str | None
    probabilities: Probabilities
    mass: Mass
    problem: Problem


class Orders(BaseModel):
    """What the judge said with response_a shown first (forward) and with response_b first (swapped)."""

    forward: OrderResult
    swapped: OrderResult


class Scores(BaseModel):
    """Of a judge that scores: what it made of each response."""

    a: Score
    b: Score


class Comparison(BaseModel):
    """Which response is better, A, B or tie."""

    verdict: str | None = Field(description="Both orders together. Null where one has no verdict.")
    probabilities: Probabilities = Field(description="The mean of both orders'.")
    consistent: bool | None = Field(
        description="Whether both orders say the same; null of a judge that scores."
    )
    orders: Orders | None = Field(description="Null of a judge that scores.")
    scores: Scores | None = Field(description="Null of a judge that compares.")
    problem: Problem


class CompareResponse(_Judged):
    model_config = _example(
        model="runs/judge",
        task="pairwise",
        mode="expected",
        results=[
            {
                "verdict": "A",
                "probabilities": {"A": 0.72, "B": 0.2, "tie": 0.08},
                "consistent": True,
                "orders": {
                    "forward": {
                        "verdict": "A",
                        "probabilities": {"A": 0.8, "B": 0.13, "tie": 0.07},
                        "mass": 0.99,
                        "problem": "",
                    },
                    "swapped": {
                        "verdict": "A",
                        "probabilities": {"A": 0.64, "B": 0.27, "tie": 0.09},
                        "mass": 0.99,
                        "problem": "",
                    },
                },
                "scores": None,
                "problem": "",
            }
        ],
    )
    results: list[Comparison]


class Ranked(BaseModel):
    """One response of a ranking, at its own place in the list."""

    rank: int | None = Field(description="1 is the best; equal scores share a rank. Null without a score.")
    score: float | None = Field(
        description="The judge's score; of a judge that compares, wins and half of the ties over the comparisons."
    )
    wins: int | None = Field(description="Null of a judge that scores, like ties and comparisons.")
    ties: int | None
    comparisons: int | None = Field(description="With a verdict, out of those with each other response.")
    problem: Problem


class Ranking(BaseModel):
    """The responses in the order in which they came."""

    responses: list[Ranked]


class RankResponse(_Judged):
    model_config = _example(
        model="runs/judge",
        task="pointwise",
        mode="expected",
        results=[
            {
                "responses": [
                    {
                        "rank": 2,
                        "score": 0.4,
                        "wins": None,
                        "ties": None,
                        "comparisons": None,
                        "problem": "",
                    },
                    {
                        "rank": 1,
                        "score": 3.6,
                        "wins": None,
                        "ties": None,
                        "comparisons": None,
                        "problem": "",
                    },
                ]
            }
        ],
    )
    results: list[Ranking]


class ErrorBody(BaseModel):
    """What went wrong, in a sentence."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Every answer that is no success."""

    model_config = _example(
        error={"message": "items.0.response: Field required", "type": "invalid_request_error"}
    )
    error: ErrorBody


class Health(BaseModel):
    """Whether the service takes requests."""

    model_config = _example(status="ok")
    status: Literal["ok", "closing"]


class ServedModel(BaseModel):
    """The model that is served, in the shape of OpenAI's list of models and a little more."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "rm-gallery"
    task: str = Field(description="pointwise, pairwise, another task's name, or score of a scalar model.")
    responses: int = Field(description="How many responses a question is about: 1, or 2 of a judge of pairs.")
    verdicts: list[str] = Field(description="The legal ones, in the order of the scale.")
    modes: list[str]
    mode: str = Field(description="Where a request names none.")


class ServedModels(BaseModel):
    """The one model of this service."""

    model_config = _example(
        object="list",
        data=[
            {
                "id": "runs/judge",
                "object": "model",
                "created": 0,
                "owned_by": "rm-gallery",
                "task": "pointwise",
                "responses": 1,
                "verdicts": ["0", "1", "2", "3", "4"],
                "modes": ["expected", "greedy"],
                "mode": "expected",
            }
        ],
    )
    object: Literal["list"] = "list"
    data: list[ServedModel]
