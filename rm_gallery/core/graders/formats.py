"""How a model is asked for a typed result, and how its answer is read: as JSON, or in tags as the tasks' templates."""

from __future__ import annotations

import re
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from rm_gallery.core.errors import ConfigError, InvalidVerdict
from rm_gallery.core.models.structured import parse_structured
from rm_gallery.core.templates import BasePromptTemplate
from rm_gallery.core.templates.base import THINK, after_reasoning

M = TypeVar("M", bound=BaseModel)
Scale = tuple[float, float]


def score_model(scale: Scale, ends: tuple[str, str]) -> type[BaseModel]:
    """The result where no other is asked for: a reason, then a number of the scale, whole where its ends are `int`."""
    (low, high), whole = scale, all(isinstance(end, int) for end in scale)
    meaning = f"score from {low:g} ({ends[0]}) to {high:g} ({ends[1]}), a {'whole ' if whole else ''}number"
    fields: dict[str, Any] = {
        "reason": (str, Field(default="", description="reason for the score, in one to three sentences")),
        "score": (
            Annotated[int if whole else float, BeforeValidator(_no_bool)],
            Field(ge=low, le=high, description=meaning),
        ),
    }
    return create_model("Score", **fields)


def _no_bool(value: Any) -> Any:
    """JSON's `true`, which pydantic reads as 1."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    return value


class JsonFormat(Generic[M]):
    """One JSON object with the fields of `result`."""

    def __init__(self, result: type[M]) -> None:
        self.result = result
        lines = [
            f'- "{name}": {info.description or f"the {name}"}' for name, info in result.model_fields.items()
        ]
        self.instructions = "\n".join(
            ["Answer with one JSON object and nothing else. Its fields, in this order:", *lines]
        )

    def format(self, result: M) -> str:
        """The canonical text of a result: `parse(format(r)) == r`."""
        return result.model_dump_json()

    def parse(self, text: str) -> M:
        """Raises `InvalidVerdict`."""
        try:
            return parse_structured(self.result, text)
        except ValidationError as error:
            raise InvalidVerdict(_said(error, self.result)) from None


class TagFormat(Generic[M]):
    """A tag for each field of `result`, each exactly once; a field with a default may be left out.

    Args:
        result: fields are `int`, `float`, `str` or a `Literal` of texts.

    Raises:
        ConfigError: a field of another type.
    """

    def __init__(self, result: type[M]) -> None:
        self.result = result
        for name, info in result.model_fields.items():
            literal = get_origin(info.annotation) is Literal and all(
                isinstance(value, str) for value in get_args(info.annotation)
            )
            if name == THINK or (info.annotation not in (int, float, str) and not literal):
                raise ConfigError(
                    f"{result.__name__}.{name} cannot be written in a tag: int, float, str and Literal of texts can; "
                    f"output='json' takes any"
                )
        self.instructions = self._template(*result.model_fields).output_format()

    def format(self, result: M) -> str:
        """The canonical text of a result: `parse(format(r)) == r`, where no field's text holds a field's tag."""
        return self._template(*self.result.model_fields).model_construct(**dict(result)).to_text()

    def parse(self, text: str) -> M:
        """Raises `InvalidVerdict`."""
        rest = after_reasoning(text)
        written = [
            name
            for name, info in self.result.model_fields.items()
            if info.is_required() or re.search(f"</?{re.escape(name)}>", rest, re.IGNORECASE)
        ]
        found = self._template(*written).parse(text)
        try:
            return self.result.model_validate({name: getattr(found, name) for name in written})
        except ValidationError as error:
            raise InvalidVerdict(_said(error, self.result)) from None

    def _template(self, *names: str) -> type[BasePromptTemplate]:
        fields: dict[str, Any] = {name: _required(self.result.model_fields[name]) for name in names}
        return create_model(self.result.__name__, __base__=BasePromptTemplate, **fields)


def _required(info: FieldInfo) -> tuple[Any, Any]:
    """The type and the meaning alone: the result's own model checks the rest."""
    return info.annotation, Field(description=info.description)


def _said(error: ValidationError, result: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the answer"
    return f"the answer is no {result.__name__}: {place}: {first['msg']}"
