"""Prompts of graders: jinja files, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rm_gallery.core.errors import ConfigError, DataError
from rm_gallery.core.graders.fields import as_text

OUTPUT_FORMAT = "output_format"
"""The variable that holds what the answer is to look like; appended to a prompt that does not name it."""
SUFFIXES = (".jinja", ".jinja2", ".j2")

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


class Prompt:
    """A prompt with variables, from a file or as its own text.

    What fills a variable is text and never a template: braces in a response stay braces. A conversation is written as
    labelled turns.

    Args:
        source: a `Path`, the name of a file that ends in `.jinja`, or the text.

    Attributes:
        text: what is rendered.
        variables: the names that it needs, in alphabetical order, without `output_format`.

    Raises:
        ConfigError: there is no such file, or it is no jinja template; names the line.
    """

    def __init__(self, source: str | Path) -> None:
        is_file = isinstance(source, Path) or (source.endswith(SUFFIXES) and "\n" not in source)
        name = str(source) if is_file else "the prompt"
        try:
            content = Path(source).expanduser().read_text(encoding="utf-8") if is_file else str(source)
        except OSError as error:
            raise ConfigError(f"{name} cannot be read: {error.strerror}") from None
        try:
            names = meta.find_undeclared_variables(_ENVIRONMENT.parse(content))
            if OUTPUT_FORMAT not in names:
                content = content.rstrip() + "\n\n{{ " + OUTPUT_FORMAT + " }}"
            self._template = _ENVIRONMENT.from_string(content)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{name}, line {error.lineno}: {error.message}") from None
        self._name = name
        self.text = content
        self.variables = tuple(sorted(names - {OUTPUT_FORMAT}))

    def render(self, output_format: str, values: Mapping[str, Any]) -> str:
        """The text of the prompt.

        Raises:
            DataError: a value is None or has not the parts that the prompt names.
            ConfigError: the prompt reaches for what the sandbox keeps from it.
        """
        filled = {name: as_text(value) for name, value in values.items()}
        try:
            return self._template.render({**filled, OUTPUT_FORMAT: output_format}).strip()
        except SecurityError as error:
            raise ConfigError(f"{self._name} does what a prompt may not: {error}") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise DataError(f"{self._name} cannot be filled: {error}") from None
