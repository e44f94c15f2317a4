"""`LLMGrader`: a language model that is asked for a score by a prompt of one's own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.graders.base import BaseGrader
from rm_gallery.core.graders.fields import checked
from rm_gallery.core.graders.formats import JsonFormat, Scale, TagFormat, score_model
from rm_gallery.core.graders.judge import NO_REASON, JudgeGrader
from rm_gallery.core.graders.prompts import Prompt
from rm_gallery.core.graders.result import GraderResult, GraderScore
from rm_gallery.core.models.chat import ChatError
from rm_gallery.core.models.openai_chat import OpenAIChatModel
from rm_gallery.core.tasks.base import Task

logger = logging.getLogger("rm_gallery.graders")

Output = Literal["auto", "json", "tags"]


class LLMGrader(BaseGrader):
    """Asks a chat model for a score and a reason, by a prompt whose variables are the grader's fields.

    The answer is JSON of a schema that is sent along (`output="json"`), or a tag for each field (`"tags"`). `auto` is
    JSON, and tags for a model in this process and for an endpoint that refuses the schema. Either is read strictly: an
    answer without one score of the scale is a `GraderError`. A result without a reason says so.

    A model that carries a task (a saved judge) is asked that task's question, and not this prompt: see `JudgeGrader`.
    `metadata` names task, criterion and scale, and where the criterion is another one, a warning does when the grader
    is made.

    Args:
        model: the judge.
        name: stands in the results.
        prompt: a jinja file or its text; `output_format` in it is what the answer is to look like.
        result: a pydantic model with a field `score` and perhaps `reason`; others go into `metadata`. By default
            these two, the score a whole number where the ends of `scale` are `int`.
        scale: the lowest and the highest score; by default the `ge` and `le` of the result's `score`, else 0 and 4.
        optional: variables of the prompt that an item may leave out; they are None there.
        criterion: what the score is of, by which a saved judge is compared; by default the name.
        ends: what the lowest and the highest score mean; in the default `result`'s schema, and in `metadata`.
        output: how the answer is written.

    Raises:
        ConfigError: the prompt, the result or the scale cannot be used, or the judge's task is of another kind.
    """

    def __init__(
        self,
        model: OpenAIChatModel,
        *,
        name: str,
        prompt: str | Path,
        result: type[BaseModel] | None = None,
        scale: Scale | None = None,
        optional: Sequence[str] = (),
        criterion: str | None = None,
        ends: tuple[str, str] = ("worst", "best"),
        output: Output = "auto",
    ) -> None:
        self.model = model
        self.name = name
        self.criterion = criterion or name
        self.ends = ends
        self.scale: Scale = scale or ((0, 4) if result is None else _scale_of(name, result))
        if not self.scale[0] < self.scale[1]:
            raise ConfigError(
                f"grader {name}: the scale {self.scale} does not go from a lower to a higher number"
            )
        self.result = score_model(self.scale, ends) if result is None else result
        if "score" not in self.result.model_fields:
            raise ConfigError(f"grader {name}: {self.result.__name__} has no field score")
        self.prompt = Prompt(prompt)
        variables = self.prompt.variables
        self.required = tuple(name for name in variables if name not in optional)
        self.optional: tuple[str, ...] = tuple(optional)
        self._json = JsonFormat(self.result)
        self._tags: TagFormat[BaseModel] | None = None
        wants_tags = output == "tags" or (output == "auto" and model.is_local)
        self.output = output
        self._writes: Output = "tags" if wants_tags else "json"
        if wants_tags:
            self._tags = TagFormat(self.result)
        self.judge = None if model.task is None else self._over(model.task)

    async def _grade(self, fields: dict[str, Any]) -> GraderResult:
        if self.judge is not None:
            return await self.judge.aevaluate(query=fields["query"], response=fields["response"])
        values = {**dict.fromkeys(self.optional), **fields}
        checked(values, self.required)
        if self._writes == "tags":
            return self._score(*await self._ask_tags(values))
        try:
            question = self.prompt.render(self._json.instructions, values)
            response = await self.model.achat(
                [{"role": "user", "content": question}],
                temperature=self._temperature,
                response_format=self.result,
            )
        except ChatError as error:
            if error.kind != "refused" or self.output == "json":
                raise
            # the endpoint may not know schemas; where it refuses the question in tags too, that was not it
            try:
                asked = await self._ask_tags(values)
            except (ChatError, ConfigError):
                raise error from None
            logger.info("%s: the endpoint takes no schema (%s); asking in tags from now on", self.name, error)
            self._writes = "tags"
            return self._score(*asked)
        return self._score(response.parsed[0], response.text)

    @property
    def _temperature(self) -> float | None:
        """0, unless the model has one of its own."""
        return 0.0 if self.model.temperature is None else None

    async def _ask_tags(self, values: dict[str, Any]) -> tuple[BaseModel | InvalidVerdict, str]:
        self._tags = self._tags or TagFormat(self.result)
        question = self.prompt.render(self._tags.instructions, values)
        response = await self.model.achat(
            [{"role": "user", "content": question}], temperature=self._temperature
        )
        try:
            return self._tags.parse(response.text), response.text
        except InvalidVerdict as error:
            return error, response.text

    def _score(self, found: BaseModel | InvalidVerdict, text: str) -> GraderResult:
        asked = {"scale": list(self.scale), "ends": list(self.ends)}
        if isinstance(found, InvalidVerdict):
            return self.error(found, text=text, **asked)
        said = found.model_dump(mode="json")
        score, reason = said.pop("score"), said.pop("reason", None)
        low, high = self.scale
        if not (isinstance(score, int | float) and low <= score <= high):
            return self.error(
                InvalidVerdict(f"the score is {score!r}, expected a number from {low:g} to {high:g}"),
                text=text,
                **asked,
            )
        return GraderScore(self.name, score, reason or NO_REASON, {**asked, **said})

    def _over(self, task: Task[Any]) -> JudgeGrader:
        judge = JudgeGrader(self.model, name=self.name, criterion=self.criterion)
        known = {*self.required, *self.optional}
        if not {"query", "response"} <= known:
            raise ConfigError(
                f"grader {self.name}: {self.model.model} is a saved judge, which is asked about a query and a "
                f"response; the prompt's fields are {', '.join(sorted(known)) or 'none'}"
            )
        if judge.criterion != self.criterion:
            unread = sorted(known - {"query", "response"})
            low, high = judge.scale
            warnings.warn(
                f"grader {self.name}: {self.model.model} was trained to judge {judge.criterion} from {low:g} to "
                f"{high:g} (task {task.name}: {task.instruction!r}). That is what it is asked, and what the score is of"
                + (f"; {' and '.join(unread)} is not read." if unread else "."),
                stacklevel=3 if type(self) is LLMGrader else 4,
            )
        return judge


def _scale_of(name: str, result: type[BaseModel]) -> Scale:
    """The bounds of the result's score."""
    info = result.model_fields.get("score")
    bounds = [
        [getattr(part, end) for part in info.metadata if hasattr(part, end)] if info else []
        for end in ("ge", "le")
    ]
    if not all(bounds):
        raise ConfigError(f"grader {name}: say the scale, or give {result.__name__}.score its ge and le")
    return bounds[0][0], bounds[1][0]
