"""`BasePromptTemplate`: declare the verdict's fields once; get its output format, its parser and its printer.

class Stars(BasePromptTemplate):
    stars: int = Field(ge=1, le=5, description="how good the book is")

Stars.output_format()                      # "<stars>X</stars> where X is …"
Stars.parse("<stars>4</stars>").stars      # 4
Stars(stars=4).to_text()                   # "<stars>4</stars>"
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import Self

from rm_gallery.core.errors import InvalidVerdict, UnfinishedReasoning

THINK = "think"
# ASCII digits only: int() would also take "٣", "1_0" and "+3", none of which is the verdict we asked for.
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]*)(?:\.0+)?", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


def after_reasoning(text: str) -> str:
    """Return what follows the last `</think>`.

    Raises:
        UnfinishedReasoning: a `<think>` is still open at the end, so no verdict was reached.
    """
    end = max((match.end() for match in _tag(THINK, closing=True).finditer(text)), default=0)
    rest = text[end:]
    if _tag(THINK).search(rest):
        raise UnfinishedReasoning(
            "the reasoning was opened with <think> and never closed, so there is no verdict"
        )
    return rest


def opening(prompt: str) -> str:
    """What a rendered prompt has already written of the answer: the `<think>` that its reasoning begins with, or nothing.

    It belongs to the answer, whose reasoning would else not be seen to be one where it is cut off.
    """
    return f"<{THINK}>\n" if prompt.rstrip().endswith(f"<{THINK}>") else ""


def closes(text: str) -> bool:
    """Whether a reasoning ends in `text`."""
    return _tag(THINK, closing=True).search(text) is not None


def reasoned(end: str, verdict: str, *, own: bool) -> str:
    """What follows a reasoning that ends with `end`, a `</think>` and perhaps more, where `verdict` is the answer.

    Models that reason by themselves (`own`) leave a line blank before it; others are asked to begin a new one. What `end`
    has of that already is not written again.
    """
    rest = end[max(match.end() for match in _tag(THINK, closing=True).finditer(end)) :]
    whole = ("\n\n" if own else "\n") + verdict
    if whole.startswith(rest):
        return whole[len(rest) :]
    begun = rest.lstrip()
    return verdict[len(begun) :] if verdict.startswith(begun) else verdict


def single_tag(text: str, name: str) -> str:
    """Return the content of the one `<name>…</name>` in `text`; the case of the tag's letters does not matter.

    Raises:
        InvalidVerdict: no such tag, more than one, or one that is not closed.
    """
    opens = list(_tag(name).finditer(text))
    closes = list(_tag(name, closing=True).finditer(text))
    if not opens and not closes:
        raise InvalidVerdict(f"no <{name}> tag in the output")
    if len(opens) != 1 or len(closes) != 1 or closes[0].start() < opens[0].end():
        raise InvalidVerdict(
            f"expected one <{name}>…</{name}>, found {len(opens)} opened, {len(closes)} closed"
        )
    return text[opens[0].end() : closes[0].start()]


def _tag(name: str, closing: bool = False) -> re.Pattern[str]:
    # re.ASCII: without it IGNORECASE also matches "ſ" for "s" and "K" (kelvin) for "k".
    return re.compile(f"<{'/' if closing else ''}{re.escape(name)}>", re.IGNORECASE | re.ASCII)


class BasePromptTemplate(BaseModel):
    """A verdict's fields. A field named `think` is the optional reasoning; every other one is a tag to fill.

    Supported types of a field: `int` and `float` (with `ge`/`le` as their scale), `Literal` of strings, `str`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: ClassVar[str] = ""
    """Text with `{placeholders}`, filled by `format`; `{output_requirement}` is the output format."""

    @classmethod
    def verdict_fields(cls) -> dict[str, FieldInfo]:
        """The fields that make up the verdict, in order: all but `think`."""
        return {name: info for name, info in cls.model_fields.items() if name != THINK}

    @classmethod
    def output_format(cls, enable_thinking: bool = False) -> str:
        """The section of the prompt that shows the tags, as the model is to write them.

        Args:
            enable_thinking: also ask for `<think>…</think>` first. Leave it off for a model that reasons by
                itself (its chat template is then asked to think instead) and where no reasoning is wanted.
        """
        lines = ["<think>your reasoning</think>"] if enable_thinking else []
        notes = []
        for name, info in cls.verdict_fields().items():
            lines.append(f"<{name}>X</{name}>")
            notes.append(_describe(name, info, only=len(cls.verdict_fields()) == 1))
        return "\n".join([*lines, *notes])

    @classmethod
    def format(cls, *, enable_thinking: bool = False, **values: Any) -> str:
        """Fill the class's `prompt` with `values` and the output format.

        Braces in the values are left as they are. Raises `KeyError` for a placeholder without a value.
        """
        values["output_requirement"] = cls.output_format(enable_thinking)
        return re.sub(r"\{(\w+)\}", lambda match: str(values[match.group(1)]), cls.prompt)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the verdict from a model's output, strictly.

        Only what follows the last `</think>` counts; each field must stand in exactly one tag and be one of
        its legal values. Takes time linear in the text.

        Raises:
            InvalidVerdict: anything else.
        """
        rest = after_reasoning(text)
        values = {
            name: _convert(name, info, single_tag(rest, name)) for name, info in cls.verdict_fields().items()
        }
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise InvalidVerdict(f"<{field}> holds {first['input']!r}: {first['msg']}") from None

    def to_text(self) -> str:
        """The canonical text of this verdict; `parse` reads it back unchanged."""
        fields = (f"<{name}>{getattr(self, name)}</{name}>" for name in self.verdict_fields())
        think = getattr(self, THINK, "")
        return "\n".join([*([f"<think>{think}</think>"] if think else []), *fields])


def _convert(name: str, info: FieldInfo, raw: str) -> Any:
    content = raw.strip()
    if info.annotation is int:
        if not _INTEGER.fullmatch(content):
            shown = content if len(content) <= 40 else content[:40] + "…"
            raise InvalidVerdict(f"<{name}> holds {shown!r}, which is not a whole number")
        digits = content.split(".")[0]
        # beyond every scale, and int() of a million digits would be slow or refused
        if len(digits) > 18:
            raise InvalidVerdict(f"<{name}> holds a number of {len(digits)} digits")
        return int(digits)
    if info.annotation is float:
        if len(content) > 40 or not _DECIMAL.fullmatch(content):
            shown = content if len(content) <= 40 else content[:40] + "…"
            raise InvalidVerdict(f"<{name}> holds {shown!r}, which is not a number")
        return float(content)
    if get_origin(info.annotation) is Literal:
        if content.isascii():
            for legal in get_args(info.annotation):
                if content.lower() == legal.lower():
                    return legal
        shown = content if len(content) <= 40 else content[:40] + "…"
        raise InvalidVerdict(f"<{name}> holds {shown!r}, expected one of {get_args(info.annotation)}")
    return content


def _describe(name: str, info: FieldInfo, only: bool) -> str:
    subject = "X" if only else f"X in <{name}>"
    if get_origin(info.annotation) is Literal:
        legal = [str(value) for value in get_args(info.annotation)]
        return f"where {subject} is {', '.join(legal[:-1])} or {legal[-1]}: {info.description}"
    return (
        f"where {subject} is the {info.description}" if info.description else f"where {subject} is the {name}"
    )
